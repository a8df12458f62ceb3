//! Columns that are not in the payload: where a record came from, when, under which key.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int32Array, MapArray, StringArray,
    StructArray, TimestampMillisecondArray,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowTimestampType, DataType, Field, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};

use crate::decode::RawBatch;
use crate::decode::tombstone::TOMBSTONE;
use crate::decode::value::{Excluded, type_name};
use crate::error::{Error, Result};

/// Checks that `field` can hold the metadata `kind` (`offset`, `headers`, …).
///
/// # Errors
/// An unknown kind, or a type that it can't have, with one that it can have as the hint.
pub fn check_metadata(kind: &str, field: &Field) -> Result<()> {
    Metadata::new(kind, field).map(drop)
}

/// Which metadata a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metadata {
    /// `topic` or `file`.
    Origin,
    Partition,
    Offset,
    Timestamp,
    Key,
    Headers,
    /// Whether the record has no payload.
    Tombstone,
}

impl Metadata {
    /// What `field`, marked as `kind`, holds.
    ///
    /// # Errors
    /// An unknown kind, or a type that it can't have.
    pub fn new(kind: &str, field: &Field) -> Result<Self> {
        use DataType::*;
        let (metadata, fits, wanted) = match (kind, field.data_type()) {
            ("topic" | "file", of) => (Self::Origin, matches!(of, Utf8 | LargeUtf8), "VARCHAR"),
            ("partition", of) => (Self::Partition, matches!(of, Int32 | Int64), "INT or BIGINT"),
            ("offset", of) => (Self::Offset, matches!(of, Int64), "BIGINT"),
            ("timestamp", of) => {
                (Self::Timestamp, matches!(of, Timestamp(_, _) | Int64), "TIMESTAMP or BIGINT")
            }
            ("key", of) => {
                let fits = matches!(of, Binary | LargeBinary | Utf8 | LargeUtf8);
                (Self::Key, fits, "VARCHAR or BYTEA")
            }
            ("headers", of) => {
                (Self::Headers, holds_headers(of), "STRUCT<\"key\" VARCHAR, value BYTEA>[]")
            }
            (TOMBSTONE, of) => (Self::Tombstone, matches!(of, Boolean), "BOOLEAN"),
            _ => {
                return Err(Error::invalid_hint(
                    format!("column \"{}\": there is no metadata \"{kind}\"", field.name()),
                    "metadata are topic, partition, offset, timestamp, key, headers and file",
                ));
            }
        };
        if fits {
            return Ok(metadata);
        }
        let (name, of) = (field.name(), type_name(field.data_type()));
        Err(Error::invalid_hint(
            format!("metadata column \"{name}\" ({kind}) can't be {of}"),
            format!("declare it {wanted}"),
        ))
    }

    /// The column over all records. Where it is NOT NULL and there is nothing, the row is excluded.
    pub fn array(self, field: &Field, raw: &RawBatch, excluded: &mut Excluded) -> Result<ArrayRef> {
        let rows = raw.len();
        let array: ArrayRef = match self {
            Self::Origin => Arc::new(StringArray::new_repeated(&*raw.origin, rows)),
            Self::Partition => Arc::new(Int32Array::from_value(raw.partition, rows)),
            Self::Offset => Arc::new(raw.offsets.clone()),
            Self::Timestamp => timestamps(field.data_type(), raw)?,
            Self::Key => keys(field, raw, excluded)?,
            Self::Headers => headers(field.data_type(), raw)?,
            Self::Tombstone => {
                let has_payload = raw.payloads.nulls().map(|nulls| nulls.inner().clone());
                let has_payload = has_payload.unwrap_or_else(|| BooleanBuffer::new_set(rows));
                Arc::new(BooleanArray::new(!&has_payload, None))
            }
        };
        let array = match array.data_type() == field.data_type() {
            true => array,
            false => cast(&array, field.data_type())?,
        };
        if !field.is_nullable() && array.null_count() > 0 {
            for row in (0..rows).filter(|row| array.is_null(*row)) {
                excluded.reject(row, || {
                    format!("column \"{}\" is NOT NULL and the record has none", field.name())
                });
            }
        }
        Ok(array)
    }
}

/// Whether a list or a map of that type has entries of a text and bytes.
fn holds_headers(of: &DataType) -> bool {
    let (DataType::List(entry) | DataType::Map(entry, false)) = of else { return false };
    let DataType::Struct(fields) = entry.data_type() else { return false };
    let types: Vec<&DataType> = fields.iter().map(|field| field.data_type()).collect();
    let named = matches!(of, DataType::Map(..))
        || fields.iter().map(|field| field.name().as_str()).eq(["key", "value"]);
    named && matches!(types[..], [DataType::Utf8, DataType::Binary])
}

