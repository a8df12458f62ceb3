//! What JSON becomes, value by value, and that bad records never cost good ones.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Fields, Float64Type, Int64Type, Schema, SchemaRef,
    TimeUnit, TimestampMicrosecondType,
};
use proptest::prelude::*;

use crate::decode::{Format, RawBatch, TimestampUnit, decoder};
use crate::source::{Chunk, Rejected};

fn raw(payloads: &[Option<&[u8]>]) -> RawBatch {
    RawBatch {
        origin: "t".into(),
        partition: 0,
        offsets: Int64Array::from_iter_values(0..payloads.len() as i64),
        timestamps: None,
        payloads: payloads.iter().copied().collect::<BinaryArray>(),
        keys: None,
        headers: None,
    }
}

fn decode(schema: &SchemaRef, payloads: &[Option<&[u8]>]) -> (Chunk, Vec<Rejected>) {
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let format = Format::Json { timestamp_unit: TimestampUnit::Millisecond };
    decoder(&format, schema, &all).unwrap().decode(raw(payloads)).unwrap()
}

fn one(field: Field) -> SchemaRef {
    Arc::new(Schema::new(vec![field]))
}

/// Decodes `values` as the values of one column; all must be good.
fn values(data_type: DataType, values: &[&str]) -> ArrayRef {
    let records: Vec<String> = values.iter().map(|value| format!("{{\"c\":{value}}}")).collect();
    let payloads: Vec<_> = records.iter().map(|record| Some(record.as_bytes())).collect();
    let (chunk, rejected) = decode(&one(Field::new("c", data_type, true)), &payloads);
    assert!(rejected.is_empty(), "{rejected:?}");
    assert_eq!(chunk.batch.num_rows(), values.len());
    Arc::clone(chunk.batch.column(0))
}

/// The reason why `value` is refused.
fn refusal(data_type: DataType, value: &str) -> String {
    let record = format!("{{\"c\":{value}}}");
    let good = br#"{"c":null}"#;
    let payloads = [Some(&good[..]), Some(record.as_bytes()), Some(&good[..])];
    let (chunk, mut rejected) = decode(&one(Field::new("c", data_type, true)), &payloads);
    assert_eq!((chunk.batch.num_rows(), rejected.len()), (2, 1), "{value}: {rejected:?}");
    assert_eq!(chunk.origin.offsets.values(), &[0, 2]);
    assert_eq!(rejected[0].payload.as_deref(), Some(record.as_bytes()));
    rejected.remove(0).error
}

