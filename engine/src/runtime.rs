//! Many continuous queries over one warehouse: start, pause, retry, stop.
//!
//! An [`Engine`] owns the warehouse's lease, its catalog and the queries. Each
//! query runs in a task of its own ([`supervise`]); one that fails is tried
//! again with growing pauses when that can help, else it is marked failed, with
//! its reason, and the others run on.

mod supervise;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::FutureExt;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::EngineConfig;
use crate::dead_letter::{DeadLetters, table_name};
use crate::error::{Error, Result};
use crate::lease::{self, Lease};
use crate::metrics::QueryMetrics;
use crate::progress::Progress;
use crate::query::{Query, QuerySpec, Surroundings};
use crate::source::delta::DELTA;
use crate::source::memory::MemoryBroker;
use crate::source::{DeclaredSource, OnError};
use crate::state::Snapshots;
use crate::storage::Warehouse;

/// How an engine uses its warehouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Takes the lease and runs queries in the background.
    Run,
    /// Takes the lease; the caller steps the queries.
    Step,
    /// Takes no lease and runs nothing.
    ReadOnly,
}

/// What a query is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryState {
    Running,
    Paused,
    /// Something outside fails; it is tried again.
    Retrying(String),
    Failed(String),
    /// Its sources are bounded and were read to their end.
    Finished,
    Stopped,
}

impl QueryState {
    /// The word `SHOW QUERIES` prints.
    pub fn word(&self) -> &'static str {
        match self {
            QueryState::Running => "running",
            QueryState::Paused => "paused",
            QueryState::Retrying(_) => "retrying",
            QueryState::Failed(_) => "failed",
            QueryState::Finished => "finished",
            QueryState::Stopped => "stopped",
        }
    }

    pub fn reason(&self) -> Option<&str> {
        match self {
            QueryState::Retrying(reason) | QueryState::Failed(reason) => Some(reason),
            _ => None,
        }
    }
}

/// One query that the engine knows.
pub struct QueryHandle {
    spec: QuerySpec,
    with: Surroundings,
    /// The tables that it reads commit by commit.
    follows: Vec<String>,
    state: watch::Sender<QueryState>,
    task: Mutex<Option<Task>>,
    /// The recovered query between two steps by hand.
    stepping: tokio::sync::Mutex<Option<Query>>,
}

struct Task {
    stop: CancellationToken,
    handle: JoinHandle<()>,
}

/// An engine that is dropped without a shutdown stops as if it had crashed.
impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl QueryHandle {
    /// The tables that it writes: its result, its late rows, dead letters.
    fn writes(&self) -> impl Iterator<Item = String> {
        let sinks = std::iter::once(&self.spec.sink).chain(&self.spec.late);
        let tables = sinks.filter_map(|sink| sink.table().map(str::to_owned));
        tables.chain(self.with.dead_letters.keys().map(|source| table_name(source)))
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    pub fn id(&self) -> &str {
        &self.spec.id
    }

    pub fn metrics(&self) -> &QueryMetrics {
        &self.with.metrics
    }

    pub fn state(&self) -> QueryState {
        self.state.borrow().clone()
    }

    /// Tells of every change of its state.
    pub fn watch(&self) -> watch::Receiver<QueryState> {
        self.state.subscribe()
    }
}

/// A warehouse with its queries.
pub struct Engine {
    config: EngineConfig,
    mode: Mode,
    warehouse: Warehouse,
    clock: Clock,
    memory: MemoryBroker,
    lease: Option<Arc<Lease>>,
    /// Opened for reading, and nobody else runs it.
    asleep: bool,
    checked: bool,
    catalog: Catalog,
    queries: RwLock<BTreeMap<String, Arc<QueryHandle>>>,
    dead_letters: Mutex<HashMap<String, Arc<DeadLetters>>>,
}

/// What tests replace.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    pub clock: Clock,
    pub memory: MemoryBroker,
    /// In place of the one that the configuration names.
    pub warehouse: Option<Warehouse>,
    /// Whether each changelog is checked on its way: for tests.
    pub checked: bool,
}

