//! Topics in memory, for tests: what a broker does, in a mutex.
//!
//! A [`MemoryBroker`] outlives the engine over it, so that a test can drop an
//! engine, open another one and find the same records. It can be told to lose
//! old records ([`MemoryBroker::expire`]) and to be away for a while
//! ([`MemoryBroker::fail_next_reads`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BinaryBuilder, Int64Array, ListArray, StringBuilder, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::decode::{Decoder, Format, RawBatch, decoder, header_fields};
use crate::epoch::{OffsetRange, Offsets, PartitionId, Ranges};
use crate::error::{Error, Result};
use crate::source::{Reader, Rows, Source};

/// Records decoded at a time.
const CHUNK_ROWS: usize = 8192;

/// Topics, shared by everyone who holds a clone.
#[derive(Debug, Clone, Default)]
pub struct MemoryBroker {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct State {
    topics: BTreeMap<String, Vec<Partition>>,
    failing_reads: u32,
}

/// `records[i]` has the offset `oldest + i`.
#[derive(Debug, Default)]
struct Partition {
    oldest: i64,
    records: VecDeque<Record>,
}

/// One record as it was produced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// None is a tombstone.
    pub payload: Option<Bytes>,
    pub key: Option<Bytes>,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    pub headers: Vec<(String, Bytes)>,
}

impl Partition {
    fn end(&self) -> i64 {
        self.oldest + self.records.len() as i64
    }

    /// The records of `range`, or what is wrong with asking for them.
    fn slice(&self, name: &str, partition: PartitionId, range: OffsetRange) -> Result<Vec<Record>> {
        if range.start < self.oldest {
            return Err(Error::Expired {
                name: name.into(),
                partition,
                wanted: range.start,
                oldest: self.oldest,
            });
        }
        if range.end > self.end() {
            return Err(Error::Source {
                name: name.into(),
                message: format!(
                    "partition {partition} ends at offset {}, before {}",
                    self.end(),
                    range.end
                ),
                retryable: false,
            });
        }
        let from = (range.start - self.oldest) as usize;
        Ok(self.records.iter().skip(from).take(range.len() as usize).cloned().collect())
    }
}

impl MemoryBroker {
    pub fn new() -> Self {
        Self::default()
    }

    /// A broker that stamps records with the time of `clock`.
    pub fn with_clock(clock: Clock) -> Self {
        Self { state: Arc::default(), clock }
    }

    /// Makes `topic` with `partitions` empty partitions; one that exists grows to as many.
    pub fn create_topic(&self, topic: &str, partitions: usize) {
        let mut state = self.state.lock();
        let held = state.topics.entry(topic.to_string()).or_default();
        if held.len() < partitions {
            held.resize_with(partitions, Partition::default);
        }
    }

    /// Appends a payload, stamped with the broker's time; answers its offset.
    ///
    /// # Errors
    /// When the topic or the partition does not exist.
    pub fn produce(
        &self,
        topic: &str,
        partition: PartitionId,
        payload: impl Into<Bytes>,
    ) -> Result<i64> {
        let timestamp_ms = self.clock.now_us().div_euclid(1000);
        let payload = Some(payload.into());
        self.produce_record(topic, partition, Record { payload, timestamp_ms, ..Record::default() })
    }

    /// Appends a record as it is; answers its offset.
    pub fn produce_record(
        &self,
        topic: &str,
        partition: PartitionId,
        record: Record,
    ) -> Result<i64> {
        self.with_partition(topic, partition, |held| {
            held.records.push_back(record);
            held.end() - 1
        })
    }

    /// Forgets the records before `oldest`, as retention does.
    pub fn expire(&self, topic: &str, partition: PartitionId, oldest: i64) -> Result<()> {
        self.with_partition(topic, partition, |held| {
            while held.oldest < oldest && held.records.pop_front().is_some() {
                held.oldest += 1;
            }
            held.oldest = held.oldest.max(oldest);
        })
    }

    /// The next `n` reads fail with an error that a retry can mend.
    pub fn fail_next_reads(&self, n: u32) {
        self.state.lock().failing_reads = n;
    }

    /// Topics by name with their number of partitions.
    pub fn topics(&self) -> BTreeMap<String, usize> {
        self.state.lock().topics.iter().map(|(name, held)| (name.clone(), held.len())).collect()
    }

    /// Per partition the oldest and the next offset.
    pub fn offsets(&self, topic: &str) -> Option<Ranges> {
        let state = self.state.lock();
        let held = state.topics.get(topic)?;
        let range = |held: &Partition| OffsetRange::new(held.oldest, held.end());
        Some((0..).zip(held.iter().map(range)).collect())
    }

