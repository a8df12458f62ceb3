//! Tombstones: a record without payload says that the row of its key is gone.
//!
//! A source with a primary key has one more column, hidden, that says so
//! ([`tombstone_field`]). Such a row holds the key's columns, read from the record's key,
//! and metadata; everything else is NULL, or a zero where there may be no NULL: the row
//! deletes, nobody sees it. The key is written in either of two ways:
//!
//! - a JSON object that holds the columns of the key, other members ignored;
//! - for a key of one column its bare value: `42`, `a-17`, or quoted as in JSON, `"a-17"`.
//!
//! For a source without a primary key a tombstone is a record that can't be decoded.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int64Array, UInt32Array, new_null_array,
};
use arrow::compute::{interleave, interleave_record_batch, take};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, SchemaRef};
use datafusion::common::ScalarValue;

use crate::decode::payload::Text;
use crate::decode::scan::{Keys, Scanner};
use crate::decode::value::{Cells, Column, Excluded, Kind, Span, column, cut};
use crate::decode::{Decoder, Layout, RawBatch, TimestampUnit};
use crate::error::{Error, Result};
use crate::source::{Chunk, METADATA_KEY, Origin, Rejected};

/// The kind of the metadata column that marks tombstones.
pub(crate) const TOMBSTONE: &str = "tombstone";
/// Metadata of that column: the names of the key's columns, a JSON list.
const KEY_COLUMNS: &str = "tidemill.key";

/// The hidden column of a source whose key is `key`: true for a record that deletes.
pub fn tombstone_field(name: &str, key: &[String]) -> Field {
    let names = serde_json::Value::from(key.to_vec()).to_string();
    let metadata = [(METADATA_KEY.to_owned(), TOMBSTONE.to_owned()), (KEY_COLUMNS.into(), names)];
    Field::new(name, DataType::Boolean, false).with_metadata(HashMap::from(metadata))
}

/// Whether a column marks tombstones.
pub fn marks_tombstones(field: &Field) -> bool {
    field.metadata().get(METADATA_KEY).is_some_and(|kind| kind == TOMBSTONE)
}

/// A decoder that leaves tombstones to this module.
pub(crate) struct WithTombstones {
    rows: Box<dyn Decoder>,
    /// For a source with a primary key.
    deleting: Option<Deleting>,
}

impl WithTombstones {
    pub fn new(
        rows: Box<dyn Decoder>,
        schema: &SchemaRef,
        projection: &[usize],
        unit: TimestampUnit,
    ) -> Result<Self> {
        let projected = schema.project(projection)?;
        let mark = projected.fields().iter().find(|field| marks_tombstones(field));
        let deleting = match mark {
            Some(mark) => Some(Deleting::new(schema, projection, mark, unit)?),
            None => None,
        };
        Ok(Self { rows, deleting })
    }
}

impl Decoder for WithTombstones {
    fn decode(&mut self, raw: RawBatch) -> Result<(Chunk, Vec<Rejected>)> {
        if raw.payloads.null_count() == 0 {
            return self.rows.decode(raw);
        }
        let tombstones = without_payload(&raw)?;
        let (chunk, mut rejected) = self.rows.decode(raw)?;
        let chunk = match &mut self.deleting {
            None => {
                rejected.extend(refused(&tombstones));
                chunk
            }
            Some(deleting) => {
                let (deletes, bad) = deleting.decode(tombstones)?;
                rejected.extend(bad);
                merge(chunk, deletes)?
            }
        };
        rejected.sort_by_key(|rejected| rejected.offset);
        Ok((chunk, rejected))
    }
}

/// Reads the keys of tombstones.
struct Deleting {
    layout: Layout,
    /// Of the key's columns, in its order.
    columns: Vec<Box<dyn Column>>,
    /// Where the columns of the key stand among the projected payload columns.
    places: Vec<usize>,
    keys: Keys,
    names: String,
    spans: Vec<Span>,
}

