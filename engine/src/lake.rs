//! Delta tables, with their log state kept in memory and moved on at commit.
//!
//! A commit is one object written under the next version's name, which fails if
//! somebody else was faster. Then the log is read from where we stand: what the
//! others did is applied, and unless it was our own commit or altered the table,
//! the same data goes under the next name. Appends never conflict otherwise; a
//! commit that deletes rows does if others did something to the same files.

pub(crate) mod bounds;
mod changes;
pub(crate) mod commit;
pub(crate) mod compact;
pub(crate) mod files;
pub(crate) mod layout;
mod log;
pub(crate) mod mask;
pub(crate) mod read;
pub(crate) mod snapshot;
#[cfg(test)]
mod tests;
pub mod types;
pub mod vacuum;
pub(crate) mod vector;
pub(crate) mod write;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use arrow::datatypes::{DataType, Field, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::datasource::TableType;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::{Action, StructType};
use deltalake::protocol::SaveMode;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use url::Url;

use crate::error::{Error, Result};
use crate::lake::commit::{Change, Head, Landed, Pending, STALE};
use crate::lake::layout::{MANAGED, Place};
use crate::lake::snapshot::Snapshot;
use crate::lake::vacuum::Unneeded;
use crate::sink::{Committed, Staged};
use crate::storage::Warehouse;

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
    unneeded: Arc<Unneeded>,
    contents: RwLock<Contents>,
}

/// How the rows of a table come to change: whether a query can follow it commit by commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Contents {
    /// What was inserted: rows are only ever added.
    #[default]
    Inserted,
    /// The result of a query that only ever adds rows.
    Growing,
    /// The result of a query whose rows change.
    Changing,
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
    /// Rows will be deleted by deletion vectors. Readers must know these then.
    pub deletion_vectors: bool,
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
            create_log(&place, &schema, &spec).await?;
        }
        let table = Self::load(place).await?;
        let layout = table.current().layout.clone();
        layout.check_same(&schema, &spec.partition_by)?;
        if spec.deletion_vectors && !layout.deletion_vectors {
            return Err(Error::invalid_hint(
                format!("the table at {} is without deletion vectors", layout.place.url),
                "choose another location, or write_mode = 'copy_on_write'",
            ));
        }
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
            unneeded: Arc::default(),
            contents: RwLock::default(),
        }))
    }

    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// How its rows come to change.
    pub fn contents(&self) -> Contents {
        *self.contents.read()
    }

    pub fn set_contents(&self, contents: Contents) {
        *self.contents.write() = contents;
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

    pub(crate) fn current(&self) -> Arc<Snapshot> {
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

    /// Refuses rows that the table can't hold as they are.
    pub(crate) fn check(&self, rows: &arrow::array::RecordBatch) -> Result<()> {
        write::as_stored(rows, &self.current().layout).map(drop)
    }

    /// One commit of what was staged. With a `txn` that the log holds already (that
    /// version or a later one) it does nothing and answers the current version.
    ///
    /// After an error the commit may still be in the log: [`LakeTable::txn_version`]
    /// tells, and trying again with the same `txn` never commits twice.
    pub async fn commit(&self, staged: Staged, txn: Option<Txn>) -> Result<Committed> {
        let rows = staged.rows;
        let Landed { version, .. } = self.land(staged, txn).await?;
        Ok(Committed { version, rows })
    }

    /// [`LakeTable::commit`], telling whether it was this very one that counts.
    pub(crate) async fn land(&self, staged: Staged, txn: Option<Txn>) -> Result<Landed> {
        let mut head = self.head.lock().await;
        if head.seen.elapsed() > STALE {
            self.follow(&mut head).await?;
        }
        let nothing = Landed { version: self.version(), ours: false };
        if let Some(txn) = &txn
            && self.txn(&mut head, &txn.app_id).await? >= Some(txn.version)
        {
            return Ok(nothing);
        }
        mask::check_removes(&self.current(), &staged.removes)?;
        let masked = mask::apply(&self.current(), &staged.masks).await?;
        let adds = staged.adds.into_iter().map(|add| (add, None));
        let change = Change {
            adds: adds
                .chain(masked.adds.into_iter().map(|(add, rows)| (add, Some(rows))))
                .collect(),
            removes: staged.removes.into_iter().chain(masked.removes).collect(),
            rearranges: false,
        };
        if change.is_empty() && txn.is_none() {
            return Ok(nothing);
        }
        self.write_commit(&mut head, Pending::new(change, txn)?).await
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
}

/// Writes version 0 of a table.
async fn create_log(place: &Place, schema: &SchemaRef, spec: &TableSpec) -> Result<()> {
    let columns: StructType = schema.as_ref().try_into_kernel()?;
    let mut properties =
        vec![("delta.logRetentionDuration", Some("interval 1 days")), (MANAGED, Some("true"))];
    if spec.deletion_vectors {
        properties.push(("delta.enableDeletionVectors", Some("true")));
        // Every commit takes away each file that it deletes rows of and adds it again. The
        // log's checkpoints list what was taken away for so long.
        properties.push(("delta.deletedFileRetentionDuration", Some("interval 2 hours")));
    }
    let created = deltalake::operations::create::CreateBuilder::new()
        .with_log_store(place.log.clone())
        .with_table_name(&place.name)
        .with_columns(columns.fields().cloned())
        .with_partition_columns(&spec.partition_by)
        .with_actions(protocol(schema, spec)?)
        .with_configuration(properties)
        .with_raise_if_key_not_exists(false)
        .with_save_mode(SaveMode::Ignore)
        .await;
    created.map(|_| ()).map_err(Error::from)
}

/// What a table with features has to say of columns that are NOT NULL. A table without says
/// it by its version; delta-rs leaves it out where features take the version's place, and
/// Spark does not open such a table.
fn protocol(schema: &SchemaRef, spec: &TableSpec) -> Result<Option<Action>> {
    let without_zone = |field: &Field| matches!(field.data_type(), DataType::Timestamp(_, None));
    if !spec.deletion_vectors && !schema.flattened_fields().into_iter().any(without_zone) {
        return Ok(None);
    }
    let protocol = serde_json::json!({
        "minReaderVersion": 3, "readerFeatures": [],
        "minWriterVersion": 7, "writerFeatures": ["invariants"],
    });
    let protocol = serde_json::from_value(protocol)
        .map_err(|error| Error::internal(format!("the protocol is none: {error}")))?;
    Ok(Some(Action::Protocol(protocol)))
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
