//! A table of state: rows found by their key, many at a time.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use hashbrown::{HashMap, HashSet};

use super::compare::equal_rows;
use super::floor;
use super::index::{BLOCK, Index};
use super::keys::{Keys, hash, normalise};
use super::log::{Log, Spans, places};
use super::{Address, Place, Sizes, TableSpec};
use crate::error::{Error, Result};

/// Rows of one operator and one partition, found by key; several rows may share one.
///
/// Every call takes many keys or rows, and costs what they are, not what is stored.
/// Addresses that a call answers hold until the next [`Table::maintain`], removed rows
/// included.
#[derive(Debug)]
pub struct Table {
    pub(super) log: Log,
    /// By the hash of the key.
    pub(super) index: Index,
    /// By the hash of the whole row; built by the first [`Table::find`].
    pub(super) rows: OnceLock<Index>,
    pub(super) spill: Spill,
    /// Rows that came and went since the last `maintain`.
    pub(super) changed: usize,
    /// How many rows `maintain` may rewrite beyond what the changes since then allow.
    pub(super) saved: usize,
}

/// When and where rows leave memory.
#[derive(Debug, Default)]
pub(super) struct Spill {
    pub folder: Option<PathBuf>,
    pub limit: Option<usize>,
}

/// Rows found by their keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Matches {
    /// Which of the keys, ascending.
    pub key: Vec<u32>,
    /// Where its row lies, oldest first within one key.
    pub rows: Vec<Address>,
}

impl Table {
    /// An empty table.
    ///
    /// # Errors
    /// If a key column isn't one of the schema's.
    pub fn new(spec: TableSpec) -> Result<Self> {
        Self::with_sizes(spec, Sizes::default())
    }

    pub(crate) fn with_sizes(spec: TableSpec, sizes: Sizes) -> Result<Self> {
        let columns = spec.schema.fields().len();
        if let Some(column) = spec.key.iter().find(|column| **column >= columns) {
            let message = format!("state of {columns} columns can't have column {column} as key");
            return Err(Error::internal(message));
        }
        let (log, index) = (Log::new(spec, sizes), Index::new());
        Ok(Self {
            log,
            index,
            rows: OnceLock::new(),
            spill: Spill::default(),
            changed: 0,
            saved: 0,
        })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.log.spec.schema
    }

    /// The indices of the key columns.
    pub fn key(&self) -> &[usize] {
        &self.log.spec.key
    }

