//! Arrow types as a Delta table can hold them, and the casts that get rows there.
//!
//! | what a query yields | what the table holds |
//! |---|---|
//! | UInt8, UInt16, UInt32 | the next wider signed integer |
//! | UInt64 | DECIMAL(20, 0) |
//! | Float16 | REAL |
//! | string and binary views, large strings, fixed-size binary, dictionaries | VARCHAR, BINARY |
//! | TIMESTAMP in s, ms, ns | TIMESTAMP in µs: digits below the microsecond are dropped |
//! | TIMESTAMP with any zone | the same instant, zone UTC |
//! | Decimal32, Decimal64, Decimal256 up to 38 digits | Decimal128 |
//! | fixed-size lists, large lists, list views | lists |
//!
//! What has no lossless place (times, intervals, durations, unions, untyped
//! NULLs) is refused by the column's name, before anything is written.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use arrow::util::display::FormatOptions;

use crate::error::{Error, Result};

/// Characters that readers without column mapping (Spark, Hive) refuse in a column's name.
const FORBIDDEN: [char; 11] = [' ', ',', ';', '{', '}', '(', ')', '\n', '\r', '\t', '='];

/// The schema that a Delta table of `schema` will have. Field metadata is left behind.
///
/// # Errors
/// For a column whose type or name Delta can't hold; the message names it.
pub fn delta_schema(schema: &Schema) -> Result<SchemaRef> {
    let mut seen = HashSet::new();
    let mut fields = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        check_name(field.name())?;
        if !seen.insert(field.name().to_lowercase()) {
            return Err(Error::invalid_hint(
                format!("column \"{}\" appears twice; case does not tell them apart", field.name()),
                "give one of them another name: AS other_name",
            ));
        }
        let data_type = delta_type(field.name(), field.data_type())?;
        fields.push(Field::new(field.name(), data_type, field.is_nullable()));
    }
    if fields.is_empty() {
        return Err(Error::invalid("a table needs at least one column"));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// Checks that a table of `schema` (from [`delta_schema`]) can be partitioned by `columns`.
pub fn check_partition_columns(schema: &Schema, columns: &[String]) -> Result<()> {
    let mut seen = HashSet::new();
    for name in columns {
        let field = schema.field_with_name(name).map_err(|_| {
            let known: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            Error::invalid_hint(
                format!("can't partition by \"{name}\": there is no such column"),
                format!("the columns are {}", known.join(", ")),
            )
        })?;
        check_partition_column(field)?;
        if !seen.insert(name) {
            return Err(Error::invalid(format!("\"{name}\" partitions the table twice")));
        }
    }
    if columns.len() == schema.fields().len() {
        return Err(Error::invalid_hint(
            "can't partition by every column: the files would have none",
            "leave at least one column out of PARTITIONED BY",
        ));
    }
    Ok(())
}

/// Checks that the column's type can partition a table.
pub fn check_partition_column(field: &Field) -> Result<()> {
    let (name, data_type) = (field.name(), field.data_type());
    if data_type.is_nested() || *data_type == DataType::Binary {
        return Err(Error::invalid_hint(
            format!("can't partition by \"{name}\" of type {data_type}"),
            "partition by a column with few plain values, such as a date",
        ));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid_hint("a column has no name", "name it: AS some_name"));
    }
    if name.contains(FORBIDDEN) {
        return Err(Error::invalid_hint(
            format!("\"{name}\" can't be the name of a column of a Delta table"),
            "name it without spaces, brackets and the signs , ; = : AS some_name",
        ));
    }
    Ok(())
}

