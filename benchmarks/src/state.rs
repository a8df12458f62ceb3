//! Keyed state: what a count per `BIGINT` key costs in memory and on disk, how fast keys
//! are looked up and replaced, and how long a killed engine needs to have them again.
//!
//! The table is filled, then replaced at random in epochs of 30,000 keys, as an
//! aggregate does: look up, read, add one, replace. Then its rows move to mapped files,
//! and the same is done again. Everything runs on one core.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use tidemill_engine::state::{Snapshots, Table, TableSpec};
use tidemill_engine::storage::Warehouse;

use crate::Result;
use crate::machine::{peak_memory_mib, reset_peak_memory};
use crate::report::{Report, median, percentile};

/// Keys that an epoch of the filling adds.
const FILL: u64 = 100_000;
/// Keys that an epoch replaces.
const CHANGED: u64 = 30_000;
const EPOCHS: u64 = 100;

/// Measures tables of so many keys, one after the other; `limit` is in MiB.
pub async fn run(sizes: &[u64], limit: Option<usize>) -> Result<Report> {
    let mut report = Report::new("state");
    report.setting("keys replaced an epoch", CHANGED);
    report.setting("epochs", EPOCHS);
    if let Some(limit) = limit {
        report.setting("memory limit, MiB", limit as u64);
    }
    for keys in sizes {
        one_size(&mut report, *keys, limit).await?;
    }
    Ok(report)
}

async fn one_size(report: &mut Report, keys: u64, limit: Option<usize>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    reset_peak_memory();
    let mut figure = |name: &str, value: f64| report.figure(&format!("{keys} keys: {name}"), value);
    let mut table = Table::new(spec())?;
    table.spill_to(folder.path());
    table.set_memory_limit(limit.map_or(usize::MAX, |limit| limit << 20));
    let start = Instant::now();
    fill(&mut table, keys)?;
    figure("filled, rows/s", keys as f64 / start.elapsed().as_secs_f64());
    figure("bytes a key, in memory when filled", table.memory() as f64 / keys as f64);
    for (name, value) in replace(&mut table, keys)? {
        figure(&format!("{name}, in memory"), value);
    }
    table.set_memory_limit(0);
    let start = Instant::now();
    table.maintain()?;
    figure("moving all to files, s", start.elapsed().as_secs_f64());
    figure("bytes a key, rows in files", table.memory() as f64 / keys as f64);
    for (name, value) in replace(&mut table, keys)? {
        figure(&format!("{name}, in files"), value);
    }
    for (name, value) in snapshot(&mut table, keys, folder.path()).await? {
        figure(name, value);
    }
    figure("resident memory, peak MiB", peak_memory_mib() as f64);
    Ok(())
}

/// Saves everything, then an epoch's changes, then loads it.
async fn snapshot(table: &mut Table, keys: u64, folder: &Path) -> Result<Vec<(&'static str, f64)>> {
    let home = folder.join("warehouse");
    let location = home.to_str().ok_or("the folder is no UTF-8")?;
    let warehouse = Warehouse::open(location, Default::default())?;
    let snapshots = Snapshots::new(&warehouse, "state");
    let mut figures = Vec::new();
    for (epoch, name) in [(1, "first snapshot, s"), (2, "snapshot after one epoch, ms")] {
        let start = Instant::now();
        let images = BTreeMap::from([("counts".to_owned(), table.image()?)]);
        snapshots.save(epoch, "1", images, serde_json::Value::Null).await?;
        let seconds = start.elapsed().as_secs_f64();
        figures.push((name, if epoch == 1 { seconds } else { seconds * 1e3 }));
        if epoch == 1 {
            figures.push(("bytes a key, on disk", size_of(&home)? as f64 / keys as f64));
            replace_once(table, &batch(random(keys, 0)))?;
        }
    }
    let start = Instant::now();
    let again = Snapshots::new(&warehouse, "state").spill_to(folder);
    let mut loaded = again.load(u64::MAX).await?.ok_or("the snapshot is gone")?;
    figures.push(("loaded, s", start.elapsed().as_secs_f64()));
    let image = loaded.tables.remove("counts").ok_or("the table is gone")?;
    let start = Instant::now();
    let restored = Table::restore(spec(), image)?;
    figures.push(("index rebuilt, s", start.elapsed().as_secs_f64()));
    if restored.len() as u64 != keys {
        return Err(format!("{} keys came back of {keys}", restored.len()).into());
    }
    Ok(figures)
}

