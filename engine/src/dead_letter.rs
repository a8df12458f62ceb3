//! Records that could not become rows, kept in a Delta table per source.
//!
//! However many queries read a source, and however often an epoch is run again
//! after a crash, a record is there once: its partition and offset name it.
//! Records are committed before the epoch that met them, so that none is lost.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use roaring::RoaringTreemap;
use tokio::sync::Mutex;

use crate::epoch::PartitionId;
use crate::error::Result;
use crate::lake::{LakeTable, TableSpec};
use crate::source::Rejected;
use crate::storage::Warehouse;

/// The dead letters of one source, shared by all queries that read it.
#[derive(Debug)]
pub struct DeadLetters {
    warehouse: Warehouse,
    name: String,
    topic: String,
    state: Mutex<State>,
    /// The table once it is known, for those who can't wait.
    opened: OnceLock<Arc<LakeTable>>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` until the first record, or until it is known what the table holds.
    table: Option<Arc<LakeTable>>,
    known: Option<Known>,
}

/// Offsets that the table holds, per partition.
type Known = HashMap<PartitionId, RoaringTreemap>;

impl DeadLetters {
    /// For the source `source` that reads `topic` (or a path). The table is made
    /// at the first record.
    pub fn new(warehouse: &Warehouse, source: &str, topic: &str) -> Self {
        Self {
            warehouse: warehouse.clone(),
            name: table_name(source),
            topic: topic.into(),
            state: Mutex::default(),
            opened: OnceLock::new(),
        }
    }

    /// The table, if a record was ever kept.
    pub async fn table(&self) -> Result<Option<Arc<LakeTable>>> {
        let mut state = self.state.lock().await;
        self.load(&mut state).await?;
        Ok(state.table.clone())
    }

    /// The table, if it has been opened already.
    pub fn opened(&self) -> Option<&Arc<LakeTable>> {
        self.opened.get()
    }

    /// Deletes the table with everything in it, when its source is dropped.
    pub async fn delete(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        self.load(&mut state).await?;
        state.known = None;
        match state.table.take() {
            Some(table) => table.delete().await,
            None => Ok(()),
        }
    }

    /// Keeps those records that are not kept yet; answers how many they were.
    /// `timestamp_us` is the epoch's time.
    pub async fn record(&self, rejected: Vec<Rejected>, timestamp_us: i64) -> Result<u64> {
        if rejected.is_empty() {
            return Ok(0);
        }
        let mut state = self.state.lock().await;
        self.load(&mut state).await?;
        // Taken out, so that after a failure the table is read again: it alone knows.
        let mut known = state.known.take().unwrap_or_default();
        let is_new = |record: &Rejected| {
            known.entry(record.partition).or_default().insert(record.offset.cast_unsigned())
        };
        let fresh: Vec<Rejected> = rejected.into_iter().filter(is_new).collect();
        if !fresh.is_empty() {
            let table = self.table_or_new(&mut state).await?;
            let batch = self.batch(&fresh, timestamp_us)?;
            let rows = futures::stream::iter([Ok(batch)]);
            let rows = RecordBatchStreamAdapter::new(table_schema(), rows);
            let staged = table.stage(Box::pin(rows)).await?;
            table.commit(staged, None).await?;
        }
        state.known = Some(known);
        Ok(fresh.len() as u64)
    }

    async fn load(&self, state: &mut State) -> Result<()> {
        if state.known.is_some() {
            return Ok(());
        }
        match &state.table {
            Some(table) => {
                table.refresh().await?;
            }
            None => {
                let url = self.warehouse.table_url(&self.name)?;
                state.table =
                    LakeTable::open_if_there(&self.warehouse, &self.name, url, HashMap::new())
                        .await?;
            }
        }
        state.known = Some(match &state.table {
            Some(table) => {
                self.publish(table);
                known_offsets(table).await?
            }
            None => Known::new(),
        });
        Ok(())
    }

    async fn table_or_new(&self, state: &mut State) -> Result<Arc<LakeTable>> {
        if let Some(table) = &state.table {
            return Ok(table.clone());
        }
        let spec = TableSpec {
            name: self.name.clone(),
            location: self.warehouse.table_url(&self.name)?,
            storage_options: HashMap::new(),
            schema: table_schema(),
            partition_by: Vec::new(),
            deletion_vectors: false,
        };
        let table = LakeTable::create(&self.warehouse, spec).await?;
        state.table = Some(table.clone());
        self.publish(&table);
        Ok(table)
    }

    fn publish(&self, table: &Arc<LakeTable>) {
        // Set before: it is the same table.
        let _ = self.opened.set(Arc::clone(table));
    }

    fn batch(&self, records: &[Rejected], timestamp_us: i64) -> Result<RecordBatch> {
        let each = |field: fn(&Rejected) -> i64| records.iter().map(field);
        let times = records.iter().map(|record| Some(record.timestamp_ms?.saturating_mul(1000)));
        let payloads = records.iter().map(|record| record.payload.as_deref());
        let errors = records.iter().map(|record| record.error.as_str());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(records.iter().map(|_| &self.topic))),
            Arc::new(Int32Array::from_iter_values(records.iter().map(|record| record.partition))),
            Arc::new(Int64Array::from_iter_values(each(|record| record.offset))),
            Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
            Arc::new(payloads.collect::<BinaryArray>()),
            Arc::new(StringArray::from_iter_values(errors)),
            Arc::new(
                TimestampMicrosecondArray::from_value(timestamp_us, records.len())
                    .with_timezone("UTC"),
            ),
        ];
        Ok(RecordBatch::try_new(table_schema(), columns)?)
    }
}

/// The table that keeps the dead letters of `source`.
pub fn table_name(source: &str) -> String {
    format!("{source}__dead_letters")
}

fn table_schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("topic", DataType::Utf8, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("timestamp", time.clone(), true),
        Field::new("payload", DataType::Binary, true),
        Field::new("error", DataType::Utf8, false),
        Field::new("recorded_at", time, false),
    ]))
}

/// Reads the two columns that name the records of the table.
async fn known_offsets(table: &LakeTable) -> Result<Known> {
    let keys = SessionContext::new()
        .read_table(table.snapshot()?)?
        .select_columns(&["partition", "offset"])?;
    let mut known = Known::new();
    let mut batches = keys.execute_stream().await?;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        let partitions = batch.column(0).as_primitive::<Int32Type>().values();
        let offsets = batch.column(1).as_primitive::<Int64Type>().values();
        for (partition, offset) in partitions.iter().zip(offsets) {
            known.entry(*partition).or_default().insert(offset.cast_unsigned());
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use object_store::memory::InMemory;
    use url::Url;

    use super::*;

    fn bad(partition: PartitionId, offset: i64) -> Rejected {
        Rejected {
            partition,
            offset,
            timestamp_ms: Some(1_700_000_000_123),
            payload: Some(Bytes::from_static(b"{\"broken")),
            error: "column \"id\": not a number".into(),
        }
    }

    #[tokio::test]
    async fn a_record_is_kept_once_however_often_it_is_met() {
        let url = Url::parse("memory:///house").unwrap();
        let house = Warehouse::with_store(url, Arc::new(InMemory::new()));
        let letters = DeadLetters::new(&house, "orders", "orders-topic");
        assert!(letters.table().await.unwrap().is_none());
        assert_eq!(letters.record(vec![], 1).await.unwrap(), 0);
        assert!(letters.table().await.unwrap().is_none());

        assert_eq!(letters.record(vec![bad(0, 7), bad(1, 7), bad(0, 7)], 1).await.unwrap(), 2);
        assert_eq!(letters.record(vec![bad(0, 7), bad(0, 8)], 2).await.unwrap(), 1);

        let again = DeadLetters::new(&house, "orders", "orders-topic");
        assert_eq!(again.record(vec![bad(0, 8), bad(1, 7), bad(1, 9)], 3).await.unwrap(), 1);

        let context = SessionContext::new();
        let table = again.table().await.unwrap().unwrap();
        assert_eq!(table.name(), "orders__dead_letters");
        context.register_table("d", table.snapshot().unwrap()).unwrap();
        let sql = "SELECT partition, \"offset\", payload, timestamp, topic FROM d \
                   ORDER BY partition, \"offset\"";
        let rows = context.sql(sql).await.unwrap().collect().await.unwrap();
        datafusion::assert_batches_eq!(
            [
                "+-----------+--------+------------------+--------------------------+--------------+",
                "| partition | offset | payload          | timestamp                | topic        |",
                "+-----------+--------+------------------+--------------------------+--------------+",
                "| 0         | 7      | 7b2262726f6b656e | 2023-11-14T22:13:20.123Z | orders-topic |",
                "| 0         | 8      | 7b2262726f6b656e | 2023-11-14T22:13:20.123Z | orders-topic |",
                "| 1         | 7      | 7b2262726f6b656e | 2023-11-14T22:13:20.123Z | orders-topic |",
                "| 1         | 9      | 7b2262726f6b656e | 2023-11-14T22:13:20.123Z | orders-topic |",
                "+-----------+--------+------------------+--------------------------+--------------+",
            ],
            &rows
        );
    }
}
