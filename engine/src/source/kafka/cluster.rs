//! What the brokers know about a topic: its partitions and how far they reach.
//!
//! One long-lived client a source. Asking for the ends of all partitions is one
//! request a broker, cheap enough for every few milliseconds; partitions and
//! oldest offsets move slowly and are asked for once a second. Everything here
//! blocks: callers bring a thread that may.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::context::{Context, describe, plain};
use super::settings::{self, Settings};
use crate::epoch::{OffsetRange, Offsets, PartitionId, Ranges};
use crate::error::Error;

/// How long a list of partitions and their oldest offsets is believed.
const REFRESH: Duration = Duration::from_secs(1);
/// A question is asked again after this long without an answer.
const SLICE: Duration = Duration::from_secs(2);
/// Pause before a question that failed is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// Why the brokers gave no answer.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub message: String,
    pub retryable: bool,
}

impl Failure {
    pub fn lasting(message: impl Into<String>) -> Self {
        Self { message: message.into(), retryable: false }
    }

    pub fn passing(message: impl Into<String>) -> Self {
        Self { message: message.into(), retryable: true }
    }

    pub fn into_error(self, source: &str) -> Error {
        Error::Source { name: source.to_string(), message: self.message, retryable: self.retryable }
    }
}

/// Asks the brokers about one topic.
pub(super) struct Cluster {
    source: String,
    settings: Arc<Settings>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    consumer: Option<BaseConsumer<Context>>,
    /// Whether the topic was ever seen: until then a refusal is the user's
    /// mistake, after that it may pass.
    established: bool,
    refreshed: Option<Instant>,
    oldest: Offsets,
    /// When the last question was asked, and its answer.
    answer: Option<(Instant, Result<Ranges, Failure>)>,
}

impl Cluster {
    pub fn new(source: &str, settings: Arc<Settings>) -> Self {
        Self { source: source.to_string(), settings, state: Mutex::default() }
    }

    /// Per partition the oldest offset and the one after the last that can be
    /// read. Callers that wait for each other share an answer, as long as its
    /// question was asked after `since`.
    pub fn available(&self, since: Instant) -> Result<Ranges, Failure> {
        let mut state = self.state.lock();
        if let Some((asked, answer)) = &state.answer
            && *asked >= since
        {
            return answer.clone();
        }
        let asked = Instant::now();
        let answer =
            self.insist(&mut state, |cluster, state, deadline| cluster.ranges(state, deadline));
        state.answer = Some((asked, answer.clone()));
        answer
    }

    /// Per partition the offset of the first record at or after a time in
    /// milliseconds; partitions without one are left out.
    pub fn offsets_at(&self, ms: i64, partitions: &[PartitionId]) -> Result<Offsets, Failure> {
        let mut state = self.state.lock();
        self.insist(&mut state, |cluster, state, deadline| {
            let consumer = cluster.consumer(state)?;
            cluster.offsets(consumer, partitions, Offset::Offset(ms), deadline)
        })
    }

    /// Asks until there is an answer, a refusal, or the time is over.
    fn insist<T>(
        &self,
        state: &mut State,
        ask: impl Fn(&Self, &mut State, Instant) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + self.settings.timeout();
        loop {
            let failure = match ask(self, state, deadline) {
                Ok(answer) => {
                    state.established = true;
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            let failure = match &state.consumer {
                Some(consumer) => explain(consumer, &self.settings, failure),
                None => failure,
            };
            if !failure.retryable || Instant::now() + AGAIN >= deadline {
                let retryable = failure.retryable || state.established;
                return Err(Failure { retryable, ..failure });
            }
            state.refreshed = None;
            if let Some(consumer) = &state.consumer {
                consumer.poll(AGAIN);
            }
        }
    }

    fn consumer<'a>(&self, state: &'a mut State) -> Result<&'a BaseConsumer<Context>, Failure> {
        if state.consumer.is_none() {
            let config = self.settings.client_config();
            let consumer = config
                .create_with_context(Context::new(&self.source))
                .map_err(|error: KafkaError| Failure::lasting(creation_error(&error)))?;
            state.consumer = Some(consumer);
        }
        state.consumer.as_ref().ok_or_else(|| Failure::lasting("no client"))
    }

    fn ranges(&self, state: &mut State, deadline: Instant) -> Result<Ranges, Failure> {
        if state.refreshed.is_none_or(|refreshed| refreshed.elapsed() >= REFRESH) {
            let consumer = self.consumer(state)?;
            let partitions = partitions(consumer, &self.settings, deadline)?;
            let oldest = self.offsets(consumer, &partitions, Offset::Beginning, deadline)?;
            (state.oldest, state.refreshed) = (oldest, Some(Instant::now()));
        }
        let partitions: Vec<PartitionId> = state.oldest.keys().copied().collect();
        let consumer = self.consumer(state)?;
        serve(consumer);
        let ends = self.offsets(consumer, &partitions, Offset::End, deadline)?;
        let range = |(partition, oldest): (&PartitionId, &i64)| {
            let end = ends.get(partition).copied()?;
            Some((*partition, OffsetRange::new((*oldest).min(end), end)))
        };
        Ok(state.oldest.iter().filter_map(range).collect())
    }

