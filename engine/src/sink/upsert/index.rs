//! Where every live row of a table lies: its file and its position there, by the hash
//! of its key.
//!
//! ```text
//! shard 0..255   hash table of  lookup: 64 │ check: 32 │ file: 32 │ position: 32   20 bytes a row
//! twins          further rows of the same key (results without a key)
//! files          number ─► path; where its rows went, if it was rewritten
//! ```
//!
//! Many small tables rather than a large one, so that growing never takes long at once.
//! A rewritten file's rows keep their old addresses: the file knows which of them were
//! left out, so a row's new position is counted, not stored. A sweep of one shard an
//! epoch brings addresses up to date, and files that none refers to are forgotten.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use roaring::RoaringBitmap;

use crate::lake::mask::Masks;
use crate::sink::upsert::hash::KeyHash;

const SHARDS: usize = 256;
/// Epochs that a file is remembered for after its last row went: what is staged may name it.
const MEMORY: u64 = 64;

/// A row's file, by number, and its position there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub file: u32,
    pub row: u32,
}

/// Two halves of 64 bits keep it at 20 bytes.
#[derive(Debug, Clone, Copy)]
struct Slot {
    lookup: [u32; 2],
    check: u32,
    at: Address,
}

impl Slot {
    fn new(key: KeyHash, at: Address) -> Self {
        Self { lookup: [key.lookup as u32, (key.lookup >> 32) as u32], check: key.check, at }
    }

    fn lookup(&self) -> u64 {
        u64::from(self.lookup[0]) | u64::from(self.lookup[1]) << 32
    }

    fn is(&self, key: KeyHash) -> bool {
        self.lookup() == key.lookup && self.check == key.check
    }
}

/// Where a file's rows went when it was rewritten without some of them.
#[derive(Debug, Clone)]
pub(super) struct Moved {
    pub to: u32,
    /// Position there of the first row that went.
    pub start: u32,
    /// The rows that were left out.
    pub dropped: Arc<RoaringBitmap>,
}

impl Moved {
    /// Where the row went; `None` if it was left out.
    fn address(&self, row: u32) -> Option<Address> {
        if self.dropped.contains(row) {
            return None;
        }
        let before = self.dropped.rank(row) as u32;
        Some(Address { file: self.to, row: self.start + row - before })
    }
}

#[derive(Debug)]
struct File {
    path: Arc<str>,
    /// Addresses that name it, and files whose rows went to it.
    references: u64,
    /// The epoch since when there are none.
    idle: u64,
    moved: Option<Moved>,
}

/// The index.
#[derive(Debug)]
pub(super) struct RowIndex {
    shards: Vec<HashTable<Slot>>,
    twins: HashMap<KeyHash, Vec<Address>>,
    files: Vec<Option<File>>,
    numbers: HashMap<Arc<str>, u32>,
    free: Vec<u32>,
    /// Files that nothing refers to, and since which epoch.
    idle: VecDeque<(u64, u32)>,
    epoch: u64,
    /// Rewritten files that addresses still name.
    moving: usize,
}

impl Default for RowIndex {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            twins: HashMap::new(),
            files: Vec::new(),
            numbers: HashMap::new(),
            free: Vec::new(),
            idle: VecDeque::new(),
            epoch: 0,
            moving: 0,
        }
    }
}

fn shard(key: KeyHash) -> usize {
    // Neither the low bits nor the top seven, which the tables themselves use.
    (key.lookup >> 44) as usize % SHARDS
}

impl RowIndex {
    /// Live rows.
    pub fn len(&self) -> usize {
        let single: usize = self.shards.iter().map(HashTable::len).sum();
        single + self.twins.values().map(Vec::len).sum::<usize>()
    }

    /// The number of a file.
    pub fn file(&mut self, path: &str) -> u32 {
        if let Some(number) = self.numbers.get(path) {
            return *number;
        }
        let path: Arc<str> = path.into();
        let file =
            Some(File { path: Arc::clone(&path), references: 0, idle: self.epoch, moved: None });
        let number = match self.free.pop() {
            Some(number) => {
                self.files[number as usize] = file;
                number
            }
            None => {
                self.files.push(file);
                (self.files.len() - 1) as u32
            }
        };
        self.numbers.insert(path, number);
        // Forgotten again if no row of it ever comes.
        self.idle.push_back((self.epoch, number));
        number
    }