    fn with_partition<T>(
        &self,
        topic: &str,
        partition: PartitionId,
        act: impl FnOnce(&mut Partition) -> T,
    ) -> Result<T> {
        let mut state = self.state.lock();
        let held = state.topics.get_mut(topic).ok_or_else(|| unknown_topic(topic, topic))?;
        let count = held.len();
        let held = usize::try_from(partition)
            .ok()
            .and_then(|index| held.get_mut(index))
            .ok_or_else(|| {
                Error::invalid(format!(
                    "topic \"{topic}\" has {count} partitions, there is no partition {partition}"
                ))
            })?;
        Ok(act(held))
    }

    fn fetch(
        &self,
        name: &str,
        topic: &str,
        partition: PartitionId,
        range: OffsetRange,
    ) -> Result<Vec<Record>> {
        self.with_partition(topic, partition, |held| held.slice(name, partition, range))?
    }

    /// Counts down the injected failures.
    fn check_read(&self, name: &str) -> Result<()> {
        let mut state = self.state.lock();
        if state.failing_reads == 0 {
            return Ok(());
        }
        state.failing_reads -= 1;
        Err(Error::Source {
            name: name.into(),
            message: "the broker is away (injected)".into(),
            retryable: true,
        })
    }
}

fn unknown_topic(name: &str, topic: &str) -> Error {
    Error::Source {
        name: name.into(),
        message: format!("topic \"{topic}\" does not exist"),
        retryable: false,
    }
}

/// A topic of a [`MemoryBroker`] as a source.
#[derive(Debug, Clone)]
pub struct MemorySource {
    name: String,
    topic: String,
    schema: SchemaRef,
    format: Format,
    broker: MemoryBroker,
    latest: bool,
}

impl MemorySource {
    /// Options: `topic` (default: the source's name), `scan.startup.mode`
    /// (`earliest`, the default, or `latest`). Others are not looked at.
    pub fn new(
        name: &str,
        schema: SchemaRef,
        format: Format,
        broker: MemoryBroker,
        options: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        decoder(&format, &schema, &all)?;
        let latest = match options.get("scan.startup.mode").map(String::as_str) {
            None | Some("earliest") => false,
            Some("latest") => true,
            Some(other) => {
                return Err(Error::invalid_hint(
                    format!("unknown scan.startup.mode '{other}'"),
                    "use 'earliest' or 'latest'",
                ));
            }
        };
        let topic = options.get("topic").map_or(name, String::as_str).to_string();
        Ok(Self { name: name.to_string(), topic, schema, format, broker, latest })
    }
}

#[async_trait]
impl Source for MemorySource {
    fn name(&self) -> &str {
        &self.name
    }

    fn connector(&self) -> &'static str {
        "memory"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn bounded(&self) -> bool {
        false
    }

    async fn available(&self) -> Result<Ranges> {
        self.broker.offsets(&self.topic).ok_or_else(|| unknown_topic(&self.name, &self.topic))
    }

    async fn start(&self, available: &Ranges) -> Result<Offsets> {
        let at = |range: &OffsetRange| if self.latest { range.end } else { range.start };
        Ok(available.iter().map(|(partition, range)| (*partition, at(range))).collect())
    }

    fn open(&self, projection: Vec<usize>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(MemoryReader {
            source: self.clone(),
            decoder: decoder(&self.format, &self.schema, &projection)?,
        }))
    }
}

struct MemoryReader {
    source: MemorySource,
    decoder: Box<dyn Decoder>,
}

#[async_trait]
impl Reader for MemoryReader {
    async fn read(&mut self, ranges: &Ranges) -> Result<Rows> {
        let MemorySource { name, topic, broker, .. } = &self.source;
        broker.check_read(name)?;
        let origin: Arc<str> = topic.as_str().into();
        let mut rows = Rows::default();
        for (&partition, &range) in ranges.iter().filter(|(_, range)| !range.is_empty()) {
            let records = broker.fetch(name, topic, partition, range)?;
            for (i, records) in records.chunks(CHUNK_ROWS).enumerate() {
                let first = range.start + (i * CHUNK_ROWS) as i64;
                rows.push(self.decoder.decode(raw_batch(&origin, partition, first, records)?)?);
            }
            rows.bytes +=
                records.iter().flat_map(|r| &r.payload).map(|p| p.len() as u64).sum::<u64>();
        }
        Ok(rows)
    }
}

