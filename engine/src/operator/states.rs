//! The state of a query's operators, by operator and shard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arrow::array::RecordBatch;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use parking_lot::{Mutex, RwLock};
use tokio::sync::OnceCell;

use crate::error::{Error, Result};
use crate::operator::invariants::EDGES;
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
    /// At the end of the epoch before: windows behind it have been closed.
    pub reached: i64,
    /// Before the rows of the epoch: rows behind it are late.
    pub before: i64,
    /// After them: windows behind it are closed.
    pub after: i64,
}

impl Default for Watermark {
    fn default() -> Self {
        Self { reached: i64::MIN, before: i64::MIN, after: i64::MIN }
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
    /// Per row put in the one of its key whose place it takes, NONE for none; left empty
    /// where no row takes another's place.
    pub replaced: Vec<Address>,
}

impl Change {
    /// Takes rows away.
    pub fn remove(table: usize, remove: Vec<Address>) -> Self {
        Self { table, remove, insert: None, replaced: Vec::new() }
    }

    /// Takes rows away and puts others in.
    pub fn new(table: usize, remove: Vec<Address>, insert: (Keys, RecordBatch)) -> Self {
        Self { table, remove, insert: Some(insert), replaced: Vec::new() }
    }
}

/// One shard of one operator.
pub struct Shard {
    tables: Vec<Table>,
    pending: Vec<Change>,
    ran: bool,
    started: bool,
    late: u64,
    pending_late: u64,
    /// What the epoch's execution put out, for the other places that read it.
    output: Option<Vec<RecordBatch>>,
}

impl Shard {
    fn new(tables: Vec<Table>, started: bool) -> Self {
        let pending = Vec::new();
        Self { tables, pending, ran: false, started, late: 0, pending_late: 0, output: None }
    }

    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// Whether an execution of it was ever applied.
    pub fn started(&self) -> bool {
        self.started
    }

    /// What it put out in this epoch already, if another place has asked for it.
    pub fn output(&self) -> Option<Vec<RecordBatch>> {
        self.output.clone()
    }

    pub fn keep_output(&mut self, output: &[RecordBatch]) {
        self.output = Some(output.to_vec());
    }

    /// Whether it was executed in this epoch.
    pub fn ran(&self) -> bool {
        self.ran
    }

    /// Keeps the changes of an execution until the whole plan went well.
    pub fn propose(&mut self, changes: Vec<Change>, late: u64) {
        (self.pending, self.pending_late, self.ran) = (changes, late, true);
    }

    fn apply(&mut self) -> Result<()> {
        self.output = None;
        for change in std::mem::take(&mut self.pending) {
            let table = self
                .tables
                .get_mut(change.table)
                .ok_or_else(|| Error::internal("an operator names a table it does not have"))?;
            table.remove(&change.remove)?;
            match change.insert {
                Some((keys, rows)) if change.replaced.is_empty() => table.insert(&keys, &rows)?,
                Some((keys, rows)) => table.replace(&keys, &change.replaced, &rows)?,
                None => {}
            }
        }
        self.late += std::mem::take(&mut self.pending_late);
        self.started |= std::mem::take(&mut self.ran);
        Ok(())
    }

    fn memory(&self) -> usize {
        self.tables.iter().map(Table::memory).sum()
    }

    /// Compacts and moves to files; `share` is how much of its memory each table may keep.
    fn maintain(&mut self, share: f64) -> Result<()> {
        for table in &mut self.tables {
            let limit = table.memory() as f64 * share;
            table.set_memory_limit(if share < 1.0 { limit as usize } else { usize::MAX });
            table.maintain()?;
        }
        Ok(())
    }

    fn discard(&mut self) {
        self.output = None;
        self.pending.clear();
        (self.pending_late, self.ran) = (0, false);
    }
}

/// One operator.
pub struct Held {
    pub shards: Vec<tokio::sync::Mutex<Shard>>,
    /// In how many places of the plan it stands.
    places: AtomicUsize,
    /// The rows of the epoch at hand.
    gathered: Mutex<Arc<OnceCell<Gathered>>>,
}

impl Held {
    /// Whether its output is read in more than one place.
    pub fn is_shared(&self) -> bool {
        self.places.load(Relaxed) > 1
    }

    /// The epoch's rows, to be gathered once.
    pub fn gathered(&self) -> Arc<OnceCell<Gathered>> {
        Arc::clone(&self.gathered.lock())
    }

    /// Answers how many bytes of memory it then takes.
    async fn apply(&self) -> Result<usize> {
        *self.gathered.lock() = Arc::default();
        let mut memory = 0;
        for shard in &self.shards {
            let mut shard = shard.lock().await;
            shard.apply()?;
            memory += shard.memory();
        }
        Ok(memory)
    }

