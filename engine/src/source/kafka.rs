//! Kafka topics as a source.
//!
//! A topic's partitions and offsets are the engine's partitions and offsets.
//! No consumer group takes part: what was read is recorded with the result, in
//! the same commit, and a range of offsets read twice gives the same records.
//!
//! - [`settings`]: the options, checked without contacting anything;
//! - [`cluster`]: what the brokers know: partitions, oldest and last offsets;
//! - [`reader`]: reads ranges: hands them to its thread ([`fetch`]), which goes
//!   through them ([`session`]), taking messages from librdkafka ([`native`])
//!   into Arrow columns ([`raw`]), and decodes those beside it;
//! - [`producer`]: writes records, for generators and tests.

mod cluster;
mod context;
mod fetch;
mod native;
pub mod producer;
mod raw;
mod reader;
mod session;
mod settings;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use self::cluster::{Cluster, Failure};
pub use self::native::property_names;
use self::reader::KafkaReader;
pub use self::settings::check_property;
use self::settings::{Settings, Startup};
use crate::decode::Format;
use crate::epoch::{Offsets, PartitionId, Ranges, ends};
use crate::error::{Error, Result};
use crate::source::{Reader, Source};

/// How long a reader waits for a broker that sends nothing before it gives up
/// with an error that may be retried.
const PATIENCE: Duration = Duration::from_secs(60);

/// One topic.
pub struct KafkaSource {
    name: String,
    schema: SchemaRef,
    format: Format,
    settings: Arc<Settings>,
    cluster: Arc<Cluster>,
}

impl fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl KafkaSource {
    /// Checks the options of a `CREATE SOURCE`; contacts nothing. Those that are
    /// not of Kafka's connector (`format`, `on_error`, ...) are left alone.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the option named.
    pub fn new(
        name: &str,
        schema: SchemaRef,
        format: Format,
        options: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let settings = Arc::new(Settings::new(options)?);
        let cluster = Arc::new(Cluster::new(name, Arc::clone(&settings)));
        Ok(Self { name: name.to_string(), schema, format, settings, cluster })
    }

    /// Asks the brokers, on a thread that may block.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Cluster) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        let cluster = Arc::clone(&self.cluster);
        tokio::task::spawn_blocking(move || question(&cluster))
            .await
            .map_err(|error| Error::internal(error.to_string()))?
            .map_err(|failure| failure.into_error(&self.name))
    }

    /// Partitions that have no record so late start at their end.
    async fn start_at(&self, ms: i64, available: &Ranges) -> Result<Offsets> {
        let partitions: Vec<PartitionId> = available.keys().copied().collect();
        let found = self.ask(move |cluster| cluster.offsets_at(ms, &partitions)).await?;
        let mut offsets = ends(available);
        offsets.extend(found);
        Ok(offsets)
    }

    /// Partitions that are not named start at their oldest.
    fn start_from(&self, wanted: &Offsets, available: &Ranges) -> Result<Offsets> {
        let mut offsets: Offsets =
            available.iter().map(|(partition, range)| (*partition, range.start)).collect();
        for (&partition, &offset) in wanted {
            let Some(range) = available.get(&partition) else {
                return Err(Error::invalid(format!(
                    "'scan.startup.offsets' names partition {partition}, but topic '{}' has {}",
                    self.settings.topic,
                    available.len()
                )));
            };
            if offset < range.start {
                let (name, oldest) = (self.name.clone(), range.start);
                return Err(Error::Expired { name, partition, wanted: offset, oldest });
            }
            if offset > range.end {
                return Err(Error::invalid(format!(
                    "'scan.startup.offsets' names offset {offset} of partition {partition}, \
                     which ends at {}",
                    range.end
                )));
            }
            offsets.insert(partition, offset);
        }
        Ok(offsets)
    }

    fn reader(&self, projection: Vec<usize>, patience: Duration) -> Result<KafkaReader> {
        let (settings, schema) = (Arc::clone(&self.settings), Arc::clone(&self.schema));
        KafkaReader::new(&self.name, settings, self.format.clone(), schema, projection, patience)
    }
}

#[async_trait]
impl Source for KafkaSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn connector(&self) -> &'static str {
        "kafka"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn bounded(&self) -> bool {
        false
    }

    async fn available(&self) -> Result<Ranges> {
        let since = Instant::now();
        self.ask(move |cluster| cluster.available(since)).await
    }

    async fn start(&self, available: &Ranges) -> Result<Offsets> {
        match &self.settings.startup {
            Startup::Earliest => {
                Ok(available.iter().map(|(partition, range)| (*partition, range.start)).collect())
            }
            Startup::Latest => Ok(ends(available)),
            Startup::Timestamp(ms) => self.start_at(*ms, available).await,
            Startup::Offsets(offsets) => self.start_from(offsets, available),
        }
    }

    fn open(&self, projection: Vec<usize>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(self.reader(projection, PATIENCE)?))
    }
}
