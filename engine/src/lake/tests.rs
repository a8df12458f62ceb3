//! Tables through their public face, on stores that count and fail.

mod store;
mod upsert;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::assert_batches_sorted_eq;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::displayable;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use url::Url;

use self::store::Store;
use super::*;

fn house(store: Arc<dyn ObjectStore>) -> Warehouse {
    Warehouse::with_store(Url::parse("memory:///house").unwrap(), store)
}

/// Days are counted from 1970.
fn batch(ids: &[i64], days: &[i32]) -> RecordBatch {
    let names = ids.iter().map(|id| format!("name {id}"));
    RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef),
        ("day", Arc::new(Date32Array::from(days.to_vec()))),
        ("name", Arc::new(StringArray::from_iter_values(names))),
    ])
    .unwrap()
}

fn columns() -> SchemaRef {
    batch(&[1], &[1]).schema()
}

fn rows(ids: &[i64], days: &[i32]) -> SendableRecordBatchStream {
    let batch = batch(ids, days);
    let schema = batch.schema();
    Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter([Ok(batch)])))
}

async fn table(house: &Warehouse, partition_by: &[&str]) -> Arc<LakeTable> {
    let spec = TableSpec {
        name: "t".into(),
        location: house.table_url("t").unwrap(),
        storage_options: HashMap::new(),
        schema: columns(),
        partition_by: partition_by.iter().map(ToString::to_string).collect(),
        deletion_vectors: false,
    };
    LakeTable::create(house, spec).await.unwrap()
}

#[tokio::test]
async fn a_table_with_features_says_that_columns_may_be_not_null() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let house = house(Arc::clone(&inner));
    for (name, unit, vectors, wanted) in [
        ("plain", None, false, "\"minWriterVersion\":2"),
        ("vectors", None, true, "\"invariants\""),
        ("times", Some(TimeUnit::Microsecond), false, "\"invariants\""),
    ] {
        let mut fields = vec![Field::new("id", DataType::Int64, false)];
        fields.extend(unit.map(|unit| Field::new("at", DataType::Timestamp(unit, None), true)));
        let spec = TableSpec {
            name: name.into(),
            location: house.table_url(name).unwrap(),
            storage_options: HashMap::new(),
            schema: Arc::new(Schema::new(fields)),
            partition_by: Vec::new(),
            deletion_vectors: vectors,
        };
        let table = LakeTable::create(&house, spec).await.unwrap();
        let log = Path::from(format!("house/{name}/_delta_log/{:020}.json", 0));
        let log = inner.get(&log).await.unwrap().bytes().await.unwrap();
        let log = String::from_utf8(log.to_vec()).unwrap();
        assert!(log.contains(wanted), "{name}: {log}");
        let row = RecordBatch::new_empty(table.schema());
        let stream = futures::stream::iter([Ok(row)]);
        let rows = Box::pin(RecordBatchStreamAdapter::new(table.schema(), stream));
        let staged = table.stage(rows).await.unwrap();
        table.commit(staged, epoch(1)).await.unwrap();
    }
}

async fn append(table: &LakeTable, ids: &[i64]) -> Committed {
    let staged = table.stage(rows(ids, &vec![1; ids.len()])).await.unwrap();
    table.commit(staged, None).await.unwrap()
}

fn epoch(version: u64) -> Option<Txn> {
    Some(Txn { app_id: "query".into(), version })
}

async fn ids(provider: Arc<dyn TableProvider>) -> Vec<i64> {
    let context = SessionContext::new();
    context.register_table("t", provider).unwrap();
    let found = context.sql("SELECT id FROM t ORDER BY id").await.unwrap().collect().await.unwrap();
    found
        .iter()
        .flat_map(|batch| {
            let ids = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
            ids.values().to_vec()
        })
        .collect()
}

