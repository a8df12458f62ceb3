//! Delta tables, with their log state kept in memory and moved on at commit.
//!
//! A commit is one object written under the next version's name, which fails if
//! somebody else was faster. Then the log is read from where we stand: what the
//! others did is applied, and unless it was our own commit or altered the table,
//! the same data goes under the next name. Appends never conflict otherwise.

pub(crate) mod bounds;
pub(crate) mod files;
pub(crate) mod layout;
mod log;
pub(crate) mod snapshot;
#[cfg(test)]
mod tests;
pub mod types;
mod write;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::datasource::TableType;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use deltalake::DeltaTable;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::{CommitData, TransactionError};
use deltalake::kernel::{Action, StructType, Transaction};
use deltalake::logstore::{CommitOrBytes, commit_uri_from_version};
use deltalake::protocol::{DeltaOperation, SaveMode};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use url::Url;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::lake::files::DataFile;
use crate::lake::layout::Place;
use crate::lake::log::Commit;
use crate::lake::snapshot::Snapshot;
use crate::sink::{Committed, Staged};
use crate::storage::Warehouse;

/// Others may be faster this often before a commit gives up.
const ATTEMPTS: usize = 50;
/// Snapshots of late versions that stay at hand.
const RECENT: usize = 64;
/// After so long without a look at the log, its newest known commit is checked to be there still.
const STALE: Duration = Duration::from_secs(60);
/// Checkpoints between two clean-ups of the log: a clean-up lists its folder.
const CLEANUP_EVERY: u64 = 10;

/// One Delta table. Readers take the last committed version from memory; a
/// commit of ours moves it on, [`LakeTable::refresh`] picks up what others wrote.
#[derive(Debug)]
pub struct LakeTable {
    place: Place,
    /// Held while the log is written or followed.
    head: tokio::sync::Mutex<Head>,
    current: RwLock<Arc<Snapshot>>,
    recent: Mutex<VecDeque<Arc<Snapshot>>>,
    version: watch::Sender<u64>,
    checkpointing: Arc<AtomicBool>,
}

/// What is known of the log beside the files.
#[derive(Debug)]
struct Head {
    /// Last `txn` version by application; `None`: the log holds none.
    txns: HashMap<String, Option<i64>>,
    /// The last time that the log was seen.
    seen: Instant,
    /// The state that was loaded, as long as it is the current one.
    loaded: Option<DeltaTable>,
}

/// What a new table looks like.
#[derive(Debug, Clone)]
pub struct TableSpec {
    pub name: String,
    pub location: Url,
    /// `object_store` options of the location; none takes the warehouse's.
    pub storage_options: HashMap<String, String>,
    /// Columns as a query yields them; [`types::delta_schema`] says what becomes of them.
    pub schema: SchemaRef,
    pub partition_by: Vec<String>,
}

/// The number of a query's epoch inside a commit: Delta's `txn` action.
#[derive(Debug, Clone)]
pub struct Txn {
    pub app_id: String,
    pub version: u64,
}

impl LakeTable {
    /// Makes the table, or opens it if it is there with the same schema.
    ///
    /// # Errors
    /// If Delta can't hold a column, or a table with other columns lies there.
    pub async fn create(warehouse: &Warehouse, spec: TableSpec) -> Result<Arc<Self>> {
        let schema = types::delta_schema(&spec.schema)?;
        types::check_partition_columns(&schema, &spec.partition_by)?;
        let root = warehouse.root_of(&spec.location, &spec.storage_options)?;
        let place = Place::new(&spec.name, &spec.location, root)?;
        if !log::is_table(&place).await? {
            create_log(&place, &schema, &spec.partition_by).await?;
        }
        let table = Self::load(place).await?;
        table.current.read().layout.check_same(&schema, &spec.partition_by)?;
        Ok(table)
    }

    /// Opens a table; its schema is read from its log.
    pub async fn open(
        warehouse: &Warehouse,
        name: &str,
        location: Url,
        storage_options: HashMap<String, String>,
    ) -> Result<Arc<Self>> {
        let root = warehouse.root_of(&location, &storage_options)?;
        Self::load(Place::new(name, &location, root)?).await
    }

