//! A database: one open warehouse, with its objects and its engine.
//!
//! The catalog keeps the text of every `CREATE`; opening a warehouse binds them
//! again in the order of their creation. An object that can't be opened any
//! more (a lake table that was moved, say) is kept as broken, with the reason,
//! and the rest runs on.

mod create;
mod drop;
mod insert;
mod source;
mod system;
#[cfg(test)]
mod tests;

pub(crate) use create::{name_place, simple_name};

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use datafusion::execution::SessionState;
use futures::FutureExt;
use tidemill_engine::catalog::{Entry, EntryKind};
use tidemill_engine::config::EngineConfig;
use tidemill_engine::lake::LakeTable;
use tidemill_engine::runtime::{Engine, Mode, Parts, QueryHandle};
use tidemill_engine::storage::Warehouse;

use crate::error::{Error, Result};
use crate::objects::{Object, Objects};
use crate::parser;
use crate::plan;
use crate::session::{
    Access, CATALOG, Progress, QueryStatus, Relation, RelationKind, SCHEMA, Session,
};
use crate::statement::Statement;

/// An open warehouse.
#[derive(Debug)]
pub struct Database {
    pub(crate) engine: Arc<Engine>,
    pub(crate) objects: Arc<Objects>,
    /// Without any session's settings: continuous queries are planned with it.
    pub(crate) state: SessionState,
    pub(crate) access: Access,
    /// One statement at a time changes the catalog.
    changing: tokio::sync::Mutex<()>,
}

impl Database {
    pub async fn open(config: EngineConfig, access: Access) -> Result<Arc<Self>> {
        Self::open_with(config, access, Parts::default()).boxed().await
    }

    /// Opens with parts of the caller's: a clock, topics in memory, storage.
    pub async fn open_with(
        config: EngineConfig,
        access: Access,
        parts: Parts,
    ) -> Result<Arc<Self>> {
        let mode = match access {
            Access::Run => Mode::Run,
            Access::Step | Access::Offline => Mode::Step,
            Access::ReadOnly => Mode::ReadOnly,
        };
        let parts = match access {
            Access::Offline => Parts { warehouse: Some(Warehouse::in_memory()?), ..parts },
            _ => parts,
        };
        let (partitions, memory) = (config.target_partitions, config.memory_limit);
        let engine = Engine::open(config, mode, parts).await?;
        let objects = Arc::new(Objects::new(&engine));
        let state = plan::state(&objects, partitions, memory)?;
        let database = Arc::new(Self {
            engine,
            objects,
            state,
            access,
            changing: tokio::sync::Mutex::default(),
        });
        database.restore().await?;
        Ok(database)
    }

