//! Tables kept at the sum of changelogs, compared with a model and with what
//! delta-rs's own reader finds.
//!
//! Long because all cases share one table and its model.

use std::collections::BTreeMap;

use arrow::array::{AsArray, Float64Array, TimestampNanosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use datafusion::common::stats::Precision;
use deltalake::delta_datafusion::{DeltaScanConfig, DeltaScanNext};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::changelog;
use crate::error::Kind;
use crate::sink::Sink;
use crate::sink::delta::{DeltaSink, WriteMode};

/// A row of the tests' table: id, part, word, measure, time.
type Row = (Option<i64>, Option<&'static str>, Option<&'static str>, i64, Option<i64>);

const PARTS: [Option<&str>; 4] = [Some("a"), Some("b c"), Some("c/d"), None];
const WORDS: [Option<&str>; 4] = [Some("x"), Some(""), None, Some("longer than that")];

fn changes(rows: &[(Row, i64)]) -> RecordBatch {
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(rows.iter().map(|(r, _)| r.0).collect::<Int64Array>()) as ArrayRef, true),
        ("part", Arc::new(rows.iter().map(|(r, _)| r.1).collect::<StringArray>()), true),
        ("word", Arc::new(rows.iter().map(|(r, _)| r.2).collect::<StringArray>()), true),
        // NaN, and a zero without a sign that comes and goes with one.
        (
            "measure",
            Arc::new(rows.iter().map(|(r, w)| measure(r.3, *w)).collect::<Float64Array>()),
            true,
        ),
        (
            "time",
            Arc::new(rows.iter().map(|(r, _)| r.4).collect::<TimestampNanosecondArray>()),
            true,
        ),
    ]);
    let weights = rows.iter().map(|(_, weight)| *weight).collect::<Int64Array>();
    changelog::join(&batch.unwrap(), weights).unwrap()
}

fn measure(value: i64, weight: i64) -> Option<f64> {
    match value {
        0 if weight < 0 => Some(-0.0),
        -1 => Some(f64::NAN),
        -2 => None,
        value => Some(value as f64 / 8.0),
    }
}

fn stream(batches: Vec<RecordBatch>) -> SendableRecordBatchStream {
    let schema = batches[0].schema();
    let batches = futures::stream::iter(batches.into_iter().map(Ok));
    Box::pin(RecordBatchStreamAdapter::new(schema, batches))
}

async fn upsert_table(house: &Warehouse, partition_by: &[&str], mode: WriteMode) -> Arc<LakeTable> {
    let spec = TableSpec {
        name: "t".into(),
        location: house.table_url("t").unwrap(),
        storage_options: HashMap::new(),
        schema: changelog::without_weight(&changes(&[]).schema()),
        partition_by: partition_by.iter().map(ToString::to_string).collect(),
        deletion_vectors: mode == WriteMode::DeletionVectors,
    };
    LakeTable::create(house, spec).await.unwrap()
}

async fn reopened(house: &Warehouse) -> Arc<LakeTable> {
    let url = house.table_url("t").unwrap();
    LakeTable::open(house, "t", url, HashMap::new()).await.unwrap()
}

/// The rows of a provider as text, sorted, each with how often it is there.
async fn content(provider: Arc<dyn TableProvider>, filter: &str) -> BTreeMap<String, usize> {
    content_in(SessionContext::new(), provider, filter).await
}

async fn content_in(
    context: SessionContext,
    provider: Arc<dyn TableProvider>,
    filter: &str,
) -> BTreeMap<String, usize> {
    context.register_table("t", provider).unwrap();
    let sql = format!("SELECT id, part, word, measure, time FROM t WHERE {filter}");
    let found = context.sql(&sql).await.unwrap().collect().await.unwrap();
    let mut rows = BTreeMap::new();
    for batch in &found {
        let encoded = changelog::encode(batch.columns()).unwrap();
        let show = |row: usize| {
            let cells = batch.columns().iter().map(|column| {
                arrow::util::display::array_value_to_string(column, row).unwrap()
                    + if column.is_null(row) { "NULL" } else { "" }
            });
            cells.collect::<Vec<_>>().join("|")
        };
        (0..encoded.num_rows()).for_each(|row| *rows.entry(show(row)).or_default() += 1);
    }
    rows
}

