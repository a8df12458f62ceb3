//! Writes records to Kafka: for generators, tests and doors that take events in.
//!
//! Sending only queues; librdkafka batches, compresses and retries. The
//! producer is idempotent: a retry neither doubles nor reorders records. An
//! acknowledged record is one that all in-sync replicas have.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};
use rdkafka::{ClientConfig, ClientContext, Message};
use tokio::sync::Notify;

use super::cluster::creation_error;
use super::context;
use crate::error::{Error, Result};

/// Set unless the caller does.
const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "tidemill"),
    ("enable.idempotence", "true"),
    ("compression.type", "lz4"),
    ("linger.ms", "5"),
    ("batch.num.messages", "20000"),
    ("queue.buffering.max.messages", "500000"),
    ("queue.buffering.max.kbytes", "131072"),
    ("message.timeout.ms", "60000"),
    ("reconnect.backoff.max.ms", "1000"),
    // Keys land where Kafka's own client would put them.
    ("partitioner", "murmur2_random"),
    ("enable.metrics.push", "false"),
];

/// How long a full queue is given before it is tried again.
const FULL: Duration = Duration::from_millis(2);

/// One record to send.
#[derive(Debug, Clone, Copy, Default)]
pub struct Record<'a> {
    pub topic: &'a str,
    /// By hash of the key, or at random, if not given.
    pub partition: Option<i32>,
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub payload: Option<&'a [u8]>,
    /// Milliseconds since 1970; now, if not given.
    pub timestamp_ms: Option<i64>,
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// Sends records to the topics of one cluster.
pub struct Producer {
    servers: String,
    native: ThreadedProducer<Deliveries>,
    sent: AtomicU64,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl Producer {
    /// For the cluster at `servers` (`host:port,...`). Contacts nothing yet.
    ///
    /// # Errors
    /// If librdkafka refuses a property.
    pub fn new(servers: &str, properties: &BTreeMap<String, String>) -> Result<Self> {
        let mut config = ClientConfig::new();
        for (key, value) in DEFAULTS {
            config.set(*key, *value);
        }
        config.set("bootstrap.servers", servers).set_log_level(RDKafkaLogLevel::Info);
        for (key, value) in properties {
            config.set(key, value);
        }
        let native = config
            .create_with_context(Deliveries::default())
            .map_err(|error| Error::invalid(creation_error(&error)))?;
        Ok(Self { servers: servers.to_string(), native, sent: AtomicU64::new(0) })
    }

    /// Queues a record. Waits only while the queue is full.
    ///
    /// # Errors
    /// If the record can't be queued at all (too large, no such partition).
    /// Whether it was delivered, [`Producer::flush`] tells.
    pub async fn send(&self, record: Record<'_>) -> Result<()> {
        while !self.try_send(record)? {
            tokio::time::sleep(FULL).await;
        }
        Ok(())
    }

    /// Queues a record if there is room; `false` means that there is none.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub fn try_send(&self, record: Record<'_>) -> Result<bool> {
        // Counted first, so that deliveries never run ahead of what was sent.
        self.sent.fetch_add(1, Ordering::AcqRel);
        let Err((error, _)) = self.native.send(native(record)) else { return Ok(true) };
        self.sent.fetch_sub(1, Ordering::AcqRel);
        match error {
            KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => Ok(false),
            error => Err(self.error(record.topic, record.partition, &error)),
        }
    }

    /// Waits until every record sent, by others meanwhile as well, is
    /// acknowledged or has failed.
    ///
    /// # Errors
    /// The first delivery that failed since the last flush. A broker that stays
    /// away fails deliveries after `message.timeout.ms` (a minute).
    pub async fn flush(&self) -> Result<()> {
        let deliveries = self.native.context();
        loop {
            let settled = deliveries.settled.notified();
            if deliveries.count.load(Ordering::Acquire) >= self.sent.load(Ordering::Acquire) {
                break;
            }
            settled.await;
        }
        match deliveries.failed.lock().take() {
            Some((topic, partition, error)) => Err(self.error(&topic, Some(partition), &error)),
            None => Ok(()),
        }
    }

    fn error(&self, topic: &str, partition: Option<i32>, error: &KafkaError) -> Error {
        let code = error.rdkafka_error_code();
        let reason = context::plain(error);
        let place = partition
            .filter(|partition| *partition >= 0)
            .map(|partition| format!(", partition {partition}"))
            .unwrap_or_default();
        Error::NotWritten {
            topic: topic.to_string(),
            message: format!("not written to Kafka at {}{place}: {reason}", self.servers),
            retryable: matches!(code, Some(RDKafkaErrorCode::MessageTimedOut)),
        }
    }
}

fn native(record: Record<'_>) -> BaseRecord<'_, [u8], [u8]> {
    let headers = (!record.headers.is_empty()).then(|| {
        let empty = OwnedHeaders::new_with_capacity(record.headers.len());
        record.headers.iter().fold(empty, |headers, (key, value)| {
            headers.insert(Header { key, value: Some(*value) })
        })
    });
    BaseRecord {
        topic: record.topic,
        partition: record.partition,
        payload: record.payload,
        key: record.key,
        timestamp: record.timestamp_ms,
        headers,
        delivery_opaque: (),
    }
}

/// Counts what the brokers say became of the records.
#[derive(Default)]
struct Deliveries {
    /// Records acknowledged or failed.
    count: AtomicU64,
    settled: Notify,
    /// The first that failed: topic, partition, reason.
    failed: Mutex<Option<(String, i32, KafkaError)>>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log("producer", level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        tracing::debug!(target: "librdkafka", "{}", String::from_utf8_lossy(statistics));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "producer: {error}: {reason}");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            self.failed.lock().get_or_insert_with(|| {
                (message.topic().to_string(), message.partition(), error.clone())
            });
        }
        self.count.fetch_add(1, Ordering::Release);
        self.settled.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::EmbeddedBroker;

    #[tokio::test]
    async fn a_delivery_that_failed_is_told_by_flush_once() {
        let broker = EmbeddedBroker::start(1).unwrap();
        broker.create_topic("orders", 1).unwrap();
        let properties = BTreeMap::from([
            ("message.timeout.ms".into(), "500".into()),
            ("enable.idempotence".into(), "false".into()),
        ]);
        let producer = Producer::new(&broker.bootstrap_servers(), &properties).unwrap();
        let record = Record { topic: "orders", payload: Some(b"1"), ..Record::default() };
        producer.send(record).await.unwrap();
        producer.flush().await.unwrap();

        broker.down().unwrap();
        producer.send(record).await.unwrap();
        let error = producer.flush().await.unwrap_err();
        assert!(error.to_string().starts_with("topic \"orders\": not written to Kafka"), "{error}");
        producer.flush().await.unwrap();
    }

    #[test]
    fn a_property_that_is_wrong_is_named() {
        let properties = BTreeMap::from([("linger.mss".to_string(), "1".to_string())]);
        let error = Producer::new("localhost:1", &properties).unwrap_err();
        assert!(error.to_string().contains("linger.mss"), "{error}");
    }
}