#[tokio::test]
async fn what_is_appended_is_read_back_partitioned() {
    let house = house(Arc::new(InMemory::new()));
    let table = table(&house, &["day"]).await;
    let staged = table.stage(rows(&[1, 2, 3], &[10, 11, 10])).await.unwrap();
    assert_eq!((staged.rows, staged.adds.len()), (3, 2));
    assert_eq!(ids(table.snapshot().unwrap()).await, Vec::<i64>::new());
    let committed = table.commit(staged, None).await.unwrap();
    assert_eq!(committed, Committed { version: 1, rows: 3 });

    let context = SessionContext::new();
    context.register_table("t", table.snapshot().unwrap()).unwrap();
    let found = context.sql("SELECT * FROM t").await.unwrap().collect().await.unwrap();
    assert_eq!(found[0].schema(), columns());
    assert_batches_sorted_eq!(
        [
            "+----+------------+--------+",
            "| id | day        | name   |",
            "+----+------------+--------+",
            "| 1  | 1970-01-11 | name 1 |",
            "| 2  | 1970-01-12 | name 2 |",
            "| 3  | 1970-01-11 | name 3 |",
            "+----+------------+--------+",
        ],
        &found
    );
}

#[tokio::test]
async fn filters_skip_files_and_unread_columns_stay_unread() {
    let house = house(Arc::new(InMemory::new()));
    let table = table(&house, &["day"]).await;
    for (ids, day) in [([1, 2], 10), ([3, 4], 11), ([5, 6], 12)] {
        let staged = table.stage(rows(&ids, &[day, day])).await.unwrap();
        table.commit(staged, None).await.unwrap();
    }
    let context = SessionContext::new();
    context.register_table("t", table.snapshot().unwrap()).unwrap();
    let plan = async |sql: &str| {
        let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        displayable(plan.as_ref()).indent(false).to_string()
    };
    let by_partition = plan("SELECT name FROM t WHERE day = DATE '1970-01-12'").await;
    assert_eq!(by_partition.matches(".parquet").count(), 1, "{by_partition}");
    assert!(!by_partition.contains("id"), "{by_partition}");
    let by_statistics = plan("SELECT name FROM t WHERE id BETWEEN 2 AND 3").await;
    assert_eq!(by_statistics.matches(".parquet").count(), 2, "{by_statistics}");
    let by_name = plan("SELECT id FROM t WHERE name = 'name 6'").await;
    assert_eq!(by_name.matches(".parquet").count(), 1, "{by_name}");
    let none = plan("SELECT id FROM t WHERE id > 100").await;
    assert!(none.contains("EmptyExec"), "{none}");
    let counted = plan("SELECT count(*) FROM t").await;
    assert!(counted.contains("PlaceholderRowExec"), "{counted}");
}

#[tokio::test]
async fn an_epoch_is_committed_once() {
    let house = house(Arc::new(InMemory::new()));
    let table = table(&house, &[]).await;
    assert_eq!(table.txn_version("query").await.unwrap(), None);
    for (epoch_number, id) in [(1, 1), (1, 2), (2, 3)] {
        let staged = table.stage(rows(&[id], &[1])).await.unwrap();
        table.commit(staged, epoch(epoch_number)).await.unwrap();
    }
    assert_eq!(table.txn_version("query").await.unwrap(), Some(2));
    assert_eq!(ids(table.snapshot().unwrap()).await, [1, 3]);

    let url = house.table_url("t").unwrap();
    let again = LakeTable::open(&house, "t", url, HashMap::new()).await.unwrap();
    assert_eq!(again.txn_version("query").await.unwrap(), Some(2));
    assert_eq!(again.version(), 2);
    let staged = again.stage(rows(&[9], &[1])).await.unwrap();
    assert_eq!(again.commit(staged, epoch(2)).await.unwrap().version, 2);
}

