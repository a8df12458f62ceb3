//! Against the embedded broker: exact ranges, where a query starts, what goes wrong.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};

use super::producer::{Producer, Record};
use super::*;
use crate::broker::EmbeddedBroker;
use crate::decode::header_fields;
use crate::epoch::OffsetRange;
use crate::source::{Chunk, METADATA_KEY, Rows};

const TOPIC: &str = "orders";

/// A broker, a topic on it, a producer, and a source of it.
struct Fixture {
    broker: EmbeddedBroker,
    producer: Producer,
}

impl Fixture {
    fn new(partitions: i32) -> Self {
        let broker = EmbeddedBroker::start(1).unwrap();
        broker.create_topic(TOPIC, partitions).unwrap();
        let properties = BTreeMap::from([
            // So that sizes are what they seem, and the first record is sent at once.
            ("compression.type".to_string(), "none".to_string()),
            ("enable.idempotence".to_string(), "false".to_string()),
        ]);
        let producer = Producer::new(&broker.bootstrap_servers(), &properties).unwrap();
        Self { broker, producer }
    }

    async fn send(&self, partition: i32, payloads: impl IntoIterator<Item: AsRef<[u8]>>) {
        for payload in payloads {
            let payload = Some(payload.as_ref());
            let partition = Some(partition);
            let record = Record { topic: TOPIC, partition, payload, ..Record::default() };
            self.producer.send(record).await.unwrap();
        }
        self.producer.flush().await.unwrap();
    }

    fn source(&self, extra: &[(&str, &str)]) -> KafkaSource {
        source_at(&self.broker.bootstrap_servers(), TOPIC, extra)
    }
}

fn source_at(servers: &str, topic: &str, extra: &[(&str, &str)]) -> KafkaSource {
    let mut options = BTreeMap::from([
        ("topic".to_string(), topic.to_string()),
        ("bootstrap.servers".to_string(), servers.to_string()),
        ("properties.fetch.wait.max.ms".to_string(), "10".to_string()),
    ]);
    options.extend(extra.iter().map(|(key, value)| (key.to_string(), value.to_string())));
    KafkaSource::new("orders", schema(), Format::Raw, &options).unwrap()
}

fn schema() -> SchemaRef {
    let metadata = |name: &str, data_type: DataType| {
        let mark = HashMap::from([(METADATA_KEY.to_string(), name.to_string())]);
        Field::new(name, data_type, true).with_metadata(mark)
    };
    let entry = DataType::Struct(header_fields());
    Arc::new(Schema::new(vec![
        Field::new("payload", DataType::Utf8, true),
        metadata("topic", DataType::Utf8),
        metadata("partition", DataType::Int32),
        metadata("offset", DataType::Int64),
        metadata("timestamp", DataType::Timestamp(TimeUnit::Millisecond, None)),
        metadata("key", DataType::Binary),
        metadata("headers", DataType::new_list(entry, true)),
    ]))
}

fn reader(source: &KafkaSource) -> Box<dyn Reader> {
    source.open(vec![0]).unwrap()
}

fn ranges(list: &[(i32, i64, i64)]) -> Ranges {
    list.iter().map(|(p, start, end)| (*p, OffsetRange::new(*start, *end))).collect()
}

/// `partition:offset=payload` of every row, in order.
fn shown(rows: &Rows) -> Vec<String> {
    let show = |chunk: &Chunk, row: usize| {
        let offset = chunk.origin.offsets.value(row);
        let payload = chunk.batch.column(0).as_string::<i32>().value(row);
        format!("{}:{offset}={payload}", chunk.partition)
    };
    rows.chunks
        .iter()
        .flat_map(|chunk| (0..chunk.batch.num_rows()).map(move |row| show(chunk, row)))
        .collect()
}

fn numbers(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| n.to_string())
}

#[tokio::test]
async fn ranges_are_read_exactly_and_again_the_same() {
    let fixture = Fixture::new(3);
    fixture.send(0, numbers(5)).await;
    fixture.send(2, numbers(4)).await;
    let source = fixture.source(&[]);
    assert_eq!(source.available().await.unwrap(), ranges(&[(0, 0, 5), (1, 0, 0), (2, 0, 4)]));

    let mut reader = reader(&source);
    let wanted = ranges(&[(0, 1, 3), (1, 0, 0), (2, 0, 2)]);
    let expected = ["0:1=1", "0:2=2", "2:0=0", "2:1=1"];
    let rows = reader.read(&wanted).await.unwrap();
    assert_eq!(shown(&rows), expected);
    assert_eq!(rows.bytes, 4);
    // On from there, what was fetched already; then back.
    let rows = reader.read(&ranges(&[(0, 3, 5), (2, 2, 3)])).await.unwrap();
    assert_eq!(shown(&rows), ["0:3=3", "0:4=4", "2:2=2"]);
    assert_eq!(shown(&reader.read(&wanted).await.unwrap()), expected);
    // Skipping ahead, and a partition that is new to the reader.
    fixture.send(1, numbers(1)).await;
    fixture.send(0, numbers(3)).await;
    let rows = reader.read(&ranges(&[(0, 7, 8), (1, 0, 1)])).await.unwrap();
    assert_eq!(shown(&rows), ["0:7=2", "1:0=0"]);
    assert!(reader.read(&ranges(&[(0, 8, 8)])).await.unwrap().is_empty());
    assert!(reader.read(&Ranges::new()).await.unwrap().is_empty());
}

