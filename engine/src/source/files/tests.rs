//! Files as a log: ranges, cuts, discovery, changes and bad lines.

use std::collections::{BTreeMap, HashMap};
use std::path::Path as FilePath;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::file::properties::WriterProperties;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;

use crate::epoch::{OffsetRange, Offsets, Ranges, ends};
use crate::source::files::FilesSource;
use crate::source::{METADATA_KEY, Rows, Source};

fn schema() -> SchemaRef {
    let file = HashMap::from([(METADATA_KEY.to_string(), "file".to_string())]);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("file", DataType::Utf8, true).with_metadata(file),
    ]))
}

fn options(path: &FilePath, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let path = ("path", path.to_str().unwrap());
    std::iter::once(&path).chain(more).map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

fn source(path: &FilePath, more: &[(&str, &str)]) -> FilesSource {
    FilesSource::new("f", schema(), &options(path, more), None).unwrap()
}

fn json_lines(ids: std::ops::Range<i64>) -> String {
    ids.map(|id| format!("{{\"id\":{id},\"name\":\"n{id}\"}}\n")).collect()
}

fn range(start: i64, end: i64) -> Ranges {
    Ranges::from([(0, OffsetRange::new(start, end))])
}

fn ids(rows: &Rows) -> Vec<i64> {
    let ids = |chunk: &crate::source::Chunk| {
        chunk.batch.column(0).as_primitive::<Int64Type>().values().to_vec()
    };
    rows.chunks.iter().flat_map(ids).collect()
}

/// Reads to the end in steps of about `step` rows; answers the ids and the number of steps.
async fn read_in_steps(source: &FilesSource, step: u64) -> (Vec<i64>, usize) {
    let available = source.available().await.unwrap();
    let mut from = source.start(&available).await.unwrap();
    let mut reader = source.open(vec![0]).unwrap();
    let (mut all, mut steps) = (Vec::new(), 0);
    while from != ends(&available) {
        let next = source.clamp(&from, &available, step).await.unwrap();
        assert!(next[&0].end > from[&0], "a step moves");
        let rows = reader.read(&next).await.unwrap();
        all.extend(ids(&rows));
        from = ends(&next);
        steps += 1;
    }
    (all, steps)
}

#[tokio::test]
async fn steps_of_any_size_read_every_line_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.json"), json_lines(0..500)).unwrap();
    // No line break at the end, blank lines, Windows line breaks, a byte order mark.
    let text =
        format!("\u{feff}{}\r\n\n  \n", json_lines(500..900).trim_end().replace('\n', "\r\n"));
    std::fs::write(folder.path().join("b.json"), text).unwrap();
    std::fs::write(folder.path().join("c.json"), json_lines(900..1000).trim_end()).unwrap();
    std::fs::write(folder.path().join("empty.json"), "").unwrap();
    let source = source(folder.path(), &[]);
    let wanted: Vec<i64> = (0..1000).collect();
    for step in [1, 7, 100, 333, 1_000_000] {
        let (read, steps) = read_in_steps(&source, step).await;
        assert_eq!(read, wanted, "step {step}");
        let least = if step == 1_000_000 { 1 } else { 1000 / step as usize / 2 };
        assert!(steps >= least, "{steps} steps of {step}");
    }
}

#[tokio::test]
async fn lines_longer_than_a_block_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(9 << 20);
    let text =
        format!("{}{{\"id\":3,\"name\":\"{long}\"}}\n{}", json_lines(0..3), json_lines(4..6));
    let path = folder.path().join("a.json");
    std::fs::write(&path, text).unwrap();
    let source = source(&path, &[]);
    for step in [1, 2, 100] {
        assert_eq!(read_in_steps(&source, step).await.0, [0, 1, 2, 3, 4, 5]);
    }
}

#[tokio::test]
async fn blank_lines_are_no_records() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    std::fs::write(&path, "\n{\"id\":1}\n  \r\n\n{\"id\":2}\n\n").unwrap();
    let source = source(&path, &[]);
    let available = source.available().await.unwrap();
    let rows = source.open(vec![0]).unwrap().read(&available).await.unwrap();
    assert_eq!((ids(&rows), rows.rejected.len()), (vec![1, 2], 0));
    assert_eq!(rows.chunks[0].origin.offsets.values(), &[1, 15]);
}

#[tokio::test]
async fn bad_lines_are_rejected_at_their_offset() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    std::fs::write(&path, "{\"id\":1}\noops\r\n{\"id\":2}\n").unwrap();
    let source = source(&path, &[]);
    let available = source.available().await.unwrap();
    let rows = source.open(vec![0, 2]).unwrap().read(&available).await.unwrap();
    assert_eq!(ids(&rows), [1, 2]);
    let files = rows.chunks[0].batch.column(1).as_string::<i32>();
    assert_eq!(files.value(0), path.to_str().unwrap());
    assert_eq!(
        (rows.rejected[0].offset, rows.rejected[0].payload.as_deref()),
        (9, Some(&b"oops"[..]))
    );
    assert_eq!(rows.chunks[0].origin.offsets.values(), &[0, 15]);
}