#[tokio::test]
async fn appends_of_two_engines_both_stay() {
    let house = house(Arc::new(InMemory::new()));
    let (first, second) = (table(&house, &[]).await, table(&house, &[]).await);
    append(&first, &[1]).await;
    append(&first, &[2]).await;
    assert_eq!(append(&second, &[3]).await.version, 3);
    assert_eq!(second.version(), 3);
    assert_eq!(first.refresh().await.unwrap(), 3);
    assert_eq!(ids(first.snapshot().unwrap()).await, [1, 2, 3]);
    assert_eq!(ids(second.snapshot().unwrap()).await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_writers_loses_nothing() {
    let house = house(Arc::new(InMemory::new()));
    let (first, second) = (table(&house, &[]).await, table(&house, &[]).await);
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let table = if writer % 2 == 0 { first.clone() } else { second.clone() };
        writers.spawn(async move {
            for number in 0..10 {
                let staged = table.stage(rows(&[writer * 10 + number], &[1])).await.unwrap();
                let app_id = format!("writer {writer}");
                let txn = Txn { app_id, version: number as u64 + 1 };
                table.commit(staged, Some(txn)).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    for table in [first, second] {
        assert_eq!(table.refresh().await.unwrap(), 40);
        assert_eq!(ids(table.snapshot().unwrap()).await, (0..40).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_counts_once() {
    let store = Store::over(&Arc::new(InMemory::new()));
    let table = table(&house(store.clone()), &[]).await;
    for txn in [epoch(1), None] {
        let before = table.version();
        store.lose.store(1, Ordering::SeqCst);
        let staged = table.stage(rows(&[1], &[1])).await.unwrap();
        let committed = table.commit(staged, txn).await.unwrap();
        assert_eq!(committed.version, before + 1);
    }
    assert_eq!(ids(table.snapshot().unwrap()).await, [1, 1]);
}

#[tokio::test]
async fn a_commit_that_failed_can_be_tried_again() {
    let store = Store::over(&Arc::new(InMemory::new()));
    let table = table(&house(store.clone()), &[]).await;
    store.fail.store(1, Ordering::SeqCst);
    let staged = table.stage(rows(&[1], &[1])).await.unwrap();
    let error = table.commit(staged, epoch(1)).await.unwrap_err();
    assert!(error.retryable(), "{error}");
    assert_eq!(table.txn_version("query").await.unwrap(), None);
    let staged = table.stage(rows(&[1], &[1])).await.unwrap();
    table.commit(staged, epoch(1)).await.unwrap();
    assert_eq!(ids(table.snapshot().unwrap()).await, [1]);
}

#[tokio::test]
async fn no_commit_refresh_or_scan_lists_the_log() {
    let store = Store::over(&Arc::new(InMemory::new()));
    let table = table(&house(store.clone()), &[]).await;
    table.txn_version("query").await.unwrap();
    let before = store.listings.load(Ordering::SeqCst);
    for number in 1..=20 {
        let staged = table.stage(rows(&[number], &[1])).await.unwrap();
        table.commit(staged, epoch(number as u64)).await.unwrap();
        table.refresh().await.unwrap();
    }
    assert_eq!(ids(table.snapshot().unwrap()).await.len(), 20);
    assert_eq!(store.listings.load(Ordering::SeqCst), before);
}

#[tokio::test]
async fn versions_stay_readable() {
    let house = house(Arc::new(InMemory::new()));
    let first = table(&house, &[]).await;
    let mut watch = first.watch();
    let held = first.snapshot().unwrap();
    append(&first, &[1]).await;
    append(&first, &[2]).await;
    assert_eq!(*watch.borrow_and_update(), 2);
    assert_eq!(ids(held).await, Vec::<i64>::new());
    assert_eq!(ids(first.snapshot_at(1).await.unwrap()).await, [1]);
    let again = table(&house, &[]).await;
    assert_eq!(ids(again.snapshot_at(1).await.unwrap()).await, [1]);
    assert!(again.snapshot_at(9).await.unwrap_err().hint().unwrap().contains('2'));
}

#[tokio::test]
async fn checkpoints_are_written_and_found_again() {
    let inner = Arc::new(InMemory::new());
    let house = house(inner.clone());
    let first = table(&house, &[]).await;
    append(&first, &[1]).await;
    for number in 1..=104 {
        first.commit(Staged::default(), epoch(number)).await.unwrap();
    }
    while first.checkpointing.load(Ordering::Acquire) {
        tokio::task::yield_now().await;
    }
    let hint = Path::from("house/t/_delta_log/_last_checkpoint");
    let hint = inner.get(&hint).await.unwrap().bytes().await.unwrap();
    assert!(String::from_utf8_lossy(&hint).contains("\"version\":100"), "{hint:?}");
    let follower = table(&house, &[]).await;
    for number in 105..=199 {
        first.commit(Staged::default(), epoch(number)).await.unwrap();
    }
    follower.refresh().await.unwrap();
    assert!(!follower.checkpointing.load(Ordering::Acquire), "only who commits checkpoints");
    let again = table(&house, &[]).await;
    assert_eq!(again.version(), 200);
    assert_eq!(again.txn_version("query").await.unwrap(), Some(199));
    assert_eq!(ids(again.snapshot().unwrap()).await, [1]);
}

/// Makes a table of what `query` yields and writes that into it; answers it and what it should hold.
async fn written(
    house: &Warehouse,
    query: &str,
    partition_by: &[&str],
) -> (Arc<LakeTable>, Vec<RecordBatch>) {
    let frame = SessionContext::new().sql(query).await.unwrap();
    let spec = TableSpec {
        name: "t".into(),
        location: house.table_url("t").unwrap(),
        storage_options: HashMap::new(),
        schema: Arc::new(frame.schema().as_arrow().clone()),
        partition_by: partition_by.iter().map(ToString::to_string).collect(),
        deletion_vectors: false,
    };
    let table = LakeTable::create(house, spec).await.unwrap();
    let staged = table.stage(frame.clone().execute_stream().await.unwrap()).await.unwrap();
    table.commit(staged, None).await.unwrap();
    let expected = frame.collect().await.unwrap();
    let cast = |batch| types::cast_batch(batch, &table.schema()).unwrap();
    let expected = expected.iter().map(cast).collect();
    (table, expected)
}

#[tokio::test]
async fn every_type_comes_back_as_it_was() {
    let house = house(Arc::new(InMemory::new()));
    let query = "SELECT 1::BIGINT AS b, 1::TINYINT AS t, arrow_cast(7, 'UInt64') AS u, 1.5::DOUBLE AS d,
        'NaN'::DOUBLE AS nan, 1.25::DECIMAL(12, 2) AS dec, true AS bool, 'x' AS s,
        arrow_cast('y', 'Utf8View') AS v, arrow_cast('d', 'Dictionary(Int32, Utf8)') AS dict,
        X'00ff' AS bin, DATE '2024-01-01' AS dt, TIMESTAMP '2024-01-01T00:00:00.123456' AS ts,
        arrow_cast(TIMESTAMP '2024-01-01T00:00:00.123456', 'Timestamp(Nanosecond, Some(\"+02:00\"))') AS tz,
        make_array(1, NULL, 2) AS l, named_struct('a', 1, 'b', make_array('z')) AS st,
        MAP {'k': 1} AS m, CAST(NULL AS VARCHAR) AS nothing, 5 AS \"a.b\"";
    let (table, expected) = written(&house, query, &[]).await;
    let context = SessionContext::new();
    context.register_table("t", table.snapshot().unwrap()).unwrap();
    for sql in ["SELECT * FROM t", "SELECT * FROM t WHERE \"a.b\" = 5 AND s = 'x' AND dec > 1"] {
        let found = context.sql(sql).await.unwrap().collect().await.unwrap();
        assert_eq!(found, expected);
    }
    let url = house.table_url("t").unwrap();
    let again = LakeTable::open(&house, "t", url, HashMap::new()).await.unwrap();
    assert_eq!(again.schema(), table.schema());
}

#[tokio::test]
async fn partition_values_come_back_as_they_were() {
    let query = "SELECT * FROM (VALUES
        (1, 'plain', 1::BIGINT, DATE '2024-01-01', true, TIMESTAMP '2024-01-01T01:02:03.000456', 1.50::DECIMAL(5, 2)),
        (2, 'a b/c%d=é#+', -1::BIGINT, DATE '1969-12-31', false, TIMESTAMP '1960-01-01T00:00:00', -0.01::DECIMAL(5, 2)),
        (3, NULL, NULL, NULL, NULL, NULL, NULL)) AS v(id, s, n, d, b, ts, dec)";
    let dir = tempfile::tempdir().unwrap();
    let local = Warehouse::open(dir.path().to_str().unwrap(), HashMap::new()).unwrap();
    for house in [house(Arc::new(InMemory::new())), local] {
        let (table, expected) = written(&house, query, &["s", "n", "d", "b", "ts", "dec"]).await;
        let context = SessionContext::new();
        context.register_table("t", table.snapshot().unwrap()).unwrap();
        let found =
            context.sql("SELECT * FROM t ORDER BY id").await.unwrap().collect().await.unwrap();
        let found = arrow::compute::concat_batches(&table.schema(), &found).unwrap();
        assert_eq!(found, expected[0]);
        for filter in [
            "s = 'a b/c%d=é#+'",
            "n = -1",
            "d < DATE '1970-01-01'",
            "NOT b",
            "dec < 0",
            "ts = TIMESTAMP '1960-01-01T00:00:00'",
        ] {
            let sql = format!("SELECT id FROM t WHERE {filter}");
            let found = context.sql(&sql).await.unwrap().collect().await.unwrap();
            assert_batches_sorted_eq!(["+----+", "| id |", "+----+", "| 2  |", "+----+"], &found);
        }
        let nulls = context.sql("SELECT id FROM t WHERE s IS NULL").await.unwrap();
        let nulls = nulls.collect().await.unwrap();
        assert_batches_sorted_eq!(["+----+", "| id |", "+----+", "| 3  |", "+----+"], &nulls);
    }
}

#[tokio::test]
async fn tables_may_have_odd_names() {
    let dir = tempfile::tempdir().unwrap();
    let local = Warehouse::open(dir.path().join("a house").to_str().unwrap(), HashMap::new());
    for house in [house(Arc::new(InMemory::new())), local.unwrap()] {
        for name in ["a b", "é", "x#y?z", "a+b&c=d", "~\"'*[|]<>", "🌊"] {
            let spec = TableSpec {
                name: name.into(),
                location: house.table_url(name).unwrap(),
                storage_options: HashMap::new(),
                schema: columns(),
                partition_by: vec![],
                deletion_vectors: false,
            };
            let table = LakeTable::create(&house, spec).await.unwrap();
            append(&table, &[1]).await;
            assert_eq!(ids(table.snapshot().unwrap()).await, [1], "{name}");
            let url = house.table_url(name).unwrap();
            let again = LakeTable::open(&house, name, url, HashMap::new()).await.unwrap();
            assert_eq!(ids(again.snapshot().unwrap()).await, [1], "{name}");
        }
    }
}

#[tokio::test]
async fn another_schema_at_the_place_is_refused() {
    let house = house(Arc::new(InMemory::new()));
    let first = table(&house, &["day"]).await;
    let spec = TableSpec {
        name: "t".into(),
        location: first.location(),
        storage_options: HashMap::new(),
        schema: columns(),
        partition_by: vec![],
        deletion_vectors: false,
    };
    let error = LakeTable::create(&house, spec).await.unwrap_err().to_string();
    assert!(error.contains("partitioned by (day)"), "{error}");

    let nowhere = house.table_url("nowhere").unwrap();
    let error = LakeTable::open(&house, "n", nowhere, HashMap::new()).await.unwrap_err();
    assert!(error.to_string().contains("no Delta table at"), "{error}");
}

#[tokio::test]
async fn columns_that_others_mapped_are_read_but_not_written() {
    let house = house(Arc::new(InMemory::new()));
    let url = house.table_url("t").unwrap();
    let root = house.root_of(&url, &HashMap::new()).unwrap();
    let place = Place::new("t", &url, root).unwrap();
    let schema: StructType = columns().as_ref().try_into_kernel().unwrap();
    let mapped = deltalake::operations::create::CreateBuilder::new()
        .with_log_store(place.log.clone())
        .with_columns(schema.fields().cloned())
        .with_configuration_property(deltalake::TableProperty::ColumnMappingMode, Some("name"))
        .await
        .unwrap();
    let written = mapped.write(vec![batch(&[4], &[1])]).await.unwrap();
    assert_eq!(written.version(), Some(1));

    let table = LakeTable::open(&house, "t", url, HashMap::new()).await.unwrap();
    assert_eq!(table.schema(), columns());
    assert_eq!(ids(table.snapshot().unwrap()).await, [4]);
    let error = table.stage(rows(&[1], &[1])).await.unwrap_err().to_string();
    assert!(error.contains("maps column names"), "{error}");
}

#[tokio::test]
async fn tables_lie_on_a_local_disk_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let house = Warehouse::open(dir.path().to_str().unwrap(), HashMap::new()).unwrap();
    let table = table(&house, &["day"]).await;
    append(&table, &[1, 2]).await;
    assert!(dir.path().join("t/_delta_log/00000000000000000001.json").exists());
    assert_eq!(ids(table.snapshot().unwrap()).await, [1, 2]);
    table.delete().await.unwrap();
    assert!(!dir.path().join("t").exists());
}