/// The type that a column of `data_type` has in a Delta table; `path` names it in errors.
fn delta_type(path: &str, data_type: &DataType) -> Result<DataType> {
    use DataType::*;
    Ok(match data_type {
        Boolean | Int8 | Int16 | Int32 | Int64 | Float32 | Float64 | Utf8 | Binary | Date32 => {
            data_type.clone()
        }
        UInt8 => Int16,
        UInt16 => Int32,
        UInt32 => Int64,
        UInt64 => Decimal128(20, 0),
        Float16 => Float32,
        LargeUtf8 | Utf8View => Utf8,
        LargeBinary | BinaryView | FixedSizeBinary(_) => Binary,
        Date64 => Date32,
        Timestamp(_, None) => Timestamp(TimeUnit::Microsecond, None),
        Timestamp(_, Some(_)) => Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Decimal32(precision, scale)
        | Decimal64(precision, scale)
        | Decimal128(precision, scale)
        | Decimal256(precision, scale)
            if *precision <= 38 && *scale >= 0 =>
        {
            Decimal128(*precision, *scale)
        }
        Dictionary(_, value) => delta_type(path, value)?,
        RunEndEncoded(_, value) => delta_type(path, value.data_type())?,
        List(item)
        | LargeList(item)
        | ListView(item)
        | LargeListView(item)
        | FixedSizeList(item, _) => {
            let element = delta_type(&format!("{path}.element"), item.data_type())?;
            List(Arc::new(Field::new("element", element, item.is_nullable())))
        }
        Struct(fields) => Struct(delta_fields(path, fields)?),
        Map(entries, _) => delta_map(path, entries)?,
        other => return Err(refused(path, other)),
    })
}

fn delta_fields(path: &str, fields: &Fields) -> Result<Fields> {
    fields
        .iter()
        .map(|field| {
            check_name(field.name())?;
            let data_type = delta_type(&format!("{path}.{}", field.name()), field.data_type())?;
            Ok(Arc::new(Field::new(field.name(), data_type, field.is_nullable())))
        })
        .collect()
}

fn delta_map(path: &str, entries: &FieldRef) -> Result<DataType> {
    let DataType::Struct(pair) = entries.data_type() else {
        return Err(refused(path, entries.data_type()));
    };
    let [key, value] = pair.as_ref() else {
        return Err(refused(path, entries.data_type()));
    };
    let key_type = delta_type(&format!("{path}.key"), key.data_type())?;
    let value_type = delta_type(&format!("{path}.value"), value.data_type())?;
    let pair = vec![
        Field::new("key", key_type, false),
        Field::new("value", value_type, value.is_nullable()),
    ];
    let entries = Field::new("key_value", DataType::Struct(pair.into()), false);
    Ok(DataType::Map(Arc::new(entries), false))
}

fn refused(path: &str, data_type: &DataType) -> Error {
    use DataType::*;
    let hint = match data_type {
        Null => "give it a type: CAST(NULL AS VARCHAR), say",
        Time32(_) | Time64(_) => "store it as text: CAST(... AS VARCHAR)",
        Interval(_) | Duration(_) => {
            "store it as a number, such as EXTRACT(EPOCH FROM ...), or as text"
        }
        Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..) => {
            "cast it to DECIMAL(38, s) with a scale of 0 or more"
        }
        _ => "cast it to a type that Delta knows",
    };
    Error::invalid_hint(
        format!("column \"{path}\" of type {data_type} can't be stored in a Delta table"),
        hint,
    )
}

/// Turns a batch into one of `schema` (from [`delta_schema`]), column by column in order.
/// Columns that are right already are shared, not copied.
///
/// # Errors
/// If a value does not fit, or is NULL where the table's column is NOT NULL.
pub fn cast_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    if batch.num_columns() != schema.fields().len() {
        return Err(Error::internal(format!(
            "{} columns to be written to a table of {}",
            batch.num_columns(),
            schema.fields().len()
        )));
    }
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| cast_column(column, field))
        .collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

