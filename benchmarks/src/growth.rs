//! What an epoch, a recovery and a memory limit cost as stored keys grow.
//!
//! Keys 0 to n come once each; the epochs after them bring 10,000 of them again, from all
//! over. Those are timed from the planning of the epoch to its commit.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use futures::TryStreamExt;
use tidemill_engine::config::EngineConfig;
use tidemill_sql::{Access, Answer, Database};

use crate::Result;
use crate::machine::{peak_memory_mib, reset_peak_memory};
use crate::report::{Report, median};

/// Rows of a timed epoch.
const CHANGED: u64 = 10_000;
/// Epochs that are timed, after a quarter as many that are not.
const EPOCHS: u64 = 60;
/// Rows of an epoch that fills a state which is not timed.
const FILL: u64 = 250_000;
/// Has no factor in common with any of the sizes: takes neighbours far apart.
const SCATTER: u64 = 2_654_435_761;

/// Epochs over, and recovery of, so many keys.
pub async fn run(sizes: &[u64]) -> Result<Report> {
    let mut report = Report::new("growth");
    report.setting("changed rows an epoch", CHANGED);
    report.setting("epochs", EPOCHS);
    for keys in sizes {
        let mut figure =
            |name: &str, value| report.figure(&format!("{keys:>9} keys: {name}"), value);
        let (aggregate, worst) = epochs(*keys, &counts(*keys), &changes(*keys, CHANGED)).await?;
        figure("aggregate, epoch ms", aggregate);
        figure("aggregate, slowest epoch ms", worst);
        let sources = changes(*keys, CHANGED) + &stored(*keys);
        let (join, worst) = epochs(*keys, &pairs(*keys), &sources).await?;
        figure("join, epoch ms", join);
        figure("join, slowest epoch ms", worst);
        let (table, worst) = with_table(*keys).await?;
        figure("join with a lake table, epoch ms", table);
        figure("join with a lake table, slowest epoch ms", worst);
        let (state, result) =
            (recovery(*keys, &sums(*keys)).await?, recovery(*keys, &counts(*keys)).await?);
        figure("recovery, one row of result, s", state);
        figure("recovery, a row of result a key, s", result);
    }
    Ok(report)
}

/// A count for each of so many keys in `limit` MiB of state, against the batch answer.
pub async fn limited(keys: u64, limit: usize) -> Result<Report> {
    let mut report = Report::new("limit");
    report.setting("keys", keys);
    report.setting("state_memory_limit, MiB", limit as u64);
    let folder = tempfile::tempdir()?;
    let database = open(folder.path()).await?;
    let session = database.session();
    let rows = 2 * keys;
    for sql in declared(&source("changes", rows, FILL)) {
        session.execute(&sql).await?;
    }
    reset_peak_memory();
    let started = Instant::now();
    session
        .execute(&format!(
            "CREATE MATERIALIZED VIEW kept WITH (state_memory_limit = '{limit} MiB') AS {}",
            sums(keys)
        ))
        .await?;
    database.run_once(&|_| ()).await?;
    report.figure("rows/s", rows as f64 / started.elapsed().as_secs_f64());
    report.figure("resident memory, peak MiB", peak_memory_mib() as f64);
    if let Some(query) = database.engine().query("kept") {
        let bytes = query.metrics().state_bytes.load(std::sync::atomic::Ordering::Relaxed);
        report.figure("state in memory at the end, MiB", bytes as f64 / (1 << 20) as f64);
    }
    let (kept, batch) =
        (one_row(&database, "SELECT * FROM kept").await?, one_row(&database, &sums(keys)).await?);
    if kept != batch {
        return Err(format!("the view holds {kept}, the batch answers {batch}").into());
    }
    database.shutdown().await?;
    Ok(report)
}

/// The middle and the slowest of the timed epochs, in milliseconds.
async fn epochs(keys: u64, query: &str, sources: &str) -> Result<(f64, f64)> {
    let folder = tempfile::tempdir()?;
    let database = open(folder.path()).await?;
    for sql in declared(sources) {
        database.session().execute(&sql).await?;
    }
    timed(&database, query, keys.div_ceil(CHANGED)).await
}

