//! Chains of rows that share a hash: per row the older and the newer neighbour.
//!
//! Most rows of most tables share theirs with none, so a segment has links only
//! where they are needed: a map while they are few, an array when they are many.

use ahash::RandomState;
use hashbrown::HashMap;

use super::Place;

/// The neighbours of one row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    pub older: Place,
    pub newer: Place,
}

impl Link {
    const NONE: Link = Link { older: Place::NONE, newer: Place::NONE };
}

/// The links of one segment's rows.
#[derive(Debug)]
enum Rows {
    Few(HashMap<u32, Link, RandomState>),
    Many(Vec<Link>),
}

impl Rows {
    fn few() -> Self {
        Rows::Few(HashMap::with_hasher(RandomState::with_seeds(1, 2, 3, 4)))
    }

    fn get(&self, row: usize) -> Link {
        let found = match self {
            Rows::Few(rows) => rows.get(&(row as u32)),
            Rows::Many(rows) => rows.get(row),
        };
        found.copied().unwrap_or(Link::NONE)
    }

    fn set(&mut self, row: usize, link: Link) {
        match self {
            Rows::Few(rows) if link == Link::NONE => {
                rows.remove(&(row as u32));
            }
            Rows::Few(rows) => {
                rows.insert(row as u32, link);
                if rows.len() * 4 > row {
                    self.widen();
                }
            }
            Rows::Many(rows) => {
                if rows.len() <= row {
                    rows.resize(row + 1, Link::NONE);
                }
                rows[row] = link;
            }
        }
    }

    fn widen(&mut self) {
        let Rows::Few(rows) = self else { return };
        let length = rows.keys().max().map_or(0, |row| *row as usize + 1);
        let mut many = vec![Link::NONE; length];
        for (row, link) in rows.drain() {
            many[row as usize] = link;
        }
        *self = Rows::Many(many);
    }

    fn memory(&self) -> usize {
        match self {
            Rows::Few(rows) => rows.allocation_size(),
            Rows::Many(rows) => rows.capacity() * size_of::<Link>(),
        }
    }
}

/// The links of all rows of a table.
#[derive(Debug, Default)]
pub(crate) struct Links {
    slots: Vec<Option<Rows>>,
}

impl Links {
    pub fn get(&self, at: Place) -> Link {
        match self.slots.get(at.slot()) {
            Some(Some(rows)) => rows.get(at.row()),
            _ => Link::NONE,
        }
    }

    pub fn set(&mut self, at: Place, link: Link) {
        if self.slots.len() <= at.slot() {
            if link == Link::NONE {
                return;
            }
            self.slots.resize_with(at.slot() + 1, || None);
        }
        let rows = &mut self.slots[at.slot()];
        match rows {
            None if link == Link::NONE => {}
            rows => rows.get_or_insert_with(Rows::few).set(at.row(), link),
        }
    }

    pub fn set_older(&mut self, at: Place, older: Place) {
        let link = self.get(at);
        self.set(at, Link { older, ..link });
    }

    pub fn set_newer(&mut self, at: Place, newer: Place) {
        let link = self.get(at);
        self.set(at, Link { newer, ..link });
    }

    /// Forgets a whole segment.
    pub fn drop_slot(&mut self, slot: usize) {
        if let Some(rows) = self.slots.get_mut(slot) {
            *rows = None;
        }
    }

    pub fn memory(&self) -> usize {
        let rows = self.slots.iter().flatten().map(Rows::memory).sum::<usize>();
        rows + self.slots.capacity() * size_of::<Option<Rows>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_links_become_many() {
        let mut links = Links::default();
        let at = |row| Place::new(3, row);
        links.set_older(at(50_000), at(1));
        assert!(links.memory() < 10_000);
        for row in 0..1000 {
            links.set(at(row), Link { older: at(row + 1), newer: Place::NONE });
        }
        assert_eq!(links.get(at(50_000)).older, at(1));
        assert_eq!(links.get(at(999)).older, at(1000));
        links.set_older(at(5), Place::NONE);
        assert_eq!(links.get(at(5)), Link::NONE);
        links.drop_slot(3);
        assert_eq!(links.get(at(7)), Link::NONE);
    }
}