impl Engine {
    pub async fn open(config: EngineConfig, mode: Mode, parts: Parts) -> Result<Arc<Self>> {
        let warehouse = match parts.warehouse {
            Some(warehouse) => warehouse,
            None => Warehouse::open(&config.warehouse, config.storage_options.clone())?,
        };
        let lease = match mode {
            Mode::ReadOnly => None,
            Mode::Run | Mode::Step => {
                Some(Arc::new(Lease::acquire(&warehouse, config.lease_duration).await?))
            }
        };
        let asleep = mode == Mode::ReadOnly && lease::holder(&warehouse).await?.is_none();
        let catalog = Catalog::open(&warehouse).await?;
        Ok(Arc::new(Self {
            config,
            mode,
            warehouse,
            clock: parts.clock,
            memory: parts.memory,
            lease,
            asleep,
            checked: parts.checked,
            catalog,
            queries: RwLock::default(),
            dead_letters: Mutex::default(),
        }))
    }

    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub fn warehouse(&self) -> &Warehouse {
        &self.warehouse
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether changelogs are checked on their way.
    pub fn checked(&self) -> bool {
        self.checked
    }

    /// Topics of `connector = 'memory'`.
    pub fn memory(&self) -> &MemoryBroker {
        &self.memory
    }

    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Every query, by name.
    pub fn queries(&self) -> Vec<Arc<QueryHandle>> {
        self.queries.read().values().cloned().collect()
    }

    pub fn query(&self, name: &str) -> Option<Arc<QueryHandle>> {
        self.queries.read().get(name).cloned()
    }

    /// Takes a query in; it runs at once unless it is paused (or the engine is
    /// stepped by hand). Its plan was checked before.
    pub fn add(&self, spec: QuerySpec, sources: &[DeclaredSource], paused: bool) -> Result<()> {
        let name = spec.name.clone();
        let with = Surroundings {
            clock: self.clock.clone(),
            progress: Progress::new(&self.warehouse, &spec.id),
            snapshots: Arc::new(Snapshots::new(&self.warehouse, &spec.id)),
            lease: self.lease.clone(),
            metrics: Arc::new(QueryMetrics::default()),
            dead_letters: sources.iter().filter_map(|source| self.letters(source)).collect(),
        };
        let state = match (paused, self.asleep) {
            (true, _) => QueryState::Paused,
            (false, true) => QueryState::Stopped,
            (false, false) => QueryState::Running,
        };
        let followed = sources.iter().filter(|source| source.source.connector() == DELTA);
        let handle = Arc::new(QueryHandle {
            follows: followed.map(|source| source.source.name().to_owned()).collect(),
            spec,
            with,
            state: watch::Sender::new(state),
            task: Mutex::default(),
            stepping: tokio::sync::Mutex::default(),
        });
        self.queries.write().insert(name, Arc::clone(&handle));
        if !paused && self.mode == Mode::Run {
            supervise::start(&handle);
        }
        Ok(())
    }

    /// All that a query which follows `tables` hangs on: they, and what the queries that write
    /// them follow.
    pub fn upstream(&self, tables: impl IntoIterator<Item = String>) -> BTreeSet<String> {
        let queries = self.queries.read();
        let (mut found, mut next) = (BTreeSet::new(), Vec::from_iter(tables));
        while let Some(table) = next.pop() {
            let writers = queries.values().filter(|query| query.writes().any(|to| to == table));
            let follows: Vec<String> = writers.flat_map(|query| query.follows.clone()).collect();
            if found.insert(table) {
                next.extend(follows);
            }
        }
        found
    }

    /// The dead letters of a source that keeps any.
    pub fn dead_letters(&self, source: &DeclaredSource) -> Option<Arc<DeadLetters>> {
        Some(self.letters(source)?.1)
    }

    /// Forgets the dead letters of a source, with their table.
    pub async fn drop_dead_letters(&self, source: &DeclaredSource) -> Result<()> {
        let Some(letters) = self.dead_letters(source) else { return Ok(()) };
        letters.delete().await?;
        self.dead_letters.lock().remove(source.source.name());
        Ok(())
    }

    /// Dead letters are shared by all queries that read the source.
    fn letters(&self, source: &DeclaredSource) -> Option<(String, Arc<DeadLetters>)> {
        if source.on_error != OnError::DeadLetter {
            return None;
        }
        let name = source.source.name().to_owned();
        let letters =
            Arc::clone(self.dead_letters.lock().entry(name.clone()).or_insert_with(|| {
                Arc::new(DeadLetters::new(&self.warehouse, &name, source.source.origin()))
            }));
        Some((name, letters))
    }

    /// Lets the epochs in flight finish and keeps the query from starting new ones.
    pub async fn pause(&self, name: &str) -> Result<()> {
        let handle = self.expect(name)?;
        supervise::stop(&handle).await;
        handle.state.send_replace(QueryState::Paused);
        Ok(())
    }

    pub fn resume(&self, name: &str) -> Result<()> {
        let handle = self.expect(name)?;
        handle.state.send_replace(QueryState::Running);
        if self.mode == Mode::Run {
            supervise::start(&handle);
        }
        Ok(())
    }

    /// Stops a query for good and forgets its progress; its table stays.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let Some(handle) = self.queries.write().remove(name) else { return Ok(()) };
        supervise::stop(&handle).await;
        *handle.stepping.lock().await = None;
        handle.with.snapshots.delete().boxed().await?;
        handle.with.progress.delete().await
    }

    /// Walks one epoch of one query; `None` when nothing was new.
    ///
    /// After an error the query recovers anew at the next step.
    pub async fn step(&self, name: &str) -> Result<Option<u64>> {
        let handle = self.expect(name)?;
        let mut held = handle.stepping.lock().await;
        let mut query = match held.take() {
            Some(query) => query,
            None => Query::recover(&handle.spec, handle.with.clone()).await?,
        };
        let stepped = query.step().await?;
        *held = Some(query);
        Ok(stepped)
    }

    /// Runs every query that is not paused until it has read what its sources
    /// hold now. `progress` hears of (offsets done, offsets in all).
    ///
    /// # Errors
    /// The first query that fails; the others have ended then, too.
    pub async fn run_once(&self, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<()> {
        supervise::run_once(&self.queries(), progress).await
    }

    /// Finishes the epochs in flight and gives the lease back.
    pub async fn shutdown(&self) -> Result<()> {
        let handles = self.queries();
        futures::future::join_all(handles.iter().map(supervise::stop)).await;
        match &self.lease {
            Some(lease) => lease.release().await,
            None => Ok(()),
        }
    }

    fn expect(&self, name: &str) -> Result<Arc<QueryHandle>> {
        self.query(name).ok_or_else(|| Error::NotFound { kind: "query", name: name.to_owned() })
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("warehouse", self.warehouse.url())
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}
