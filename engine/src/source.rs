//! Where rows come from: the contract of a source, and what a read yields.
//!
//! A source is a set of partitions, each a log of records with growing
//! offsets. Reading the same range twice gives the same rows: everything the
//! engine promises after a crash rests on that.

pub mod delta;
pub mod files;
pub mod generator;
pub mod kafka;
mod left_out;
pub mod memory;
pub mod table;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, BinaryArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter;
use arrow::datatypes::{Int64Type, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::logical_expr::Expr;

pub use crate::source::left_out::LeftOut;

use crate::epoch::{Offsets, PartitionId, Ranges, clamp};
use crate::error::Result;

/// A named, partitioned log of records with a schema.
#[async_trait]
pub trait Source: Debug + Send + Sync {
    /// The name it was created with.
    fn name(&self) -> &str;

    /// `kafka`, `files`, `generator`, `memory`, `delta`.
    fn connector(&self) -> &'static str;

    /// What its records come from, for the dead letters: the topic, the path.
    fn origin(&self) -> &str {
        self.name()
    }

    /// All columns a query can ask for: those of the payload, then metadata
    /// columns (marked by [`METADATA_KEY`]) in declared order.
    fn schema(&self) -> SchemaRef;

    /// Whether it ends by itself. A bounded source's `available` never grows
    /// after its first answer.
    fn bounded(&self) -> bool;

    /// Per partition the oldest and the next offset that can be read now. New
    /// partitions appear here.
    async fn available(&self) -> Result<Ranges>;

    /// Where a new query starts, given what is available (`scan.startup.mode`).
    async fn start(&self, available: &Ranges) -> Result<Offsets>;

    /// Cuts `from..available` down to about `max_rows` rows. The default is for
    /// sources that count rows.
    async fn clamp(&self, from: &Offsets, available: &Ranges, max_rows: u64) -> Result<Ranges> {
        Ok(clamp(from, available, max_rows))
    }

    /// Opens a reader that yields `projection` (indices into [`Source::schema`],
    /// in that order). A reader is kept from epoch to epoch, so that a source
    /// can go on where it stopped without seeking.
    fn open(&self, projection: Vec<usize>) -> Result<Box<dyn Reader>>;
}

/// Reads ranges of one source for one query.
#[async_trait]
pub trait Reader: Send {
    /// Reads exactly these ranges. Rows are ordered by partition, then offset.
    ///
    /// # Errors
    /// Only when the ranges can't be read whole (an expired offset, a broker
    /// that stays away); a record that can't be decoded is no error, it is
    /// [`Rows::rejected`].
    async fn read(&mut self, ranges: &Ranges) -> Result<Rows>;
}

/// What a read yields.
#[derive(Debug, Default)]
pub struct Rows {
    pub chunks: Vec<Chunk>,
    /// Records that could not be decoded, with the reason.
    pub rejected: Vec<Rejected>,
    /// Bytes of payload read, for metrics and the adaptive budget.
    pub bytes: u64,
}

impl Rows {
    /// Decoded rows.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.batch.num_rows()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes what a decoder made of one batch of records.
    pub fn push(&mut self, (chunk, rejected): (Chunk, Vec<Rejected>)) {
        if chunk.batch.num_rows() > 0 {
            self.chunks.push(chunk);
        }
        self.rejected.extend(rejected);
    }
}

/// Decoded rows of one partition. Row `i` of `batch` was decoded from the
/// record at `offsets[i]`.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The projected columns.
    pub batch: RecordBatch,
    pub partition: PartitionId,
    pub origin: Origin,
}

/// Where the rows of a [`Chunk`] stand in their source, so that a row that
/// fails later on (a cast, say) can go to the dead letters as it was read.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Offset of each row.
    pub offsets: Int64Array,
    /// Record timestamp of each row, milliseconds since 1970 (where there is one).
    pub timestamps: Option<Int64Array>,
    /// Raw payload of each row; `None` where the source has no bytes (generator, Parquet).
    pub payloads: Option<BinaryArray>,
}