    /// Per partition the offset that `wanted` stands for: an end, or a time.
    ///
    /// librdkafka's "offsets for times" is one request a broker for all
    /// partitions, and an end is a special time in Kafka's protocol. Under
    /// `read_committed` the end is the last stable offset: what lies past it
    /// can't be read yet.
    fn offsets(
        &self,
        consumer: &BaseConsumer<Context>,
        partitions: &[PartitionId],
        wanted: Offset,
        deadline: Instant,
    ) -> Result<Offsets, Failure> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.settings.topic, *partition)
                .set_offset(wanted)
                .map_err(|error| Failure::lasting(plain(&error)))?;
        }
        let list = consumer
            .offsets_for_times(list, slice(deadline))
            .map_err(|error| unanswered(&self.settings, error.rdkafka_error_code()))?;
        consumer.client().context().forget();
        let mut offsets = Offsets::new();
        for element in list.elements() {
            element.error().map_err(|error| {
                let partition = element.partition();
                Failure::passing(format!("partition {partition}: {}", plain(&error)))
            })?;
            if let Offset::Offset(offset) = element.offset() {
                offsets.insert(element.partition(), offset);
            }
        }
        Ok(offsets)
    }
}

impl Drop for Cluster {
    /// Closing a client waits for its threads: not on the caller's.
    fn drop(&mut self) {
        if let Some(consumer) = self.state.get_mut().consumer.take() {
            std::thread::spawn(move || drop(consumer));
        }
    }
}

/// Writes librdkafka's log and takes note of its errors.
pub(super) fn serve(consumer: &BaseConsumer<Context>) {
    for _ in 0..16 {
        consumer.poll(Duration::ZERO);
    }
}

/// Adds what librdkafka has to say about a broker that gives no answer.
pub(super) fn explain(
    consumer: &BaseConsumer<Context>,
    settings: &Settings,
    failure: Failure,
) -> Failure {
    serve(consumer);
    match consumer.client().context().trouble() {
        Some(trouble) if failure.retryable && trouble.refused => {
            let (servers, reason) = (&settings.servers, trouble.reason);
            Failure::lasting(format!("Kafka at {servers} can't be entered: {reason}"))
        }
        Some(trouble) if failure.retryable => {
            Failure::passing(format!("{}: {}", failure.message, trouble.reason))
        }
        _ => failure,
    }
}

/// The partitions of the topic. One that nobody leads fails them all: its ends
/// are not known, and a query must not start without it.
pub(super) fn partitions(
    consumer: &BaseConsumer<Context>,
    settings: &Settings,
    deadline: Instant,
) -> Result<Vec<PartitionId>, Failure> {
    let metadata = consumer
        .fetch_metadata(Some(&settings.topic), slice(deadline))
        .map_err(|error| unanswered(settings, error.rdkafka_error_code()))?;
    consumer.client().context().forget();
    let topic = metadata
        .topics()
        .iter()
        .find(|topic| topic.name() == settings.topic)
        .ok_or_else(|| unanswered(settings, None))?;
    if let Some(code) = topic.error() {
        return Err(topic_error(settings, code.into()));
    }
    if topic.partitions().is_empty() {
        return Err(topic_error(settings, RDKafkaErrorCode::UnknownTopicOrPartition));
    }
    if let Some(partition) = topic.partitions().iter().find(|partition| partition.leader() < 0) {
        let (id, topic) = (partition.id(), &settings.topic);
        return Err(Failure::passing(format!("partition {id} of topic '{topic}' has no leader")));
    }
    Ok(topic.partitions().iter().map(|partition| partition.id()).collect())
}

/// What a broker that refuses a topic means.
pub(super) fn topic_error(settings: &Settings, code: RDKafkaErrorCode) -> Failure {
    use RDKafkaErrorCode as Code;
    let (topic, servers) = (&settings.topic, &settings.servers);
    match code {
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            Failure::lasting(format!("topic '{topic}' does not exist at {servers}"))
        }
        Code::TopicAuthorizationFailed => {
            Failure::lasting(format!("no right to read topic '{topic}' at {servers}"))
        }
        Code::InvalidTopic => {
            Failure::lasting(format!("'{topic}' is not a valid topic name to {servers}"))
        }
        other => Failure::passing(format!("topic '{topic}' at {servers}: {}", describe(other))),
    }
}

/// What is wrong with settings that only shows when a client is made (files of
/// certificates, combinations).
pub(super) fn creation_error(error: &KafkaError) -> String {
    let reason = match error {
        KafkaError::ClientCreation(reason) => reason.clone(),
        KafkaError::ClientConfig(_, _, key, _) if settings::sensitive(key) => {
            format!("property \"{key}\" has a value that librdkafka refuses")
        }
        KafkaError::ClientConfig(_, reason, ..) => reason.clone(),
        other => plain(other),
    };
    format!("the Kafka client can't be made: {reason}")
}

fn unanswered(settings: &Settings, code: Option<RDKafkaErrorCode>) -> Failure {
    let servers = &settings.servers;
    let seconds = settings.timeout().as_secs_f32();
    let reason = match code {
        Some(
            RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown,
        )
        | None => String::new(),
        Some(code) => format!(" ({})", describe(code)),
    };
    Failure::passing(format!("no answer from Kafka at {servers} within {seconds} s{reason}"))
}

fn slice(deadline: Instant) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now());
    left.clamp(Duration::from_millis(10), SLICE)
}
