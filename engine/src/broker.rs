//! A Kafka broker inside this process, for the demo and for tests.
//!
//! It is librdkafka's mock cluster: real sockets and the real protocol, so that
//! sources and producers treat it like any other broker. What it does not do:
//!
//! - It keeps everything in memory, and of each partition only the last 5 MiB
//!   (as they came over the wire, so compression stretches them) or 100,000
//!   batches; older records are gone like expired ones.
//! - It answers no question by timestamp (`scan.startup.mode = 'timestamp'`
//!   starts at the end), keeps no transactions apart (records of an open or an
//!   aborted one are read like any other), adds no partitions to a topic, and
//!   deletes and compacts nothing.
//! - A fetch that finds nothing waits its whole time even if a record arrives
//!   (`properties.fetch.wait.max.ms`), and answers with one batch a partition.

use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::mocking::MockCluster;
use rdkafka::types::RDKafkaType;

use crate::error::{Error, Result};

/// Brokers on ports of their own on the loopback interface; they stop when it is dropped.
pub struct EmbeddedBroker {
    /// The cluster belongs to this client, whose own brokers it replaces.
    client: Client<DefaultClientContext>,
    brokers: i32,
}

impl fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedBroker").field("servers", &self.bootstrap_servers()).finish()
    }
}

impl EmbeddedBroker {
    /// Starts a cluster of `brokers` brokers.
    ///
    /// # Errors
    /// If no ports or threads can be had.
    pub fn start(brokers: i32) -> Result<Self> {
        let mut config = ClientConfig::new();
        config.set("test.mock.num.brokers", brokers.to_string());
        config.set_log_level(RDKafkaLogLevel::Critical);
        let client = config.create_native_config().and_then(|native| {
            let kind = RDKafkaType::RD_KAFKA_PRODUCER;
            Client::new(&config, native, kind, DefaultClientContext)
        });
        let broker = Self { client: client.map_err(|error| failed("start", &error))?, brokers };
        broker.cluster()?;
        Ok(broker)
    }

    /// `host:port,...`, for the option of that name.
    pub fn bootstrap_servers(&self) -> String {
        self.cluster().map(|cluster| cluster.bootstrap_servers()).unwrap_or_default()
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// If there is one of that name, or `partitions` is not positive.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        self.on_cluster("create a topic", |cluster| {
            cluster.create_topic(name, partitions, self.brokers.min(3))
        })
    }

    /// Cuts all connections and takes no new ones until [`EmbeddedBroker::up`].
    ///
    /// # Errors
    /// If the cluster does not answer.
    pub fn down(&self) -> Result<()> {
        self.on_cluster("stop", |cluster| cluster.broker_down(-1))
    }

    /// Takes connections again; no record was lost.
    ///
    /// # Errors
    /// If the cluster does not answer.
    pub fn up(&self) -> Result<()> {
        self.on_cluster("start again", |cluster| cluster.broker_up(-1))
    }

    fn cluster(&self) -> Result<MockCluster<'_, DefaultClientContext>> {
        self.client.mock_cluster().ok_or_else(|| {
            Error::internal("librdkafka made a client without the mock cluster asked for")
        })
    }

    fn on_cluster(
        &self,
        what: &str,
        act: impl FnOnce(&MockCluster<'_, DefaultClientContext>) -> KafkaResult<()>,
    ) -> Result<()> {
        act(&self.cluster()?).map_err(|error| failed(what, &error))
    }
}

fn failed(what: &str, error: &KafkaError) -> Error {
    Error::invalid(format!("the embedded broker can't {what}: {error}"))
}