impl Chunk {
    /// Row `row` as it was read, with the reason why it is refused.
    pub fn reject(&self, row: usize, error: impl Into<String>) -> Rejected {
        Rejected {
            partition: self.partition,
            offset: self.origin.offsets.value(row),
            timestamp_ms: self.origin.timestamps.as_ref().map(|t| t.value(row)),
            payload: self
                .origin
                .payloads
                .as_ref()
                .filter(|payloads| payloads.is_valid(row))
                .map(|payloads| Bytes::copy_from_slice(payloads.value(row))),
            error: error.into(),
        }
    }

    /// The rows `start..start + len`, without copying.
    pub fn slice(&self, start: usize, len: usize) -> Chunk {
        Chunk {
            batch: self.batch.slice(start, len),
            partition: self.partition,
            origin: Origin {
                offsets: self.origin.offsets.slice(start, len),
                timestamps: self.origin.timestamps.as_ref().map(|t| t.slice(start, len)),
                payloads: self.origin.payloads.as_ref().map(|p| p.slice(start, len)),
            },
        }
    }
}

impl Origin {
    /// The origins of the rows that `keep` selects.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Origin> {
        let offsets = filter(&self.offsets, keep)?.as_primitive::<Int64Type>().clone();
        let timestamps = match &self.timestamps {
            Some(t) => Some(filter(t, keep)?.as_primitive::<Int64Type>().clone()),
            None => None,
        };
        let payloads = match &self.payloads {
            Some(p) => Some(filter(p, keep)?.as_binary::<i32>().clone()),
            None => None,
        };
        Ok(Origin { offsets, timestamps, payloads })
    }
}

/// A record that could not become a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub partition: PartitionId,
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// The record as it was read.
    pub payload: Option<Bytes>,
    /// What was wrong, with the column or the expression named.
    pub error: String,
}

/// What happens to records that can't be decoded or evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// The query fails, naming the record.
    Fail,
    /// Skipped and counted.
    Skip,
    /// Kept in the Delta table `<source>__dead_letters`.
    #[default]
    DeadLetter,
}

impl OnError {
    /// As the option spells it.
    pub fn word(self) -> &'static str {
        match self {
            OnError::Fail => "fail",
            OnError::Skip => "skip",
            OnError::DeadLetter => "dead_letter",
        }
    }
}

/// Field metadata key that marks a metadata column; its value names which:
/// `topic`, `partition`, `offset`, `timestamp`, `key`, `headers`, `file`.
pub const METADATA_KEY: &str = "tidemill.metadata";

/// A source as the catalog holds it.
#[derive(Debug, Clone)]
pub struct DeclaredSource {
    pub source: Arc<dyn Source>,
    pub on_error: OnError,
    /// Upper bound of rows an epoch takes from it, if one was declared.
    pub max_rows_per_epoch: Option<u64>,
    /// Columns of the primary key, which makes it an upsert source; none: rows append.
    pub primary_key: Vec<usize>,
    /// The column that says that a record deletes its key, if the source has tombstones.
    pub deletes: Option<usize>,
    pub watermark: Option<Arc<WatermarkSpec>>,
    /// Rows behind the watermark of a closed window are kept in a table beside the result.
    pub keeps_late: bool,
}

/// `WATERMARK FOR column AS value`.
#[derive(Debug, Clone)]
pub struct WatermarkSpec {
    /// The column that follows the watermark; for a computed one the column that it is
    /// computed from.
    pub column: usize,
    /// The watermark that a row stands for: a timestamp over the source's columns.
    pub value: Expr,
    /// The columns that `value` reads.
    pub columns: Vec<usize>,
    /// A partition that brings nothing for this long does not hold the watermark back.
    pub idle_timeout: Option<Duration>,
}
