//! Bytes to Arrow: raw records of one partition become the projected columns.
//!
//! Decoding is per batch. A record that can't be decoded costs only itself: it
//! comes back as [`Rejected`], with the column and the reason named. Whether a
//! record is good depends on nothing but the record, the schema and the projection:
//! not on its neighbours, nor on how a range was cut into batches.
//!
//! [`scan`] (JSON) and [`csv`] find out where the values of a record lie,
//! [`value`] and its kin ([`number`], [`text`], [`time`], [`nested`]) make columns of
//! them, [`metadata`] fills the columns that are not in the payload. A record without
//! payload is [`tombstone`]'s.

pub mod csv;
pub mod json;
mod metadata;
mod nested;
mod number;
mod payload;
mod raw;
mod scan;
mod text;
mod time;
mod tombstone;
mod value;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::FilterBuilder;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use bytes::Bytes;

use crate::decode::metadata::Metadata;
pub(crate) use crate::decode::metadata::as_instants;
pub use crate::decode::metadata::check_metadata;
pub(crate) use crate::decode::scan::key_order;
pub(crate) use crate::decode::time::parse_timestamp_us;
pub(crate) use crate::decode::tombstone::TOMBSTONE;
use crate::decode::tombstone::WithTombstones;
pub use crate::decode::tombstone::{marks_tombstones, tombstone_field};
pub(crate) use crate::decode::value::{Excluded, cut, type_name};
use crate::epoch::PartitionId;
use crate::error::{Error, Result};
use crate::source::{Chunk, METADATA_KEY, Origin, Rejected};

/// How payloads are encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a record.
    Json { timestamp_unit: TimestampUnit },
    /// One line a record, in files; with `multiline` line breaks in quoted fields don't end
    /// it. `header` says that a file's first line names the columns.
    Csv { delimiter: u8, header: bool, multiline: bool, timestamp_unit: TimestampUnit },
    /// The payload as it is, for a single BYTEA or VARCHAR column.
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

impl Format {
    /// Reads `format` (`json` by default, `csv`, `raw`), `json.timestamp_unit` (`s`, `ms`, `us`,
    /// `ns`; default `ms`), and for CSV `csv.delimiter` (one character, default `,`),
    /// `csv.header` (default `true`) and `csv.multiline` (default `false`).
    pub fn from_options(options: &BTreeMap<String, String>) -> Result<Self> {
        let timestamp_unit = match options.get("json.timestamp_unit").map(String::as_str) {
            None | Some("ms") => TimestampUnit::Millisecond,
            Some("s") => TimestampUnit::Second,
            Some("us") => TimestampUnit::Microsecond,
            Some("ns") => TimestampUnit::Nanosecond,
            Some(other) => {
                return Err(bad_option("json.timestamp_unit", other, "'s', 'ms', 'us' or 'ns'"));
            }
        };
        match options.get("format").map(String::as_str) {
            None | Some("json") => Ok(Format::Json { timestamp_unit }),
            Some("csv") => Ok(Format::Csv {
                delimiter: delimiter(options.get("csv.delimiter").map_or(",", String::as_str))?,
                header: flag(options, "csv.header", true)?,
                multiline: flag(options, "csv.multiline", false)?,
                timestamp_unit,
            }),
            Some("raw") => Ok(Format::Raw),
            Some(other) => Err(bad_option("format", other, "'json', 'csv' or 'raw'")),
        }
    }
}

fn delimiter(text: &str) -> Result<u8> {
    match text.as_bytes() {
        [byte] if !matches!(byte, b'"' | b'\n' | b'\r') && byte.is_ascii() => Ok(*byte),
        _ if text == "\\t" => Ok(b'\t'),
        _ => Err(bad_option("csv.delimiter", text, "one ASCII character; a tab is '\\t'")),
    }
}

/// A `true` or `false` of the options.
pub(crate) fn flag(options: &BTreeMap<String, String>, name: &str, default: bool) -> Result<bool> {
    match options.get(name).map(String::as_str) {
        None => Ok(default),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => Err(bad_option(name, other, "'true' or 'false'")),
    }
}

/// An option has a value that it can't have.
pub(crate) fn bad_option(name: &str, value: &str, wanted: &str) -> Error {
    Error::invalid_hint(format!("option {name} can't be '{value}'"), format!("use {wanted}"))
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
    /// `List<Struct<key: Utf8, value: Binary>>`, see [`header_fields`].
    pub headers: Option<ArrayRef>,
}

impl RawBatch {
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The fields of one record header.
pub fn header_fields() -> Fields {
    Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Binary, true),
    ])
}

/// Decodes raw records to `projection` of a source's schema.
pub trait Decoder: Send {
    /// Rows that decode, in order, and the records that don't. Tombstones (NULL payloads)
    /// are left to [`tombstone`].
    fn decode(&mut self, raw: RawBatch) -> Result<(Chunk, Vec<Rejected>)>;
}

/// A decoder for `projection` (indices into `schema`, which holds payload and
/// metadata columns as [`crate::source::Source::schema`] describes).
pub fn decoder(
    format: &Format,
    schema: &SchemaRef,
    projection: &[usize],
) -> Result<Box<dyn Decoder>> {
    let (rows, unit): (Box<dyn Decoder>, _) = match format {
        Format::Json { timestamp_unit } => (
            Box::new(json::JsonDecoder::new(schema, projection, *timestamp_unit)?),
            *timestamp_unit,
        ),
        Format::Csv { delimiter, timestamp_unit, .. } => {
            let csv = csv::CsvDecoder::new(schema, projection, *delimiter, None, *timestamp_unit)?;
            (Box::new(csv), *timestamp_unit)
        }
        Format::Raw => {
            (Box::new(raw::RawDecoder::new(schema, projection)?), TimestampUnit::default())
        }
    };
    Ok(Box::new(WithTombstones::new(rows, schema, projection, unit)?))
}