/// Record timestamps in the column's unit; as BIGINT they are milliseconds.
fn timestamps(wanted: &DataType, raw: &RawBatch) -> Result<ArrayRef> {
    let Some(millis) = &raw.timestamps else {
        return Ok(arrow::array::new_null_array(wanted, raw.len()));
    };
    if !matches!(wanted, DataType::Timestamp(_, _)) {
        return Ok(Arc::new(millis.clone()));
    }
    let millis = TimestampMillisecondArray::new(millis.values().clone(), millis.nulls().cloned());
    as_instants(&(Arc::new(millis) as ArrayRef), wanted)
}

/// Timestamps without zone as `wanted`, another timestamp type. They count as UTC: with
/// a zone they stay the instants that they are, where a cast would take them for local time.
pub(crate) fn as_instants(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
    let DataType::Timestamp(unit, zone) = wanted else { return Ok(cast(array, wanted)?) };
    let array = cast(array, &DataType::Timestamp(*unit, None))?;
    Ok(match (unit, zone) {
        (_, None) => array,
        (TimeUnit::Second, _) => relabel::<TimestampSecondType>(&array, wanted),
        (TimeUnit::Millisecond, _) => relabel::<TimestampMillisecondType>(&array, wanted),
        (TimeUnit::Microsecond, _) => relabel::<TimestampMicrosecondType>(&array, wanted),
        (TimeUnit::Nanosecond, _) => relabel::<TimestampNanosecondType>(&array, wanted),
    })
}

fn relabel<T: ArrowTimestampType>(array: &ArrayRef, wanted: &DataType) -> ArrayRef {
    Arc::new(array.as_primitive::<T>().clone().with_data_type(wanted.clone()))
}

fn keys(field: &Field, raw: &RawBatch, excluded: &mut Excluded) -> Result<ArrayRef> {
    let Some(keys) = &raw.keys else {
        return Ok(arrow::array::new_null_array(field.data_type(), raw.len()));
    };
    if matches!(field.data_type(), DataType::Binary | DataType::LargeBinary) {
        return Ok(Arc::new(keys.clone()));
    }
    if let Ok(texts) = StringArray::try_from_binary(keys.clone()) {
        return Ok(Arc::new(texts));
    }
    Ok(Arc::new(texts(field, keys, excluded)))
}

/// Keys of which some are no text.
fn texts(field: &Field, keys: &BinaryArray, excluded: &mut Excluded) -> StringArray {
    let text = |(row, key): (usize, Option<&[u8]>)| {
        let key = key?;
        let text = std::str::from_utf8(key);
        if text.is_err() {
            excluded
                .reject(row, || format!("column \"{}\": the key is not valid UTF-8", field.name()));
        }
        Some(text.unwrap_or_default().to_string())
    };
    keys.iter().enumerate().map(text).collect()
}