    /// Opens a table; `None` if there is none at the location.
    pub async fn open_if_there(
        warehouse: &Warehouse,
        name: &str,
        location: Url,
        storage_options: HashMap<String, String>,
    ) -> Result<Option<Arc<Self>>> {
        let root = warehouse.root_of(&location, &storage_options)?;
        let place = Place::new(name, &location, root)?;
        match log::is_table(&place).await? {
            true => Self::load(place).await.map(Some),
            false => Ok(None),
        }
    }

    async fn load(place: Place) -> Result<Arc<Self>> {
        let loaded = log::load(&place, None).await?;
        let version = loaded.snapshot()?.version();
        let (layout, files) = log::contents(&place, &loaded)?;
        let current = Arc::new(Snapshot::new(version, Arc::new(layout), files));
        Ok(Arc::new(Self {
            place,
            head: tokio::sync::Mutex::new(Head {
                txns: HashMap::new(),
                seen: Instant::now(),
                loaded: Some(loaded),
            }),
            recent: Mutex::new(VecDeque::from([current.clone()])),
            current: RwLock::new(current),
            version: watch::Sender::new(version),
            checkpointing: Arc::default(),
        }))
    }

    pub fn name(&self) -> &str {
        &self.place.name
    }

    pub fn location(&self) -> Url {
        self.place.url.clone()
    }

    /// Columns as DataFusion sees them (no view types, no dictionaries).
    pub fn schema(&self) -> SchemaRef {
        self.current().layout.schema.clone()
    }

    pub fn partition_columns(&self) -> Vec<String> {
        self.current().layout.partition_columns.clone()
    }

    /// The last committed version that this process knows.
    pub fn version(&self) -> u64 {
        self.current().version
    }

    /// Tells of every new version.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Live data files.
    pub fn file_count(&self) -> usize {
        self.current().files.len()
    }

    fn current(&self) -> Arc<Snapshot> {
        self.current.read().clone()
    }

    /// A provider fixed at the last committed version.
    pub fn snapshot(&self) -> Result<Arc<dyn TableProvider>> {
        Ok(self.current())
    }

    /// A provider fixed at `version`.
    pub async fn snapshot_at(&self, version: u64) -> Result<Arc<dyn TableProvider>> {
        if version > self.version() {
            self.refresh().await?;
        }
        if let Some(known) = self.recent.lock().iter().find(|known| known.version == version) {
            return Ok(known.clone());
        }
        if version > self.version() {
            return Err(Error::invalid_hint(
                format!("the table \"{}\" has no version {version}", self.name()),
                format!("its newest is {}", self.version()),
            ));
        }
        let loaded = log::load(&self.place, Some(version)).await?;
        let (layout, files) = log::contents(&self.place, &loaded)?;
        Ok(Arc::new(Snapshot::new(version, Arc::new(layout), files)))
    }

    /// Looks into the log for commits of others.
    pub async fn refresh(&self) -> Result<u64> {
        let mut head = self.head.lock().await;
        self.follow(&mut head).await?;
        Ok(self.version())
    }

    /// The last `txn` version of `app_id` in the log.
    pub async fn txn_version(&self, app_id: &str) -> Result<Option<u64>> {
        let mut head = self.head.lock().await;
        self.follow(&mut head).await?;
        self.txn(&mut head, app_id).await
    }

    /// Writes Parquet files under fresh names; nothing is visible yet. The stream's
    /// columns are the table's, in its order.
    pub async fn stage(&self, rows: SendableRecordBatchStream) -> Result<Staged> {
        write::stage(self.current().layout.clone(), rows).await
    }

    /// One commit of what was staged. With a `txn` that the log holds already (that
    /// version or a later one) it does nothing and answers the current version.
    ///
    /// After an error the commit may still be in the log: [`LakeTable::txn_version`]
    /// tells, and trying again with the same `txn` never commits twice.
    pub async fn commit(&self, staged: Staged, txn: Option<Txn>) -> Result<Committed> {
        let rows = staged.rows;
        let mut head = self.head.lock().await;
        if head.seen.elapsed() > STALE {
            self.follow(&mut head).await?;
        }
        if let Some(txn) = &txn
            && self.txn(&mut head, &txn.app_id).await? >= Some(txn.version)
        {
            return Ok(Committed { version: self.version(), rows });
        }
        if staged.adds.is_empty() && txn.is_none() {
            return Ok(Committed { version: self.version(), rows });
        }
        let pending = Pending::new(staged, txn)?;
        let version = self.write_commit(&mut head, pending).await?;
        Ok(Committed { version, rows })
    }

