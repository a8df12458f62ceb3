//! The state of a query's operators, by operator and shard.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use parking_lot::{Mutex, RwLock};

use crate::error::{Error, Result};
use crate::state::{Address, Keys, Table, TableImage, TableSpec};

/// What the epoch at hand says beside its rows.
#[derive(Debug, Clone, Default)]
pub struct Moment {
    /// What `now()` answers, in microseconds since 1970.
    pub timestamp_us: i64,
    /// By source.
    pub watermarks: BTreeMap<String, Watermark>,
}

/// The watermark of one source: no row with an earlier event time is to come.
/// Microseconds since 1970; `i64::MIN` before the first row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// Before the rows of the epoch: rows behind it are late.
    pub before: i64,
    /// After them: windows behind it are closed.
    pub after: i64,
}

impl Default for Watermark {
    fn default() -> Self {
        Self { before: i64::MIN, after: i64::MIN }
    }
}

/// What is to become of one table of a shard.
pub struct Change {
    /// Which of the operator's tables.
    pub table: usize,
    /// Rows to take away, first.
    pub remove: Vec<Address>,
    /// Rows to put in.
    pub insert: Option<(Keys, RecordBatch)>,
    /// A row put in takes the place of the one with its key.
    pub replace: bool,
}

/// One shard of one operator.
pub struct Shard {
    tables: Vec<Table>,
    pending: Vec<Change>,
    ran: bool,
    started: bool,
    late: u64,
    pending_late: u64,
}

impl Shard {
    fn new(tables: Vec<Table>, started: bool) -> Self {
        Self { tables, pending: Vec::new(), ran: false, started, late: 0, pending_late: 0 }
    }

    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// Whether an execution of it was ever applied.
    pub fn started(&self) -> bool {
        self.started
    }

    /// Keeps the changes of an execution until the whole plan went well.
    pub fn propose(&mut self, changes: Vec<Change>, late: u64) {
        (self.pending, self.pending_late, self.ran) = (changes, late, true);
    }

    fn apply(&mut self) -> Result<()> {
        for change in std::mem::take(&mut self.pending) {
            let table = self
                .tables
                .get_mut(change.table)
                .ok_or_else(|| Error::internal("an operator names a table it does not have"))?;
            table.remove(&change.remove)?;
            match change.insert {
                Some((keys, rows)) if change.replace => table.upsert(&keys, &rows)?,
                Some((keys, rows)) => table.insert(&keys, &rows)?,
                None => {}
            }
        }
        for table in &mut self.tables {
            table.maintain()?;
        }
        self.late += std::mem::take(&mut self.pending_late);
        self.started |= std::mem::take(&mut self.ran);
        Ok(())
    }

    fn discard(&mut self) {
        self.pending.clear();
        (self.pending_late, self.ran) = (0, false);
    }
}

type Shards = Arc<Vec<tokio::sync::Mutex<Shard>>>;

/// All state of one query.
pub struct States {
    shards: usize,
    moment: RwLock<Moment>,
    operators: Mutex<BTreeMap<usize, Shards>>,
    /// What a snapshot held, until the operators ask for it.
    restored: Mutex<Option<BTreeMap<String, TableImage>>>,
    /// Bytes in memory for each operator.
    memory_limit: Option<usize>,
}

impl std::fmt::Debug for States {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("States").field("shards", &self.shards).finish_non_exhaustive()
    }
}

impl States {
    pub fn new(shards: usize, memory_limit: Option<usize>) -> Self {
        Self {
            shards: shards.max(1),
            moment: RwLock::default(),
            operators: Mutex::default(),
            restored: Mutex::default(),
            memory_limit,
        }
    }

    /// Starts from what a snapshot held. Before the first epoch.
    pub fn restore(&self, images: BTreeMap<String, TableImage>) {
        self.operators.lock().clear();
        *self.restored.lock() = Some(images);
    }

    pub fn shards(&self) -> usize {
        self.shards
    }

    pub fn moment(&self) -> Moment {
        self.moment.read().clone()
    }

    pub fn set_moment(&self, moment: Moment) {
        *self.moment.write() = moment;
    }

    /// Makes the shards of an operator, unless it has them.
    pub(super) fn register(
        &self,
        id: usize,
        shards: usize,
        specs: impl Fn() -> Vec<TableSpec>,
    ) -> Result<()> {
        let mut operators = self.operators.lock();
        if operators.contains_key(&id) {
            return Ok(());
        }
        let mut restored = self.restored.lock();
        let started = restored.is_some();
        let count = specs().len();
        let mut all = Vec::with_capacity(shards);
        for shard in 0..shards {
            let mut tables = Vec::new();
            for (table, spec) in specs().into_iter().enumerate() {
                let name = format!("{id}.{shard}.{table}");
                let held = restored.as_mut().and_then(|images| images.remove(&name));
                let mut table = match held {
                    Some(image) => Table::restore(spec, image)?,
                    None => Table::new(spec)?,
                };
                if let Some(limit) = self.memory_limit {
                    // What is beyond it is no more than a cache: a snapshot restores it.
                    table.spill_to(&std::env::temp_dir());
                    table.set_memory_limit(limit / (shards * count).max(1));
                }
                tables.push(table);
            }
            all.push(tokio::sync::Mutex::new(Shard::new(tables, started)));
        }
        operators.insert(id, Arc::new(all));
        Ok(())
    }

    pub(super) fn operator(&self, id: usize) -> Result<Shards> {
        let operators = self.operators.lock();
        operators.get(&id).cloned().ok_or_else(|| Error::internal(format!("no state of #{id}")))
    }

    fn all(&self) -> Vec<(usize, Shards)> {
        self.operators.lock().iter().map(|(id, shards)| (*id, Arc::clone(shards))).collect()
    }

    /// Makes the changes of the execution that has ended.
    pub async fn apply(&self) -> Result<()> {
        for (_, shards) in self.all() {
            for shard in shards.iter() {
                shard.lock().await.apply()?;
            }
        }
        Ok(())
    }

    /// Forgets what an execution proposed that failed.
    pub async fn discard(&self) {
        for (_, shards) in self.all() {
            for shard in shards.iter() {
                shard.lock().await.discard();
            }
        }
    }

    /// Every table as it is now; shares memory with it.
    pub async fn images(&self) -> Result<BTreeMap<String, TableImage>> {
        let mut images = BTreeMap::new();
        for (id, shards) in self.all() {
            for (shard, held) in shards.iter().enumerate() {
                for (table, rows) in held.lock().await.tables.iter_mut().enumerate() {
                    images.insert(format!("{id}.{shard}.{table}"), rows.image()?);
                }
            }
        }
        Ok(images)
    }

    /// Rows kept, bytes of memory they take, and rows that came too late.
    pub async fn size(&self) -> StateSize {
        let mut size = StateSize::default();
        for (_, shards) in self.all() {
            for shard in shards.iter() {
                let shard = shard.lock().await;
                size.late += shard.late;
                for table in &shard.tables {
                    size.rows += table.len() as u64;
                    size.bytes += table.memory() as u64;
                }
            }
        }
        size
    }
}

/// How much state a query keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StateSize {
    pub rows: u64,
    /// Bytes in memory.
    pub bytes: u64,
    /// Rows behind the watermark of a closed window, since the engine started.
    pub late: u64,
}
