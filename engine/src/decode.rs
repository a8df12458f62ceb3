//! Bytes to Arrow: raw records of one partition become the projected columns.
//!
//! Decoding is per batch. A record that can't be decoded costs only itself: it
//! comes back as [`Rejected`], with the column and the reason named.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array};
use arrow::datatypes::SchemaRef;

use crate::epoch::PartitionId;
use crate::error::Result;
use crate::source::{Chunk, Rejected};

/// How payloads are encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a record.
    Json { timestamp_unit: TimestampUnit },
    /// The payload as it is, for a single BINARY or VARCHAR column.
    Raw,
}

/// What a number means where a TIMESTAMP is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampUnit {
    Second,
    #[default]
    Millisecond,
    Microsecond,
    Nanosecond,
}

/// Records of one partition as they were read. All arrays have one entry a record.
#[derive(Debug, Clone)]
pub struct RawBatch {
    /// The topic, or the file.
    pub origin: Arc<str>,
    pub partition: PartitionId,
    pub offsets: Int64Array,
    /// Milliseconds since 1970.
    pub timestamps: Option<Int64Array>,
    /// NULL is a tombstone.
    pub payloads: BinaryArray,
    pub keys: Option<BinaryArray>,
    /// `List<Struct<key: Utf8, value: Binary>>`.
    pub headers: Option<ArrayRef>,
}

/// Decodes raw records to `projection` of a source's schema.
pub trait Decoder: Send {
    /// Rows that decode, in order, and the records that don't. A tombstone
    /// (NULL payload) is no row and no error for a source without a primary key.
    fn decode(&mut self, raw: RawBatch) -> Result<(Chunk, Vec<Rejected>)>;
}

/// A decoder for `projection` (indices into `schema`, which holds payload and
/// metadata columns as [`crate::source::Source::schema`] describes).
pub fn decoder(
    format: &Format,
    schema: &SchemaRef,
    projection: &[usize],
) -> Result<Box<dyn Decoder>> {
    let _ = (format, schema, projection);
    Err(crate::Error::internal("no decoder yet"))
}