#[tokio::test]
async fn many_records_come_in_order_over_several_batches() {
    let fixture = Fixture::new(2);
    fixture.send(0, numbers(40_000)).await;
    fixture.send(1, (0..20_000).map(|_| b"\xff")).await;
    let source = fixture.source(&[]);
    let rows = reader(&source).read(&ranges(&[(0, 0, 40_000), (1, 0, 20_000)])).await.unwrap();
    assert_eq!(rows.len(), 40_000);
    assert!(rows.chunks.len() > 3);
    let places: Vec<(i32, i64)> = rows
        .chunks
        .iter()
        .flat_map(|chunk| chunk.origin.offsets.values().iter().map(|o| (chunk.partition, *o)))
        .collect();
    assert!(places.is_sorted());
    let rejected: Vec<i64> = rows.rejected.iter().map(|rejected| rejected.offset).collect();
    assert_eq!(rejected, (0..20_000).collect::<Vec<i64>>());
}

#[tokio::test]
async fn metadata_and_tombstones() {
    let fixture = Fixture::new(1);
    let plain = Record { topic: TOPIC, payload: Some(b"{}"), ..Record::default() };
    let full = Record {
        key: Some(b"k"),
        timestamp_ms: Some(1_700_000_000_123),
        headers: &[("source", b"app"), ("empty", b"")],
        ..plain
    };
    let tombstone = Record { payload: None, ..full };
    let empty = Record { payload: Some(b""), key: None, headers: &[], ..full };
    for record in [full, tombstone, empty] {
        fixture.producer.send(record).await.unwrap();
    }
    fixture.producer.flush().await.unwrap();

    let source = fixture.source(&[]);
    let mut reader = source.open((0..7).collect()).unwrap();
    let rows = reader.read(&ranges(&[(0, 0, 3)])).await.unwrap();
    assert_eq!(shown(&rows), ["0:0={}", "0:2="]);
    let batch = &rows.chunks[0].batch;
    assert_eq!(batch.column(1).as_string::<i32>().value(0), TOPIC);
    assert_eq!(batch.column(3).as_primitive::<Int64Type>().values(), &[0, 2]);
    let key = batch.column(5).as_binary::<i32>();
    assert_eq!((key.value(0), key.is_null(1)), (&b"k"[..], true));
    let timestamps = rows.chunks[0].origin.timestamps.as_ref().unwrap();
    assert_eq!(timestamps.value(0), 1_700_000_000_123);
    let headers = batch.column(6).as_list::<i32>();
    assert_eq!(headers.offsets().iter().copied().collect::<Vec<_>>(), [0, 2, 2]);
    let entries = headers.values().as_struct();
    assert_eq!(entries.column(0).as_string::<i32>().value(0), "source");
    assert_eq!(entries.column(1).as_binary::<i32>().value(0), b"app");
    assert_eq!(entries.column(1).as_binary::<i32>().value(1), b"");
    // Keys and headers are not collected for those who don't ask.
    assert_eq!(super::raw::Collect::new(&source.schema(), &[0, 4]), super::raw::Collect::default());
}

#[tokio::test]
async fn where_a_query_starts() {
    let fixture = Fixture::new(2);
    fixture.send(0, numbers(5)).await;
    fixture.send(1, numbers(3)).await;
    let start = async |extra: &[(&str, &str)]| {
        let source = fixture.source(extra);
        let available = source.available().await.unwrap();
        source.start(&available).await
    };
    let mode = |mode| ("scan.startup.mode", mode);
    let offsets = |text| ("scan.startup.offsets", text);
    assert_eq!(start(&[]).await.unwrap(), Offsets::from([(0, 0), (1, 0)]));
    assert_eq!(start(&[mode("latest")]).await.unwrap(), Offsets::from([(0, 5), (1, 3)]));
    // A time later than all records.
    let late = [mode("timestamp"), ("scan.startup.timestamp", "2100-01-01")];
    assert_eq!(start(&late).await.unwrap(), Offsets::from([(0, 5), (1, 3)]));
    let given = start(&[mode("offsets"), offsets("partition:1,offset:2")]).await.unwrap();
    assert_eq!(given, Offsets::from([(0, 0), (1, 2)]));
    let error = start(&[mode("offsets"), offsets("partition:7,offset:2")]).await.unwrap_err();
    assert!(error.to_string().contains("partition 7"), "{error}");
    let error = start(&[mode("offsets"), offsets("partition:0,offset:6")]).await.unwrap_err();
    assert!(error.to_string().contains("ends at 5"), "{error}");
}