fn fill(table: &mut Table, keys: u64) -> Result<()> {
    for start in (0..keys).step_by(FILL as usize) {
        let rows = batch((start..(start + FILL).min(keys)).map(scatter));
        let found = table.keys(&rows.columns()[..1], rows.num_rows())?;
        table.upsert(&found, &rows)?;
        table.maintain()?;
    }
    Ok(())
}

/// Epochs of look up, read, add one, replace; rates of the parts, and the epochs' times.
fn replace(table: &mut Table, keys: u64) -> Result<Vec<(&'static str, f64)>> {
    let (mut lookups, mut upserts, mut epochs) = (Vec::new(), Vec::new(), Vec::new());
    for epoch in 0..EPOCHS {
        let probe = batch(random(keys, epoch));
        let start = Instant::now();
        let [looked, replaced] = replace_once(table, &probe)?;
        table.maintain()?;
        epochs.push(start.elapsed().as_secs_f64() * 1e3);
        lookups.push(probe.num_rows() as f64 / looked);
        upserts.push(probe.num_rows() as f64 / replaced);
    }
    epochs.sort_by(f64::total_cmp);
    Ok(vec![
        ("looked up and read, rows/s", median(lookups)),
        ("replaced, rows/s", median(upserts)),
        ("epoch p50, ms", percentile(&epochs, 0.5)),
        ("epoch worst, ms", percentile(&epochs, 1.0)),
    ])
}

/// Seconds of looking up and reading, and of replacing.
fn replace_once(table: &mut Table, probe: &RecordBatch) -> Result<[f64; 2]> {
    let start = Instant::now();
    let keys = table.keys(&probe.columns()[..1], probe.num_rows())?;
    let found = table.get(&keys)?;
    let counts = table.gather(&found, Some(&[1]))?;
    let looked = start.elapsed().as_secs_f64();
    let counts: Int64Array = counts[0].as_primitive::<Int64Type>().unary(|count| count + 1);
    let rows = RecordBatch::try_new(schema(), vec![probe.column(0).clone(), Arc::new(counts)])?;
    let start = Instant::now();
    table.replace(&keys, &found, &rows)?;
    Ok([looked, start.elapsed().as_secs_f64()])
}

/// Distinct keys that are in the table, all over it.
fn random(keys: u64, epoch: u64) -> impl Iterator<Item = i64> {
    let step = (keys / CHANGED).max(1);
    (0..CHANGED.min(keys)).map(move |at| scatter((at * step + epoch * 7919) % keys))
}

/// A number that says nothing about its neighbours; another one for each.
fn scatter(number: u64) -> i64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)) as i64
}

fn batch(keys: impl Iterator<Item = i64>) -> RecordBatch {
    let keys = Int64Array::from_iter_values(keys);
    let counts = Int64Array::from_value(1, keys.len());
    let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(counts)];
    // The schema is that of these columns.
    RecordBatch::try_new(schema(), columns).unwrap_or_else(|_| RecordBatch::new_empty(schema()))
}

fn schema() -> SchemaRef {
    let field = |name| Field::new(name, DataType::Int64, false);
    Arc::new(Schema::new(vec![field("key"), field("count")]))
}

fn spec() -> TableSpec {
    TableSpec { schema: schema(), key: vec![0] }
}

fn size_of(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        bytes += if about.is_dir() { size_of(&entry.path())? } else { about.len() };
    }
    Ok(bytes)
}
