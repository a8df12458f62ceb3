//! What the line editor asks: is it complete, what could come next, in which colours.

use std::borrow::Cow;
use std::sync::Arc;

use rustyline::Context;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use tidemill_sql::parser;

use super::{PROMPT, highlight, meta};
use crate::output::colour;
use crate::target::Target;

pub struct Helper {
    target: Arc<Target>,
    files: FilenameCompleter,
    colour: bool,
}

impl Helper {
    pub fn new(target: Arc<Target>) -> Self {
        let colour = colour(&std::io::stdout());
        Self { target, files: FilenameCompleter::new(), colour }
    }

    /// The prompt as it is drawn.
    pub fn prompt(&self) -> String {
        if self.colour { format!("\x1b[1;36m{PROMPT}\x1b[0m") } else { PROMPT.into() }
    }
}

impl rustyline::Helper for Helper {}

impl Hinter for Helper {
    type Hint = String;
}

impl Validator for Helper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let input = context.input();
        let meta = input.trim_start().starts_with('\\') || meta::bare(input).is_some();
        Ok(if meta || parser::is_complete(input) {
            ValidationResult::Valid(None)
        } else {
            ValidationResult::Incomplete
        })
    }
}

impl Highlighter for Helper {
    fn highlight<'l>(&self, line: &'l str, _position: usize) -> Cow<'l, str> {
        if self.colour { highlight::highlight(line) } else { Cow::Borrowed(line) }
    }

    fn highlight_char(&self, _line: &str, _position: usize, kind: CmdKind) -> bool {
        self.colour && kind != CmdKind::MoveCursor
    }
}

impl Completer for Helper {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        position: usize,
        context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = &line[..position];
        if before.starts_with("\\i ") || before.starts_with("\\o ") {
            return self.files.complete(line, position, context);
        }
        let start = word_start(before);
        let typed = &before[start..];
        let words = match before.starts_with('\\') && start == 0 {
            true => meta::NAMES.iter().map(ToString::to_string).collect(),
            false => self.target.completions(before),
        };
        Ok((start, candidates(words, typed)))
    }
}

/// Where the word starts that the text ends with; meta-commands keep their `\`.
fn word_start(before: &str) -> usize {
    before
        .char_indices()
        .rev()
        .take_while(|(_, c)| c.is_alphanumeric() || matches!(c, '_' | '.' | '\\' | '"'))
        .last()
        .map_or(before.len(), |(start, _)| start)
}

/// Words that go on as typed, in the case that is being typed.
fn candidates(words: Vec<String>, typed: &str) -> Vec<Pair> {
    let wanted = typed.to_lowercase();
    let lower = !typed.is_empty() && !typed.contains(char::is_uppercase);
    let fitting = words.into_iter().filter(|word| word.to_lowercase().starts_with(&wanted));
    let keyword = |word: &str| word.split(' ').all(highlight::is_keyword);
    let cased = fitting.map(|word| match lower && keyword(&word) {
        true => word.to_lowercase(),
        false => word,
    });
    cased.map(|word| Pair { display: word.clone(), replacement: word }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_at_the_end_is_found() {
        assert_eq!(word_start("select ord"), 7);
        assert_eq!(word_start("select o.id"), 7);
        assert_eq!(word_start("\\ti"), 0);
        assert_eq!(word_start("select ü"), 7);
        assert_eq!(word_start(""), 0);
    }

    #[test]
    fn keywords_come_in_the_case_that_is_typed() {
        let words = || vec!["SELECT".to_string(), "Sales".into(), "orders".into()];
        let texts = |typed| -> Vec<String> {
            candidates(words(), typed).into_iter().map(|pair| pair.replacement).collect()
        };
        assert_eq!(texts("s"), ["select", "Sales"]);
        assert_eq!(texts("S"), ["SELECT", "Sales"]);
    }
}
