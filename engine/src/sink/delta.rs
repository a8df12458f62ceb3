//! Results in a Delta table.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;

use crate::error::Result;
use crate::lake::{LakeTable, Txn};
use crate::sink::{Committed, Sink, Staged};

/// Appends every epoch to `table` in one commit that carries `txn(app_id, epoch)`.
#[derive(Debug)]
pub struct DeltaSink {
    table: Arc<LakeTable>,
    app_id: String,
}

impl DeltaSink {
    /// `app_id` names the query for good: its epochs are counted under it in the log.
    pub fn new(table: Arc<LakeTable>, app_id: impl Into<String>) -> Self {
        Self { table, app_id: app_id.into() }
    }

    pub fn table(&self) -> &Arc<LakeTable> {
        &self.table
    }
}

#[async_trait]
impl Sink for DeltaSink {
    async fn committed(&self) -> Result<Option<u64>> {
        self.table.txn_version(&self.app_id).await
    }

    async fn stage(&self, rows: SendableRecordBatchStream) -> Result<Staged> {
        self.table.stage(rows).await
    }

    async fn commit(&self, epoch: u64, staged: Staged) -> Result<Committed> {
        let txn = Txn { app_id: self.app_id.clone(), version: epoch };
        self.table.commit(staged, Some(txn)).await
    }
}