fn cast_column(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    if !field.is_nullable() && column.null_count() > 0 {
        return Err(Error::invalid_hint(
            format!("NULL in column \"{}\", which is NOT NULL in the table", field.name()),
            "filter such rows, or replace the NULL with COALESCE",
        ));
    }
    if column.data_type() == field.data_type() {
        return Ok(column.clone());
    }
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    cast_with_options(column, field.data_type(), &options)
        .map_err(|error| Error::invalid(format!("column \"{}\": {error}", field.name())))
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Array, AsArray, DictionaryArray, Int64Array, StringArray, TimestampNanosecondArray,
        UInt64Array,
    };
    use arrow::datatypes::{Decimal128Type, Int32Type, TimestampMicrosecondType};

    use super::*;

    fn one(name: &str, data_type: DataType) -> Schema {
        Schema::new(vec![Field::new(name, data_type, true)])
    }

    fn stored(data_type: DataType) -> DataType {
        delta_schema(&one("c", data_type)).unwrap().field(0).data_type().clone()
    }

    #[test]
    fn types_without_a_place_find_the_next_wider() {
        assert_eq!(stored(DataType::UInt32), DataType::Int64);
        assert_eq!(stored(DataType::UInt64), DataType::Decimal128(20, 0));
        assert_eq!(stored(DataType::Utf8View), DataType::Utf8);
        assert_eq!(
            stored(DataType::Timestamp(TimeUnit::Nanosecond, Some("+02:00".into()))),
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        );
        let item = Arc::new(Field::new("item", DataType::UInt8, true));
        let element = Arc::new(Field::new("element", DataType::Int16, true));
        assert_eq!(stored(DataType::FixedSizeList(item, 3)), DataType::List(element));
    }

    #[test]
    fn what_delta_cannot_hold_is_refused_by_name() {
        let inner =
            Fields::from(vec![Field::new("t", DataType::Time64(TimeUnit::Nanosecond), true)]);
        let error = delta_schema(&one("s", DataType::Struct(inner))).unwrap_err();
        assert!(error.to_string().contains("\"s.t\""), "{error}");
        assert!(error.hint().unwrap().contains("VARCHAR"));

        let error = delta_schema(&one("n", DataType::Null)).unwrap_err();
        assert!(error.hint().unwrap().contains("CAST(NULL"));

        let error = delta_schema(&one("count(*)", DataType::Int64)).unwrap_err();
        assert!(error.to_string().contains("\"count(*)\""), "{error}");

        let twice = Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("ID", DataType::Int64, true),
        ]);
        assert!(delta_schema(&twice).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn partition_columns_are_checked() {
        let schema = Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("day", DataType::Date32, true),
        ]);
        let check = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            check_partition_columns(&schema, &names)
        };
        assert!(check(&["day"]).is_ok());
        assert!(check(&["dya"]).unwrap_err().hint().unwrap().contains("id, day"));
        assert!(check(&["day", "day"]).is_err());
        assert!(check(&["id", "day"]).is_err());
    }

    #[test]
    fn values_are_cast_and_shared() {
        let ids = Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef;
        let words =
            Arc::new(["a", "a"].into_iter().collect::<DictionaryArray<Int32Type>>()) as ArrayRef;
        let big = Arc::new(UInt64Array::from(vec![u64::MAX, 1])) as ArrayRef;
        let times = Arc::new(TimestampNanosecondArray::from(vec![1_999, -1])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([
            ("id", ids.clone()),
            ("word", words),
            ("big", big),
            ("time", times),
        ])
        .unwrap();

        let schema = delta_schema(batch.schema_ref()).unwrap();
        let cast = cast_batch(&batch, &schema).unwrap();

        assert_eq!(cast.schema(), schema);
        assert_eq!(
            cast.column(0).to_data().buffers()[0].as_ptr(),
            ids.to_data().buffers()[0].as_ptr()
        );
        assert_eq!(cast.column(1).as_string::<i32>(), &StringArray::from(vec!["a", "a"]));
        assert_eq!(cast.column(2).as_primitive::<Decimal128Type>().value(0), i128::from(u64::MAX));
        assert_eq!(cast.column(3).as_primitive::<TimestampMicrosecondType>().value(0), 1);
    }

    #[test]
    fn null_in_a_not_null_column_names_the_column() {
        let schema: SchemaRef =
            Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
        let ids = Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("id", ids)]).unwrap();
        let error = cast_batch(&batch, &schema).unwrap_err();
        assert!(error.to_string().contains("\"id\""), "{error}");
        assert!(error.hint().is_some());
    }
}