#[test]
fn missing_and_null_are_null_and_extra_keys_are_ignored() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("B", DataType::Utf8, true),
    ]));
    let payloads: [Option<&[u8]>; 5] = [
        Some(br#"{"x":[{"a":9}],"a":1,"B":"x"}"#),
        Some(br#"{"b":"case"}"#),
        Some(br#"{"a":null,"B":null}"#),
        None,
        Some(br#"{"a":3,"a":4}"#),
    ];
    let (chunk, rejected) = decode(&schema, &payloads);
    // The tombstone: there is no primary key by which it could delete.
    assert_eq!(rejected.len(), 1, "{rejected:?}");
    let a: Vec<_> = chunk.batch.column(0).as_primitive::<Int64Type>().iter().collect();
    assert_eq!(a, [Some(1), None, None, Some(4)]);
    let b: Vec<_> = chunk.batch.column(1).as_string::<i32>().iter().collect();
    assert_eq!(b, [Some("x"), None, None, None]);
    assert_eq!(chunk.origin.offsets.values(), &[0, 1, 2, 4]);
}

#[test]
fn records_that_are_no_objects_are_rejected_alone() {
    let deep = format!("{{\"a\":{}}}", "[".repeat(200_000));
    let closed = format!("{{\"z\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let bad: [&[u8]; 18] = [
        b"",
        b"  ",
        b"null",
        b"1",
        b"\"a\"",
        b"[{\"a\":1}]",
        b"{\"a\":1",
        b"{\"a\":",
        b"{\"a\":1}{\"a\":2}",
        b"{\"a\":1}x",
        b"{\"a\":1,}",
        b"{\"a\" 1}",
        b"{\"a\":01}",
        b"{\"z\":NaN}",
        b"{\"z\":\"\xff\"}",
        b"\xe9{\"a\":1}",
        deep.as_bytes(),
        closed.as_bytes(),
    ];
    let mut payloads: Vec<Option<&[u8]>> = Vec::new();
    for bad in bad {
        payloads.push(Some(bad));
        payloads.push(Some(br#"{"a":7}"#));
    }
    let (chunk, rejected) = decode(&one(Field::new("a", DataType::Int64, true)), &payloads);
    assert_eq!(chunk.batch.num_rows(), bad.len());
    assert!(chunk.batch.column(0).as_primitive::<Int64Type>().iter().all(|a| a == Some(7)));
    let offsets: Vec<i64> = rejected.iter().map(|record| record.offset).collect();
    assert_eq!(offsets, (0..bad.len() as i64).map(|nth| nth * 2).collect::<Vec<_>>());
    assert!(rejected.iter().all(|record| record.error.len() < 300));
    assert!(rejected[0].error.contains("empty"), "{}", rejected[0].error);
    assert!(rejected[11].error.contains("expected ':' at byte 5"), "{}", rejected[11].error);
    assert!(rejected[14].error.contains("UTF-8 (byte 6)"), "{}", rejected[14].error);
    assert!(rejected[17].error.contains("128 levels"), "{}", rejected[17].error);
}

#[test]
fn a_character_cut_across_two_records_breaks_both() {
    let payloads: [Option<&[u8]>; 3] = [Some(b"{}"), Some(b"{\"a\":\"\xc3"), Some(b"\xa9\"}")];
    let (chunk, rejected) = decode(&one(Field::new("a", DataType::Utf8, true)), &payloads);
    assert_eq!((chunk.batch.num_rows(), rejected.len()), (1, 2));
}

#[test]
fn a_byte_order_mark_and_white_space_do_no_harm() {
    let payloads: [Option<&[u8]>; 2] =
        [Some(b"\xef\xbb\xbf{\"c\":1}"), Some(b"\n\t {\r\n \"c\" : 2 } \n")];
    let (chunk, _) = decode(&one(Field::new("c", DataType::Int64, true)), &payloads);
    assert_eq!(chunk.batch.column(0).as_primitive::<Int64Type>().values(), &[1, 2]);
}

#[test]
fn not_null_columns_name_themselves() {
    let schema = one(Field::new("id", DataType::Int64, false));
    let payloads: [Option<&[u8]>; 3] = [Some(b"{}"), Some(br#"{"id":null}"#), Some(br#"{"id":1}"#)];
    let (chunk, rejected) = decode(&schema, &payloads);
    assert_eq!(chunk.batch.num_rows(), 1);
    assert_eq!(rejected[0].error, "column \"id\" is NOT NULL and missing");
    assert_eq!(rejected[1].error, "column \"id\" is NOT NULL and got null");
}

#[test]
fn without_columns_records_are_still_checked() {
    let schema = one(Field::new("id", DataType::Int64, false));
    let format = Format::Json { timestamp_unit: TimestampUnit::Millisecond };
    let payloads: [Option<&[u8]>; 3] = [Some(b"{}"), Some(b"{"), Some(br#"{"id":"x"}"#)];
    let (chunk, rejected) = decoder(&format, &schema, &[]).unwrap().decode(raw(&payloads)).unwrap();
    assert_eq!((chunk.batch.num_columns(), chunk.batch.num_rows()), (0, 2));
    assert_eq!(rejected.len(), 1);
}

#[test]
fn strings_take_any_value() {
    let array = values(
        DataType::Utf8,
        &[r#""a\u00e9\n""#, "12.50", "true", r#"{"x": [1, 2]}"#, "[]", "\"\"", "\"ü😀\""],
    );
    let texts: Vec<_> = array.as_string::<i32>().iter().flatten().collect();
    assert_eq!(texts, ["aé\n", "12.50", "true", "{\"x\": [1, 2]}", "[]", "", "ü😀"]);
    assert!(refusal(DataType::Utf8, r#""\ud83d""#).contains("surrogate"));
}

#[test]
fn refusals_name_column_and_value() {
    let cases = [
        (DataType::Int64, "\"x\"", "column \"c\": \"x\" is not a valid BIGINT"),
        (DataType::Int64, "1.5", "column \"c\": 1.5 has a fraction and is not a valid BIGINT"),
        (DataType::Int8, "300", "column \"c\": 300 is out of range for TINYINT"),
        (DataType::Int64, "{\"a\":1}", "column \"c\": {\"a\":1} is not a valid BIGINT"),
        (DataType::Float64, "1e999", "column \"c\": 1e999 is out of range for DOUBLE"),
        (DataType::Boolean, "1", "column \"c\": 1 is not a valid BOOLEAN"),
        (
            DataType::Decimal128(4, 2),
            "123.4",
            "column \"c\": 123.4 is out of range for DECIMAL(4,2)",
        ),
        (DataType::Date32, "\"2024-02-30\"", "column \"c\": \"2024-02-30\" is not a valid DATE"),
        (
            DataType::Timestamp(TimeUnit::Microsecond, None),
            "true",
            "column \"c\": true is not a valid TIMESTAMP",
        ),
    ];
    for (data_type, value, wanted) in cases {
        assert_eq!(refusal(data_type, value), wanted);
    }
    let long = refusal(DataType::Int64, &format!("\"{}\"", "é".repeat(5000)));
    assert!(long.chars().count() < 150, "{long}");
}

#[test]
fn scalars() {
    let timestamps = values(
        DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        &["\"2024-05-01T14:00:00.000001+02:00\"", "1714564800001", "\"1714564800001\"", "null"],
    );
    let timestamps: Vec<_> = timestamps.as_primitive::<TimestampMicrosecondType>().iter().collect();
    let noon = 1_714_564_800_000_000;
    assert_eq!(timestamps, [Some(noon + 1), Some(noon + 1000), Some(noon + 1000), None]);
    let decimals = values(DataType::Decimal128(12, 2), &["12.10", "\"12.10\"", "0.1", "1e3"]);
    assert_eq!(decimals.as_primitive::<Decimal128Type>().values(), &[1210, 1210, 10, 100_000]);
    assert_eq!(decimals.data_type(), &DataType::Decimal128(12, 2));
    let booleans = values(DataType::Boolean, &["true", "\"False\"", "null"]);
    assert_eq!(booleans.as_boolean().iter().collect::<Vec<_>>(), [Some(true), Some(false), None]);
    let bytes = values(DataType::Binary, &["\"aGk=\"", "\"\\/\\/8=\""]);
    assert_eq!(
        bytes.as_binary::<i32>().iter().collect::<Vec<_>>(),
        [Some(&b"hi"[..]), Some(b"\xff\xff")]
    );
    let dates = values(DataType::Date32, &["\"1970-01-11\"", "10"]);
    assert_eq!(dates.as_primitive::<Date32Type>().values(), &[10, 10]);
    let floats = values(DataType::Float64, &["1", "-0.0", "\"2.5\"", "1e-300"]);
    assert_eq!(floats.as_primitive::<Float64Type>().values(), &[1.0, -0.0, 2.5, 1e-300]);
}

fn item() -> DataType {
    DataType::Struct(Fields::from(vec![
        Field::new("sku", DataType::Utf8, false),
        Field::new("price", DataType::Decimal128(12, 2), true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
    ]))
}

#[test]
fn nested_values() {
    let list = DataType::List(Arc::new(Field::new("item", item(), true)));
    let array = values(
        list.clone(),
        &[r#"[{"sku":"a","price":1.50,"at":"2024-05-01"},null,{"sku":"b","x":1}]"#, "[]", "null"],
    );
    let lists = array.as_list::<i32>();
    assert_eq!(lists.value_offsets(), &[0, 3, 3, 3]);
    assert!(lists.is_null(2));
    let items = lists.values().as_struct();
    assert!(items.is_null(1));
    assert_eq!(items.column(0).as_string::<i32>().value(2), "b");
    assert_eq!(items.column(1).as_primitive::<Decimal128Type>().value(0), 150);
    let refused = refusal(list.clone(), r#"[{"sku":"a"},{"price":1}]"#);
    assert_eq!(refused, "column \"c[].sku\" is NOT NULL and missing");
    let refused = refusal(list, r#"[{"sku":"a","price":"x"}]"#);
    assert_eq!(refused, "column \"c[].price\": \"x\" is not a valid DECIMAL(12,2)");
    assert!(refusal(item(), "[1]").contains("[1] is not a valid STRUCT"));
}

#[test]
fn maps() {
    let entries = DataType::Struct(Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Int64, true),
    ]));
    let map = DataType::Map(Arc::new(Field::new("entries", entries, false)), false);
    let array = values(map.clone(), &[r#"{"a":1,"b":2,"a":3}"#, "{}", "null", r#"{"c":null}"#]);
    let maps = array.as_map();
    assert_eq!(maps.value_offsets(), &[0, 2, 2, 2, 3]);
    assert_eq!(
        maps.keys().as_string::<i32>().iter().flatten().collect::<Vec<_>>(),
        ["a", "b", "c"]
    );
    let numbers: Vec<_> = maps.values().as_primitive::<Int64Type>().iter().collect();
    assert_eq!(numbers, [Some(3), Some(2), None]);
    assert!(refusal(map, r#"{"a":"x"}"#).contains("\"x\" is not a valid BIGINT"));
}

#[test]
fn a_type_without_decoder_is_refused_when_declared() {
    let schema = one(Field::new("i", DataType::Duration(TimeUnit::Second), true));
    let format = Format::Json { timestamp_unit: TimestampUnit::Millisecond };
    let error = decoder(&format, &schema, &[0]).err().unwrap();
    assert!(error.to_string().contains("column \"i\""), "{error}");
}

#[test]
fn an_empty_batch_is_empty() {
    let list = DataType::List(Arc::new(Field::new("item", item(), true)));
    let schema = Arc::new(Schema::new(vec![
        Field::new("a", list, true),
        Field::new("s", item(), true),
        Field::new("t", DataType::Utf8, false),
    ]));
    let (chunk, _) = decode(&schema, &[]);
    assert_eq!((chunk.batch.num_rows(), chunk.batch.schema()), (0, schema));
}

fn flat() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("s", DataType::Utf8, true),
        Field::new("f", DataType::Float64, true),
        Field::new("b", DataType::Boolean, true),
        Field::new("o", item(), true),
    ]))
}

/// One record: whether it is good, and its bytes.
fn record() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let text = "[a-zé\"\\\\\n😀]{0,8}";
    let good = (any::<i64>(), text, any::<f64>(), any::<bool>(), any::<bool>()).prop_map(
        |(id, s, f, b, nested)| {
            let f = if f.is_finite() { f } else { 0.0 };
            let o = nested.then(|| serde_json::json!({"sku": s, "price": 1.5}));
            let record = serde_json::json!({"id": id, "s": s, "f": f, "b": b, "o": o, "x": [s]});
            (true, record.to_string().into_bytes())
        },
    );
    let bad = prop::sample::select(vec![
        &b"{\"id\":1"[..],
        b"{\"id\":1}}",
        b"{\"id\":\"x\"}",
        b"{}",
        b"null",
        b"",
        b"{\"id\":1,\"b\":2}",
        b"\"",
        b"{\"id\":1,\"s\":\"\xff\"}",
        b"{\"id\":1,\"o\":{}}",
        b"{\"id\":1,\"o\":[]}",
        b"{\"id\":1 \"s\":2}",
        b"\xe9",
    ]);
    prop_oneof![4 => good, 1 => bad.prop_map(|bytes| (false, bytes.to_vec()))]
}

proptest! {
    #[test]
    fn good_rows_beside_bad_ones_are_never_lost(
        records in prop::collection::vec(record(), 0..60),
        cut in 0_usize..60,
    ) {
        let payloads: Vec<_> = records.iter().map(|(_, bytes)| Some(bytes.as_slice())).collect();
        let good: Vec<_> = (0..).zip(&records).filter(|(_, r)| r.0).map(|(row, _)| row).collect();
        let (chunk, rejected) = decode(&flat(), &payloads);
        prop_assert_eq!(chunk.origin.offsets.values().to_vec(), good);
        prop_assert_eq!(chunk.batch.num_rows() + rejected.len(), records.len());

        // The same rows whichever way the range is cut.
        let (head, tail) = payloads.split_at(cut.min(payloads.len()));
        let parts = [decode(&flat(), head).0.batch, decode(&flat(), tail).0.batch];
        let whole = arrow::compute::concat_batches(&flat(), &parts).unwrap();
        prop_assert_eq!(&whole, &chunk.batch);

        // And the same as arrow-json makes of the good ones.
        let good = records.iter().filter(|record| record.0);
        let lines = good.flat_map(|record| record.1.iter().copied().chain([b'\n']));
        prop_assert_eq!(&arrow_json(lines.collect()), &chunk.batch);
    }
}

fn arrow_json(lines: Vec<u8>) -> RecordBatch {
    let reader = arrow::json::ReaderBuilder::new(flat()).build(lines.as_slice()).unwrap();
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().unwrap();
    arrow::compute::concat_batches(&flat(), &batches).unwrap()
}