/// What the model's rows look like once stored.
async fn expected(model: &BTreeMap<Row, usize>) -> BTreeMap<String, usize> {
    let rows: Vec<(Row, i64)> =
        model.iter().flat_map(|(row, count)| std::iter::repeat_n((*row, 1), *count)).collect();
    let (batch, _) = changelog::split(&changes(&rows)).unwrap();
    let schema = types::delta_schema(batch.schema_ref()).unwrap();
    let batch = types::cast_batch(&batch, &schema).unwrap();
    let table = datafusion::datasource::MemTable::try_new(schema, vec![vec![batch]]).unwrap();
    content(Arc::new(table), "true").await
}

/// What delta-rs alone reads from storage.
async fn by_delta_rs(table: &LakeTable, filter: &str) -> BTreeMap<String, usize> {
    let loaded = log::load(&table.place, None).await.unwrap();
    let state = loaded.snapshot().unwrap().snapshot().clone();
    let config = DeltaScanConfig {
        wrap_partition_values: false,
        schema_force_view_types: false,
        ..DeltaScanConfig::new()
    };
    let context = SessionContext::new();
    read::register_store(&context.state(), &table.place);
    content_in(context, Arc::new(DeltaScanNext::new(state, config).unwrap()), filter).await
}

async fn check(table: &Arc<LakeTable>, model: &BTreeMap<Row, usize>, what: &str) {
    let expected = expected(model).await;
    assert_eq!(content(table.snapshot().unwrap(), "true").await, expected, "{what}");
    assert_eq!(by_delta_rs(table, "true").await, expected, "{what}: delta-rs");
    let rows = expected.values().sum();
    let counted = table.snapshot().unwrap().statistics().unwrap().num_rows;
    assert_eq!(counted, Precision::Exact(rows), "{what}: statistics");
    for filter in ["id < 20", "part = 'a'", "measure > 1 AND word = 'x'", "part IS NULL"] {
        let ours = content(table.snapshot().unwrap(), filter).await;
        assert_eq!(ours, by_delta_rs(table, filter).await, "{what}: {filter}");
    }
}

/// Random changes to a table with unique ids (NULL is one), or with any rows.
struct Changing {
    random: StdRng,
    keyed: bool,
    ids: i64,
    model: BTreeMap<Row, usize>,
}

impl Changing {
    fn row(&mut self, id: Option<i64>) -> Row {
        let random = &mut self.random;
        // Equal once it is stored: the nanoseconds go.
        let time = random.random_bool(0.8).then(|| random.random_range(0..3) * 1_000_000);
        let part = PARTS[random.random_range(0..PARTS.len())];
        let word = WORDS[random.random_range(0..WORDS.len())];
        let measure =
            if self.keyed { random.random_range(-2..50) } else { random.random_range(-2..2) };
        (id, part, word, measure, time)
    }

    fn epoch(&mut self) -> Vec<(Row, i64)> {
        let mut changes = Vec::new();
        for _ in 0..self.random.random_range(0..40) {
            let id = Some(self.random.random_range(0..self.ids)).filter(|id| *id != 13);
            let row = self.row(id);
            let deletes = self.random.random_bool(0.4);
            if self.keyed {
                let old = self.model.keys().find(|row| row.0 == id).copied();
                if let Some(old) = old {
                    self.model.remove(&old);
                    changes.push((old, -1));
                }
                if !deletes || old.is_none() {
                    self.model.insert(row, 1);
                    changes.push((row, 1));
                }
            } else if deletes && !self.model.is_empty() {
                let nth = self.random.random_range(0..self.model.len());
                let old = *self.model.keys().nth(nth).unwrap();
                let count = self.model.get_mut(&old).unwrap();
                let fewer = self.random.random_range(1..=*count);
                *count -= fewer;
                self.model.retain(|_, count| *count > 0);
                changes.push((old, -(fewer as i64)));
            } else {
                let more = self.random.random_range(1..4);
                *self.model.entry(row).or_default() += more;
                changes.push((row, more as i64));
            }
        }
        changes
    }
}

#[tokio::test]
async fn an_empty_text_that_would_be_null_is_refused() {
    let house = Warehouse::in_memory().unwrap();
    let table = upsert_table(&house, &["part"], WriteMode::DeletionVectors).await;
    let sink = DeltaSink::upserting(table, "query", Some(vec![0]), WriteMode::DeletionVectors);
    let row = |part: &'static str| (Some(1), Some(part), None, 8, None);
    let gone = changes(&[(row(""), 1), (row(""), -1), (row("a"), 1)]);
    assert_eq!(sink.stage(stream(vec![gone])).await.unwrap().rows, 1);
    let error = sink.stage(stream(vec![changes(&[(row(""), 1)])])).await.unwrap_err();
    assert!(error.to_string().contains("column \"part\""), "{error}");
}

