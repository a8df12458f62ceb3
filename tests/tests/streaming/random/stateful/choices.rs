//! Decisions read from a tape of numbers.
//!
//! A query is made by one decision after the other, each depending on those before.
//! proptest makes the tape and, when a case fails, a shorter and smaller one: 0 is the
//! simplest answer to every question, and what an ended tape answers.

#[derive(Debug)]
pub struct Choices<'a> {
    left: &'a [u16],
}

impl<'a> Choices<'a> {
    pub fn new(tape: &'a [u16]) -> Self {
        Self { left: tape }
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        let Some((first, rest)) = self.left.split_first() else { return 0 };
        self.left = rest;
        usize::from(*first) % n.max(1)
    }

    /// Yes in so many of a hundred cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) >= 100 - percent
    }

    pub fn pick<'b, T>(&mut self, from: &'b [T]) -> &'b T {
        &from[self.below(from.len())]
    }
}

#[test]
fn an_ended_tape_answers_the_simplest() {
    let mut choices = Choices::new(&[7, 99]);
    assert_eq!((choices.below(5), choices.chance(1), choices.chance(99)), (2, true, false));
    assert_eq!(*choices.pick(&["a", "b"]), "a");
}