    /// Deletes the table's files.
    pub async fn delete(&self) -> Result<()> {
        let _head = self.head.lock().await;
        let store = self.place.log.object_store(None);
        let found = store.list(None).map_ok(|meta| meta.location).boxed();
        store.delete_stream(found).try_for_each(|_| async { Ok(()) }).await?;
        if let (Ok(folder), false) = (self.place.url.to_file_path(), self.place.root.injected) {
            // Only empty folders are left.
            let _ = tokio::fs::remove_dir_all(folder).await;
        }
        Ok(())
    }

    /// Writes the commit under the next free version.
    async fn write_commit(&self, head: &mut Head, pending: Pending) -> Result<u64> {
        for _ in 0..ATTEMPTS {
            let version = self.version() + 1;
            let entry = CommitOrBytes::LogBytes(pending.bytes.clone());
            let written = self.place.log.write_commit_entry(version, entry, Uuid::new_v4()).await;
            let Err(error) = written else {
                let commit = pending.into_commit(version);
                self.advance(head, vec![commit])?;
                return Ok(version);
            };
            // Someone else's commit, or an answer that was lost: the log knows.
            let commits = log::commits_after(&self.place.log, version - 1).await?;
            let own = commits.iter().find(|commit| pending.is(commit)).map(|own| own.version);
            let altered = commits.iter().any(|commit| commit.altered);
            self.catch_up(head, commits).await?;
            match error {
                _ if own.is_some() => return Ok(own.unwrap_or(version)),
                _ if altered => return Err(self.altered()),
                TransactionError::VersionAlreadyExists(_) => {}
                other => return Err(deltalake::DeltaTableError::from(other).into()),
            }
        }
        Err(Error::Delta(TransactionError::MaxCommitAttempts(ATTEMPTS as i32).into()))
    }

    fn altered(&self) -> Error {
        Error::invalid_hint(
            format!("the table \"{}\" was altered while rows were written to it", self.name()),
            "run the statement again",
        )
    }

    /// Applies the commits that the log has beyond what is known.
    async fn follow(&self, head: &mut Head) -> Result<()> {
        let version = self.version();
        if head.seen.elapsed() > STALE {
            // A log cleaned up past us would look as if nothing had happened.
            let newest = commit_uri_from_version(Some(version));
            match self.place.log.object_store(None).head(&newest).await {
                Err(object_store::Error::NotFound { .. }) => return self.reload(head).await,
                other => other?,
            };
        }
        let commits = log::commits_after(&self.place.log, version).await?;
        self.catch_up(head, commits).await
    }

    async fn catch_up(&self, head: &mut Head, commits: Vec<Commit>) -> Result<()> {
        if commits.iter().any(|commit| commit.altered) {
            return self.reload(head).await;
        }
        self.advance(head, commits)
    }

    async fn reload(&self, head: &mut Head) -> Result<()> {
        let loaded = log::load(&self.place, None).await?;
        let (layout, files) = log::contents(&self.place, &loaded)?;
        let version = loaded.snapshot()?.version();
        head.txns.clear();
        head.seen = Instant::now();
        head.loaded = Some(loaded);
        self.publish(Snapshot::new(version, Arc::new(layout), files));
        Ok(())
    }

    fn advance(&self, head: &mut Head, commits: Vec<Commit>) -> Result<()> {
        head.seen = Instant::now();
        for commit in commits {
            let current = self.current();
            let version = commit.version;
            for (app_id, txn) in &commit.txns {
                head.txns.insert(app_id.clone(), Some(*txn));
            }
            head.loaded = None;
            self.publish(current.next(version, commit.apply(&current.files)));
            self.checkpoint_if_due(version, current.layout.checkpoint_interval);
        }
        Ok(())
    }