fn raw_batch(
    origin: &Arc<str>,
    partition: PartitionId,
    first: i64,
    records: &[Record],
) -> Result<RawBatch> {
    let payloads = records.iter().map(|record| record.payload.as_deref());
    let keys = records.iter().map(|record| record.key.as_deref());
    Ok(RawBatch {
        origin: Arc::clone(origin),
        partition,
        offsets: Int64Array::from_iter_values(first..first + records.len() as i64),
        timestamps: Some(records.iter().map(|record| Some(record.timestamp_ms)).collect()),
        payloads: payloads.collect::<BinaryArray>(),
        keys: Some(keys.collect::<BinaryArray>()),
        headers: Some(headers(records)?),
    })
}

fn headers(records: &[Record]) -> Result<ArrayRef> {
    let mut keys = StringBuilder::new();
    let mut values = BinaryBuilder::new();
    for (key, value) in records.iter().flat_map(|record| &record.headers) {
        keys.append_value(key);
        values.append_value(value);
    }
    let entries = StructArray::try_new(
        header_fields(),
        vec![Arc::new(keys.finish()), Arc::new(values.finish())],
        None,
    )?;
    let item = Arc::new(Field::new("item", DataType::Struct(header_fields()), false));
    let lengths = OffsetBuffer::from_lengths(records.iter().map(|record| record.headers.len()));
    Ok(Arc::new(ListArray::try_new(item, lengths, Arc::new(entries), None)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::{Int64Type, Schema};

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]))
    }

    fn source(broker: &MemoryBroker, options: &[(&str, &str)]) -> MemorySource {
        let options = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let format = Format::Json { timestamp_unit: Default::default() };
        MemorySource::new("t", schema(), format, broker.clone(), &options).unwrap()
    }

    fn range(start: i64, end: i64) -> Ranges {
        Ranges::from([(0, OffsetRange::new(start, end))])
    }

    #[tokio::test]
    async fn a_range_reads_the_same_twice() {
        let broker = MemoryBroker::new();
        broker.create_topic("t", 2);
        for id in 0..5 {
            assert_eq!(broker.produce("t", 0, format!("{{\"id\":{id}}}")).unwrap(), id);
        }
        broker.produce("t", 1, "oops").unwrap();
        let source = source(&broker, &[]);
        let available = source.available().await.unwrap();
        assert_eq!(
            available,
            Ranges::from([(0, OffsetRange::new(0, 5)), (1, OffsetRange::new(0, 1))])
        );
        let mut reader = source.open(vec![0]).unwrap();
        for _ in 0..2 {
            let rows = reader.read(&range(1, 4)).await.unwrap();
            let ids = rows.chunks[0].batch.column(0).as_primitive::<Int64Type>();
            assert_eq!(ids.values(), &[1, 2, 3]);
            assert_eq!(rows.chunks[0].origin.offsets.values(), &[1, 2, 3]);
        }
        let bad = reader.read(&Ranges::from([(1, OffsetRange::new(0, 1))])).await.unwrap();
        assert_eq!((bad.len(), bad.rejected.len()), (0, 1));
        assert_eq!(bad.rejected[0].payload.as_deref(), Some(&b"oops"[..]));
    }

    #[tokio::test]
    async fn expired_missing_and_failing_reads_are_errors() {
        let broker = MemoryBroker::new();
        let source = source(&broker, &[("topic", "other"), ("scan.startup.mode", "latest")]);
        assert!(source.available().await.is_err());
        broker.create_topic("other", 1);
        for _ in 0..3 {
            broker.produce("other", 0, "{}").unwrap();
        }
        broker.expire("other", 0, 2).unwrap();
        let available = source.available().await.unwrap();
        assert_eq!(available, range(2, 3));
        assert_eq!(source.start(&available).await.unwrap(), Offsets::from([(0, 3)]));
        let mut reader = source.open(vec![]).unwrap();
        assert!(matches!(reader.read(&range(1, 3)).await, Err(Error::Expired { oldest: 2, .. })));
        assert!(!reader.read(&range(2, 9)).await.unwrap_err().retryable());
        broker.fail_next_reads(1);
        assert!(reader.read(&range(2, 3)).await.unwrap_err().retryable());
        assert_eq!(reader.read(&range(2, 3)).await.unwrap().len(), 1);
    }

    #[test]
    fn an_unknown_startup_mode_is_refused() {
        let options = BTreeMap::from([("scan.startup.mode".to_string(), "first".to_string())]);
        let format = Format::Json { timestamp_unit: Default::default() };
        let error = MemorySource::new("t", schema(), format, MemoryBroker::new(), &options);
        assert!(error.unwrap_err().to_string().contains("first"));
    }
}
