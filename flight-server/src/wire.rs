//! Results on the wire: plain types, one schema, small messages.
//!
//! Many clients know only the plain Arrow types. What leaves the server therefore never
//! holds views, large strings, dictionaries, run-end encoding or nanoseconds:
//! [`wire_schema`] says what a result becomes (FlightInfo, prepared statements and
//! GetTables all ask it), [`to_wire`] casts a batch to it, column by column.

mod messages;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::{FlightData, IpcMessage, SchemaAsIpc};
use bytes::Bytes;
use futures::Stream;
use tidemill_sql::session::{notice_of, noticed};
use tonic::Status;

use crate::error::Result;

pub(crate) use messages::{decode, encode};

/// What DoGet answers.
pub(crate) type FlightDataStream = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;

/// Bytes of data in one message. Clients take 4 MiB by default (gRPC), headers included.
const MAX_MESSAGE: usize = 2 << 20;

/// The field metadata from which tools show a column's type.
const TYPE_NAME: &str = "ARROW:FLIGHT:SQL:TYPE_NAME";

/// The schema under which a result with columns `schema` is sent.
pub(crate) fn wire_schema(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let wire = wire_type(field.data_type());
        let name = (TYPE_NAME.to_owned(), sql_type(&wire));
        let extension = |(key, _): &(&String, &String)| key.starts_with("ARROW:extension:");
        let kept = field.metadata().iter().filter(extension);
        let metadata: HashMap<String, String> =
            kept.map(|(key, value)| (key.clone(), value.clone())).chain([name]).collect();
        Field::new(field.name(), wire, field.is_nullable()).with_metadata(metadata)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The plain type that stands for `from`, itself where there is none.
fn wire_type(from: &DataType) -> DataType {
    let to = match from {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, value) => wire_type(value),
        DataType::RunEndEncoded(_, value) => wire_type(value.data_type()),
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        DataType::Time64(TimeUnit::Nanosecond) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Duration(TimeUnit::Nanosecond) => DataType::Duration(TimeUnit::Microsecond),
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => DataType::List(wire_item(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(wire_item(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(wire_item).collect()),
        DataType::Map(entries, sorted) => DataType::Map(wire_item(entries), *sorted),
        other => other.clone(),
    };
    if can_cast_types(from, &to) { to } else { from.clone() }
}

fn wire_item(field: &FieldRef) -> FieldRef {
    let wire = wire_type(field.data_type());
    Arc::new(Field::new(field.name(), wire, field.is_nullable()))
}

/// Casts the columns of a batch to those of its wire schema.
pub(crate) fn to_wire(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    // A value that does not fit is an error, never a silent NULL.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    if let Some(notice) = notice_of(batch) {
        return Ok(noticed(schema, notice));
    }
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        match column.data_type() == field.data_type() {
            true => Ok(column.clone()),
            false => cast_with_options(column, field.data_type(), &options),
        }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &rows)?)
}

/// Whether two schemas have the same columns, whatever else is said about them.
pub(crate) fn same_columns(left: &Schema, right: &Schema) -> bool {
    let column = |(left, right): (&FieldRef, &FieldRef)| {
        left.name() == right.name() && left.data_type() == right.data_type()
    };
    left.fields().len() == right.fields().len()
        && left.fields().iter().zip(right.fields()).all(column)
}

/// The name that SQL has for a type on the wire.
pub(crate) fn sql_type(of: &DataType) -> String {
    let name = match of {
        DataType::Null => "NULL",
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INTEGER UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float16 | DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            return format!("DECIMAL({precision},{scale})");
        }
        DataType::Utf8 => "VARCHAR",
        DataType::Binary | DataType::FixedSizeBinary(_) => "BYTEA",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL",
        DataType::List(item) | DataType::FixedSizeList(item, _) => {
            return format!("{}[]", sql_type(item.data_type()));
        }
        DataType::Struct(_) => "STRUCT",
        DataType::Map(_, _) => "MAP",
        other => return other.to_string(),
    };
    name.to_owned()
}

/// A schema as an encapsulated IPC message: how FlightInfo and its kin carry it.
pub(crate) fn schema_bytes(schema: &Schema) -> Result<Bytes> {
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into()?;
    Ok(bytes)
}

/// The batch in slices of at most [`MAX_MESSAGE`] bytes, or of one row.
fn chunks(batch: RecordBatch) -> Vec<RecordBatch> {
    let (mut chunks, mut rest) = (Vec::new(), vec![batch]);
    while let Some(batch) = rest.pop() {
        let half = batch.num_rows() / 2;
        let size = || batch.columns().iter().map(|column| data_size(column)).sum::<usize>();
        if half == 0 || size() <= MAX_MESSAGE {
            chunks.push(batch);
        } else {
            rest.push(batch.slice(half, batch.num_rows() - half));
            rest.push(batch.slice(0, half));
        }
    }
    chunks
}

