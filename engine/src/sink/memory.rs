//! Sinks without storage: one that keeps its rows for tests, one that only counts them.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use parking_lot::Mutex;

use crate::error::Result;
use crate::sink::{Committed, Sink, Staged};

/// Keeps what is committed to it. Lives as long as the process: a test that
/// restarts an engine hands the same one to the next.
#[derive(Debug, Default)]
pub struct MemorySink {
    keeps: bool,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    epoch: Option<u64>,
    commits: u64,
    rows: u64,
    batches: Vec<RecordBatch>,
}

impl MemorySink {
    pub fn new() -> Self {
        Self { keeps: true, log: Mutex::default() }
    }

    /// The `blackhole` connector: counts rows and forgets them.
    pub fn blackhole() -> Self {
        Self::default()
    }

    /// Committed rows, in the order of their commits.
    pub fn batches(&self) -> Vec<RecordBatch> {
        self.log.lock().batches.clone()
    }

    /// How many rows were committed.
    pub fn rows(&self) -> u64 {
        self.log.lock().rows
    }
}

#[async_trait]
impl Sink for MemorySink {
    async fn committed(&self) -> Result<Option<u64>> {
        Ok(self.log.lock().epoch)
    }

    async fn stage(&self, mut rows: SendableRecordBatchStream) -> Result<Staged> {
        let mut staged = Staged::default();
        while let Some(batch) = rows.try_next().await? {
            staged.rows += batch.num_rows() as u64;
            if self.keeps {
                staged.batches.push(batch);
            }
        }
        Ok(staged)
    }

    async fn commit(&self, epoch: u64, staged: Staged) -> Result<Committed> {
        let mut log = self.log.lock();
        if log.epoch < Some(epoch) {
            log.epoch = Some(epoch);
            log.commits += 1;
            log.rows += staged.rows;
            log.batches.extend(staged.batches);
        }
        Ok(Committed { version: log.commits, rows: staged.rows })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    use super::*;

    fn rows(values: &[i64]) -> SendableRecordBatchStream {
        let values = Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("n", values)]).unwrap();
        let stream = futures::stream::iter([Ok(batch.clone())]);
        Box::pin(RecordBatchStreamAdapter::new(batch.schema(), stream))
    }

    #[tokio::test]
    async fn an_epoch_counts_once() {
        let sink = MemorySink::new();
        for epoch in [1, 1, 2] {
            let staged = sink.stage(rows(&[1, 2])).await.unwrap();
            sink.commit(epoch, staged).await.unwrap();
        }
        assert_eq!(sink.committed().await.unwrap(), Some(2));
        assert_eq!(sink.rows(), 4);
        assert_eq!(sink.batches().len(), 2);

        let hole = MemorySink::blackhole();
        let staged = hole.stage(rows(&[1, 2])).await.unwrap();
        hole.commit(1, staged).await.unwrap();
        assert_eq!((hole.rows(), hole.batches().len()), (2, 0));
    }
}