    /// Room for this many more rows.
    pub fn reserve(&mut self, rows: usize) {
        for shard in &mut self.shards {
            shard.reserve(rows / SHARDS + rows / SHARDS / 16, Slot::lookup);
        }
    }

    /// Adds a row. Answers whether it is the only one with its key.
    pub fn insert(&mut self, key: KeyHash, at: Address) -> bool {
        self.refer(at.file);
        let shard = &mut self.shards[shard(key)];
        match shard.entry(key.lookup, |slot| slot.is(key), Slot::lookup) {
            Entry::Vacant(vacant) => {
                vacant.insert(Slot::new(key, at));
                true
            }
            Entry::Occupied(_) => {
                self.twins.entry(key).or_default().push(at);
                false
            }
        }
    }

    /// Takes a row with this key away; answers where it lay, as last known.
    pub fn remove(&mut self, key: KeyHash) -> Option<Address> {
        let at = match self.take_twin(key) {
            Some(at) => at,
            None => {
                let found =
                    self.shards[shard(key)].find_entry(key.lookup, |slot| slot.is(key)).ok()?;
                found.remove().0.at
            }
        };
        let now = self.resolve(at);
        self.release(at.file);
        now
    }

    fn take_twin(&mut self, key: KeyHash) -> Option<Address> {
        if self.twins.is_empty() {
            return None;
        }
        let twins = self.twins.get_mut(&key)?;
        let at = twins.pop();
        if twins.is_empty() {
            self.twins.remove(&key);
        }
        at
    }

    fn resolve(&self, mut at: Address) -> Option<Address> {
        while let Some(moved) = &self.known(at.file)?.moved {
            at = moved.address(at.row)?;
        }
        Some(at)
    }

    fn known(&self, file: u32) -> Option<&File> {
        self.files.get(file as usize)?.as_ref()
    }

    /// The path of a file.
    pub fn path(&self, file: u32) -> Option<&Arc<str>> {
        self.known(file).map(|file| &file.path)
    }

    fn refer(&mut self, file: u32) {
        if let Some(Some(file)) = self.files.get_mut(file as usize) {
            file.references += 1;
        }
    }

    fn release(&mut self, number: u32) {
        let Some(Some(file)) = self.files.get_mut(number as usize) else { return };
        file.references = file.references.saturating_sub(1);
        if file.references == 0 {
            file.idle = self.epoch;
            self.idle.push_back((self.epoch, number));
        }
    }

    /// Notes that the file `from` was rewritten.
    pub fn moved(&mut self, from: &str, to: &str, start: u32, dropped: Arc<RoaringBitmap>) {
        let Some(from) = self.numbers.get(from).copied() else { return };
        let to = self.file(to);
        self.refer(to);
        if let Some(Some(file)) = self.files.get_mut(from as usize) {
            file.moved = Some(Moved { to, start, dropped });
            self.moving += 1;
        }
    }

    /// `masks` as they are for the files of now. A row that was left out of a rewritten
    /// file stays where it was, for the commit to find that out.
    pub fn translate(&self, masks: Masks) -> Masks {
        if self.moving == 0 {
            return masks;
        }
        let mut translated = Masks::new();
        for (path, rows) in masks {
            let file = self.numbers.get(path.as_str()).copied();
            let Some(file) =
                file.filter(|file| self.known(*file).is_some_and(|f| f.moved.is_some()))
            else {
                *translated.entry(path).or_default() |= rows;
                continue;
            };
            for row in rows {
                let now = self.resolve(Address { file, row });
                let now = now.and_then(|at| Some((self.path(at.file)?.to_string(), at.row)));
                let (path, row) = now.unwrap_or_else(|| (path.clone(), row));
                translated.entry(path).or_default().insert(row);
            }
        }
        translated
    }

    /// Housekeeping, once an epoch.
    pub fn tick(&mut self) {
        self.epoch += 1;
        if self.moving > 0 {
            self.sweep();
        }
        while let Some((since, number)) = self.idle.front().copied() {
            if since + MEMORY > self.epoch {
                break;
            }
            self.idle.pop_front();
            self.forget(number, since);
        }
    }