/// Bytes that the rows of an array take when they are sent.
fn data_size(array: &dyn Array) -> usize {
    let flat = || array.to_data().get_slice_memory_size().unwrap_or_default();
    let offsets = |offsets: &[i32], values: &dyn Array| {
        let (first, last) = (offsets.first().copied(), offsets.last().copied());
        let first = usize::try_from(first.unwrap_or_default()).unwrap_or_default();
        let last = usize::try_from(last.unwrap_or_default()).unwrap_or_default();
        offsets.len() * 4 + data_size(&values.slice(first, last - first))
    };
    match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            offsets(list.value_offsets(), list.values())
        }
        DataType::Map(_, _) => {
            let map = array.as_map();
            offsets(map.value_offsets(), map.entries())
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(|c| data_size(c)).sum(),
        _ => flat(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        ArrayRef, DictionaryArray, Int64Array, LargeStringArray, ListArray, StringArray,
        StringViewArray, StructArray, TimestampNanosecondArray,
    };
    use arrow::datatypes::Int32Type;

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
            .unwrap()
    }

    #[test]
    fn everything_leaves_as_a_plain_type() {
        let tags: DictionaryArray<Int32Type> = [Some("x"), None].into_iter().collect();
        let inner: ArrayRef = Arc::new(StringViewArray::from(vec!["p", "q"]));
        let field = Arc::new(Field::new("s", DataType::Utf8View, true));
        let nested = StructArray::from(vec![(field, inner)]);
        let times = TimestampNanosecondArray::from(vec![Some(1_234_567), None]);
        let from = batch(vec![
            ("view", Arc::new(StringViewArray::from(vec![Some("a"), None]))),
            ("large", Arc::new(LargeStringArray::from(vec![Some("b"), None]))),
            ("tag", Arc::new(tags)),
            ("nested", Arc::new(nested)),
            ("at", Arc::new(times.with_timezone("UTC"))),
        ]);
        let schema = wire_schema(&from.schema());
        let sent = to_wire(&from, &schema).unwrap();
        let types: Vec<String> =
            schema.fields().iter().map(|f| f.data_type().to_string()).collect();
        assert_eq!(types[..3], ["Utf8", "Utf8", "Utf8"]);
        assert_eq!(types[4], "Timestamp(µs, \"UTC\")");
        assert_eq!(sent.column(2).as_string::<i32>(), &StringArray::from(vec![Some("x"), None]));
        assert_eq!(sent.column(3).as_struct().column(0).data_type(), &DataType::Utf8);
        assert_eq!(schema.field(4).metadata()[TYPE_NAME], "TIMESTAMP WITH TIME ZONE");
    }

    #[test]
    fn nullability_is_kept_and_foreign_metadata_is_not() {
        let noise = HashMap::from([("delta.id".to_owned(), "7".to_owned())]);
        let schema = Schema::new(vec![
            Field::new("a", DataType::Int64, false).with_metadata(noise),
            Field::new("b", DataType::Int64, true),
        ]);
        let wire = wire_schema(&schema);
        assert!(!wire.field(0).is_nullable() && wire.field(1).is_nullable());
        assert_eq!(wire.field(0).metadata().keys().collect::<Vec<_>>(), [TYPE_NAME]);
    }

    #[test]
    fn a_row_count_without_columns_survives() {
        let rows = RecordBatchOptions::new().with_row_count(Some(3));
        let empty = Arc::new(Schema::empty());
        let from = RecordBatch::try_new_with_options(empty.clone(), vec![], &rows).unwrap();
        assert_eq!(to_wire(&from, &wire_schema(&empty)).unwrap().num_rows(), 3);
    }

    #[test]
    fn large_batches_go_in_messages_below_the_limit() {
        let small = vec!["x"; 20_000];
        let large = "y".repeat(MAX_MESSAGE / 2);
        let texts: Vec<&str> = small.iter().copied().chain(vec![large.as_str(); 5]).collect();
        let rows = i64::try_from(texts.len()).unwrap();
        let whole = batch(vec![
            ("n", Arc::new(Int64Array::from_iter_values(0..rows))),
            ("t", Arc::new(StringArray::from(texts))),
        ]);
        let chunks = chunks(whole.clone());
        assert!(chunks.len() >= 3 && chunks.len() < 40, "{}", chunks.len());
        for chunk in &chunks {
            let size: usize = chunk.columns().iter().map(|c| data_size(c)).sum();
            assert!(size <= MAX_MESSAGE, "{size}");
        }
        assert_eq!(arrow::compute::concat_batches(&whole.schema(), &chunks).unwrap(), whole);
    }

    #[test]
    fn slices_of_lists_are_measured_by_their_own_rows() {
        let rows = (0..1000).map(|n| Some(vec![Some(n); 100]));
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(rows);
        let whole = data_size(&lists);
        let tenth = data_size(&lists.slice(500, 100));
        assert!(tenth < whole / 9 && tenth > whole / 12, "{tenth} of {whole}");
    }
}