    pub fn session(self: &Arc<Self>) -> Session {
        Session::new(Arc::clone(self))
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub fn access(&self) -> Access {
        self.access
    }

    /// Binds what the catalog holds. What fails is tried once more if that can help (what
    /// reads it, too): a query that is broken does not run before the next start.
    async fn restore(self: &Arc<Self>) -> Result<()> {
        let failed = self.restore_each(self.engine.catalog().entries()).await;
        let failed = match failed.iter().any(|(_, error)| error.retryable()) {
            true => self.restore_each(failed.into_iter().map(|(entry, _)| entry).collect()).await,
            false => failed,
        };
        for (entry, error) in failed {
            tracing::error!(name = entry.name, %error, "could not be opened");
        }
        self.open_dead_letters().await;
        Ok(())
    }

    /// In their order; answers those that could not be opened.
    async fn restore_each(self: &Arc<Self>, entries: Vec<Entry>) -> Vec<(Entry, Error)> {
        let mut failed = Vec::new();
        for entry in entries {
            if let Err(error) = self.restore_entry(&entry).await {
                let broken = Object::Broken {
                    kind: relation_kind(entry.kind),
                    continuous: is_continuous(entry.kind),
                    reason: error.to_string(),
                };
                self.objects.put(&entry.name, broken);
                failed.push((entry, error));
            }
        }
        failed
    }

    /// Opens the dead letters that are there, so that they are listed.
    async fn open_dead_letters(&self) {
        for (name, object) in self.objects.all() {
            let Object::Source { declared, .. } = object else { continue };
            let Some(letters) = self.engine.dead_letters(&declared) else { continue };
            if let Err(error) = letters.table().await {
                tracing::warn!(source = name, %error, "could not open the dead letters");
            }
        }
    }

    async fn restore_entry(self: &Arc<Self>, entry: &Entry) -> Result<()> {
        let object = match parser::parse_one(&entry.definition)?.node {
            Statement::CreateSource(create) => self.bind_source(&create, entry).await?,
            Statement::CreateTable(create) => self.open_table(&create, entry).await?,
            Statement::CreateView(create) => self.bind_view(&create).await?,
            Statement::CreateMaterializedView(create) => self.start_view(&create, entry).await?,
            Statement::CreateSink(create) => self.start_sink(&create, entry).await?,
            Statement::Insert(insert) => self.start_insert(&insert, entry).await?,
            _ => {
                return Err(Error::internal(format!("the catalog holds \"{}\"", entry.definition)));
            }
        };
        self.objects.put(&entry.name, object);
        Ok(())
    }

    /// Everything that has columns, sorted by schema and name.
    pub fn relations(&self) -> Vec<Relation> {
        let one = |(name, object): (String, Object)| {
            Some(Relation {
                catalog: CATALOG.into(),
                schema: SCHEMA.into(),
                name,
                kind: object.kind()?,
                columns: object.columns()?,
            })
        };
        let beside = self.objects.side_tables().into_iter().map(|(name, table)| {
            let object = Object::Table { table, managed: true };
            (name, object)
        });
        let mut relations: Vec<_> =
            self.objects.all().into_iter().chain(beside).filter_map(one).collect();
        relations.sort_by(|a, b| a.name.cmp(&b.name));
        relations
    }

    /// The Delta table behind a name.
    pub fn lake(&self, name: &str) -> Option<Arc<LakeTable>> {
        if let Some(object) = self.objects.get(name) {
            return object.lake().cloned();
        }
        let mut tables = self.objects.side_tables().into_iter();
        tables.find(|(side, _)| side == name).map(|(_, table)| table)
    }

    /// Those that could not be opened included: they have failed.
    pub fn queries(&self) -> Vec<QueryStatus> {
        let now = self.engine.clock().now_us();
        let broken = self.objects.all().into_iter().filter_map(|(name, object)| match object {
            Object::Broken { continuous: true, reason, .. } => {
                let (state, reason) = ("failed".to_owned(), Some(reason));
                Some(QueryStatus { name, state, reason, ..QueryStatus::default() })
            }
            _ => None,
        });
        self.engine.queries().iter().map(|query| status(query, now)).chain(broken).collect()
    }

    /// Runs every continuous query until it has read what its sources held when
    /// this was called, calling `progress` now and then. (`run --once`)
    pub async fn run_once(&self, progress: &(dyn Fn(Progress) + Sync)) -> Result<()> {
        let tell = |done, total| progress(Progress { rows_done: done, rows_total: total });
        Ok(self.engine.run_once(&tell).boxed().await?)
    }

    /// Finishes the epochs in flight, releases the lease.
    pub async fn shutdown(&self) -> Result<()> {
        Ok(self.engine.shutdown().boxed().await?)
    }

    /// Whether only this process writes the table.
    pub(crate) fn is_managed(&self, name: &str) -> bool {
        match self.objects.get(name) {
            Some(Object::Table { managed, .. }) => managed,
            Some(Object::MaterializedView(_)) => true,
            _ => false,
        }
    }

    pub(crate) fn refuse_changes(&self, what: &str) -> Result<()> {
        if self.access != Access::ReadOnly {
            return Ok(());
        }
        Err(Error::refused(format!("{what} is refused: the warehouse is open for reading only"))
            .with_hint("another engine runs it; connect to that one with --connect"))
    }
}

fn relation_kind(kind: EntryKind) -> RelationKind {
    match kind {
        EntryKind::Source => RelationKind::Source,
        EntryKind::View => RelationKind::View,
        EntryKind::MaterializedView => RelationKind::MaterializedView,
        EntryKind::Table | EntryKind::Sink | EntryKind::Insert => RelationKind::Table,
    }
}

fn is_continuous(kind: EntryKind) -> bool {
    matches!(kind, EntryKind::MaterializedView | EntryKind::Sink | EntryKind::Insert)
}

fn status(query: &QueryHandle, now_us: i64) -> QueryStatus {
    let metrics = query.metrics();
    let state = query.state();
    let committed = metrics.committed_at_us.load(Relaxed);
    let since = u64::try_from(now_us - committed).unwrap_or(0);
    QueryStatus {
        name: query.name().to_owned(),
        state: state.word().to_owned(),
        reason: state.reason().map(str::to_owned),
        epoch: metrics.epoch.load(Relaxed),
        rows_read: metrics.rows_read.load(Relaxed),
        rows_written: metrics.rows_written.load(Relaxed),
        rows_rejected: metrics.rows_rejected.load(Relaxed),
        backlog: metrics.backlog.load(Relaxed),
        freshness: (committed > 0).then(|| Duration::from_micros(since)),
        rate: metrics.rate(),
        // Neither before the first row nor where no source has one.
        watermark_us: Some(metrics.watermark_us.load(Relaxed)).filter(|w| *w > 0),
        state_rows: metrics.state_rows.load(Relaxed),
        state_bytes: metrics.state_bytes.load(Relaxed),
        rows_late: metrics.rows_late.load(Relaxed),
    }
}
