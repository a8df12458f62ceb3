//! Where a reader stands in each partition, and how it goes through a range.
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
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::sync::mpsc::Sender;

use super::cluster::Failure;
use super::context::Context;
use super::fetch::Item;
use super::native::{Message, Partition, Topic};
use super::raw::{Collect, RawBuilder};
use crate::epoch::{OffsetRange, PartitionId};

/// Messages taken from a queue at a time.
const BATCH: usize = 2048;
/// For questions to the broker that are not worth a property of their own.
pub(super) const QUESTION: Duration = Duration::from_secs(5);

/// Why reading stops before the end.
pub(super) enum Halt {
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

/// The client, and where each partition stands. Stays on its thread.
pub(super) struct Session {
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

/// One range while it is read.
pub(super) struct Reading {
    pub partition: PartitionId,
    end: i64,
    raw: RawBuilder,
    pub done: bool,
}

impl Reading {
    pub fn new(
        topic: &Arc<str>,
        partition: PartitionId,
        range: OffsetRange,
        collect: Collect,
    ) -> Self {
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
    pub fn new(consumer: BaseConsumer<Context>, topic: &str) -> Result<Self, Failure> {
        let topic = Topic::new(consumer, topic).map_err(Failure::lasting)?;
        Ok(Self { topic, partitions: BTreeMap::new() })
    }

    pub fn consumer(&self) -> &BaseConsumer<Context> {
        self.topic.consumer()
    }

    pub fn knows(&self, id: PartitionId) -> bool {
        self.partitions.contains_key(&id)
    }

    /// Brings a partition to the start of a range.
    pub fn position(&mut self, id: PartitionId, start: i64) -> Result<(), Halt> {
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
    pub fn advance(
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