#[tokio::test]
async fn csv_with_headers_in_different_order() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.csv"), "id,name\n1,a\n2,\"b, c\"\n").unwrap();
    std::fs::write(folder.path().join("b.csv"), "name;extra;id\r\nx;;3\r\n").unwrap();
    let text: &[(&str, &str)] = &[("format", "csv")];
    let comma = FilesSource::new("f", schema(), &options(&folder.path().join("a.csv"), text), None);
    assert_eq!(read_in_steps(&comma.unwrap(), 1).await.0, [1, 2]);
    let semicolon = source(&folder.path().join("b.csv"), &[("csv.delimiter", ";")]);
    assert_eq!(read_in_steps(&semicolon, 1).await.0, [3]);
    let headless = source(&folder.path().join("a.csv"), &[("csv.header", "false")]);
    let available = headless.available().await.unwrap();
    let rows = headless.open(vec![0]).unwrap().read(&available).await.unwrap();
    assert_eq!((ids(&rows), rows.rejected.len()), (vec![1, 2], 1));
}

#[tokio::test]
async fn a_line_break_within_quotes_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    std::fs::write(&path, "name,id\n\"a\nb\",1\nc,2\n").unwrap();
    let source = source(&path, &[]);
    let available = source.available().await.unwrap();
    let rows = source.open(vec![0]).unwrap().read(&available).await.unwrap();
    assert_eq!(ids(&rows), [2]);
    assert_eq!(rows.rejected.len(), 2);
    assert!(rows.rejected[0].error.contains("does not end"), "{}", rows.rejected[0].error);
}

#[tokio::test]
async fn files_that_come_later_follow_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: String| {
        std::fs::write(folder.path().join("staged.tmp"), text).unwrap();
        std::fs::rename(folder.path().join("staged.tmp"), folder.path().join(name)).unwrap();
    };
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let log = || Some((Arc::clone(&store), Path::from("log")));
    let watch = options(folder.path(), &[("watch", "true")]);
    let source = FilesSource::new("f", schema(), &watch, log()).unwrap();
    let end = async |source: &FilesSource| source.available().await.unwrap()[&0].end;
    assert_eq!(end(&source).await, 0);
    put("m.json", json_lines(0..10));
    // The first look at a new file only notes it.
    assert_eq!(end(&source).await, 0);
    let first = end(&source).await;
    assert!(first > 0);
    put("a.json", json_lines(10..20));
    end(&source).await;
    let second = end(&source).await;
    assert!(second > first);
    let rows = source.open(vec![0]).unwrap().read(&range(0, second)).await.unwrap();
    assert_eq!(ids(&rows), (0..20).collect::<Vec<_>>());

    // After a restart the offsets mean the same, before anything is listed.
    let again = FilesSource::new("f", schema(), &watch, log()).unwrap();
    let rows = again.open(vec![0]).unwrap().read(&range(first, second)).await.unwrap();
    assert_eq!(ids(&rows), (10..20).collect::<Vec<_>>());
    assert_eq!(end(&again).await, second);

    // What came in between is there at the first look.
    put("b.json", json_lines(20..30));
    let again = FilesSource::new("f", schema(), &watch, log()).unwrap();
    assert!(end(&again).await > second);
}

#[tokio::test]
async fn a_bounded_source_keeps_to_its_first_list() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.json"), json_lines(0..10)).unwrap();
    let source = source(folder.path(), &[]);
    let first = source.available().await.unwrap();
    std::fs::write(folder.path().join("b.json"), json_lines(10..20)).unwrap();
    assert_eq!(source.available().await.unwrap(), first);
}

#[tokio::test]
async fn changed_missing_and_compressed_files_are_clear_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    let error = source(&path, &[]).available().await.unwrap_err();
    assert!(error.to_string().contains("matches no file"), "{error}");
    std::fs::write(&path, json_lines(0..10)).unwrap();
    let source = source(folder.path(), &[("watch", "true")]);
    let available = source.available().await.unwrap();
    std::fs::write(&path, json_lines(0..20)).unwrap();
    let mut reader = source.open(vec![0]).unwrap();
    for error in
        [reader.read(&available).await.err().unwrap(), source.available().await.err().unwrap()]
    {
        assert!(error.to_string().contains("changed after it was discovered"), "{error}");
        assert!(!error.retryable());
    }
    std::fs::remove_file(&path).unwrap();
    let error = reader.read(&available).await.err().unwrap();
    assert!(error.to_string().contains("gone"), "{error}");
    let packed = folder.path().join("b.json.gz");
    std::fs::write(&packed, "x").unwrap();
    let packed = FilesSource::new("f", schema(), &options(&packed, &[]), None).unwrap();
    let error = packed.available().await.unwrap_err();
    assert!(error.to_string().contains("compressed"), "{error}");
}

