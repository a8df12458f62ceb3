//! The reader's async side: hands ranges to its thread, decodes what comes back.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;

use super::fetch::{Fetcher, Item, Request};
use super::raw::Collect;
use super::settings::Settings;
use crate::decode::{self, Decoder, Format, RawBatch};
use crate::epoch::{PartitionId, Ranges};
use crate::error::{Error, Result};
use crate::source::{Chunk, Reader, Rejected, Rows};

/// Batches that wait between reading and decoding: with those being decoded,
/// what bounds the memory that a read takes besides its result.
const WAITING: usize = 2;
/// A batch up to this many rows is decoded at once; handing it to another
/// thread would cost more.
const SMALL: usize = 512;

pub(super) struct KafkaReader {
    source: String,
    settings: Arc<Settings>,
    format: Format,
    schema: SchemaRef,
    projection: Vec<usize>,
    patience: Duration,
    /// One is needed for each batch decoded at a time.
    idle: Vec<Box<dyn Decoder>>,
    /// The thread, once there was something to read. It ends when this is dropped.
    requests: Option<mpsc::Sender<Request>>,
}

/// What one batch became, and the decoder back for the next.
struct Decoded {
    first: (PartitionId, i64),
    bytes: u64,
    outcome: Result<(Chunk, Vec<Rejected>)>,
    decoder: Box<dyn Decoder>,
}

impl fmt::Debug for KafkaReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaReader").field("source", &self.source).finish_non_exhaustive()
    }
}

impl KafkaReader {
    pub fn new(
        source: &str,
        settings: Arc<Settings>,
        format: Format,
        schema: SchemaRef,
        projection: Vec<usize>,
        patience: Duration,
    ) -> Result<Self> {
        // Made now so that a projection that can't be decoded fails at once.
        let idle = vec![decode::decoder(&format, &schema, &projection)?];
        let (source, requests) = (source.to_string(), None);
        Ok(Self { source, settings, format, schema, projection, patience, idle, requests })
    }

    /// Sends ranges to the thread, which is started if there is none.
    fn request(&mut self, ranges: Ranges) -> Result<Receiver<Item>> {
        let (out, items) = tokio::sync::mpsc::channel(WAITING);
        let mut request = Request { ranges, out };
        if let Some(requests) = &self.requests {
            match requests.send(request) {
                Ok(()) => return Ok(items),
                Err(mpsc::SendError(unsent)) => request = unsent,
            }
        }
        let requests = self.start()?;
        let gone = |_| Error::internal("the thread of a Kafka reader ended at once");
        requests.send(request).map_err(gone)?;
        self.requests = Some(requests);
        Ok(items)
    }

    fn start(&self) -> Result<mpsc::Sender<Request>> {
        let (requests, inbox) = mpsc::channel();
        let fetcher = Fetcher {
            source: self.source.clone(),
            settings: Arc::clone(&self.settings),
            collect: Collect::new(&self.schema, &self.projection),
            patience: self.patience,
        };
        std::thread::Builder::new()
            .name(format!("kafka-{}", self.source))
            .spawn(move || fetcher.run(&inbox))
            .map_err(|error| Error::Source {
                name: self.source.clone(),
                message: format!("no thread for a Kafka reader: {error}"),
                retryable: true,
            })?;
        Ok(requests)
    }

    /// Starts decoding; what is small is decoded before this returns.
    fn decode(
        &mut self,
        raw: RawBatch,
        decoding: &mut JoinSet<Decoded>,
    ) -> Result<Option<Decoded>> {
        let decoder = match self.idle.pop() {
            Some(decoder) => decoder,
            None => decode::decoder(&self.format, &self.schema, &self.projection)?,
        };
        if raw.len() <= SMALL {
            return Ok(Some(run(decoder, raw)));
        }
        decoding.spawn_blocking(move || run(decoder, raw));
        Ok(None)
    }
}

fn run(mut decoder: Box<dyn Decoder>, raw: RawBatch) -> Decoded {
    let first = (raw.partition, raw.offsets.values().first().copied().unwrap_or_default());
    let bytes = raw.payloads.value_data().len() as u64;
    let outcome = decoder.decode(raw);
    Decoded { first, bytes, outcome, decoder }
}

/// How many batches are decoded at a time: reading takes a core as well.
fn decoders() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).clamp(1, 4)
}

#[async_trait]
impl Reader for KafkaReader {
    async fn read(&mut self, ranges: &Ranges) -> Result<Rows> {
        let ranges: Ranges = ranges
            .iter()
            .filter(|(_, range)| !range.is_empty())
            .map(|(partition, range)| (*partition, *range))
            .collect();
        if ranges.is_empty() {
            return Ok(Rows::default());
        }
        let mut items = self.request(ranges)?;
        let mut decoding = JoinSet::new();
        let mut read = Collected::default();
        let (mut done, most) = (false, decoders());
        while !done || !decoding.is_empty() {
            tokio::select! {
                item = items.recv(), if !done && decoding.len() < most => match item {
                    Some(Item::Batch(raw)) => {
                        if let Some(decoded) = self.decode(*raw, &mut decoding)? {
                            self.idle.push(read.add(decoded)?);
                        }
                    }
                    Some(Item::Done) => done = true,
                    Some(Item::Failed(error)) => return Err(error),
                    None => return Err(Error::internal("the thread of a Kafka reader ended")),
                },
                Some(decoded) = decoding.join_next() => {
                    let decoded = decoded.map_err(|error| Error::internal(error.to_string()))?;
                    self.idle.push(read.add(decoded)?);
                }
            }
        }
        Ok(read.into_rows())
    }
}

/// Decoded batches, in the order in which they came.
#[derive(Default)]
struct Collected {
    chunks: Vec<((PartitionId, i64), Chunk)>,
    rejected: Vec<Rejected>,
    bytes: u64,
}

impl Collected {
    /// Returns the decoder.
    fn add(&mut self, decoded: Decoded) -> Result<Box<dyn Decoder>> {
        let (chunk, rejected) = decoded.outcome?;
        if chunk.batch.num_rows() > 0 {
            self.chunks.push((decoded.first, chunk));
        }
        self.rejected.extend(rejected);
        self.bytes += decoded.bytes;
        Ok(decoded.decoder)
    }

    /// By partition, then offset.
    fn into_rows(mut self) -> Rows {
        self.chunks.sort_by_key(|(first, _)| *first);
        self.rejected.sort_by_key(|rejected| (rejected.partition, rejected.offset));
        Rows {
            chunks: self.chunks.into_iter().map(|(_, chunk)| chunk).collect(),
            rejected: self.rejected,
            bytes: self.bytes,
        }
    }
}
