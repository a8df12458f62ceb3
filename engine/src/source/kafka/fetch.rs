//! The thread behind a reader: takes ranges, reads exactly their records.
//!
//! ```text
//!  librdkafka            this thread                       the reader
//!  queue of partition 0 ─┐
//!  queue of partition 1 ─┼─► one RawBuilder a partition ─► bounded channel ─► decode
//!  queue of partition 2 ─┘   full, or the range is done
//! ```
//!
//! A range is done when everything below its end was taken from the
//! partition's queue. Not every offset holds a record (compaction, markers and
//! aborted records of transactions), so what counts is where the queue stands:
//! at a record past the end, at an end-of-partition event, or at the position
//! after a transaction's marker.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::sync::mpsc::Sender;

use super::cluster::{self, Failure};
use super::context::Context;
use super::native::{Message, Partition, Topic};
use super::raw::{Collect, RawBuilder};
use super::settings::Settings;
use crate::decode::RawBatch;
use crate::epoch::{OffsetRange, PartitionId, Ranges};
use crate::error::Error;

/// Messages taken from a queue at a time.
const BATCH: usize = 2048;
/// Wait for a record: short at first, as the rest of a small range is about to
/// come, longer when it does not.
const SHORTEST_WAIT_MS: i32 = 1;
const LONGEST_WAIT_MS: i32 = 20;
/// How often librdkafka's log is written while nothing is asked for.
const IDLE: Duration = Duration::from_secs(1);
/// For questions to the broker that are not worth a property of their own.
const QUESTION: Duration = Duration::from_secs(5);

/// Ranges to read, and where their batches go.
pub(super) struct Request {
    /// None of them empty.
    pub ranges: Ranges,
    pub out: Sender<Item>,
}

/// What a request is answered with; `Done` or an error comes last.
pub(super) enum Item {
    Batch(Box<RawBatch>),
    Done,
    Failed(Error),
}

/// Why reading stops before the end.
enum Halt {
    /// Nobody waits for the rest.
    Cancelled,
    Failure(Failure),
    /// An offset that the broker no longer has, or does not have yet.
    OutOfRange(PartitionId, i64),
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Halt::Failure(failure)
    }
}

/// Reads one topic for one reader.
pub(super) struct Fetcher {
    pub source: String,
    pub settings: Arc<Settings>,
    pub collect: Collect,
    /// How long to wait for a broker that sends nothing.
    pub patience: Duration,
}

/// The client, and where each partition stands. Stays on its thread.
struct Session {
    // Declared first: a partition is dropped before the topic's last `Rc`.
    partitions: BTreeMap<PartitionId, Standing>,
    topic: Rc<Topic>,
}

struct Standing {
    queue: Partition,
    /// End of the last range that was read whole; a range that starts here
    /// needs no seek.
    next: Option<i64>,
    /// Everything below was taken from the queue.
    taken: i64,
    /// The highest end of the partition that an event told of since the last seek.
    end_seen: i64,
}

