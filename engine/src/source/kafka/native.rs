//! The one place that talks to librdkafka past the safe wrapper: reading one
//! partition in batches, and the names of its properties.
//!
//! `BaseConsumer::poll` costs an event, an `Arc` and a queue lock a message;
//! `rd_kafka_consume_batch` hands over a thousand messages under one lock.
//! It belongs to librdkafka's consumer without groups, which is what a source
//! wants anyway: partitions and offsets are ours, no coordinator is asked, no
//! right on any group is needed. Each partition has a queue of its own, so a
//! partition whose range is read does not hold up the others, and what was
//! fetched past a range's end waits in its queue for the next range.
//!
//! Nothing here is `Send`: a topic, its partitions and their messages live and
//! die on the reader's thread.

use std::ffi::{CStr, CString, c_char, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use rdkafka::ClientConfig;
use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::context::{Context, describe};

/// A topic of a consumer that has no group.
pub(super) struct Topic {
    handle: NonNull<rd::rd_kafka_topic_t>,
    name: String,
    // Dropped after `Topic::drop` has let go of `handle`.
    consumer: BaseConsumer<Context>,
}

impl Topic {
    pub fn new(consumer: BaseConsumer<Context>, name: &str) -> Result<Rc<Self>, String> {
        let c_name = CString::new(name).map_err(|error| error.to_string())?;
        let client = consumer.client().native_ptr();
        // SAFETY: the client lives as long as `consumer`, which the new `Topic`
        // keeps; the name is copied; a null configuration means the client's.
        let handle = unsafe { rd::rd_kafka_topic_new(client, c_name.as_ptr(), ptr::null_mut()) };
        let handle = NonNull::new(handle).ok_or_else(last_error)?;
        Ok(Rc::new(Self { handle, name: name.to_string(), consumer }))
    }

    pub fn consumer(&self) -> &BaseConsumer<Context> {
        &self.consumer
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: every partition holds an `Rc` of this topic, so none is left;
        // the client is dropped only after this.
        unsafe { rd::rd_kafka_topic_destroy(self.handle.as_ptr()) }
    }
}

/// One partition being fetched, with the messages that were taken from its
/// queue and not used yet.
pub(super) struct Partition {
    topic: Rc<Topic>,
    id: i32,
    /// Owned messages, in order; those before `head` are destroyed.
    messages: Vec<*mut rd::rd_kafka_message_t>,
    head: usize,
}

impl Partition {
    /// Starts fetching at `offset`.
    pub fn start(topic: &Rc<Topic>, id: i32, offset: i64) -> Result<Self, String> {
        // SAFETY: the handle is valid as long as `topic`, which is kept.
        let code = unsafe { rd::rd_kafka_consume_start(topic.handle.as_ptr(), id, offset) };
        if code == -1 {
            return Err(last_error());
        }
        Ok(Self { topic: Rc::clone(topic), id, messages: Vec::new(), head: 0 })
    }

    /// Fetches from `offset` on; what was fetched before is thrown away.
    pub fn seek(&mut self, offset: i64, timeout_ms: i32) -> Result<(), String> {
        self.clear();
        // SAFETY: as in `start`.
        let code =
            unsafe { rd::rd_kafka_seek(self.topic.handle.as_ptr(), self.id, offset, timeout_ms) };
        match RDKafkaErrorCode::from(code) {
            RDKafkaErrorCode::NoError => Ok(()),
            error => Err(describe(error)),
        }
    }

    /// Takes up to `max` messages from the queue, waiting until there are that
    /// many or the time is over. Returns how many were taken.
    pub fn fill(&mut self, max: usize, timeout_ms: i32) -> usize {
        self.compact();
        self.messages.reserve(max);
        let used = self.messages.len();
        // SAFETY: the handle is valid as long as `topic`. The `max` slots behind
        // `used` were reserved; the call writes pointers to the first `taken`
        // of them, each to a message that is ours to destroy.
        unsafe {
            let free = self.messages.as_mut_ptr().add(used);
            let handle = self.topic.handle.as_ptr();
            let taken = rd::rd_kafka_consume_batch(handle, self.id, timeout_ms, free, max);
            let taken = usize::try_from(taken).unwrap_or(0).min(max);
            self.messages.set_len(used + taken);
            taken
        }
    }

    /// The first message that is not used yet.
    pub fn front(&self) -> Option<Message<'_>> {
        let message = self.messages.get(self.head)?;
        Some(Message { message: *message, partition: PhantomData })
    }

    /// Lets go of the first message.
    pub fn pop(&mut self) {
        if let Some(message) = self.messages.get(self.head) {
            // SAFETY: owned, and `head` moves past it, so it is destroyed once;
            // no `Message` borrows from `self` any more.
            unsafe { rd::rd_kafka_message_destroy(*message) };
            self.head += 1;
        }
    }

    /// The offset after the last thing taken from the queue, control records
    /// of transactions included, as librdkafka counts it. After an
    /// end-of-partition event at `n` it says `n + 1`, though nothing was read at `n`.
    pub fn position(&self) -> Option<i64> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&self.topic.name, self.id);
        let client = self.topic.consumer.client().native_ptr();
        // SAFETY: client and list are valid; the call only fills in the list.
        unsafe { rd::rd_kafka_position(client, list.ptr()) };
        match list.find_partition(&self.topic.name, self.id)?.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }

    fn clear(&mut self) {
        while self.head < self.messages.len() {
            self.pop();
        }
        self.compact();
    }

    fn compact(&mut self) {
        self.messages.drain(..self.head);
        self.head = 0;
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        self.clear();
        // SAFETY: as in `start`; waits only for librdkafka's own thread.
        unsafe { rd::rd_kafka_consume_stop(self.topic.handle.as_ptr(), self.id) };
    }
}

