//! Changing rows of a large result: our upsert by deletion vectors beside delta-rs's
//! `MERGE`, on the same rows, in one run.
//!
//! A result of `rows` rows (a key, three numbers, a text) is loaded; then epochs change
//! 10,000 random rows each. An epoch is timed from its changelog to its commit. The
//! compaction that it causes goes on beside it, as it does in an engine.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{SessionContext, col};
use tempfile::TempDir;
use tidemill_engine::changelog;
use tidemill_engine::lake::{LakeTable, TableSpec};
use tidemill_engine::sink::Sink;
use tidemill_engine::sink::delta::{DeltaSink, WriteMode};
use tidemill_engine::storage::Warehouse;

use crate::Result;
use crate::machine::{peak_memory_mib, reset_peak_memory};
use crate::report::{Report, median};

/// Rows that an epoch changes.
const CHANGED: u64 = 10_000;
/// Rows that are loaded at a time.
const LOADED: u64 = 1_000_000;
/// Epochs that are timed, after as many that are not.
const EPOCHS: u64 = 40;

pub async fn run(sizes: &[u64], rounds: usize) -> Result<Report> {
    let mut report = Report::new("upsert");
    report.setting("changed rows an epoch", CHANGED);
    for rows in sizes {
        eprintln!("{rows} rows");
        reset_peak_memory();
        let folder = tempfile::tempdir()?;
        let result = Upserted::load(&folder, *rows).await?;
        let epochs = result.epochs(2 * EPOCHS).await?;
        let upsert = median(epochs[EPOCHS as usize..].to_vec());
        report.figure(&format!("{rows:>9} rows: upsert, ms"), upsert);
        let worst = epochs[EPOCHS as usize..].iter().copied().fold(0.0, f64::max);
        report.figure(&format!("{rows:>9} rows: upsert, slowest, ms"), worst);
        report.figure(&format!("{rows:>9} rows: files"), result.table.file_count() as f64);
        report.figure(&format!("{rows:>9} rows: index anew, ms"), result.index_anew().await?);
        report.figure(&format!("{rows:>9} rows: memory, peak MiB"), peak_memory_mib() as f64);
        let merged = merge(&folder, *rows, rounds).await?;
        report.figure(&format!("{rows:>9} rows: delta-rs MERGE, ms"), merged);
        report.figure(&format!("{rows:>9} rows: MERGE / upsert"), merged / upsert);
    }
    Ok(report)
}

struct Upserted {
    table: Arc<LakeTable>,
    sink: DeltaSink,
    rows: u64,
    loads: u64,
}

impl Upserted {
    async fn load(folder: &TempDir, rows: u64) -> Result<Self> {
        let table = make(folder, "upserted", true).await?;
        let sink = upserting(&table);
        sink.committed().await?;
        let mut loads = 0;
        for from in (0..rows).step_by(LOADED as usize) {
            loads += 1;
            let keys: Vec<u64> = (from..rows.min(from + LOADED)).collect();
            let batch = values(&keys, 0)?;
            let staged = sink.stage(stream(batch)).await?;
            sink.commit(loads, staged).await?;
        }
        Ok(Self { table, sink, rows, loads })
    }