impl Fetcher {
    /// Serves requests until the reader is gone.
    pub fn run(self, requests: &Receiver<Request>) {
        let mut session = None;
        loop {
            match requests.recv_timeout(IDLE) {
                Ok(request) => self.serve(&request, &mut session),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(Session { topic, .. }) = &session {
                        cluster::serve(topic.consumer());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn serve(&self, request: &Request, session: &mut Option<Session>) {
        let last = match self.read(request, session) {
            Ok(()) => Item::Done,
            Err(Halt::Cancelled) => return,
            Err(halt) => {
                let error = self.error(session.as_ref(), halt);
                // What went wrong may have left the client in any state.
                *session = None;
                Item::Failed(error)
            }
        };
        // An error means that nobody waits any more.
        let _ = request.out.blocking_send(last);
    }

    fn read(&self, request: &Request, session: &mut Option<Session>) -> Result<(), Halt> {
        let began = Instant::now();
        let session = match session {
            Some(session) => session,
            none => none.insert(self.connect(request.ranges.len())?),
        };
        self.position(session, request, began)?;
        self.drain(session, request)
    }

    fn connect(&self, partitions: usize) -> Result<Session, Failure> {
        let lasting = |message: String| Failure::lasting(message);
        let consumer = self
            .settings
            .reader_config(partitions)
            .create_with_context(Context::new(&self.source))
            .map_err(|error| lasting(cluster::creation_error(&error)))?;
        let topic = Topic::new(consumer, &self.settings.topic).map_err(lasting)?;
        Ok(Session { topic, partitions: BTreeMap::new() })
    }

    /// Brings every partition to the start of its range.
    fn position(
        &self,
        session: &mut Session,
        request: &Request,
        began: Instant,
    ) -> Result<(), Halt> {
        let news = request.ranges.keys().any(|id| !session.partitions.contains_key(id));
        if news {
            self.find_partitions(session, request, began)?;
        }
        for (id, range) in &request.ranges {
            session.position(*id, range.start)?;
        }
        Ok(())
    }

    /// Waits until the client knows all partitions: one that is new to it can't
    /// be fetched before.
    fn find_partitions(
        &self,
        session: &Session,
        request: &Request,
        began: Instant,
    ) -> Result<(), Halt> {
        let consumer = session.topic.consumer();
        loop {
            let deadline = Instant::now() + QUESTION;
            let failure = match cluster::partitions(consumer, &self.settings, deadline) {
                Ok(known) => match request.ranges.keys().find(|id| !known.contains(id)) {
                    None => return Ok(()),
                    Some(id) => Failure::passing(format!(
                        "topic '{}' has no partition {id}",
                        self.settings.topic
                    )),
                },
                Err(failure) => failure,
            };
            cluster::serve(consumer);
            if request.out.is_closed() {
                return Err(Halt::Cancelled);
            }
            // The topic was seen when the ranges were planned: its absence may pass.
            if began.elapsed() >= self.patience {
                return Err(Failure { retryable: true, ..failure }.into());
            }
            consumer.poll(Duration::from_millis(100));
        }
    }

    /// Takes records from all queues until every range is done.
    fn drain(&self, session: &mut Session, request: &Request) -> Result<(), Halt> {
        let topic: Arc<str> = Arc::from(self.settings.topic.as_str());
        let mut open: Vec<Reading> = request
            .ranges
            .iter()
            .map(|(id, range)| Reading::new(&topic, *id, *range, self.collect))
            .collect();
        let (mut moved_at, mut wait, mut turn) = (Instant::now(), SHORTEST_WAIT_MS, 0);
        while !open.is_empty() {
            let mut moved = false;
            for reading in &mut open {
                moved |= session.advance(reading, 0, &request.out)?;
            }
            open.retain(|reading| !reading.done);
            if moved {
                (moved_at, wait) = (Instant::now(), SHORTEST_WAIT_MS);
            } else if !open.is_empty() {
                cluster::serve(session.topic.consumer());
                self.check(session, request, &open, moved_at)?;
                turn = (turn + 1) % open.len();
                session.advance(&mut open[turn], wait, &request.out)?;
                wait = (wait * 2).min(LONGEST_WAIT_MS);
                open.retain(|reading| !reading.done);
            }
        }
        session.topic.consumer().client().context().forget();
        Ok(())
    }

    /// Whether to go on waiting.
    fn check(
        &self,
        session: &Session,
        request: &Request,
        open: &[Reading],
        moved_at: Instant,
    ) -> Result<(), Halt> {
        if request.out.is_closed() {
            return Err(Halt::Cancelled);
        }
        if moved_at.elapsed() < self.patience {
            return Ok(());
        }
        let partitions: Vec<String> =
            open.iter().map(|reading| reading.partition.to_string()).collect();
        let trouble = session.topic.consumer().client().context().trouble();
        let reason = trouble.map(|trouble| format!(": {}", trouble.reason)).unwrap_or_default();
        let failure = Failure::passing(format!(
            "no record from Kafka at {} for {} s (topic '{}', partition {}){reason}",
            self.settings.servers,
            self.patience.as_secs(),
            self.settings.topic,
            partitions.join(", "),
        ));
        Err(failure.into())
    }

    fn error(&self, session: Option<&Session>, halt: Halt) -> Error {
        match (halt, session) {
            (Halt::Failure(failure), _) => failure.into_error(&self.source),
            (Halt::OutOfRange(partition, wanted), Some(session)) => {
                self.out_of_range(session, partition, wanted)
            }
            _ => Error::internal("a Kafka reader stopped for no reason"),
        }
    }

    /// An offset that the broker does not have: expired, or past the end. The
    /// latter means that the log is not the one that was read before.
    fn out_of_range(&self, session: &Session, partition: PartitionId, wanted: i64) -> Error {
        let consumer = session.topic.consumer();
        match consumer.fetch_watermarks(&self.settings.topic, partition, QUESTION) {
            Ok((oldest, _)) if wanted < oldest => {
                Error::Expired { name: self.source.clone(), partition, wanted, oldest }
            }
            Ok((_, end)) if wanted > end => Failure::lasting(format!(
                "partition {partition} ends at offset {end}, but {wanted} was to be read: topic \
                 '{}' was truncated, or deleted and created again",
                self.settings.topic
            ))
            .into_error(&self.source),
            // It moved back into range, or there is no answer: try again.
            _ => {
                Failure::passing(format!("partition {partition}: offset {wanted} is out of range"))
                    .into_error(&self.source)
            }
        }
    }
}

/// One range while it is read.
struct Reading {
    partition: PartitionId,
    end: i64,
    raw: RawBuilder,
    done: bool,
}

impl Reading {
    fn new(topic: &Arc<str>, partition: PartitionId, range: OffsetRange, collect: Collect) -> Self {
        let rows = usize::try_from(range.len()).unwrap_or(usize::MAX);
        let raw = RawBuilder::new(Arc::clone(topic), partition, collect, rows);
        Self { partition, end: range.end, raw, done: false }
    }

    fn hand_on(&mut self, rest: i64, out: &Sender<Item>) -> Result<(), Halt> {
        let batch = self.raw.finish(usize::try_from(rest).unwrap_or(0));
        out.blocking_send(Item::Batch(Box::new(batch))).map_err(|_| Halt::Cancelled)
    }
}

impl Session {
    fn position(&mut self, id: PartitionId, start: i64) -> Result<(), Halt> {
        let passing = |what: &str, why: String| {
            Failure::passing(format!("partition {id} can't be {what} at offset {start}: {why}"))
        };
        match self.partitions.get_mut(&id) {
            Some(standing) if standing.next == Some(start) => standing.next = None,
            Some(standing) => {
                let timeout = i32::try_from(QUESTION.as_millis()).unwrap_or(i32::MAX);
                standing.queue.seek(start, timeout).map_err(|why| passing("sought", why))?;
                standing.next = None;
                standing.taken = start;
                standing.end_seen = -1;
            }
            None => {
                let queue = Partition::start(&self.topic, id, start)
                    .map_err(|why| passing("opened", why))?;
                let standing = Standing { queue, next: None, taken: start, end_seen: -1 };
                self.partitions.insert(id, standing);
            }
        }
        Ok(())
    }

    /// Takes what is there (or comes within `wait_ms`) of one range. Returns
    /// whether it got any further.
    fn advance(
        &mut self,
        reading: &mut Reading,
        wait_ms: i32,
        out: &Sender<Item>,
    ) -> Result<bool, Halt> {
        let Some(standing) = self.partitions.get_mut(&reading.partition) else {
            return Err(Failure::passing("a partition was lost").into());
        };
        let before = standing.taken;
        standing.fill(reading.end, wait_ms);
        while standing.take(reading)?.is_continue() {
            if reading.raw.is_full() {
                reading.hand_on(reading.end - standing.taken, out)?;
            }
        }
        if standing.taken >= reading.end {
            reading.done = true;
            standing.next = Some(reading.end);
            if !reading.raw.is_empty() {
                reading.hand_on(0, out)?;
            }
        }
        Ok(standing.taken > before)
    }
}

impl Standing {
    /// Takes messages from the queue if none are at hand. Never more than the
    /// range can hold, so that hardly any lie past its end.
    fn fill(&mut self, end: i64, wait_ms: i32) {
        if self.queue.front().is_some() || self.taken >= end {
            return;
        }
        let room = usize::try_from(end - self.taken).unwrap_or(BATCH).min(BATCH);
        // Waiting for one: with more, the wait would go on until all are there.
        let max = if wait_ms == 0 { room } else { 1 };
        if self.queue.fill(max, wait_ms) > 0 {
            return;
        }
        // Nothing but, perhaps, control records, which only move the position.
        // One past an end that was told is where librdkafka counts the event
        // itself: not to be believed.
        if let Some(position) = self.queue.position()
            && position > self.end_seen + 1
        {
            self.taken = self.taken.max(position);
        }
    }

    /// Uses the first message at hand; breaks where there is none for this range.
    fn take(&mut self, reading: &mut Reading) -> Result<ControlFlow<()>, Halt> {
        let Some(message) = self.queue.front() else {
            return Ok(ControlFlow::Break(()));
        };
        let offset = message.offset();
        if let Some(code) = message.code() {
            self.end_seen = self.end_seen.max(event(message, code, reading.partition)?);
            self.taken = self.taken.max(self.end_seen);
            self.queue.pop();
            return Ok(ControlFlow::Continue(()));
        }
        if offset >= reading.end {
            // Kept for the next range.
            self.taken = self.taken.max(offset);
            return Ok(ControlFlow::Break(()));
        }
        if offset >= self.taken {
            reading.raw.push(message);
            self.taken = offset + 1;
        }
        self.queue.pop();
        Ok(ControlFlow::Continue(()))
    }
}

/// The end of the partition that an event tells of; anything else it may tell
/// is a reason to stop.
fn event(message: Message<'_>, code: i32, partition: PartitionId) -> Result<i64, Halt> {
    let is = |known: Code| code == known as i32;
    if is(Code::PartitionEOF) {
        return Ok(message.offset());
    }
    if is(Code::AutoOffsetReset) {
        return Err(Halt::OutOfRange(partition, message.offset()));
    }
    let told = format!("partition {partition}, offset {}: {}", message.offset(), message.text());
    let lasting = is(Code::TopicAuthorizationFailed) || is(Code::LogTruncation);
    Err(if lasting { Failure::lasting(told) } else { Failure::passing(told) }.into())
}