async fn random_run(house: Warehouse, seed: u64, keyed: bool, parts: &[&str], mode: WriteMode) {
    let mut table = upsert_table(&house, parts, mode).await;
    let key = || keyed.then(|| vec![0]);
    let mut sink = DeltaSink::upserting(table.clone(), "query", key(), mode);
    let mut changing =
        Changing { random: StdRng::seed_from_u64(seed), keyed, ids: 60, model: BTreeMap::new() };
    let mut waiting = None;
    for epoch in 1..=20 {
        let rows = changing.epoch();
        let batches = rows.chunks(7).map(changes).chain([changes(&[])]).collect();
        let staged = sink.stage(stream(batches)).await.unwrap();
        // The one before is committed only now: epochs overlap.
        if let Some((epoch, staged)) = waiting.replace((epoch, staged)) {
            sink.commit(epoch, staged).await.unwrap();
        }
        if changing.random.random_bool(0.3) || epoch == 20 {
            let (epoch, staged) = waiting.take().unwrap();
            sink.commit(epoch, staged).await.unwrap();
            let what = format!("seed {seed}, keyed {keyed}, {parts:?}, {mode:?}, epoch {epoch}");
            check(&table, &changing.model, &what).await;
            if changing.random.random_bool(0.4) {
                table = reopened(&house).await;
                sink = DeltaSink::upserting(table.clone(), "query", key(), mode);
                assert_eq!(sink.committed().await.unwrap(), Some(epoch));
            }
        }
    }
}

#[tokio::test]
async fn what_changes_is_upserted() {
    for (seed, (keyed, parts)) in
        [(true, &[][..]), (false, &[][..]), (true, &["part"][..]), (false, &["part"][..])]
            .into_iter()
            .enumerate()
    {
        let house = house(Arc::new(InMemory::new()));
        random_run(house, seed as u64, keyed, parts, WriteMode::DeletionVectors).await;
    }
}

