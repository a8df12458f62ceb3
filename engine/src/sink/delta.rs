//! Results in a Delta table: appended, or upserted where they change.

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;

use crate::changelog;
use crate::error::{Error, Result};
use crate::lake::compact::Compactor;
use crate::lake::{LakeTable, Txn};
use crate::sink::upsert::Upsert;
use crate::sink::{Committed, Sink, Staged};

/// How the rows that a change replaces are taken out of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WriteMode {
    /// They are masked where they lie. The cost is that of the rows that changed.
    #[default]
    DeletionVectors,
    /// Their files are written again without them, for readers that don't know
    /// deletion vectors. The cost is that of the files that hold them.
    CopyOnWrite,
}

/// Writes every epoch to `table` in one commit that carries `txn(app_id, epoch)`.
#[derive(Debug)]
pub struct DeltaSink {
    table: Arc<LakeTable>,
    app_id: String,
    upsert: Option<Upsert>,
    /// Of a sink that appends.
    compactor: Compactor,
}

impl DeltaSink {
    /// A sink of results that only grow. `app_id` names the query for good: its epochs
    /// are counted under it in the log.
    pub fn new(table: Arc<LakeTable>, app_id: impl Into<String>) -> Self {
        Self { table, app_id: app_id.into(), upsert: None, compactor: Compactor::default() }
    }

    /// A sink of changelogs. No two rows of the result agree in the columns `key`;
    /// without a key, rows are told apart by all columns, and equal ones are counted.
    /// The table must be the query's alone.
    pub fn upserting(
        table: Arc<LakeTable>,
        app_id: impl Into<String>,
        key: Option<Vec<usize>>,
        mode: WriteMode,
    ) -> Self {
        let upsert = Upsert::new(Arc::clone(&table), key, mode);
        Self { table, app_id: app_id.into(), upsert: Some(upsert), compactor: Compactor::default() }
    }

    /// Waits for the compaction that is going on.
    #[cfg(test)]
    pub(crate) async fn settle(&self) {
        self.compactor.settle().await;
        if let Some(upsert) = &self.upsert {
            upsert.settle().await;
        }
    }
}

#[async_trait]
impl Sink for DeltaSink {
    fn table(&self) -> Option<&str> {
        Some(self.table.name())
    }

    async fn committed(&self) -> Result<Option<u64>> {
        if let Some(upsert) = &self.upsert {
            upsert.forget().await;
        }
        self.table.txn_version(&self.app_id).await
    }

    async fn stage(&self, rows: SendableRecordBatchStream) -> Result<Staged> {
        match &self.upsert {
            Some(upsert) => upsert.stage(rows).await,
            None if changelog::has_weight(&rows.schema()) => Err(Error::internal(format!(
                "rows of \"{}\" change, but its sink only appends",
                self.table.name()
            ))),
            None => self.table.stage(rows).await,
        }
    }

    fn check(&self, rows: &RecordBatch) -> Result<()> {
        self.table.check(rows)
    }

    async fn commit(&self, epoch: u64, staged: Staged) -> Result<Committed> {
        let txn = Txn { app_id: self.app_id.clone(), version: epoch };
        match &self.upsert {
            Some(upsert) => upsert.commit(staged, txn).await,
            None => {
                let committed = self.table.commit(staged, Some(txn)).await?;
                self.compactor.committed(&self.table, Arc::new(|_| ()));
                Ok(committed)
            }
        }
    }
}