    /// Live rows.
    pub fn len(&self) -> usize {
        self.log.live()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in memory: the index and the rows that are not mapped from files.
    pub fn memory(&self) -> usize {
        let rows = self.rows.get().map_or(0, Index::memory);
        self.log.memory() + self.index.memory() + rows
    }

    /// Lets sealed segments beyond the memory limit move to files in `folder`. They are
    /// gone with the process.
    pub fn spill_to(&mut self, folder: &Path) {
        self.spill.folder = Some(folder.to_owned());
    }

    /// The bytes that [`Table::memory`] should not exceed after [`Table::maintain`];
    /// the index always stays in memory.
    pub fn set_memory_limit(&mut self, bytes: usize) {
        self.spill.limit = Some(bytes);
    }

    /// The keys in `columns`, of the types of the key columns; `rows` of them.
    pub fn keys(&self, columns: &[ArrayRef], rows: usize) -> Result<Keys> {
        let keys = Keys::new(columns, rows)?;
        self.check(&keys, None)?;
        Ok(keys)
    }

    /// The newest live row of each key, NONE if there is none.
    pub fn get(&self, keys: &Keys) -> Result<Vec<Address>> {
        Ok(self.newest(keys)?.into_iter().map(Address::from).collect())
    }

    /// For each key whether it has a live row.
    pub fn contains(&self, keys: &Keys) -> Result<Vec<bool>> {
        Ok(self.newest(keys)?.into_iter().map(|at| !at.is_none()).collect())
    }

    /// All live rows of each key.
    pub fn get_all(&self, keys: &Keys) -> Result<Matches> {
        self.check(keys, None)?;
        let (mut key, mut found) = (Vec::new(), Vec::new());
        for (probe, hash) in keys.hashes().iter().enumerate() {
            let start = found.len();
            let mut at = self.index.newest(*hash);
            while !at.is_none() {
                found.push(at);
                at = self.index.older(at);
            }
            found[start..].reverse();
            key.resize(found.len(), probe as u32);
        }
        let equal = self.equal_keys(keys, &key, &found)?;
        if equal.count_set_bits() < found.len() {
            key = equal.set_indices().map(|at| key[at]).collect();
            found = equal.set_indices().map(|at| found[at]).collect();
        }
        Ok(Matches { key, rows: found.into_iter().map(Address::from).collect() })
    }

    /// For each row of `rows`, all columns of the schema, a live row that equals it in
    /// all columns: NULL equals NULL, floats by their bits. Each stored row at most
    /// once, newest first; NONE where there is none (left).
    pub fn find(&self, keys: &Keys, rows: &RecordBatch) -> Result<Vec<Address>> {
        self.check(keys, Some(rows))?;
        self.index_rows()?;
        let hashes = hash(rows.columns(), rows.num_rows())?;
        let mut found = self.nth_newest(&hashes);
        let probes: Vec<u32> = found
            .iter()
            .enumerate()
            .filter(|(_, at)| !at.is_none())
            .map(|(probe, _)| probe as u32)
            .collect();
        let at: Vec<Place> = probes.iter().map(|probe| found[*probe as usize]).collect();
        let equal = self.equal_whole_rows(rows, &probes, &at)?;
        if equal.count_set_bits() < at.len() {
            for missed in (0..at.len()).filter(|pair| !equal.value(*pair)) {
                found[probes[missed] as usize] = Place::NONE;
            }
            self.find_each(rows, &hashes, &mut found)?;
        }
        Ok(found.into_iter().map(Address::from).collect())
    }

    /// The columns (all: None) of the rows at these addresses; NONE gives NULLs.
    pub fn gather(&self, rows: &[Address], columns: Option<&[usize]>) -> Result<Vec<ArrayRef>> {
        let places: Vec<Place> = rows.iter().map(|address| address.place()).collect();
        self.log.gather(&places, columns)
    }

    /// Appends rows; row i has key i.
    pub fn insert(&mut self, keys: &Keys, rows: &RecordBatch) -> Result<()> {
        self.check(keys, Some(rows))?;
        let spans = self.append(rows)?;
        for (hash, at) in keys.hashes().iter().zip(places(&spans)) {
            self.index.push(*hash, at);
        }
        self.push_rows(rows, &spans)
    }

    /// Takes rows away; NONE and rows that are gone already are skipped.
    pub fn remove(&mut self, rows: &[Address]) -> Result<()> {
        let mut gone = Vec::with_capacity(rows.len());
        for address in rows {
            let at = address.place();
            if self.log.kill(at) {
                gone.push(at);
            }
        }
        self.changed += gone.len();
        let key = self.log.gather(&gone, Some(&self.log.spec.key))?;
        let keys = Keys::new(&key, gone.len())?;
        for (hashes, gone) in keys.hashes().chunks(BLOCK).zip(gone.chunks(BLOCK)) {
            self.index.touch(hashes);
            for (hash, at) in hashes.iter().zip(gone) {
                self.index.remove(*hash, *at);
            }
        }
        self.remove_rows(&gone)
    }

    /// For a table with at most one row a key: row i is added, and what key i has, if
    /// anything, taken away. The keys must be distinct.
    pub fn upsert(&mut self, keys: &Keys, rows: &RecordBatch) -> Result<()> {
        let old = self.newest(keys)?;
        self.put(keys, &old, rows)
    }

    /// [`Table::upsert`] for who has looked already, and for several rows a key: row i is
    /// added and the row at `old[i]`, of the same key, taken away. NONE: it is only added.
    pub fn replace(&mut self, keys: &Keys, old: &[Address], rows: &RecordBatch) -> Result<()> {
        if old.len() != keys.len() {
            return Err(Error::internal("each row replaces one, or none"));
        }
        let old: Vec<Place> = old.iter().map(|address| address.place()).collect();
        self.put(keys, &old, rows)
    }

    fn put(&mut self, keys: &Keys, old: &[Place], rows: &RecordBatch) -> Result<()> {
        self.check(keys, Some(rows))?;
        let spans = self.append(rows)?;
        let mut gone = Vec::new();
        for (at, ((hash, old), new)) in
            keys.hashes().iter().zip(old).zip(places(&spans)).enumerate()
        {
            if at % BLOCK == 0 {
                self.index.touch(&keys.hashes()[at..keys.len().min(at + BLOCK)]);
            }
            if !self.log.kill(*old) {
                self.index.push(*hash, new);
                continue;
            }
            gone.push(*old);
            if !self.index.renew(*hash, *old, new) {
                return Err(Error::internal("a row of state was replaced by one of another key"));
            }
        }
        self.changed += gone.len();
        self.remove_rows(&gone)?;
        self.push_rows(rows, &spans)
    }

    /// Live rows whose `column` (timestamp, date, time or integer) is less than `bound`,
    /// in the column's own unit; NULLs never are.
    pub fn below(&self, column: usize, bound: i64) -> Result<Vec<Address>> {
        let mut found = Vec::new();
        for (slot, segment) in self.log.segments().filter(|(_, segment)| segment.live() > 0) {
            let push = |row| found.push(Address::from(Place::new(slot, row)));
            floor::below(segment, column, bound, push)?;
        }
        Ok(found)
    }

    /// All live rows, oldest first.
    pub fn all(&self) -> Vec<Address> {
        let rows = self.log.segments().flat_map(|(slot, segment)| {
            segment.live_rows().map(move |row| Address::from(Place::new(slot, row)))
        });
        rows.collect()
    }

    fn append(&mut self, rows: &RecordBatch) -> Result<Spans> {
        self.changed += rows.num_rows();
        self.log.append(rows)
    }

    /// Whether keys and rows are of the types that are stored here.
    fn check(&self, keys: &Keys, rows: Option<&RecordBatch>) -> Result<()> {
        let spec = &self.log.spec;
        let fields = spec.key.iter().map(|column| spec.schema.field(*column).data_type());
        let types: Vec<_> = keys.columns().iter().map(|column| column.data_type()).collect();
        let fit = types.len() == spec.key.len()
            && fields.zip(&types).all(|(stored, asked)| stored.equals_datatype(asked));
        if !fit {
            let message = format!("keys of {types:?} don't fit the state {:?}", spec.schema);
            return Err(Error::internal(message));
        }
        match rows {
            Some(rows) if rows.num_rows() != keys.len() => {
                let rows = rows.num_rows();
                Err(Error::internal(format!("{rows} rows of state have {} keys", keys.len())))
            }
            Some(rows) if rows.num_columns() != spec.schema.fields().len() => {
                let columns = rows.num_columns();
                Err(Error::internal(format!("{columns} columns don't fit {:?}", spec.schema)))
            }
            _ => Ok(()),
        }
    }

    /// The newest row of each key. All keys are compared at once; those that met a row
    /// of another key go on along its chain.
    fn newest(&self, keys: &Keys) -> Result<Vec<Place>> {
        self.check(keys, None)?;
        let mut found: Vec<Place> =
            keys.hashes().iter().map(|hash| self.index.newest(*hash)).collect();
        let is_some = |probe: &u32| !found[*probe as usize].is_none();
        let mut open: Vec<u32> = (0..keys.len() as u32).filter(is_some).collect();
        while !open.is_empty() {
            let at: Vec<Place> = open.iter().map(|probe| found[*probe as usize]).collect();
            let equal = self.equal_keys(keys, &open, &at)?;
            let missed: Vec<u32> =
                (0..open.len()).filter(|pair| !equal.value(*pair)).map(|pair| open[pair]).collect();
            for probe in &missed {
                let at = &mut found[*probe as usize];
                *at = self.index.older(*at);
            }
            open = missed;
            open.retain(|probe| !found[*probe as usize].is_none());
        }
        Ok(found)
    }

    /// Whether key `probes[i]` is that of the row at `at[i]`.
    fn equal_keys(&self, keys: &Keys, probes: &[u32], at: &[Place]) -> Result<BooleanBuffer> {
        if let Some(columns) = keys.cells() {
            return Ok(BooleanBuffer::collect_bool(at.len(), |pair| {
                let Some(segment) = self.log.segment(at[pair].slot()) else { return false };
                let (chunk, row) = segment.locate(at[pair].row());
                let Some(stored) = &segment.chunks[chunk].key else { return false };
                let probe = probes[pair] as usize;
                columns.iter().zip(stored).all(|(asked, stored)| asked.equal(probe, stored, row))
            }));
        }
        let stored = self.log.gather(at, Some(&self.log.spec.key))?;
        let stored = stored.iter().map(normalise).collect::<Result<Vec<_>>>()?;
        equal_rows(&keys.columns_at(probes)?, &stored, at.len())
    }

    fn equal_whole_rows(
        &self,
        rows: &RecordBatch,
        probes: &[u32],
        at: &[Place],
    ) -> Result<BooleanBuffer> {
        let stored = self.log.gather(at, None)?;
        let picked = UInt32Array::from(probes.to_vec());
        let asked = rows
            .columns()
            .iter()
            .map(|column| take(column, &picked, None))
            .collect::<Result<_, _>>();
        let asked: Vec<ArrayRef> = asked?;
        equal_rows(&asked, &stored, at.len())
    }

    /// For each hash the newest row that has it, for a hash that comes again the next
    /// older one, and so on.
    fn nth_newest(&self, hashes: &[u64]) -> Vec<Place> {
        let Some(rows) = self.rows.get() else { return vec![Place::NONE; hashes.len()] };
        let state = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let mut last: HashMap<u64, Place, _> =
            HashMap::with_capacity_and_hasher(hashes.len(), state);
        let mut next = |hash: &u64| match last.get_mut(hash) {
            Some(at) => {
                *at = if at.is_none() { Place::NONE } else { rows.older(*at) };
                *at
            }
            None => {
                let at = rows.newest(*hash);
                last.insert(*hash, at);
                at
            }
        };
        hashes.iter().map(&mut next).collect()
    }

    /// Looks once more, one by one, for rows that are not found yet, because their
    /// candidate was another row with the same hash or there were no more.
    fn find_each(&self, rows: &RecordBatch, hashes: &[u64], found: &mut [Place]) -> Result<()> {
        let Some(index) = self.rows.get() else { return Ok(()) };
        let state = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let mut claimed: HashSet<Place, _> = HashSet::with_hasher(state);
        claimed.extend(found.iter().copied());
        for probe in 0..found.len() {
            let mut at =
                if found[probe].is_none() { index.newest(hashes[probe]) } else { continue };
            while !at.is_none() {
                let free = !claimed.contains(&at);
                if free && self.equal_whole_rows(rows, &[probe as u32], &[at])?.value(0) {
                    claimed.insert(at);
                    found[probe] = at;
                    break;
                }
                at = index.older(at);
            }
        }
        Ok(())
    }

    /// Builds the index by whole rows, unless it is there.
    fn index_rows(&self) -> Result<()> {
        if self.rows.get().is_some() {
            return Ok(());
        }
        let mut index = Index::new();
        index.reserve(self.len());
        for (slot, segment) in self.log.segments() {
            for chunk in &segment.chunks {
                let hashes = hash(chunk.batch.columns(), chunk.batch.num_rows())?;
                for (row, hash) in hashes.iter().enumerate() {
                    let row = chunk.start + row;
                    if segment.is_live(row) {
                        index.push(*hash, Place::new(slot, row));
                    }
                }
            }
        }
        // Whoever was first has the same.
        let _ = self.rows.set(index);
        Ok(())
    }

    fn push_rows(&mut self, rows: &RecordBatch, spans: &Spans) -> Result<()> {
        let Some(index) = self.rows.get_mut() else { return Ok(()) };
        let hashes = hash(rows.columns(), rows.num_rows())?;
        for (hash, at) in hashes.iter().zip(places(spans)) {
            index.push(*hash, at);
        }
        Ok(())
    }

    fn remove_rows(&mut self, gone: &[Place]) -> Result<()> {
        let Some(index) = self.rows.get_mut() else { return Ok(()) };
        let hashes = hash(&self.log.gather(gone, None)?, gone.len())?;
        for (hash, at) in hashes.iter().zip(gone) {
            index.remove(*hash, *at);
        }
        Ok(())
    }
}