/// The same with a lake table of so many rows that the changes are joined with.
async fn with_table(keys: u64) -> Result<(f64, f64)> {
    let folder = tempfile::tempdir()?;
    let database = open(folder.path()).await?;
    let session = database.session();
    for sql in declared(&(changes(keys, CHANGED) + &stored(keys))) {
        session.execute(&sql).await?;
    }
    session.execute("CREATE TABLE held (id BIGINT, v BIGINT)").await?;
    session.execute("INSERT INTO held SELECT seq, v FROM stored").await?;
    let query = format!(
        "SELECT c.seq, h.v FROM (SELECT seq, seq * {SCATTER} % {keys} AS key FROM changes) AS c \
         JOIN held AS h ON h.id = c.key"
    );
    timed(&database, &query, 0).await
}

async fn timed(database: &Arc<Database>, query: &str, fill: u64) -> Result<(f64, f64)> {
    let sink = format!("CREATE SINK q WITH (connector = 'blackhole') AS {query}");
    database.session().execute(&sink).await?;
    for _ in 0..fill + EPOCHS / 4 {
        database.engine().step("q").await?.ok_or("the source ended too early")?;
    }
    let mut took = Vec::new();
    for _ in 0..EPOCHS {
        let started = Instant::now();
        database.engine().step("q").await?.ok_or("the source ended too early")?;
        took.push(started.elapsed().as_secs_f64() * 1e3);
    }
    database.shutdown().await?;
    let worst = took.iter().copied().fold(0.0, f64::max);
    Ok((median(took), worst))
}

/// Seconds from opening a warehouse to the commit of the first new epoch.
async fn recovery(keys: u64, query: &str) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let database = open(folder.path()).await?;
    let session = database.session();
    let fill = FILL.min(keys);
    for sql in declared(&source("changes", keys + 2 * fill, fill)) {
        session.execute(&sql).await?;
    }
    session.execute(&format!("CREATE MATERIALIZED VIEW q AS {query}")).await?;
    for _ in 0..keys.div_ceil(fill) {
        database.engine().step("q").await?.ok_or("the source ended too early")?;
    }
    database.shutdown().await?;
    drop((session, database));
    let started = Instant::now();
    let database = open(folder.path()).await?;
    database.engine().step("q").await?.ok_or("the source ended too early")?;
    let seconds = started.elapsed().as_secs_f64();
    database.shutdown().await?;
    Ok(seconds)
}

async fn open(folder: &Path) -> Result<Arc<Database>> {
    let warehouse = folder.to_str().ok_or("the folder is no UTF-8")?.to_owned();
    let config = EngineConfig { warehouse, ..EngineConfig::default() };
    Ok(Database::open(config, Access::Step).await?)
}

/// Rows numbered from 0, `epoch` of them at a time.
fn source(name: &str, rows: u64, epoch: u64) -> String {
    format!(
        "CREATE SOURCE {name} (v BIGINT, seq BIGINT METADATA FROM 'offset') WITH (connector = \
         'generator', number_of_rows = {rows}, max_rows_per_epoch = {epoch});"
    )
}

fn changes(keys: u64, epoch: u64) -> String {
    source("changes", keys + 2 * EPOCHS * CHANGED, epoch)
}

fn stored(keys: u64) -> String {
    source("stored", keys, CHANGED)
}

fn declared(sources: &str) -> impl Iterator<Item = String> {
    sources.split_terminator(';').map(str::to_owned)
}

/// Each key once, then keys from all over.
fn key(keys: u64) -> String {
    format!("CASE WHEN seq < {keys} THEN seq ELSE seq * {SCATTER} % {keys} END")
}

fn counts(keys: u64) -> String {
    format!("SELECT {} AS key, count(*) AS n, sum(v) AS total FROM changes GROUP BY 1", key(keys))
}

/// One row over a count for each key.
fn sums(keys: u64) -> String {
    format!(
        "SELECT count(*) AS keys, sum(n) AS rows, sum(key % 1009 * n) AS mixed \
         FROM (SELECT {} AS key, count(*) AS n FROM changes GROUP BY 1)",
        key(keys)
    )
}

/// Stored rows with the changes that come once all of them are there.
fn pairs(keys: u64) -> String {
    format!(
        "SELECT c.seq, s.seq AS key, s.v FROM stored AS s JOIN (SELECT seq, seq * {SCATTER} % \
         {keys} AS key FROM changes WHERE seq >= {keys}) AS c ON c.key = s.seq"
    )
}

async fn one_row(database: &Arc<Database>, sql: &str) -> Result<String> {
    let Answer::Rows(rows) = database.session().execute(sql).await? else {
        return Err("a SELECT answers rows".into());
    };
    let batches: Vec<_> = rows.try_collect().await?;
    let table = arrow::util::pretty::pretty_format_batches(&batches)?.to_string();
    Ok(table.lines().nth(3).unwrap_or_default().to_owned())
}
