//! Delta tables, with their log state kept in memory and moved on at commit.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use deltalake::DeltaTable;
use tokio::sync::watch;
use url::Url;

use crate::error::Result;
use crate::sink::{Committed, Staged};

/// One Delta table. Readers take the last committed version from memory; a
/// commit of ours moves it on, [`LakeTable::refresh`] picks up what others wrote.
#[derive(Debug)]
pub struct LakeTable {
    name: String,
    table: parking_lot::RwLock<DeltaTable>,
    version: watch::Sender<u64>,
}

/// What a new table looks like.
#[derive(Debug, Clone)]
pub struct TableSpec {
    pub name: String,
    pub location: Url,
    /// `object_store` options of the location.
    pub storage_options: HashMap<String, String>,
    pub schema: SchemaRef,
    pub partition_by: Vec<String>,
}

/// The number of a query's epoch inside a commit: Delta's `txn` action.
#[derive(Debug, Clone)]
pub struct Txn {
    pub app_id: String,
    pub version: u64,
}

#[allow(unused_variables)]
impl LakeTable {
    /// Makes the table, or opens it if it is there with the same schema.
    pub async fn create(spec: TableSpec) -> Result<Arc<Self>> {
        todo()
    }
    /// Opens a table; its schema is read from its log.
    pub async fn open(
        name: &str,
        location: Url,
        storage_options: HashMap<String, String>,
    ) -> Result<Arc<Self>> {
        todo()
    }
    pub fn name(&self) -> &str {
        &self.name
    }
    pub fn location(&self) -> Url {
        self.table.read().table_url().clone()
    }
    /// Columns as DataFusion sees them (no view types, no dictionaries).
    pub fn schema(&self) -> SchemaRef {
        Arc::new(arrow::datatypes::Schema::empty())
    }
    pub fn partition_columns(&self) -> Vec<String> {
        todo2()
    }
    /// The last committed version that this process knows.
    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }
    /// Tells of every new version.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
    /// Looks into the log for commits of others.
    pub async fn refresh(&self) -> Result<u64> {
        todo()
    }
    /// A provider fixed at the last committed version.
    pub fn snapshot(&self) -> Result<Arc<dyn TableProvider>> {
        todo()
    }
    /// A provider fixed at `version`.
    pub async fn snapshot_at(&self, version: u64) -> Result<Arc<dyn TableProvider>> {
        todo()
    }
    /// The last `txn` version of `app_id` in the log.
    pub async fn txn_version(&self, app_id: &str) -> Result<Option<u64>> {
        todo()
    }
    /// Writes Parquet files under fresh names; nothing is visible yet.
    pub async fn stage(&self, rows: SendableRecordBatchStream) -> Result<Staged> {
        todo()
    }
    /// One commit of what was staged. With a `txn` that the log holds already (that
    /// version or a later one) it does nothing and answers the current version.
    pub async fn commit(&self, staged: Staged, txn: Option<Txn>) -> Result<Committed> {
        todo()
    }
    /// Deletes the table's files.
    pub async fn delete(&self) -> Result<()> {
        todo()
    }
}
fn todo<T>() -> Result<T> {
    Err(crate::Error::internal("not written yet"))
}
fn todo2<T: Default>() -> T {
    T::default()
}
