//! A Delta table that only grows as a source: its rows, and then those of each commit.
//!
//! One partition, whose offsets are versions of the table: the range `[0, v + 1)` is all
//! that version `v` holds, `[a, b)` what the commits `a` to `b - 1` added. So a view can
//! follow another one, or a table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::collect;
use datafusion::prelude::{SessionConfig, SessionContext};
use parking_lot::Mutex;

use crate::epoch::{OffsetRange, Offsets, Ranges};
use crate::error::{Error, Result};
use crate::lake::LakeTable;
use crate::source::{Chunk, DeclaredSource, OnError, Origin, Reader, Rows, Source};

/// The name of the connector.
pub const DELTA: &str = "delta";

/// The only partition.
const ALL: i32 = 0;

/// What other processes commit is looked for no more often.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// Commits that one epoch reads at most.
const COMMITS: i64 = 256;

/// A table, followed commit by commit.
#[derive(Debug)]
pub struct DeltaSource {
    table: Arc<LakeTable>,
    /// When its log was read last.
    looked: Mutex<Option<Instant>>,
}

impl DeltaSource {
    pub fn new(table: Arc<LakeTable>) -> Self {
        Self { table, looked: Mutex::default() }
    }
}

impl DeclaredSource {
    /// A table as a source.
    pub fn following(table: Arc<LakeTable>) -> Self {
        Self {
            source: Arc::new(DeltaSource::new(table)),
            on_error: OnError::Fail,
            max_rows_per_epoch: None,
            primary_key: Vec::new(),
            deletes: None,
            watermark: None,
            keeps_late: false,
        }
    }
}

#[async_trait]
impl Source for DeltaSource {
    fn name(&self) -> &str {
        self.table.name()
    }

    fn connector(&self) -> &'static str {
        DELTA
    }

    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn bounded(&self) -> bool {
        false
    }

    async fn available(&self) -> Result<Ranges> {
        // A commit of this process is known without a look at the log.
        let recent = |looked: &Instant| looked.elapsed() < BETWEEN_LOOKS;
        if !self.looked.lock().as_ref().is_some_and(recent) {
            self.table.refresh().await?;
            *self.looked.lock() = Some(Instant::now());
        }
        let next = i64::try_from(self.table.version()).unwrap_or(i64::MAX - 1) + 1;
        Ok(Ranges::from([(ALL, OffsetRange::new(0, next))]))
    }

    async fn start(&self, _available: &Ranges) -> Result<Offsets> {
        Ok(Offsets::from([(ALL, 0)]))
    }

    async fn clamp(&self, from: &Offsets, available: &Ranges, _max_rows: u64) -> Result<Ranges> {
        let from = from.get(&ALL).copied().unwrap_or(0);
        let newest = available.get(&ALL).map_or(from, |range| range.end);
        // What is there at first is one version, however many commits made it.
        let end = if from == 0 { newest } else { newest.min(from.saturating_add(COMMITS)) };
        Ok(Ranges::from([(ALL, OffsetRange::new(from, end))]))
    }

    fn open(&self, projection: Vec<usize>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(DeltaReader { table: Arc::clone(&self.table), projection }))
    }
}

struct DeltaReader {
    table: Arc<LakeTable>,
    projection: Vec<usize>,
}

#[async_trait]
impl Reader for DeltaReader {
    async fn read(&mut self, ranges: &Ranges) -> Result<Rows> {
        let mut rows = Rows::default();
        let Some(range) = ranges.get(&ALL).filter(|range| !range.is_empty()) else {
            return Ok(rows);
        };
        let version =
            |at: i64| u64::try_from(at).map_err(|_| Error::internal(format!("{at} is no version")));
        let (from, to) = (version(range.start)?, version(range.end)?);
        let table = match from {
            0 => self.table.snapshot_at(to - 1).await?,
            from => self.table.appended(from, to).await?,
        };
        for batch in self.rows(table).await? {
            rows.bytes += batch.get_array_memory_size() as u64;
            let offsets = Int64Array::from_value(range.end - 1, batch.num_rows());
            let origin = Origin { offsets, timestamps: None, payloads: None };
            rows.chunks.push(Chunk { batch, partition: ALL, origin });
        }
        Ok(rows)
    }
}

