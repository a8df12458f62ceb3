//! Snapshots over a store in memory: what is written, read back, pruned and refused.

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use object_store::memory::InMemory;
use serde_json::json;

use super::*;
use crate::state::{Table, TableSpec};

fn warehouse() -> Warehouse {
    let url = url::Url::parse("memory:///").unwrap();
    Warehouse::with_store(url, Arc::new(InMemory::new()))
}

fn rows(range: std::ops::Range<i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(range));
    RecordBatch::try_from_iter([("n", column)]).unwrap()
}

fn spec() -> TableSpec {
    TableSpec { schema: rows(0..0).schema(), key: vec![0] }
}

fn upsert(table: &mut Table, range: std::ops::Range<i64>) {
    let rows = rows(range);
    let keys = table.keys(rows.columns(), rows.num_rows()).unwrap();
    table.upsert(&keys, &rows).unwrap();
}

fn content(table: &Table) -> Vec<i64> {
    let columns = table.gather(&table.all(), None).unwrap();
    columns[0].as_primitive::<Int64Type>().values().to_vec()
}

async fn save(snapshots: &Snapshots, epoch: u64, table: &mut Table) {
    let images = BTreeMap::from([("t".to_owned(), table.image().unwrap())]);
    snapshots.save(epoch, "v1", images, json!({"epoch": epoch})).await.unwrap();
}

async fn load(snapshots: &Snapshots, at_most: u64) -> Table {
    let mut snapshot = snapshots.load(at_most).await.unwrap().unwrap();
    Table::restore(spec(), snapshot.tables.remove("t").unwrap()).unwrap()
}

async fn files(warehouse: &Warehouse) -> Vec<Path> {
    let entries: Vec<_> = warehouse.store().list(None).try_collect().await.unwrap();
    entries.into_iter().map(|entry| entry.location).collect()
}

#[tokio::test]
async fn a_snapshot_comes_back_and_costs_what_changed() {
    let warehouse = warehouse();
    let snapshots = Snapshots::new(&warehouse, "q");
    assert!(snapshots.load(9).await.unwrap().is_none());
    let mut table = Table::new(spec()).unwrap();
    upsert(&mut table, 0..1000);
    save(&snapshots, 3, &mut table).await;
    assert_eq!(files(&warehouse).await.len(), 2, "a segment and a manifest");
    upsert(&mut table, 500..1500);
    save(&snapshots, 5, &mut table).await;
    assert_eq!(files(&warehouse).await.len(), 5, "another segment, deleted rows, a manifest");
    save(&snapshots, 6, &mut table).await;
    assert_eq!(files(&warehouse).await.len(), 6, "a manifest");
    let again = Snapshots::new(&warehouse, "q");
    let snapshot = again.load(5).await.unwrap().unwrap();
    assert_eq!((snapshot.epoch, snapshot.version.as_str()), (5, "v1"));
    assert_eq!(snapshot.extra, json!({"epoch": 5}));
    assert_eq!(content(&load(&again, 4).await), (0..1000).collect::<Vec<_>>());
    let mut table = load(&again, 6).await;
    assert_eq!(content(&table), (0..1500).collect::<Vec<_>>());
    upsert(&mut table, 1500..1501);
    save(&again, 7, &mut table).await;
    assert_eq!(files(&warehouse).await.len(), 8, "a restart doesn't write again what is there");
    again.delete().await.unwrap();
    assert!(files(&warehouse).await.is_empty());
}

#[tokio::test]
async fn pruning_keeps_what_two_snapshots_need_and_clears_orphans() {
    let warehouse = warehouse();
    let snapshots = Snapshots::new(&warehouse, "q");
    let mut table = Table::new(spec()).unwrap();
    for epoch in 0..30 {
        let start = epoch as i64 * 70;
        upsert(&mut table, start..start + 100);
        save(&snapshots, epoch, &mut table).await;
        let orphan = snapshots.files().join("orphan.arrow");
        warehouse.store().put(&orphan, PutPayload::from("x")).await.unwrap();
        snapshots.prune(2).await.unwrap();
        table.maintain().unwrap();
        let again = Snapshots::new(&warehouse, "q");
        assert_eq!(content(&load(&again, epoch).await), (0..start + 100).collect::<Vec<_>>());
        assert!(files(&warehouse).await.len() < 60);
    }
    assert_eq!(snapshots.epochs().await.unwrap(), BTreeSet::from([28, 29]));
    let again = Snapshots::new(&warehouse, "q");
    let mut table = load(&again, 28).await;
    again.prune(1).await.unwrap();
    save(&again, 29, &mut table).await;
    save(&again, 30, &mut table).await;
    assert_eq!(content(&load(&again, 30).await).len(), 28 * 70 + 100);
}

#[tokio::test]
async fn an_epoch_saved_again_is_the_same_and_another_plan_is_refused() {
    let warehouse = warehouse();
    let mut table = Table::new(spec()).unwrap();
    upsert(&mut table, 0..10);
    save(&Snapshots::new(&warehouse, "q"), 1, &mut table).await;
    let again = Snapshots::new(&warehouse, "q");
    save(&again, 1, &mut table).await;
    again.prune(2).await.unwrap();
    save(&again, 2, &mut table).await;
    assert_eq!(content(&load(&again, 2).await).len(), 10);
    let other = again.save(2, "v2", BTreeMap::new(), json!(null)).await.unwrap_err();
    assert!(matches!(other, Error::Fenced { .. }), "{other}");
}

#[tokio::test]
async fn broken_files_are_errors_that_say_what_to_do() {
    let warehouse = warehouse();
    let mut table = Table::new(spec()).unwrap();
    upsert(&mut table, 0..100);
    upsert(&mut table, 0..10);
    save(&Snapshots::new(&warehouse, "q"), 1, &mut table).await;
    let store = warehouse.store();
    for path in files(&warehouse).await {
        let whole = store.get(&path).await.unwrap().bytes().await.unwrap();
        let cut = whole.slice(..whole.len() - 1);
        let mut garbled = whole.to_vec();
        let middle = garbled.len() / 2;
        garbled[middle] ^= 0xff;
        for broken in [cut, Bytes::new(), Bytes::from(garbled)] {
            store.put(&path, PutPayload::from(broken)).await.unwrap();
            let error = Snapshots::new(&warehouse, "q").load(1).await.unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{error}");
            assert!(error.to_string().contains("drop and create"), "{error}");
        }
        store.put(&path, PutPayload::from(whole)).await.unwrap();
    }
    for path in files(&warehouse).await.iter().filter(|path| path.extension() != Some("json")) {
        let whole = store.get(path).await.unwrap().bytes().await.unwrap();
        store.delete(path).await.unwrap();
        let error = Snapshots::new(&warehouse, "q").load(1).await.unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
        store.put(path, PutPayload::from(whole)).await.unwrap();
    }
    assert_eq!(load(&Snapshots::new(&warehouse, "q"), 1).await.len(), 100);
}

#[tokio::test]
async fn a_snapshot_is_loaded_into_mapped_files() {
    let (warehouse, folder) = (warehouse(), tempfile::tempdir().unwrap());
    let mut table = Table::new(spec()).unwrap();
    upsert(&mut table, 0..200_000);
    save(&Snapshots::new(&warehouse, "q"), 1, &mut table).await;
    let spilling = Snapshots::new(&warehouse, "q").spill_to(folder.path());
    let mapped = load(&spilling, 1).await;
    assert_eq!(mapped.len(), 200_000);
    assert!(mapped.memory() + 1_500_000 < table.memory());
}