impl Deleting {
    fn new(
        schema: &SchemaRef,
        projection: &[usize],
        mark: &Field,
        unit: TimestampUnit,
    ) -> Result<Self> {
        let names = mark.metadata().get(KEY_COLUMNS).map_or("[]", String::as_str);
        let names: Vec<String> = serde_json::from_str(names)
            .map_err(|error| Error::internal(format!("the names of a key: {error}")))?;
        let layout = Layout::new(schema, projection)?;
        let (mut columns, mut places) = (Vec::new(), Vec::new());
        for name in &names {
            let mut fields = layout.payload_fields().enumerate();
            let (place, field) = fields
                .find(|(_, field)| field.name() == name)
                .ok_or_else(|| Error::internal(format!("key column \"{name}\" is not read")))?;
            columns.push(column(name, field, unit)?);
            places.push(place);
        }
        let keys = Keys::new(names.iter().map(String::as_str));
        let names = names.join(", ");
        Ok(Self { layout, columns, places, keys, names, spans: Vec::new() })
    }

    /// `raw` holds nothing but tombstones.
    fn decode(&mut self, raw: RawBatch) -> Result<(Chunk, Vec<Rejected>)> {
        let rows = raw.len();
        let held = raw.keys.clone().unwrap_or_else(|| BinaryArray::new_null(rows));
        let mut excluded = Excluded::default();
        let text = Text::new(&held, &mut excluded)?;
        self.scan(&held, &text, &mut excluded);
        let fields = self.layout.payload_fields();
        let mut payload: Vec<ArrayRef> =
            fields.map(|field| nothing(field, rows)).collect::<Result<_>>()?;
        for (nth, (column, place)) in self.columns.iter_mut().zip(&self.places).enumerate() {
            let spans = &self.spans[nth * rows..(nth + 1) * rows];
            let cells = Cells { text: &text.text, spans, owners: None };
            payload[*place] = column.decode(cells, &mut excluded)?;
        }
        for reason in excluded.rows.values_mut().flatten() {
            *reason = format!("a tombstone (a record without payload): {reason}");
        }
        drop(text);
        self.layout.assemble(raw, &payload, excluded)
    }

    /// Fills the spans, key column by key column.
    fn scan(&mut self, held: &BinaryArray, text: &Text<'_>, excluded: &mut Excluded) {
        let rows = held.len();
        self.spans.clear();
        self.spans.resize(rows * self.columns.len(), Span::MISSING);
        for row in 0..rows {
            if held.is_null(row) {
                excluded.reject(row, || "its key is missing, so it deletes nothing".into());
            } else if !excluded.rows.contains_key(&row) {
                let record = text.record(row);
                match self.key(&text.text, record.clone(), row, rows) {
                    Ok(()) => continue,
                    Err(fault) => {
                        let key = text.text.get(record).unwrap_or_default();
                        excluded.reject(row, || format!("its key {fault}: {}", cut(key)));
                    }
                }
            }
            self.spans.iter_mut().skip(row).step_by(rows).for_each(|span| *span = Span::MASKED);
        }
    }

    /// Notes the spans of one key.
    fn key(
        &mut self,
        text: &str,
        at: std::ops::Range<usize>,
        row: usize,
        rows: usize,
    ) -> Result<(), String> {
        let Self { spans, keys, columns, names, .. } = self;
        let bytes = text.as_bytes().get(..at.end).unwrap_or_default();
        let key = text.get(at.clone()).unwrap_or_default();
        if key.trim_start().starts_with('{') {
            let set = |column: usize, span| spans[column * rows + row] = span;
            return Scanner::new(bytes, at.start).record(keys, set).map_err(|fault| {
                let at = fault.at.saturating_sub(at.start);
                format!("is no JSON object (expected {} at byte {at})", fault.expected)
            });
        }
        if columns.len() != 1 {
            return Err(format!("is no JSON object with {names}"));
        }
        let quoted = key.starts_with('"').then(|| Scanner::new(bytes, at.start).quoted().ok());
        let bare = Span { start: at.start as u32, end: at.end as u32, kind: Kind::Text };
        spans[row] = quoted.flatten().unwrap_or(bare);
        Ok(())
    }
}

/// What a column holds in a row that only deletes.
fn nothing(field: &FieldRef, rows: usize) -> Result<ArrayRef> {
    let ty = field.data_type();
    Ok(match field.is_nullable() {
        true => new_null_array(ty, rows),
        false => ScalarValue::new_default(ty)?.to_array_of_size(rows)?,
    })
}