    async fn discard(&self) {
        *self.gathered.lock() = Arc::default();
        for shard in &self.shards {
            shard.lock().await.discard();
        }
    }
}

/// Per shard and input the rows of an epoch; taken by the shard.
pub type Gathered = Vec<Mutex<Vec<Vec<RecordBatch>>>>;

/// All state of one query.
pub struct States {
    shards: usize,
    moment: RwLock<Moment>,
    operators: Mutex<BTreeMap<usize, Arc<Held>>>,
    /// What a snapshot held, until the operators ask for it.
    restored: Mutex<Option<BTreeMap<String, TableImage>>>,
    /// Bytes in memory for all of them.
    memory_limit: Option<usize>,
    /// What the memory pool of all queries knows of it.
    reserved: Mutex<MemoryReservation>,
    /// How far watermarks had come when they were checked last.
    checked: Mutex<BTreeMap<String, Watermark>>,
}

impl std::fmt::Debug for States {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("States").field("shards", &self.shards).finish_non_exhaustive()
    }
}

impl States {
    /// The memory that it takes is reserved in `pool`.
    pub fn new(shards: usize, memory_limit: Option<usize>, pool: &Arc<dyn MemoryPool>) -> Self {
        Self {
            shards: shards.max(1),
            moment: RwLock::default(),
            operators: Mutex::default(),
            restored: Mutex::default(),
            memory_limit,
            reserved: Mutex::new(MemoryConsumer::new("state of operators").register(pool)),
            checked: Mutex::default(),
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

    /// A physical plan is about to be made.
    pub fn begin_plan(&self) {
        self.operators.lock().values().for_each(|held| held.places.store(0, Relaxed));
    }

    /// Refuses a watermark that goes back, within the epoch or since the one before.
    pub(super) fn check_watermarks(&self, moment: &Moment) -> Result<()> {
        let mut checked = self.checked.lock();
        for (source, mark) in &moment.watermarks {
            let last = checked.insert(source.clone(), *mark).unwrap_or_default();
            if mark.after < mark.before || mark.before < last.before || mark.after < last.after {
                return Err(Error::internal(format!(
                    "the watermark of {source} goes back: from {last:?} to {mark:?}"
                )));
            }
        }
        Ok(())
    }

    /// Makes the shards of an operator, unless it has them.
    pub(super) fn register(
        &self,
        id: usize,
        shards: usize,
        specs: impl Fn() -> Vec<TableSpec>,
    ) -> Result<()> {
        let mut operators = self.operators.lock();
        if let Some(held) = operators.get(&id) {
            held.places.fetch_add(1, Relaxed);
            return Ok(());
        }
        let mut restored = self.restored.lock();
        let started = restored.is_some();
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
                if self.memory_limit.is_some() {
                    // What is beyond it is no more than a cache: a snapshot restores it.
                    table.spill_to(&std::env::temp_dir());
                }
                tables.push(table);
            }
            all.push(tokio::sync::Mutex::new(Shard::new(tables, started)));
        }
        let places = AtomicUsize::new(1);
        operators.insert(id, Arc::new(Held { shards: all, places, gathered: Mutex::default() }));
        Ok(())
    }

    pub(super) fn operator(&self, id: usize) -> Result<Arc<Held>> {
        let operators = self.operators.lock();
        operators.get(&id).cloned().ok_or_else(|| Error::internal(format!("no state of #{id}")))
    }

    fn all(&self) -> Vec<(usize, Arc<Held>)> {
        self.operators.lock().iter().map(|(id, held)| (*id, Arc::clone(held))).collect()
    }

    /// Makes the changes of the execution that has ended. What is then too much for memory
    /// moves to files, of each table in proportion.
    ///
    /// # Errors
    /// Also where the memory pool of all queries has no room for it.
    pub async fn apply(&self) -> Result<()> {
        let all = self.all();
        let mut memory = 0;
        for (_, held) in &all {
            memory += held.apply().await?;
        }
        let share = self.memory_limit.map_or(1.0, |limit| limit as f64 / memory.max(1) as f64);
        memory = 0;
        for (_, held) in &all {
            for shard in &held.shards {
                let mut shard = shard.lock().await;
                shard.maintain(share)?;
                memory += shard.memory();
            }
        }
        self.reserved.lock().try_resize(memory).map_err(|full| {
            Error::invalid_hint(
                format!("the state of the query has no room in memory: {full}"),
                "give it a state_memory_limit, beyond which rows move to files, or raise \
                 memory_limit",
            )
        })
    }

    /// Forgets what an execution proposed that failed.
    pub async fn discard(&self) {
        for (_, held) in self.all() {
            held.discard().await;
        }
    }

    /// Whether the execution that has ended left rows out that came too late.
    pub async fn left_out(&self) -> bool {
        for (_, held) in self.all() {
            for shard in &held.shards {
                if shard.lock().await.pending_late > 0 {
                    return true;
                }
            }
        }
        false
    }

    /// Every table as it is now; shares memory with it.
    pub async fn images(&self) -> Result<BTreeMap<String, TableImage>> {
        let mut images = BTreeMap::new();
        for (id, held) in self.all() {
            for (shard, of) in held.shards.iter().enumerate() {
                for (table, rows) in of.lock().await.tables.iter_mut().enumerate() {
                    images.insert(format!("{id}.{shard}.{table}"), rows.image()?);
                }
            }
        }
        Ok(images)
    }

    /// Rows kept, bytes of memory they take, and rows that came too late.
    pub async fn size(&self) -> StateSize {
        let mut size = StateSize::default();
        for (_, held) in self.all().into_iter().filter(|(id, _)| *id < EDGES) {
            for shard in &held.shards {
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