    /// Milliseconds of each epoch.
    async fn epochs(&self, count: u64) -> Result<Vec<f64>> {
        let mut version: HashMap<u64, u64> = HashMap::new();
        let mut took = Vec::new();
        for epoch in 1..=count {
            let keys = random_keys(self.rows, epoch);
            let before: Vec<u64> = keys.iter().map(|key| *version.get(key).unwrap_or(&0)).collect();
            let old = changes(&keys, &before, -1)?;
            let now = vec![epoch; keys.len()];
            let new = changes(&keys, &now, 1)?;
            version.extend(keys.iter().map(|key| (*key, epoch)));
            let all = arrow::compute::concat_batches(&old.schema(), &[old, new])?;
            let started = Instant::now();
            let staged = self.sink.stage(stream(all)).await?;
            self.sink.commit(self.loads + epoch, staged).await?;
            took.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(took)
    }

    /// Milliseconds until a new sink has found the rows' places: what a restart costs.
    async fn index_anew(&self) -> Result<f64> {
        let sink = upserting(&self.table);
        sink.committed().await?;
        let nothing = changes(&[], &[], 1)?;
        let started = Instant::now();
        sink.stage(stream(nothing)).await?;
        Ok(started.elapsed().as_secs_f64() * 1000.0)
    }
}

fn upserting(table: &Arc<LakeTable>) -> DeltaSink {
    let mode = WriteMode::DeletionVectors;
    DeltaSink::upserting(Arc::clone(table), "benchmark", Some(vec![0]), mode)
}

async fn make(folder: &TempDir, name: &str, deletion_vectors: bool) -> Result<Arc<LakeTable>> {
    let path = folder.path().to_str().ok_or("the folder is no UTF-8")?;
    let warehouse = Warehouse::open(path, Default::default())?;
    let spec = TableSpec {
        name: name.into(),
        location: warehouse.table_url(name)?,
        storage_options: Default::default(),
        schema: values(&[], 0)?.schema(),
        partition_by: Vec::new(),
        deletion_vectors,
    };
    Ok(LakeTable::create(&warehouse, spec).await?)
}

/// The same rows and changes through delta-rs. Answers milliseconds.
async fn merge(folder: &TempDir, rows: u64, rounds: usize) -> Result<f64> {
    let table = make(folder, "merged", false).await?;
    for from in (0..rows).step_by(LOADED as usize) {
        let keys: Vec<u64> = (from..rows.min(from + LOADED)).collect();
        let staged = table.stage(stream(values(&keys, 0)?)).await?;
        table.commit(staged, None).await?;
    }
    let mut target = deltalake::open_table(table.location()).await?;
    let mut took = Vec::new();
    for round in 1..=rounds as u64 {
        let keys = random_keys(rows, round);
        let source = SessionContext::new().read_batch(values(&keys, round)?)?;
        let columns: Vec<String> =
            table.schema().fields().iter().map(|field| field.name().clone()).collect();
        let started = Instant::now();
        let (merged, _) = target
            .merge(source, col("target.id").eq(col("source.id")))
            .with_source_alias("source")
            .with_target_alias("target")
            .when_matched_update(|update| {
                let all = columns.iter();
                all.fold(update, |update, name| update.update(name, col(format!("source.{name}"))))
            })?
            .when_not_matched_insert(|insert| {
                let all = columns.iter();
                all.fold(insert, |insert, name| insert.set(name, col(format!("source.{name}"))))
            })?
            .await?;
        took.push(started.elapsed().as_secs_f64() * 1000.0);
        target = merged;
    }
    Ok(median(took))
}

fn stream(batch: RecordBatch) -> SendableRecordBatchStream {
    let schema = batch.schema();
    Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter([Ok(batch)])))
}

/// Distinct keys, the same for the same epoch.
fn random_keys(rows: u64, epoch: u64) -> Vec<u64> {
    let mut seen = std::collections::HashSet::new();
    let mut state = epoch.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut keys = Vec::with_capacity(CHANGED as usize);
    while keys.len() < CHANGED.min(rows) as usize {
        // splitmix64
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let key = (mixed ^ (mixed >> 31)) % rows;
        if seen.insert(key) {
            keys.push(key);
        }
    }
    keys
}

fn values(keys: &[u64], version: u64) -> Result<RecordBatch> {
    batch(keys, &vec![version; keys.len()])
}

fn changes(keys: &[u64], versions: &[u64], weight: i64) -> Result<RecordBatch> {
    let weights = Int64Array::from_value(weight, keys.len());
    Ok(changelog::join(&batch(keys, versions)?, weights)?)
}

fn batch(keys: &[u64], versions: &[u64]) -> Result<RecordBatch> {
    let each = || keys.iter().zip(versions);
    let ids: Int64Array = keys.iter().map(|key| Some(*key as i64)).collect();
    let counts: Int64Array = each().map(|(key, at)| Some((key % 1000 + at) as i64)).collect();
    let sums: Float64Array = each().map(|(key, at)| Some(*key as f64 / 7.0 + *at as f64)).collect();
    let latest: Int64Array = versions.iter().map(|at| Some(*at as i64)).collect();
    let names = keys.iter().map(|key| format!("product {}", key % 5000));
    Ok(RecordBatch::try_from_iter([
        ("id", Arc::new(ids) as ArrayRef),
        ("orders", Arc::new(counts)),
        ("revenue", Arc::new(sums)),
        ("latest", Arc::new(latest)),
        ("name", Arc::new(StringArray::from_iter_values(names))),
    ])?)
}