fn write_parquet(path: &FilePath, first: i64, rows: i64) {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + rows));
    let names: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("n{row}"))));
    let batch = RecordBatch::try_from_iter([("name", names), ("id", ids)]).unwrap();
    let groups = WriterProperties::builder().set_max_row_group_row_count(Some(100)).build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(groups)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[tokio::test]
async fn parquet_counts_rows() {
    let folder = tempfile::tempdir().unwrap();
    write_parquet(&folder.path().join("a.parquet"), 0, 250);
    write_parquet(&folder.path().join("b.parquet"), 250, 50);
    let source = source(folder.path(), &[("format", "parquet")]);
    assert_eq!(source.available().await.unwrap(), range(0, 300));
    for step in [1_000, 120, 33] {
        let (read, _) = read_in_steps(&source, step).await;
        assert_eq!(read, (0..300).collect::<Vec<_>>());
    }
    let mut reader = source.open(vec![1, 0]).unwrap();
    let rows = reader.read(&range(240, 260)).await.unwrap();
    let schema = rows.chunks[0].batch.schema();
    let batch = concat_batches(&schema, rows.chunks.iter().map(|chunk| &chunk.batch)).unwrap();
    assert_eq!(batch.column(0).as_string::<i32>().value(0), "n240");
    assert_eq!(batch.column(1).as_primitive::<Int64Type>().value(19), 259);
    assert!(rows.chunks[0].origin.payloads.is_none());
    let clamped = source.clamp(&Offsets::from([(0, 10)]), &range(0, 300), 100).await.unwrap();
    assert_eq!(clamped, range(10, 110));
}

#[tokio::test]
async fn parquet_rows_are_counted_without_columns() {
    let folder = tempfile::tempdir().unwrap();
    write_parquet(&folder.path().join("a.parquet"), 0, 250);
    let source = source(folder.path(), &[("format", "parquet")]);
    for (projection, columns) in [(vec![], 0), (vec![2], 1)] {
        let rows = source.open(projection).unwrap().read(&range(20, 230)).await.unwrap();
        assert_eq!((rows.len(), rows.chunks[0].batch.num_columns()), (210, columns));
    }
}

#[tokio::test]
async fn raw_lines_come_without_their_line_break() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    std::fs::write(&path, "GET /\r\n\n {\nPOST /x").unwrap();
    let schema = Arc::new(Schema::new(vec![Field::new("line", DataType::Utf8, false)]));
    let options = options(&path, &[("format", "raw")]);
    let source = FilesSource::new("f", schema, &options, None).unwrap();
    let available = source.available().await.unwrap();
    let rows = source.open(vec![0]).unwrap().read(&available).await.unwrap();
    let lines = rows.chunks[0].batch.column(0).as_string::<i32>();
    assert_eq!(lines.iter().flatten().collect::<Vec<_>>(), ["GET /", " {", "POST /x"]);
}

#[tokio::test]
async fn parquet_columns_are_cast_or_null() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write_parquet(&path, 0, 10);
    let declared = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Decimal128(12, 2), true),
        Field::new("colour", DataType::Utf8, true),
    ]));
    let source = FilesSource::new("f", declared, &options(&path, &[]), None).unwrap();
    let rows = source.open(vec![0, 1]).unwrap().read(&range(0, 10)).await.unwrap();
    assert_eq!(rows.chunks[0].batch.column(1).null_count(), 10);
    let point = DataType::Struct(vec![Field::new("x", DataType::Int64, true)].into());
    let wrong = Arc::new(Schema::new(vec![Field::new("id", point, true)]));
    let source = FilesSource::new("f", wrong, &options(&path, &[]), None).unwrap();
    let error = source.open(vec![0]).unwrap().read(&range(0, 10)).await.err().unwrap();
    assert!(error.to_string().contains("column \"id\" is BIGINT, not STRUCT"), "{error}");
    let strict = Arc::new(Schema::new(vec![Field::new("colour", DataType::Utf8, false)]));
    let source = FilesSource::new("f", strict, &options(&path, &[]), None).unwrap();
    let rows = source.open(vec![0]).unwrap().read(&range(0, 10)).await.unwrap();
    assert_eq!((rows.len(), rows.rejected.len()), (0, 10));
}

