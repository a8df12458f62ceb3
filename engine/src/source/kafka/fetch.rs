//! The thread behind a reader: takes ranges, reads exactly their records.
//!
//! ```text
//!  librdkafka            this thread                       the reader
//!  queue of partition 0 ─┐
//!  queue of partition 1 ─┼─► one RawBuilder a partition ─► bounded channel ─► decode
//!  queue of partition 2 ─┘   full, or the range is done
//! ```

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use tokio::sync::mpsc::Sender;

use super::cluster::{self, Failure};
use super::context::Context;
use super::raw::Collect;
use super::session::{Halt, QUESTION, Reading, Session};
use super::settings::Settings;
use crate::decode::RawBatch;
use crate::epoch::{PartitionId, Ranges};
use crate::error::Error;

/// Wait for a record: short at first, as the rest of a small range is about to
/// come, longer when it does not.
const SHORTEST_WAIT_MS: i32 = 1;
const LONGEST_WAIT_MS: i32 = 20;
/// How often librdkafka's log is written while nothing is asked for.
const IDLE: Duration = Duration::from_secs(1);

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

/// Reads one topic for one reader.
pub(super) struct Fetcher {
    pub source: String,
    pub settings: Arc<Settings>,
    pub collect: Collect,
    /// How long to wait for a broker that sends nothing.
    pub patience: Duration,
}

impl Fetcher {
    /// Serves requests until the reader is gone.
    pub fn run(self, requests: &Receiver<Request>) {
        let mut session = None;
        loop {
            match requests.recv_timeout(IDLE) {
                Ok(request) => self.serve(&request, &mut session),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(session) = &session {
                        cluster::serve(Session::consumer(session));
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
        let consumer = self
            .settings
            .reader_config(partitions)
            .create_with_context(Context::new(&self.source))
            .map_err(|error| Failure::lasting(cluster::creation_error(&error)))?;
        Session::new(consumer, &self.settings.topic)
    }

    /// Brings every partition to the start of its range.
    fn position(
        &self,
        session: &mut Session,
        request: &Request,
        began: Instant,
    ) -> Result<(), Halt> {
        if request.ranges.keys().any(|id| !session.knows(*id)) {
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
        let consumer = session.consumer();
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
            let failure = cluster::explain(consumer, &self.settings, failure);
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
            if !moved && !open.is_empty() {
                cluster::serve(session.consumer());
                self.check(session, request, &open, moved_at)?;
                turn = (turn + 1) % open.len();
                moved = session.advance(&mut open[turn], wait, &request.out)?;
                wait = (wait * 2).min(LONGEST_WAIT_MS);
                open.retain(|reading| !reading.done);
            }
            if moved {
                (moved_at, wait) = (Instant::now(), SHORTEST_WAIT_MS);
            }
        }
        session.consumer().client().context().forget();
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
        let failure = Failure::passing(format!(
            "no record from Kafka at {} for {} s (topic '{}', partition {})",
            self.settings.servers,
            self.patience.as_secs(),
            self.settings.topic,
            partitions.join(", "),
        ));
        let failure = cluster::explain(session.consumer(), &self.settings, failure);
        Err(Failure { retryable: true, ..failure }.into())
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
        let consumer = session.consumer();
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