fn headers(wanted: &DataType, raw: &RawBatch) -> Result<ArrayRef> {
    let Some(headers) = &raw.headers else {
        return Ok(arrow::array::new_null_array(wanted, raw.len()));
    };
    let DataType::Map(entries, _) = wanted else { return Ok(Arc::clone(headers)) };
    let DataType::Struct(fields) = entries.data_type() else { return Ok(Arc::clone(headers)) };
    let list = headers.as_list::<i32>();
    let columns = list.values().as_struct().columns().iter();
    let columns = columns.zip(fields).map(|(column, field)| cast(column, field.data_type()));
    let entry = StructArray::try_new(fields.clone(), columns.collect::<Result<_, _>>()?, None)?;
    let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
    Ok(Arc::new(MapArray::try_new(Arc::clone(entries), offsets, entry, nulls, false)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Format, decoder, header_fields};
    use crate::source::METADATA_KEY;
    use arrow::array::{BinaryArray, Int64Array, ListArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{Int32Type, Int64Type, Schema};
    use std::collections::HashMap;

    fn column(name: &str, kind: &str, data_type: DataType, nullable: bool) -> Field {
        Field::new(name, data_type, nullable)
            .with_metadata(HashMap::from([(METADATA_KEY.to_string(), kind.to_string())]))
    }

    fn map_type() -> DataType {
        let entries = Field::new("entries", DataType::Struct(header_fields()), false);
        DataType::Map(Arc::new(entries), false)
    }

    fn raw(keys: Vec<Option<&[u8]>>) -> RawBatch {
        let rows = keys.len();
        let entry = StructArray::new(
            header_fields(),
            vec![
                Arc::new(StringArray::new_repeated("h", rows)),
                Arc::new(BinaryArray::new_repeated(b"v", rows)),
            ],
            None,
        );
        let item = Arc::new(Field::new("item", DataType::Struct(header_fields()), false));
        let lengths = OffsetBuffer::from_lengths(vec![1; rows]);
        RawBatch {
            origin: "orders".into(),
            partition: 3,
            offsets: Int64Array::from_iter_values(7..7 + rows as i64),
            timestamps: Some(Int64Array::from_iter_values((0..rows).map(|row| row as i64 + 1000))),
            payloads: BinaryArray::new_repeated(b"{}", rows),
            keys: Some(BinaryArray::from_opt_vec(keys)),
            headers: Some(Arc::new(ListArray::new(item, lengths, Arc::new(entry), None))),
        }
    }

    #[test]
    fn every_kind_is_filled() {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
        let schema = Arc::new(Schema::new(vec![
            column("t", "topic", DataType::Utf8, false),
            column("p", "partition", DataType::Int32, false),
            column("o", "offset", DataType::Int64, false),
            column("at", "timestamp", utc, false),
            column("ms", "timestamp", DataType::Int64, false),
            column("k", "key", DataType::Utf8, true),
            column("h", "headers", map_type(), true),
            column("wide", "partition", DataType::Int64, false),
        ]));
        let format = Format::Json { timestamp_unit: Default::default() };
        let mut decoder = decoder(&format, &schema, &[0, 1, 2, 3, 4, 5, 6, 7]).unwrap();
        let (chunk, rejected) = decoder.decode(raw(vec![Some(b"a"), None])).unwrap();
        assert!(rejected.is_empty());
        let batch = &chunk.batch;
        assert_eq!(batch.schema(), schema);
        assert_eq!(batch.column(0).as_string::<i32>().value(1), "orders");
        assert_eq!(batch.column(1).as_primitive::<Int32Type>().values(), &[3, 3]);
        assert_eq!(batch.column(2).as_primitive::<Int64Type>().values(), &[7, 8]);
        let at = batch.column(3).as_primitive::<TimestampMicrosecondType>();
        assert_eq!(at.values(), &[1_000_000, 1_001_000]);
        assert_eq!(batch.column(4).as_primitive::<Int64Type>().values(), &[1000, 1001]);
        let keys: Vec<_> = batch.column(5).as_string::<i32>().iter().collect();
        assert_eq!(keys, [Some("a"), None]);
        assert_eq!(batch.column(6).as_map().value_length(0), 1);
        assert_eq!(batch.column(7).as_primitive::<Int64Type>().values(), &[3, 3]);
    }

    #[test]
    fn a_key_that_is_no_text_or_not_there_is_rejected() {
        let schema = Arc::new(Schema::new(vec![column("k", "key", DataType::Utf8, false)]));
        let format = Format::Json { timestamp_unit: Default::default() };
        let mut decoder = decoder(&format, &schema, &[0]).unwrap();
        let (chunk, rejected) = decoder.decode(raw(vec![Some(b"a"), None, Some(b"\xff")])).unwrap();
        assert_eq!(chunk.batch.column(0).as_string::<i32>().value(0), "a");
        assert_eq!(chunk.batch.num_rows(), 1);
        let offsets: Vec<i64> = rejected.iter().map(|record| record.offset).collect();
        assert_eq!(offsets, [8, 9]);
        assert!(rejected[1].error.contains("UTF-8"), "{}", rejected[1].error);
    }

    #[test]
    fn headers_are_texts_with_bytes() {
        let list = |fields| {
            let item = Field::new("item", DataType::Struct(fields), true);
            column("h", "headers", DataType::List(Arc::new(item)), true)
        };
        let renamed =
            [Field::new("k", DataType::Utf8, true), Field::new("v", DataType::Binary, true)];
        assert!(check_metadata("headers", &list(header_fields())).is_ok());
        assert!(check_metadata("headers", &column("h", "headers", map_type(), true)).is_ok());
        for wrong in
            [list(renamed.into_iter().collect()), column("h", "headers", DataType::Utf8, true)]
        {
            let error = check_metadata("headers", &wrong).unwrap_err();
            assert!(error.hint().unwrap().contains("STRUCT<\"key\" VARCHAR"), "{error}");
        }
    }

    #[test]
    fn wrong_types_and_kinds_are_refused() {
        let field = column("p", "partition", DataType::Utf8, true);
        let error = Metadata::new("partition", &field).unwrap_err();
        assert!(error.to_string().contains("can't be VARCHAR"), "{error}");
        assert!(Metadata::new("colour", &field).unwrap_err().hint().is_some());
    }
}