    /// Brings the addresses of one shard up to date.
    fn sweep(&mut self) {
        let number = self.epoch as usize % SHARDS;
        let mut shard = std::mem::take(&mut self.shards[number]);
        for slot in shard.iter_mut() {
            slot.at = self.follow(slot.at);
        }
        self.shards[number] = shard;
        if number == 0 && !self.twins.is_empty() {
            let mut twins = std::mem::take(&mut self.twins);
            for at in twins.values_mut().flatten() {
                *at = self.follow(*at);
            }
            self.twins = twins;
        }
    }

    fn follow(&mut self, at: Address) -> Address {
        if self.known(at.file).is_none_or(|file| file.moved.is_none()) {
            return at;
        }
        // One that can't be followed is reported when its row is to be deleted.
        let Some(now) = self.resolve(at) else { return at };
        self.refer(now.file);
        self.release(at.file);
        now
    }

    fn forget(&mut self, number: u32, since: u64) {
        let Some(file) = self.known(number) else { return };
        if file.references > 0 || file.idle != since {
            return;
        }
        let Some(file) = self.files[number as usize].take() else { return };
        self.numbers.remove(&file.path);
        self.free.push(number);
        if let Some(moved) = file.moved {
            self.moving -= 1;
            self.release(moved.to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> KeyHash {
        let state = ahash::RandomState::with_seeds(1, 2, 3, 4);
        KeyHash { lookup: state.hash_one(n), check: n as u32 }
    }

    #[test]
    fn rows_are_found_where_they_went() {
        let mut index = RowIndex::default();
        let file = index.file("a");
        for n in 0..1000 {
            assert!(index.insert(key(n), Address { file, row: n as u32 }));
        }
        assert_eq!(index.remove(key(0)), Some(Address { file, row: 0 }));
        assert_eq!(index.remove(key(0)), None);
        // Every third row was left out of the new file, where a hundred others come first.
        let dropped: RoaringBitmap = (0..1000).step_by(3).collect();
        index.moved("a", "b", 100, Arc::new(dropped));
        let b = index.file("b");
        assert_eq!(index.remove(key(1)), Some(Address { file: b, row: 100 }));
        assert_eq!(index.remove(key(998)), Some(Address { file: b, row: 100 + 665 }));
        assert_eq!(index.remove(key(3)), None, "it was left out");
        let masks = Masks::from([("a".into(), [4, 5].into_iter().collect())]);
        let translated = index.translate(masks);
        assert_eq!(translated, Masks::from([("b".into(), [102, 103].into_iter().collect())]));
    }

    #[test]
    fn equal_rows_are_counted() {
        let mut index = RowIndex::default();
        let file = index.file("a");
        assert!(index.insert(key(7), Address { file, row: 0 }));
        assert!(!index.insert(key(7), Address { file, row: 1 }));
        assert!(!index.insert(key(7), Address { file, row: 2 }));
        assert_eq!(index.len(), 3);
        let mut rows: Vec<u32> = (0..3).map(|_| index.remove(key(7)).unwrap().row).collect();
        rows.sort();
        assert_eq!(rows, [0, 1, 2]);
        assert_eq!((index.remove(key(7)), index.len()), (None, 0));
    }

    #[test]
    fn sweeping_forgets_rewritten_files() {
        let mut index = RowIndex::default();
        let a = index.file("a");
        for n in 0..5000 {
            index.insert(key(n), Address { file: a, row: n as u32 });
        }
        index.insert(key(0), Address { file: a, row: 5000 });
        index.moved("a", "b", 0, Arc::default());
        index.moved("b", "c", 10, Arc::default());
        for _ in 0..SHARDS as u64 + 2 * MEMORY + 2 {
            index.tick();
        }
        assert_eq!(index.moving, 0);
        assert!(!index.numbers.contains_key("a") && !index.numbers.contains_key("b"));
        let c = index.file("c");
        assert_eq!(index.remove(key(77)), Some(Address { file: c, row: 87 }));
        assert_eq!(index.len(), 5000);
        assert_eq!(size_of::<Slot>(), 20);
    }
}