/// The records of `raw` that have no payload.
fn without_payload(raw: &RawBatch) -> Result<RawBatch> {
    let rows = (0..raw.len() as u32).filter(|row| raw.payloads.is_null(*row as usize));
    let rows = UInt32Array::from_iter_values(rows);
    let int64 = |array: &Int64Array| -> Result<Int64Array> {
        Ok(take(array, &rows, None)?.as_primitive::<Int64Type>().clone())
    };
    let bytes = |array: &BinaryArray| -> Result<BinaryArray> {
        Ok(take(array, &rows, None)?.as_binary::<i32>().clone())
    };
    Ok(RawBatch {
        origin: Arc::clone(&raw.origin),
        partition: raw.partition,
        offsets: int64(&raw.offsets)?,
        timestamps: raw.timestamps.as_ref().map(int64).transpose()?,
        payloads: bytes(&raw.payloads)?,
        keys: raw.keys.as_ref().map(bytes).transpose()?,
        headers: raw.headers.as_ref().map(|headers| take(headers, &rows, None)).transpose()?,
    })
}

/// Tombstones of a source that has nothing to delete by them.
fn refused(raw: &RawBatch) -> impl Iterator<Item = Rejected> {
    let time = |row| {
        let times = raw.timestamps.as_ref().filter(|times| times.is_valid(row));
        times.map(|times| times.value(row))
    };
    (0..raw.len()).map(move |row| Rejected {
        partition: raw.partition,
        offset: raw.offsets.value(row),
        timestamp_ms: time(row),
        payload: None,
        error: "the record has no payload (a tombstone), and the source has no PRIMARY KEY by \
                which it could delete a row"
            .into(),
    })
}