#[tokio::test]
async fn a_parquet_value_that_cannot_be_cast_costs_its_row_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let ids: ArrayRef = Arc::new(StringArray::from(vec![Some("1"), Some("x"), None, Some("3")]));
    let batch = RecordBatch::try_from_iter([("id", ids)]).unwrap();
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let source = source(&path, &[]);
    let rows = source.open(vec![0]).unwrap().read(&range(0, 4)).await.unwrap();
    assert_eq!(self::ids(&rows), [1, 3]);
    let rejected: Vec<_> = rows.rejected.iter().map(|r| (r.offset, r.error.as_str())).collect();
    assert_eq!(rejected.len(), 2, "{rejected:?}");
    assert!(rejected[0].0 == 1 && rejected[0].1.contains("column \"id\""), "{rejected:?}");
    assert!(rejected[0].1.contains('x') && rejected[1].1.contains("NOT NULL"), "{rejected:?}");
}

#[tokio::test]
async fn a_first_line_that_is_no_header_is_refused_and_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let refused = async |text: &str| {
        let path = folder.path().join("a.csv");
        std::fs::write(&path, text).unwrap();
        let source = source(&path, &[]);
        let available = source.available().await.unwrap();
        source.open(vec![0]).unwrap().read(&available).await.err().map(|e| e.to_string())
    };
    let error = refused("1,a\n2,b\n").await.unwrap();
    assert!(error.contains("(id, name), it says \"1,a\"; csv.header = 'false'"), "{error}");
    let error = refused("name\nx\n").await.unwrap();
    assert!(error.contains("lacks the column \"id\", which is NOT NULL"), "{error}");
    assert_eq!(refused("id\n1\n").await, None);
}

#[tokio::test]
async fn files_that_are_no_json_by_their_name_are_not_taken_for_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.csv"), "id,name\n1,x\n").unwrap();
    let declared = source(folder.path(), &[]);
    let found_out = FilesSource::infer_schema(&options(folder.path(), &[])).await;
    for error in [declared.available().await.unwrap_err(), found_out.unwrap_err()] {
        assert!(error.to_string().contains("add format = 'csv'"), "{error}");
    }
    let csv = source(folder.path(), &[("format", "csv")]);
    assert_eq!(read_in_steps(&csv, 10).await.0, [1]);
    // Said so, it is read as JSON.
    let json = source(folder.path(), &[("format", "json")]);
    assert!(json.available().await.is_ok());
}

#[tokio::test]
async fn quoted_line_breaks_are_read_where_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let line = |id: i64| format!("\"a \"\"b\"\"\n,\r\n{id}\",{id}\n");
    let text: String = (0..500).map(line).collect();
    std::fs::write(folder.path().join("a.csv"), format!("\"name\",\"id\"\n{text}")).unwrap();
    let last: String = (500..600).map(line).collect();
    std::fs::write(folder.path().join("b.csv"), format!("name,id\n{}", last.trim_end())).unwrap();
    let asked = [("format", "csv"), ("csv.multiline", "true")];
    let source = source(folder.path(), &asked);
    for step in [1, 7, 100, 1_000_000] {
        let (read, _) = read_in_steps(&source, step).await;
        assert_eq!(read, (0..600).collect::<Vec<_>>(), "step {step}");
    }
    let available = source.available().await.unwrap();
    let rows = source.open(vec![1]).unwrap().read(&available).await.unwrap();
    let names = rows.chunks[0].batch.column(0).as_string::<i32>();
    assert_eq!(names.value(7), "a \"b\"\n,\r\n7");
}

#[tokio::test]
async fn columns_are_inferred() {
    let folder = tempfile::tempdir().unwrap();
    let infer = async |name: &str| {
        let schema = FilesSource::infer_schema(&options(&folder.path().join(name), &[])).await?;
        let field =
            |f: &Arc<Field>| format!("{} {}", f.name(), crate::decode::type_name(f.data_type()));
        crate::Result::<_, crate::Error>::Ok(schema.fields().iter().map(field).collect::<Vec<_>>())
    };
    write_parquet(&folder.path().join("a.parquet"), 0, 1);
    assert_eq!(infer("a.parquet").await.unwrap(), ["name VARCHAR", "id BIGINT"]);
    let csv = "id,at,price,note\n1,2024-05-01T12:00:00,1.5,x\n2,2024-05-01T12:00:00.5,2,\n";
    std::fs::write(folder.path().join("b.csv"), csv).unwrap();
    let wanted = ["id BIGINT", "at TIMESTAMP", "price DOUBLE", "note VARCHAR"];
    assert_eq!(infer("b.csv").await.unwrap(), wanted);
    let json = "{\"z\":1,\"a\":\"x\"}\n{\"z\":2.5,\"tags\":[\"y\"]}\n";
    std::fs::write(folder.path().join("c.json"), json).unwrap();
    assert_eq!(infer("c.json").await.unwrap(), ["z DOUBLE", "a VARCHAR", "tags ARRAY"]);
    assert!(infer("nothing.json").await.is_err());
}
