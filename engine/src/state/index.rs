//! The index: from a hash to the rows that have it, newest first.
//!
//! ```text
//!   hash (64 bits) ─ shard (6 bits) ─► hash table of (32 bits of the hash, place)
//!                                                        │ place of the newest row
//!                                                        ▼
//!                                       links: newest ⇄ older ⇄ … ⇄ oldest
//! ```
//!
//! An entry is 8 bytes and one of control. Rows of different keys may share a chain
//! when 38 bits of their hashes are equal: whoever walks it compares the keys. So
//! nothing stored is read when a row is added. Only live rows are in the index. The
//! shards grow one after the other: growing needs little room and makes no long pause.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;

use super::Place;
use super::links::{Link, Links};

const SHARD_BITS: u32 = 6;
/// How many hashes are touched at a time: so many stay near until they are changed.
pub(crate) const BLOCK: usize = 128;

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u32,
    newest: Place,
}

#[derive(Debug)]
pub(crate) struct Index {
    shards: Vec<HashTable<Entry>>,
    links: Links,
}

/// What is kept of a hash: both ends of the word that the table looks at come from it.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

fn kept(hash: u64) -> u32 {
    (hash >> 32) as u32
}

fn shard(hash: u64) -> usize {
    (hash >> (32 - SHARD_BITS)) as usize & ((1 << SHARD_BITS) - 1)
}

impl Index {
    pub fn new() -> Self {
        Self { shards: vec![HashTable::new(); 1 << SHARD_BITS], links: Links::default() }
    }

    /// Makes room for `rows` more, spread evenly.
    pub fn reserve(&mut self, rows: usize) {
        let each = (rows >> SHARD_BITS) * 17 / 16;
        for shard in &mut self.shards {
            shard.reserve(each, |entry| spread(entry.hash));
        }
    }

    /// The newest row with this hash.
    #[inline]
    pub fn newest(&self, hash: u64) -> Place {
        let kept = kept(hash);
        let found = self.shards[shard(hash)].find(spread(kept), |entry| entry.hash == kept);
        found.map_or(Place::NONE, |entry| entry.newest)
    }

    /// Brings what the index holds of these hashes near the processor, all at once: the
    /// changes that follow, one by one, would each wait for memory.
    pub fn touch(&self, hashes: &[u64]) {
        let seen = hashes.iter().fold(0, |seen, hash| seen ^ self.newest(*hash).0);
        std::hint::black_box(seen);
    }

    /// The next older row with the same hash.
    #[inline]
    pub fn older(&self, at: Place) -> Place {
        self.links.get(at).older
    }

    /// Adds a row, as the newest.
    pub fn push(&mut self, hash: u64, at: Place) {
        let kept = kept(hash);
        let entry = self.shards[shard(hash)].entry(
            spread(kept),
            |entry| entry.hash == kept,
            |entry| spread(entry.hash),
        );
        match entry {
            TableEntry::Vacant(entry) => {
                entry.insert(Entry { hash: kept, newest: at });
            }
            TableEntry::Occupied(mut entry) => {
                let older = std::mem::replace(&mut entry.get_mut().newest, at);
                self.links.set(at, Link { older, newer: Place::NONE });
                self.links.set_newer(older, at);
            }
        }
    }

    /// Takes a row out.
    pub fn remove(&mut self, hash: u64, at: Place) {
        let Link { older, newer } = self.links.get(at);
        if !newer.is_none() {
            self.links.set_older(newer, older);
        } else {
            self.set_newest(hash, at, older);
        }
        if !older.is_none() {
            self.links.set_newer(older, newer);
        }
        self.links.set(at, Link { older: Place::NONE, newer: Place::NONE });
    }

    /// Puts row `new` where row `old` stands; false if that isn't there.
    pub fn replace(&mut self, hash: u64, old: Place, new: Place) -> bool {
        let link = self.links.get(old);
        if link.newer.is_none() {
            if !self.set_newest(hash, old, new) {
                return false;
            }
        } else {
            self.links.set_older(link.newer, new);
        }
        if !link.older.is_none() {
            self.links.set_newer(link.older, new);
        }
        self.links.set(new, link);
        self.links.set(old, Link { older: Place::NONE, newer: Place::NONE });
        true
    }

    /// Takes row `old` out and adds row `new` as the newest; false if `old` isn't there.
    pub fn renew(&mut self, hash: u64, old: Place, new: Place) -> bool {
        if self.links.get(old).newer.is_none() {
            return self.replace(hash, old, new);
        }
        self.remove(hash, old);
        self.push(hash, new);
        true
    }

    fn set_newest(&mut self, hash: u64, old: Place, new: Place) -> bool {
        let kept = kept(hash);
        let shard = &mut self.shards[shard(hash)];
        let Ok(mut entry) = shard.find_entry(spread(kept), |entry| entry.newest == old) else {
            return false;
        };
        if new.is_none() {
            entry.remove();
        } else {
            entry.get_mut().newest = new;
        }
        true
    }

    /// Forgets the links of a segment of which no row is in the index any more.
    pub fn drop_slot(&mut self, slot: usize) {
        self.links.drop_slot(slot);
    }

    /// Gives memory back where most rows are gone.
    pub fn shrink(&mut self) {
        for shard in &mut self.shards {
            if shard.num_buckets() > 64 && shard.len() * 8 < shard.num_buckets() {
                shard.shrink_to(shard.len() * 2, |entry| spread(entry.hash));
            }
        }
    }

    pub fn memory(&self) -> usize {
        let shards = self.shards.iter().map(HashTable::allocation_size).sum::<usize>();
        shards + self.links.memory()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(index: &Index, hash: u64) -> Vec<usize> {
        let mut rows = Vec::new();
        let mut at = index.newest(hash);
        while !at.is_none() {
            rows.push(at.row());
            at = index.older(at);
        }
        rows
    }

    #[test]
    fn a_chain_loses_and_replaces_rows_anywhere() {
        let (mut index, at) = (Index::new(), |row| Place::new(0, row));
        for row in 0..5 {
            index.push(77, at(row));
        }
        assert_eq!(chain(&index, 77), [4, 3, 2, 1, 0]);
        index.remove(77, at(4));
        index.remove(77, at(0));
        index.remove(77, at(2));
        assert_eq!(chain(&index, 77), [3, 1]);
        index.replace(77, at(3), at(30));
        index.replace(77, at(1), at(10));
        assert_eq!(chain(&index, 77), [30, 10]);
        index.remove(77, at(30));
        index.remove(77, at(10));
        assert_eq!(index.newest(77), Place::NONE);
    }

    #[test]
    fn an_entry_costs_little() {
        let mut index = Index::new();
        let hash = |row: u64| row.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for row in 0..100_000 {
            index.push(hash(row), Place::new(0, row as usize));
        }
        assert!(index.memory() < 100_000 * 24, "{}", index.memory());
        for row in 0..100_000 {
            index.remove(hash(row), Place::new(0, row as usize));
        }
        index.shrink();
        assert!(index.memory() < 200_000, "{}", index.memory());
    }
}