#[tokio::test]
async fn a_topic_that_does_not_exist_is_an_error_for_good() {
    let fixture = Fixture::new(1);
    let source = source_at(&fixture.broker.bootstrap_servers(), "nowhere", &[]);
    let error = source.available().await.unwrap_err();
    assert!(error.to_string().contains("topic 'nowhere' does not exist"), "{error}");
    assert!(!error.retryable());
}

#[tokio::test]
async fn a_broker_that_is_away_is_worth_a_retry() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let servers = listener.local_addr().unwrap().to_string();
    drop(listener);
    let source = source_at(&servers, TOPIC, &[("properties.socket.timeout.ms", "1200")]);
    let error = source.available().await.unwrap_err();
    assert!(error.retryable());
    assert!(error.to_string().contains(&servers), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_broker_that_comes_back_in_the_middle_costs_nothing_but_time() {
    let fixture = Fixture::new(1);
    fixture.send(0, numbers(10)).await;
    let source = fixture.source(&[]);
    let mut reader = reader(&source);
    assert_eq!(reader.read(&ranges(&[(0, 0, 5)])).await.unwrap().len(), 5);
    fixture.broker.down().unwrap();
    // Records that are not there yet: the reader has to ask the broker again.
    let wanted = ranges(&[(0, 5, 12)]);
    let (rows, ()) = tokio::join!(reader.read(&wanted), async {
        fixture.broker.up().unwrap();
        fixture.send(0, numbers(2)).await;
    });
    assert_eq!(shown(&rows.unwrap()).last().unwrap(), "0:11=1");
}

#[tokio::test]
async fn patience_ends_with_an_error_worth_a_retry() {
    let fixture = Fixture::new(2);
    fixture.send(0, numbers(10)).await;
    let source = fixture.source(&[]);
    let mut reader = source.reader(vec![0], Duration::from_millis(200)).unwrap();
    let error = reader.read(&ranges(&[(0, 0, 10), (1, 0, 1)])).await.unwrap_err();
    assert!(error.retryable());
    assert!(error.to_string().contains("partition 1)"), "{error}");
    // The reader is good for another try.
    fixture.send(1, numbers(1)).await;
    assert_eq!(reader.read(&ranges(&[(0, 0, 10), (1, 0, 1)])).await.unwrap().len(), 11);
}

#[tokio::test]
async fn an_offset_that_has_expired_is_never_skipped() {
    let fixture = Fixture::new(1);
    // The embedded broker keeps 5 MiB of a partition.
    fixture.send(0, (0..8000).map(|n| format!("{n:01024}"))).await;
    let source = fixture.source(&[]);
    let left = source.available().await.unwrap()[&0];
    assert!(left.start > 0 && left.end == 8000);
    let error = reader(&source).read(&ranges(&[(0, 0, 8000)])).await.unwrap_err();
    assert!(
        matches!(error, Error::Expired { partition: 0, wanted: 0, oldest, .. } if oldest == left.start),
        "{error}"
    );
    let rows = reader(&source).read(&Ranges::from([(0, left)])).await.unwrap();
    assert_eq!(rows.len() as u64, left.len());
}

#[tokio::test]
async fn an_offset_past_the_end_is_another_topic_of_that_name() {
    let fixture = Fixture::new(1);
    fixture.send(0, numbers(3)).await;
    let error = reader(&fixture.source(&[])).read(&ranges(&[(0, 50, 60)])).await.unwrap_err();
    assert!(error.to_string().contains("deleted and created again"), "{error}");
    assert!(!error.retryable());
}

#[tokio::test]
async fn a_read_that_is_dropped_leaves_the_reader_usable() {
    let fixture = Fixture::new(1);
    fixture.send(0, numbers(10)).await;
    let source = fixture.source(&[]);
    let mut reader = reader(&source);
    // Ends only by being dropped: the range goes past what there is.
    let wanted = ranges(&[(0, 0, 20)]);
    let cut = tokio::time::timeout(Duration::from_millis(100), reader.read(&wanted)).await;
    assert!(cut.is_err());
    let rows = reader.read(&ranges(&[(0, 2, 4)])).await.unwrap();
    assert_eq!(shown(&rows), ["0:2=2", "0:3=3"]);
}

#[tokio::test]
async fn callers_that_wait_share_an_answer() {
    let fixture = Fixture::new(2);
    let source = fixture.source(&[]);
    let (one, two) = tokio::join!(source.available(), source.available());
    assert_eq!(one.unwrap(), two.unwrap());
}