/// The rows of both chunks of one partition in the order of their offsets.
fn merge(one: Chunk, other: Chunk) -> Result<Chunk> {
    if one.batch.num_rows() == 0 {
        return Ok(other);
    }
    if other.batch.num_rows() == 0 {
        return Ok(one);
    }
    let offsets = [one.origin.offsets.values(), other.origin.offsets.values()];
    let mut order = Vec::with_capacity(offsets[0].len() + offsets[1].len());
    let mut at = [0, 0];
    while at[0] < offsets[0].len() || at[1] < offsets[1].len() {
        let next = |side: usize| offsets[side].get(at[side]).copied().unwrap_or(i64::MAX);
        let side = usize::from(next(1) < next(0));
        order.push((side, at[side]));
        at[side] += 1;
    }
    let both = |one: &dyn Array, other: &dyn Array| interleave(&[one, other], &order);
    let timestamps = match (&one.origin.timestamps, &other.origin.timestamps) {
        (Some(a), Some(b)) => Some(both(a, b)?.as_primitive::<Int64Type>().clone()),
        _ => None,
    };
    let payloads = match (&one.origin.payloads, &other.origin.payloads) {
        (Some(a), Some(b)) => Some(both(a, b)?.as_binary::<i32>().clone()),
        _ => None,
    };
    let offsets = both(&one.origin.offsets, &other.origin.offsets)?;
    let offsets = offsets.as_primitive::<Int64Type>().clone();
    Ok(Chunk {
        batch: interleave_record_batch(&[&one.batch, &other.batch], &order)?,
        partition: one.partition,
        origin: Origin { offsets, timestamps, payloads },
    })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Schema, TimeUnit};

    use super::*;
    use crate::decode::{Format, decoder};

    /// Key and payload of each record.
    type Pairs<'a> = &'a [(Option<&'a [u8]>, Option<&'a str>)];

    fn raw(records: Pairs<'_>) -> RawBatch {
        let payloads = records.iter().map(|(_, payload)| payload.map(str::as_bytes));
        RawBatch {
            origin: "t".into(),
            partition: 3,
            offsets: Int64Array::from_iter_values((0..records.len() as i64).map(|i| i * 2)),
            timestamps: None,
            payloads: payloads.collect::<BinaryArray>(),
            keys: Some(records.iter().map(|(key, _)| *key).collect::<BinaryArray>()),
            headers: None,
        }
    }

    fn schema(key: &[&str]) -> SchemaRef {
        let key: Vec<String> = key.iter().map(|name| name.to_string()).collect();
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8, false),
            Field::new("at", time, false),
            Field::new("note", DataType::Utf8, true),
            tombstone_field("gone", &key),
        ]))
    }

    fn decode(format: Format, key: &[&str], records: Pairs<'_>) -> (Chunk, Vec<Rejected>) {
        let all = [3, 0, 4, 1, 2];
        decoder(&format, &schema(key), &all).unwrap().decode(raw(records)).unwrap()
    }

    fn json() -> Format {
        Format::Json { timestamp_unit: TimestampUnit::default() }
    }

    #[test]
    fn tombstones_stand_among_the_rows_in_their_order() {
        let row = "{\"id\": 1, \"name\": \"a\", \"at\": 1000, \"note\": \"x\"}";
        let (chunk, rejected) = decode(
            json(),
            &["id"],
            &[(None, Some(row)), (Some(b"7"), None), (None, Some(row)), (Some(b" -8 "), None)],
        );
        assert_eq!(rejected.len(), 1, "{rejected:?}");
        assert_eq!(chunk.origin.offsets.values(), &[0, 2, 4]);
        assert!(chunk.origin.payloads.as_ref().unwrap().is_null(1));
        datafusion::assert_batches_eq!(
            [
                "+------+----+-------+------+---------------------+",
                "| note | id | gone  | name | at                  |",
                "+------+----+-------+------+---------------------+",
                "| x    | 1  | false | a    | 1970-01-01T00:00:01 |",
                "|      | 7  | true  |      | 1970-01-01T00:00:00 |",
                "| x    | 1  | false | a    | 1970-01-01T00:00:01 |",
                "+------+----+-------+------+---------------------+",
            ],
            &[chunk.batch]
        );
    }

    #[test]
    fn a_key_is_a_bare_value_or_an_object() {
        let keys: [&[u8]; 5] =
            [b"a-1", b"\"a\\u002d1\"", b"{\"name\": \"a-1\", \"more\": [1]}", b"\"", b""];
        let records: Vec<_> = keys.iter().map(|key| (Some(*key), None)).collect();
        let (chunk, rejected) = decode(json(), &["name"], &records);
        assert!(rejected.is_empty(), "{rejected:?}");
        let names: Vec<_> = chunk.batch.column(3).as_string::<i32>().iter().flatten().collect();
        assert_eq!(names, ["a-1", "a-1", "a-1", "\"", ""]);
        let csv = Format::Csv {
            delimiter: b',',
            header: false,
            multiline: false,
            timestamp_unit: TimestampUnit::default(),
        };
        let key: &[u8] = b"{\"id\":1,\"name\":\"b\"}";
        let (chunk, rejected) = decode(csv, &["name", "id"], &[(Some(key), None)]);
        assert!(rejected.is_empty(), "{rejected:?}");
        assert_eq!(chunk.batch.column(3).as_string::<i32>().value(0), "b");
        assert_eq!(chunk.batch.column(1).as_primitive::<Int64Type>().value(0), 1);
    }

    #[test]
    fn keys_that_cannot_be_read_are_told() {
        let keys: [Option<&[u8]>; 5] =
            [None, Some(b"\xff"), Some(b"x"), Some(b"{\"id\": 1"), Some(b"{\"di\": 1}")];
        let records: Vec<_> = keys.iter().map(|key| (*key, None)).collect();
        let (chunk, rejected) = decode(json(), &["id"], &records);
        assert_eq!(chunk.batch.num_rows(), 0);
        let errors: Vec<&str> = rejected.iter().map(|record| record.error.as_str()).collect();
        let wanted = [
            "key is missing",
            "not valid UTF-8",
            "\"x\" is not a valid BIGINT",
            "no JSON object",
            "is NOT NULL and missing",
        ];
        for (error, wanted) in errors.iter().zip(wanted) {
            assert!(error.starts_with("a tombstone") && error.contains(wanted), "{error}");
        }
        assert_eq!(errors.len(), wanted.len());
        let (_, rejected) = decode(json(), &["id", "name"], &[(Some(b"1"), None)]);
        assert!(rejected[0].error.contains("no JSON object with id, name: 1"), "{rejected:?}");
    }

    #[test]
    fn without_a_primary_key_a_tombstone_is_broken() {
        let mut decoder = decoder(&json(), &schema(&["id"]), &[3]).unwrap();
        let (chunk, rejected) = decoder.decode(raw(&[(Some(b"1"), None)])).unwrap();
        assert_eq!((chunk.batch.num_rows(), rejected.len()), (0, 1));
        assert!(rejected[0].error.contains("PRIMARY KEY"), "{rejected:?}");
    }
}