#[tokio::test]
async fn what_changes_is_copied_for_readers_without_vectors() {
    for (seed, (keyed, parts)) in [(true, &[][..]), (false, &["part"][..])].into_iter().enumerate()
    {
        let house = house(Arc::new(InMemory::new()));
        random_run(house.clone(), seed as u64, keyed, parts, WriteMode::CopyOnWrite).await;
        let table = reopened(&house).await;
        assert!(table.current().files.iter().all(|file| file.vector.is_none()));
        assert!(!table.current().layout.deletion_vectors);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_compacted_while_epochs_go_on() {
    for (keyed, mode) in [
        (true, WriteMode::DeletionVectors),
        (false, WriteMode::DeletionVectors),
        (true, WriteMode::CopyOnWrite),
    ] {
        let house = house(Arc::new(InMemory::new()));
        let table = upsert_table(&house, &[], mode).await;
        let sink = DeltaSink::upserting(table.clone(), "q", keyed.then(|| vec![0]), mode);
        let random = StdRng::seed_from_u64(3);
        let mut changing = Changing { random, keyed, ids: 1000, model: BTreeMap::new() };
        let mut waiting: Option<(u64, Staged)> = None;
        for epoch in 1..=150 {
            let rows = changing.epoch();
            let staging = sink.stage(stream(vec![changes(&rows)]));
            let committing = async {
                if let Some((epoch, staged)) = waiting.take() {
                    sink.commit(epoch, staged).await.unwrap();
                }
            };
            let (staged, ()) = tokio::join!(staging, committing);
            waiting = Some((epoch, staged.unwrap()));
            // Now it overlaps with epochs, now it is done before the next.
            if epoch % 32 == 17 {
                sink.settle().await;
            }
        }
        let (epoch, staged) = waiting.take().unwrap();
        sink.commit(epoch, staged).await.unwrap();
        sink.settle().await;
        let what = format!("compacted, keyed {keyed}, {mode:?}");
        assert!(table.file_count() < 40, "{what}: {} files", table.file_count());
        // Copies are merged as they are made.
        let compacted = mode == WriteMode::CopyOnWrite || table.version() > 150;
        assert!(compacted, "{what}: nothing was compacted");
        check(&table, &changing.model, &what).await;
        check(&reopened(&house).await, &changing.model, &what).await;
        let sink = DeltaSink::upserting(table.clone(), "q", keyed.then(|| vec![0]), mode);
        let all: Vec<_> = changing.model.iter().map(|(row, n)| (*row, -(*n as i64))).collect();
        epoch_of(&sink, 151, &all).await.unwrap();
        check(&table, &BTreeMap::new(), &what).await;
        assert_eq!(table.file_count(), 0);
    }
}

#[tokio::test]
async fn many_small_appends_become_few_files() {
    let house = house(Arc::new(InMemory::new()));
    let table = upsert_table(&house, &["part"], WriteMode::CopyOnWrite).await;
    let sink = DeltaSink::new(table.clone(), "q");
    let mut model = BTreeMap::new();
    let held = table.snapshot().unwrap();
    for epoch in 1..=100 {
        let new = row(epoch, 1);
        model.insert(new, 1);
        let (batch, _) = changelog::split(&changes(&[(new, 1)])).unwrap();
        let staged = sink.stage(stream(vec![batch])).await.unwrap();
        sink.commit(epoch as u64, staged).await.unwrap();
    }
    sink.settle().await;
    assert!(table.file_count() < 40, "{} files", table.file_count());
    check(&table, &model, "appended").await;
    assert_eq!(sink.committed().await.unwrap(), Some(100));
    assert_eq!(content(held, "true").await.len(), 0);
}

#[tokio::test]
async fn partitions_may_be_the_key_and_the_disk_local() {
    let dir = tempfile::tempdir().unwrap();
    let house = Warehouse::open(dir.path().to_str().unwrap(), HashMap::new()).unwrap();
    random_run(house, 7, false, &["id", "time"], WriteMode::DeletionVectors).await;
}

fn row(id: i64, measure: i64) -> Row {
    (Some(id), Some("a"), Some("x"), measure, Some(0))
}

async fn epoch_of(sink: &DeltaSink, epoch: u64, rows: &[(Row, i64)]) -> Result<()> {
    let staged = sink.stage(stream(vec![changes(rows)])).await?;
    sink.commit(epoch, staged).await.map(drop)
}

fn live(rows: &[Row]) -> BTreeMap<Row, usize> {
    rows.iter().map(|row| (*row, 1)).collect()
}

#[tokio::test]
async fn a_row_that_is_not_there_is_an_error_and_changes_nothing() {
    let house = house(Arc::new(InMemory::new()));
    let table = upsert_table(&house, &[], WriteMode::DeletionVectors).await;
    let sink = DeltaSink::upserting(table.clone(), "q", Some(vec![0]), WriteMode::DeletionVectors);
    epoch_of(&sink, 1, &[(row(1, 1), 1), (row(2, 1), 1)]).await.unwrap();
    let error = epoch_of(&sink, 2, &[(row(1, 1), -1), (row(3, 1), -1)]).await.unwrap_err();
    assert!(error.to_string().contains("\"t\" lacks a row"), "{error}");
    assert!(!error.retryable());
    let error = epoch_of(&sink, 2, &[(row(2, 2), 1)]).await.unwrap_err();
    assert!(error.to_string().contains("the same key"), "{error}");
    assert_eq!(sink.committed().await.unwrap(), Some(1));
    epoch_of(&sink, 2, &[(row(1, 1), -1), (row(3, 1), 1)]).await.unwrap();
    check(&table, &live(&[row(2, 1), row(3, 1)]), "after the errors").await;
}

#[tokio::test]
async fn an_upsert_whose_answer_is_lost_or_that_fails_counts_once() {
    let store = Store::over(&Arc::new(InMemory::new()));
    let table = upsert_table(&house(store.clone()), &[], WriteMode::DeletionVectors).await;
    let sink = DeltaSink::upserting(table.clone(), "q", Some(vec![0]), WriteMode::DeletionVectors);
    epoch_of(&sink, 1, &[(row(1, 1), 1), (row(2, 1), 1)]).await.unwrap();
    store.lose.store(1, Ordering::SeqCst);
    epoch_of(&sink, 2, &[(row(1, 1), -1), (row(1, 2), 1)]).await.unwrap();
    check(&table, &live(&[row(1, 2), row(2, 1)]), "lost").await;
    // Only deletes: nothing but the epoch's number tells whose commit it was.
    store.lose.store(1, Ordering::SeqCst);
    epoch_of(&sink, 3, &[(row(2, 1), -1)]).await.unwrap();
    check(&table, &live(&[row(1, 2)]), "lost deletes").await;

    store.fail.store(1, Ordering::SeqCst);
    let error = epoch_of(&sink, 4, &[(row(1, 2), -1), (row(1, 3), 1)]).await.unwrap_err();
    assert!(error.retryable(), "{error}");
    assert_eq!(sink.committed().await.unwrap(), Some(3));
    epoch_of(&sink, 4, &[(row(1, 2), -1), (row(1, 3), 1)]).await.unwrap();
    // Run again without anybody asking: nothing is done, and the index is read anew.
    epoch_of(&sink, 4, &[(row(1, 3), -1), (row(1, 4), 1)]).await.unwrap();
    epoch_of(&sink, 5, &[(row(1, 3), -1), (row(1, 5), 1)]).await.unwrap();
    check(&table, &live(&[row(1, 5)]), "failed").await;
}

#[tokio::test]
async fn files_that_others_rewrote_make_the_query_recover() {
    let house = house(Arc::new(InMemory::new()));
    let table = upsert_table(&house, &[], WriteMode::DeletionVectors).await;
    let sink = DeltaSink::upserting(table.clone(), "q", Some(vec![0]), WriteMode::DeletionVectors);
    epoch_of(&sink, 1, &[(row(1, 1), 1), (row(2, 1), 1)]).await.unwrap();
    let stranger = reopened(&house).await;
    let other = DeltaSink::upserting(stranger, "o", Some(vec![0]), WriteMode::DeletionVectors);
    epoch_of(&other, 1, &[(row(2, 1), -1)]).await.unwrap();
    let error = epoch_of(&sink, 2, &[(row(1, 1), -1), (row(1, 2), 1)]).await.unwrap_err();
    assert!(error.retryable(), "{error}");
    assert_eq!(sink.committed().await.unwrap(), Some(1));
    epoch_of(&sink, 2, &[(row(1, 1), -1), (row(1, 2), 1)]).await.unwrap();
    check(&table, &live(&[row(1, 2)]), "recovered").await;
}

#[tokio::test]
async fn a_file_without_rows_goes_and_a_commit_has_one_file_of_vectors() {
    let dir = tempfile::tempdir().unwrap();
    let house = Warehouse::open(dir.path().to_str().unwrap(), HashMap::new()).unwrap();
    let table = upsert_table(&house, &[], WriteMode::DeletionVectors).await;
    let sink = DeltaSink::upserting(table.clone(), "q", None, WriteMode::DeletionVectors);
    let rows =
        |ids: std::ops::Range<i64>, weight| ids.map(|id| (row(id, 1), weight)).collect::<Vec<_>>();
    epoch_of(&sink, 1, &rows(0..1000, 1)).await.unwrap();
    epoch_of(&sink, 2, &rows(1000..2000, 1)).await.unwrap();
    epoch_of(&sink, 3, &rows(2000..2003, 1)).await.unwrap();
    epoch_of(&sink, 4, &rows(500..1600, -1)).await.unwrap();
    epoch_of(&sink, 5, &rows(2000..2003, -1)).await.unwrap();
    assert_eq!(table.file_count(), 2);
    let files = std::fs::read_dir(dir.path().join("t")).unwrap();
    let vectors = files.filter(|file| {
        file.as_ref().unwrap().file_name().to_string_lossy().starts_with("deletion_vector_")
    });
    assert_eq!(vectors.count(), 1);
    let left: Vec<Row> = (0..500).chain(1600..2000).map(|id| row(id, 1)).collect();
    check(&reopened(&house).await, &live(&left), "read again").await;

    let context = SessionContext::new();
    context.register_table("t", table.snapshot().unwrap()).unwrap();
    let counted = context.sql("SELECT count(*), sum(id) FROM t WHERE id >= 400").await.unwrap();
    let counted = counted.collect().await.unwrap();
    assert_eq!(counted[0].column(0).as_primitive::<Int64Type>().value(0), 500);
    let limited = context.sql("SELECT id FROM t LIMIT 600").await.unwrap().collect().await.unwrap();
    assert_eq!(concat_batches(&limited[0].schema(), &limited).unwrap().num_rows(), 600);
    for epoch in 6..=110 {
        sink.commit(epoch, Staged::default()).await.unwrap();
    }
    while table.checkpointing.load(Ordering::Acquire) {
        tokio::task::yield_now().await;
    }
    assert!(dir.path().join("t/_delta_log/_last_checkpoint").exists());
    let again = reopened(&house).await;
    check(&again, &live(&left), "from a checkpoint").await;
    let sink = DeltaSink::upserting(again.clone(), "q", None, WriteMode::DeletionVectors);
    epoch_of(&sink, 111, &rows(0..500, -1)).await.unwrap();
    assert_eq!(again.file_count(), 1);
    let left: Vec<Row> = (1600..2000).map(|id| row(id, 1)).collect();
    check(&again, &live(&left), "after a checkpoint").await;
}

#[tokio::test]
async fn vacuum_deletes_what_no_version_needs() {
    let dir = tempfile::tempdir().unwrap();
    let house = Warehouse::open(dir.path().to_str().unwrap(), HashMap::new()).unwrap();
    let table = upsert_table(&house, &[], WriteMode::DeletionVectors).await;
    let sink = DeltaSink::upserting(table.clone(), "q", None, WriteMode::DeletionVectors);
    let rows =
        |ids: std::ops::Range<i64>, weight| ids.map(|id| (row(id, 1), weight)).collect::<Vec<_>>();
    // Every third, so that a vector is too large for the log.
    let thirds = |weight| (0..3000).step_by(3).map(move |id| (row(id, 1), weight));
    epoch_of(&sink, 1, &rows(0..3000, 1)).await.unwrap();
    epoch_of(&sink, 2, &thirds(-1).collect::<Vec<_>>()).await.unwrap();
    epoch_of(&sink, 3, &rows(1..2, -1)).await.unwrap();
    epoch_of(&sink, 4, &rows(3000..3100, 1)).await.unwrap();
    epoch_of(&sink, 5, &rows(3000..3100, -1)).await.unwrap();
    let data = || {
        let files = std::fs::read_dir(dir.path().join("t")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "_delta_log").count()
    };
    assert_eq!(data(), 4, "two files of rows, two of vectors");
    assert_eq!(table.vacuum(vacuum::RETENTION).await.unwrap(), 0);
    assert_eq!(table.vacuum(std::time::Duration::ZERO).await.unwrap(), 2);
    assert_eq!(data(), 2);
    let left: Vec<Row> = (2..3000).filter(|id| id % 3 != 0).map(|id| row(id, 1)).collect();
    check(&reopened(&house).await, &live(&left), "vacuumed").await;
}

/// Runs what is left of `epochs`, overlapped, as an engine does after a start.
async fn run_on(house: &Warehouse, epochs: &[Vec<(Row, i64)>], mode: WriteMode) -> Result<()> {
    let url = house.table_url("t").unwrap();
    let table = LakeTable::open(house, "t", url, HashMap::new()).await?;
    let sink = DeltaSink::upserting(table, "q", Some(vec![0]), mode);
    let done = sink.committed().await?.unwrap_or(0);
    let mut waiting = None;
    for epoch in done + 1..=epochs.len() as u64 {
        let rows = changes(&epochs[epoch as usize - 1]);
        let staged = sink.stage(stream(vec![rows])).await;
        if let Some((epoch, staged)) = waiting.take() {
            sink.commit(epoch, staged).await?;
        }
        waiting = Some((epoch, staged?));
        if epoch == 33 {
            // Some of the times with what is staged still to be committed.
            sink.settle().await;
        }
    }
    if let Some((epoch, staged)) = waiting {
        sink.commit(epoch, staged).await?;
    }
    sink.settle().await;
    Ok(())
}

#[tokio::test]
async fn a_crash_at_any_operation_changes_nothing() {
    for mode in [WriteMode::DeletionVectors, WriteMode::CopyOnWrite] {
        let random = StdRng::seed_from_u64(11);
        let mut changing = Changing { random, keyed: true, ids: 500, model: BTreeMap::new() };
        let epochs: Vec<_> = (0..36).map(|_| changing.epoch()).collect();
        for crash in (1..).step_by(31) {
            let store = Store::over(&Arc::new(InMemory::new()));
            let house = house(store.clone());
            let table = upsert_table(&house, &[], mode).await;
            store.left.store(crash, Ordering::SeqCst);
            let first = run_on(&house, &epochs, mode).await;
            store.left.store(u64::MAX, Ordering::SeqCst);
            if let Err(error) = &first {
                assert_ne!(error.kind(), Kind::Internal, "{mode:?}, crash {crash}: {error}");
                run_on(&house, &epochs, mode).await.unwrap();
            }
            table.refresh().await.unwrap();
            let found = content(table.snapshot().unwrap(), "true").await;
            assert_eq!(found, expected(&changing.model).await, "{mode:?}, crash {crash}");
            if first.is_ok() {
                assert!(crash > 60, "{mode:?}: no crash from {crash} on");
                break;
            }
        }
    }
}
