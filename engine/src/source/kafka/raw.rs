//! Messages of one partition, collected into the columns of a [`RawBatch`].

use std::sync::Arc;

use arrow::array::builder::{
    BinaryBuilder, Int64Builder, ListBuilder, StringBuilder, StructBuilder,
};
use arrow::array::{Array, Int64Array};
use arrow::datatypes::SchemaRef;

use super::native::Message;
use crate::decode::{RawBatch, TOMBSTONE, header_fields};
use crate::source::METADATA_KEY;

/// Rows after which a batch is handed on to be decoded: what DataFusion works in.
const MAX_ROWS: usize = 8 * 1024;
/// Bytes of payload after which a batch is handed on.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// What is collected besides payload, offset and timestamp, which always are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Collect {
    pub keys: bool,
    pub headers: bool,
}

impl Collect {
    /// What `projection` of `schema` has metadata columns for. The key also tells what a
    /// tombstone deletes.
    pub fn new(schema: &SchemaRef, projection: &[usize]) -> Self {
        let wants = |what: &str| {
            projection.iter().filter_map(|column| schema.fields().get(*column)).any(|field| {
                field.metadata().get(METADATA_KEY).is_some_and(|kind| kind.as_str() == what)
            })
        };
        Self { keys: wants("key") || wants(TOMBSTONE), headers: wants("headers") }
    }
}

/// Grows one [`RawBatch`] after the other.
pub(super) struct RawBuilder {
    topic: Arc<str>,
    partition: i32,
    offsets: Vec<i64>,
    timestamps: Int64Builder,
    payloads: BinaryBuilder,
    keys: Option<BinaryBuilder>,
    headers: Option<ListBuilder<StructBuilder>>,
    bytes: usize,
}

impl RawBuilder {
    pub fn new(topic: Arc<str>, partition: i32, collect: Collect, rows: usize) -> Self {
        let rows = rows.min(MAX_ROWS);
        Self {
            topic,
            partition,
            offsets: Vec::with_capacity(rows),
            timestamps: Int64Builder::with_capacity(rows),
            payloads: BinaryBuilder::with_capacity(rows, 0),
            keys: collect.keys.then(BinaryBuilder::new),
            headers: collect.headers.then(headers_builder),
            bytes: 0,
        }
    }

    pub fn push(&mut self, message: Message<'_>) {
        let payload = message.payload();
        self.bytes += payload.map_or(0, <[u8]>::len);
        self.offsets.push(message.offset());
        self.timestamps.append_option(message.timestamp_ms());
        self.payloads.append_option(payload);
        if let Some(keys) = &mut self.keys {
            let key = message.key();
            self.bytes += key.map_or(0, <[u8]>::len);
            keys.append_option(key);
        }
        if let Some(headers) = &mut self.headers {
            push_headers(headers, message);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.offsets.len() >= MAX_ROWS || self.bytes >= MAX_BYTES
    }

    /// What was collected; the builder starts anew, with room for as much again
    /// if `rows` more are expected.
    pub fn finish(&mut self, rows: usize) -> RawBatch {
        let payloads = self.payloads.finish();
        let (len, bytes) = (self.offsets.len().max(1), payloads.value_data().len());
        let rows = rows.min(MAX_ROWS);
        self.payloads = BinaryBuilder::with_capacity(rows, bytes / len * rows);
        self.bytes = 0;
        let offsets = std::mem::replace(&mut self.offsets, Vec::with_capacity(rows));
        let timestamps = self.timestamps.finish();
        RawBatch {
            origin: Arc::clone(&self.topic),
            partition: self.partition,
            offsets: Int64Array::from(offsets),
            timestamps: (timestamps.null_count() < timestamps.len()).then_some(timestamps),
            payloads,
            keys: self.keys.as_mut().map(BinaryBuilder::finish),
            headers: self.headers.as_mut().map(|headers| Arc::new(headers.finish()) as _),
        }
    }
}

fn headers_builder() -> ListBuilder<StructBuilder> {
    ListBuilder::new(StructBuilder::from_fields(header_fields(), 0))
}

fn push_headers(list: &mut ListBuilder<StructBuilder>, message: Message<'_>) {
    let entries = list.values();
    message.headers(|name, value| {
        if let Some(keys) = entries.field_builder::<StringBuilder>(0) {
            keys.append_value(name);
        }
        if let Some(values) = entries.field_builder::<BinaryBuilder>(1) {
            values.append_option(value);
        }
        entries.append(true);
    });
    list.append(true);
}