/// Whether a field is filled from the payload and not a metadata column.
pub(crate) fn is_payload(field: &Field) -> bool {
    !field.metadata().contains_key(METADATA_KEY)
}

/// `payload`'s columns, then the metadata columns among those that were `declared`: for a source
/// whose payload columns are told by itself and not by its declaration.
pub fn with_metadata(payload: &SchemaRef, declared: &SchemaRef) -> SchemaRef {
    let metadata = declared.fields().iter().filter(|field| !is_payload(field));
    let fields: Vec<FieldRef> = payload.fields().iter().chain(metadata).cloned().collect();
    Arc::new(Schema::new(fields))
}

/// Where each projected column comes from.
#[derive(Debug)]
pub(crate) struct Layout {
    schema: SchemaRef,
    slots: Vec<Slot>,
}

#[derive(Debug)]
enum Slot {
    /// The n-th projected payload column.
    Payload(usize),
    Metadata(Metadata),
}

impl Layout {
    pub fn new(schema: &SchemaRef, projection: &[usize]) -> Result<Self> {
        let schema = Arc::new(schema.project(projection)?);
        let (mut slots, mut payload) = (Vec::new(), 0);
        for field in schema.fields() {
            slots.push(match field.metadata().get(METADATA_KEY) {
                Some(kind) => Slot::Metadata(Metadata::new(kind, field)?),
                None => {
                    payload += 1;
                    Slot::Payload(payload - 1)
                }
            });
        }
        Ok(Self { schema, slots })
    }

    /// The projected columns of the payload, in order.
    pub fn payload_fields(&self) -> impl Iterator<Item = &FieldRef> {
        self.schema.fields().iter().filter(|field| is_payload(field))
    }

    /// Payload and metadata columns over all records, in projected order.
    fn columns(
        &self,
        raw: &RawBatch,
        payload: &[ArrayRef],
        excluded: &mut Excluded,
    ) -> Result<Vec<ArrayRef>> {
        let column = |(slot, field): (&Slot, &FieldRef)| match slot {
            Slot::Payload(nth) => payload.get(*nth).cloned().ok_or_else(missing_column),
            Slot::Metadata(metadata) => metadata.array(field, raw, excluded),
        };
        self.slots.iter().zip(self.schema.fields()).map(column).collect()
    }

    /// The projected columns of records that need no decoding: `raw` has no payloads.
    pub fn batch(&self, raw: &RawBatch, payload: &[ArrayRef]) -> Result<RecordBatch> {
        let columns = self.columns(raw, payload, &mut Excluded::default())?;
        let options = RecordBatchOptions::new().with_row_count(Some(raw.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    /// Puts the chunk together: `payload` holds the payload columns over all records,
    /// the excluded rows are taken out of everything.
    pub fn assemble(
        &self,
        raw: RawBatch,
        payload: &[ArrayRef],
        mut excluded: Excluded,
    ) -> Result<(Chunk, Vec<Rejected>)> {
        let mut columns = self.columns(&raw, payload, &mut excluded)?;
        let rows = raw.len() - excluded.rows.len();
        let rejected = rejected(&raw, &excluded);
        let mut origin = Origin {
            offsets: raw.offsets,
            timestamps: raw.timestamps,
            payloads: Some(raw.payloads),
        };
        if !excluded.rows.is_empty() {
            (columns, origin) = without(&excluded, columns, &origin)?;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(&self.schema);
        let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
        Ok((Chunk { batch, partition: raw.partition, origin }, rejected))
    }
}

fn missing_column() -> Error {
    Error::internal("a projected column was not decoded")
}

/// Columns and origin without the excluded rows.
fn without(
    excluded: &Excluded,
    columns: Vec<ArrayRef>,
    origin: &Origin,
) -> Result<(Vec<ArrayRef>, Origin)> {
    let mut keep = vec![true; origin.offsets.len()];
    for row in excluded.rows.keys() {
        keep[*row] = false;
    }
    let keep = BooleanArray::new(BooleanBuffer::from(keep), None);
    let filter = FilterBuilder::new(&keep).optimize().build();
    let columns = columns.iter().map(|column| filter.filter(column)).collect::<Result<_, _>>()?;
    let origin = origin.filter(&keep)?;
    Ok((columns, origin))
}

fn rejected(raw: &RawBatch, excluded: &Excluded) -> Vec<Rejected> {
    let record = |(row, reason): (&usize, &Option<String>)| {
        let valid = |array: &&Int64Array| array.is_valid(*row);
        Some(Rejected {
            partition: raw.partition,
            offset: raw.offsets.value(*row),
            timestamp_ms: raw.timestamps.as_ref().filter(valid).map(|times| times.value(*row)),
            payload: raw
                .payloads
                .is_valid(*row)
                .then(|| Bytes::copy_from_slice(raw.payloads.value(*row))),
            error: reason.clone()?,
        })
    };
    excluded.rows.iter().filter_map(record).collect()
}