/// A message, or an event in its place, owned by its [`Partition`].
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    // Not a reference: `err` may hold a code that the Rust enum does not know.
    message: *mut rd::rd_kafka_message_t,
    partition: PhantomData<&'a Partition>,
}

impl<'a> Message<'a> {
    /// The code of an event; `None` for a record.
    pub fn code(&self) -> Option<i32> {
        // SAFETY: the message is alive as long as 'a; `err` is an `i32` in C, and
        // is read as one so that any code is allowed.
        let code = unsafe { (&raw const (*self.message).err).cast::<i32>().read() };
        (code != 0).then_some(code)
    }

    /// What an event says.
    pub fn text(&self) -> String {
        // SAFETY: the message is alive; the text is a C string that lives as
        // long as it, or static.
        unsafe {
            let text = rd::rd_kafka_message_errstr(self.message);
            if text.is_null() {
                return String::new();
            }
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    }

    pub fn offset(&self) -> i64 {
        // SAFETY: the message is alive.
        unsafe { (*self.message).offset }
    }

    /// Milliseconds since 1970.
    pub fn timestamp_ms(&self) -> Option<i64> {
        // SAFETY: the message is alive; the kind of timestamp is not asked for.
        let ms = unsafe { rd::rd_kafka_message_timestamp(self.message, ptr::null_mut()) };
        (ms >= 0).then_some(ms)
    }

    pub fn payload(&self) -> Option<&'a [u8]> {
        // SAFETY: the message is alive as long as 'a, and so are its bytes.
        unsafe { bytes((*self.message).payload, (*self.message).len) }
    }

    pub fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: the message is alive as long as 'a, and so are its bytes.
        unsafe { bytes((*self.message).key, (*self.message).key_len) }
    }

    /// Calls `each` with the name and the value of every header.
    pub fn headers(&self, mut each: impl FnMut(&str, Option<&'a [u8]>)) {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive; it keeps the headers.
        let code = unsafe { rd::rd_kafka_message_headers(self.message, &mut headers) };
        if RDKafkaErrorCode::from(code) != RDKafkaErrorCode::NoError || headers.is_null() {
            return;
        }
        for index in 0.. {
            let mut name: *const c_char = ptr::null();
            let mut value: *const c_void = ptr::null();
            let mut size = 0;
            // SAFETY: the headers live as long as the message; past the last
            // one the call answers with an error and writes nothing.
            let code = unsafe {
                rd::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size)
            };
            if RDKafkaErrorCode::from(code) != RDKafkaErrorCode::NoError {
                return;
            }
            // SAFETY: name is a C string and value holds `size` bytes, both as
            // long as the message.
            unsafe { each(&CStr::from_ptr(name).to_string_lossy(), bytes(value, size)) }
        }
    }
}

/// # Safety
/// Where `start` is not null, `len` bytes there must be readable as long as 'a.
unsafe fn bytes<'a>(start: *const c_void, len: usize) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { std::slice::from_raw_parts(start.cast(), len) })
}

/// Why the last call on this thread failed.
/// The names of librdkafka's properties, without those that have no value by default.
pub fn property_names() -> Vec<String> {
    let Ok(config) = ClientConfig::new().create_native_config() else { return Vec::new() };
    let mut count = 0;
    // SAFETY: the configuration outlives the call. What it answers are `count` C strings, every
    // other one a name, that are ours until they are freed, and copied before that.
    unsafe {
        let dumped = rd::rd_kafka_conf_dump(config.ptr(), &raw mut count);
        let names = (0..count).step_by(2).map(|at| CStr::from_ptr(*dumped.add(at)));
        let names = names.map(|name| name.to_string_lossy().into_owned()).collect();
        rd::rd_kafka_conf_dump_free(dumped, count);
        names
    }
}

fn last_error() -> String {
    // SAFETY: reads a thread-local.
    describe(RDKafkaErrorCode::from(unsafe { rd::rd_kafka_last_error() }))
}