impl DeltaReader {
    /// One file after the other: rows have the same order whenever they are read.
    async fn rows(&self, table: Arc<dyn TableProvider>) -> Result<Vec<arrow::array::RecordBatch>> {
        let config = SessionConfig::new().with_target_partitions(1);
        let context = SessionContext::new_with_config(config);
        let state = context.state();
        let plan = table.scan(&state, Some(&self.projection), &[], None).await?;
        let batches = collect(plan, Arc::new(TaskContext::from(&state))).await?;
        Ok(batches.into_iter().filter(|batch| batch.num_rows() > 0).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::array::{ArrayRef, AsArray, RecordBatch};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use object_store::memory::InMemory;
    use url::Url;

    use super::*;
    use crate::lake::TableSpec;
    use crate::storage::Warehouse;

    fn house() -> Warehouse {
        let url = Url::parse("memory:///house").unwrap();
        Warehouse::with_store(url, Arc::new(InMemory::new()))
    }

    async fn table(house: &Warehouse) -> Arc<LakeTable> {
        let spec = TableSpec {
            name: "t".into(),
            location: house.table_url("t").unwrap(),
            storage_options: HashMap::new(),
            schema: Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)])),
            partition_by: Vec::new(),
            deletion_vectors: false,
        };
        LakeTable::create(house, spec).await.unwrap()
    }

    async fn append(table: &LakeTable, values: &[i64]) {
        let values = Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("n", values)]).unwrap();
        let rows =
            RecordBatchStreamAdapter::new(batch.schema(), futures::stream::iter([Ok(batch)]));
        let staged = table.stage(Box::pin(rows)).await.unwrap();
        table.commit(staged, None).await.unwrap();
    }

    /// Sorted: files come in the order of their names, which are drawn.
    async fn read(source: &DeltaSource, from: i64, to: i64) -> Vec<i64> {
        let mut reader = source.open(vec![0]).unwrap();
        let ranges = Ranges::from([(ALL, OffsetRange::new(from, to))]);
        let rows = reader.read(&ranges).await.unwrap();
        let of = |c: &Chunk| c.batch.column(0).as_primitive::<Int64Type>().values().to_vec();
        let mut values: Vec<i64> = rows.chunks.iter().flat_map(of).collect();
        values.sort_unstable();
        values
    }

    #[tokio::test]
    async fn a_range_of_versions_is_what_their_commits_added() {
        let table = table(&house()).await;
        let source = DeltaSource::new(Arc::clone(&table));
        for values in [&[1, 2][..], &[3], &[4, 5]] {
            append(&table, values).await;
        }
        assert_eq!(source.available().await.unwrap(), Ranges::from([(0, OffsetRange::new(0, 4))]));
        assert_eq!(read(&source, 0, 3).await, [1, 2, 3]);
        assert_eq!(read(&source, 2, 4).await, [3, 4, 5]);
        assert_eq!(read(&source, 3, 4).await, [4, 5]);
        let mut reader = source.open(vec![]).unwrap();
        let ranges = Ranges::from([(ALL, OffsetRange::new(1, 3))]);
        assert_eq!(reader.read(&ranges).await.unwrap().len(), 3);
        let ranges = Ranges::from([(ALL, OffsetRange::new(3, 9))]);
        assert!(reader.read(&ranges).await.unwrap_err().to_string().contains("commit 4 is gone"));
    }

    #[tokio::test]
    async fn what_another_process_adds_is_seen() {
        let house = house();
        let source = DeltaSource::new(table(&house).await);
        append(&*table(&house).await, &[1]).await;
        assert_eq!(source.available().await.unwrap()[&ALL].end, 2);
    }
}