    fn publish(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        let mut recent = self.recent.lock();
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(snapshot.clone());
        let version = snapshot.version;
        *self.current.write() = snapshot;
        self.version.send_replace(version);
    }

    async fn txn(&self, head: &mut Head, app_id: &str) -> Result<Option<u64>> {
        let known = match head.txns.get(app_id) {
            Some(known) => *known,
            None => {
                let loaded = match head.loaded.take() {
                    Some(loaded) => loaded,
                    None => log::load(&self.place, Some(self.version())).await?,
                };
                let log = self.place.log.as_ref();
                let found = loaded.snapshot()?.transaction_version(log, app_id).await?;
                head.loaded = Some(loaded);
                head.txns.insert(app_id.into(), found);
                found
            }
        };
        Ok(known.and_then(|version| u64::try_from(version).ok()))
    }

    /// Checkpoints the log in the background, so that nobody waits for it.
    fn checkpoint_if_due(&self, version: u64, interval: u64) {
        if !version.is_multiple_of(interval) || self.checkpointing.swap(true, Ordering::AcqRel) {
            return;
        }
        let cleanup = version.is_multiple_of(interval.saturating_mul(CLEANUP_EVERY));
        let (place, running) = (self.place.clone(), self.checkpointing.clone());
        log::start_checkpoint(place, version, cleanup, running);
    }
}

/// A commit that has no version yet.
struct Pending {
    bytes: Bytes,
    added: Vec<DataFile>,
    txn: Option<Txn>,
}

impl Pending {
    fn new(staged: Staged, txn: Option<Txn>) -> Result<Self> {
        let added = staged.adds.iter().cloned().map(DataFile::from).collect();
        let actions = staged.adds.into_iter().map(Action::Add).collect();
        let transactions = match &txn {
            Some(txn) => {
                let version = i64::try_from(txn.version)
                    .map_err(|_| Error::internal("an epoch past the largest number"))?;
                let now = chrono::Utc::now().timestamp_millis();
                vec![Transaction::new_with_last_update(&txn.app_id, version, Some(now))]
            }
            None => Vec::new(),
        };
        let operation =
            DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
        let data = CommitData::new(actions, operation, HashMap::new(), transactions);
        let bytes = data.get_bytes().map_err(deltalake::DeltaTableError::from)?;
        Ok(Self { bytes, added, txn })
    }

    /// Whether `commit` is this one: it holds our `txn` (or a later one), or our files.
    fn is(&self, commit: &Commit) -> bool {
        let txn = self.txn.as_ref().is_some_and(|txn| {
            commit.txns.get(&txn.app_id).is_some_and(|held| i128::from(*held) >= txn.version.into())
        });
        let files = self
            .added
            .first()
            .is_some_and(|own| commit.added.iter().any(|added| added.path == own.path));
        txn || files
    }

    fn into_commit(self, version: u64) -> Commit {
        let txns = self.txn.into_iter().map(|txn| (txn.app_id, txn.version as i64)).collect();
        Commit { version, added: self.added, removed: HashSet::new(), txns, altered: false }
    }
}

/// Writes version 0 of a table.
async fn create_log(place: &Place, schema: &SchemaRef, partition_by: &[String]) -> Result<()> {
    let columns: StructType = schema.as_ref().try_into_kernel()?;
    let created = deltalake::operations::create::CreateBuilder::new()
        .with_log_store(place.log.clone())
        .with_table_name(&place.name)
        .with_columns(columns.fields().cloned())
        .with_partition_columns(partition_by)
        .with_configuration([("delta.logRetentionDuration", Some("interval 1 days"))])
        .with_save_mode(SaveMode::Ignore)
        .await;
    created.map(|_| ()).map_err(Error::from)
}

/// Scans the last committed version at the time of the scan.
#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        LakeTable::schema(self)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        self.current().scan(session, projection, filters, limit).await
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::common::Result<Vec<TableProviderFilterPushDown>> {
        self.current().supports_filters_pushdown(filters)
    }

    fn statistics(&self) -> Option<Statistics> {
        self.current().statistics()
    }
}
