//! Nexmark: each query kept up to date in epochs, beside DataFusion's one-shot answer to
//! the same query over the same events.
//!
//! Every measurement is a process of its own, so that its peak memory is its own too.
//! The incremental runs end when every event is in the result; their results go to a
//! sink that only counts ([`To::Blackhole`]) or to a Delta table.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use clap::{Args, ValueEnum};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use tidemill_engine::config::EngineConfig;
use tidemill_engine::lake::{LakeTable, TableSpec};
use tidemill_engine::storage::Warehouse;
use tidemill_sql::statement::Statement;
use tidemill_sql::{Access, Answer, Database, Session, parse};

use crate::Result;
use crate::machine::peak_memory_mib;
use crate::report::{Report, median};

/// Bids, auctions and persons in a hundred events.
const SHARES: [(&str, u64); 3] = [("bid", 92), ("auction", 6), ("person", 2)];
/// Rows of one JSON-lines file.
const FILE_ROWS: u64 = 500_000;

/// What is measured.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Queries, by number.
    #[arg(long, value_delimiter = ',', default_values_t = (0..=22).collect::<Vec<u32>>())]
    pub queries: Vec<u32>,
    /// Events in all: 92 bids, 6 auctions and 2 persons of a hundred.
    #[arg(long, default_value_t = 10_000_000)]
    pub events: u64,
    /// Events of an epoch.
    #[arg(long, default_value_t = 100_000)]
    pub epoch: u64,
    /// Where the events come from.
    #[arg(long, value_enum, default_value_t = From::Generator)]
    pub from: From,
    /// Where the results go, one measurement each. `batch` is DataFusion alone, `batch-delta`
    /// the same written to a Delta table in one commit.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["batch", "blackhole"])]
    pub to: Vec<To>,
    /// The files of `--from files`: made there unless they are there.
    #[arg(long, default_value = "nexmark")]
    pub files: PathBuf,
    /// The folder that holds `q0.sql` and the others.
    #[arg(long, default_value = "queries/nexmark")]
    pub folder: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum From {
    Generator,
    /// JSON lines, a series of files for each of the three streams.
    Files,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum To {
    Batch,
    BatchDelta,
    Blackhole,
    Delta,
}

/// One measurement.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    seconds: f64,
    /// Of the result.
    rows: u64,
    memory_mib: u64,
}

/// Measures every query, each destination `rounds` times.
pub async fn run(options: &Options, rounds: usize) -> Result<Report> {
    let mut report = Report::new("nexmark");
    report.setting("events", options.events);
    report.setting("events an epoch", options.epoch);
    report.setting("from files", u64::from(options.from == From::Files));
    if options.from == From::Files {
        write_files(options).await?;
    }
    for query in &options.queries {
        let mut seconds = BTreeMap::new();
        for to in &options.to {
            let name = value_name(*to);
            let runs = (0..rounds).map(|_| in_process(options, *query, *to));
            let runs: Vec<Measured> = runs.collect::<Result<_>>()?;
            let took = median(runs.iter().map(|run| run.seconds).collect());
            let memory = runs.iter().map(|run| run.memory_mib).max().unwrap_or(0);
            let rate = options.events as f64 / took;
            let rows = runs.first().map_or(0, |run| run.rows);
            eprintln!("q{query} {name}: {took:.2} s, {rate:.0}/s, {memory} MiB, {rows} rows");
            report.figure(&format!("q{query:02} {name}, s"), took);
            report.figure(&format!("q{query:02} {name}, MiB"), memory as f64);
            seconds.insert(name, took);
        }
        for (name, took) in &seconds {
            let beside = if name == "delta" { "batch-delta" } else { "batch" };
            if let Some(batch) = seconds.get(beside).filter(|_| !name.starts_with("batch")) {
                report.figure(&format!("q{query:02} {name} / {beside}"), took / batch);
            }
        }
    }
    Ok(report)
}

fn value_name(to: To) -> String {
    to.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Measures in a process of its own: this program, called with what [`measure`] takes.
fn in_process(options: &Options, query: u32, to: To) -> Result<Measured> {
    let from = options.from.to_possible_value().ok_or("a source has a name")?;
    let output = Command::new(std::env::current_exe()?)
        .args(["measure", "--queries", &query.to_string(), "--to", &value_name(to)])
        .args(["--from", from.get_name(), "--events", &options.events.to_string()])
        .args(["--epoch", &options.epoch.to_string()])
        .arg("--files")
        .arg(&options.files)
        .arg("--folder")
        .arg(&options.folder)
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("q{query} to {} failed", value_name(to)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// One query, one destination; prints the figures as JSON.
pub async fn measure(options: &Options) -> Result<()> {
    let ([query], [to]) = (options.queries.as_slice(), options.to.as_slice()) else {
        return Err("one query and one destination are measured at a time".into());
    };
    let folder = tempfile::tempdir()?;
    let warehouse = folder.path().to_str().ok_or("the folder is no UTF-8")?.to_owned();
    let began = Instant::now();
    let config = EngineConfig { warehouse, ..EngineConfig::default() };
    let database = Database::open(config, Access::Step).await?;
    let session = database.session();
    declare(&session, options).await?;
    let (select, name) = (view(&options.folder, *query)?, format!("q{query}"));
    let declared = Instant::now();
    let rows = match to {
        To::Batch => count(session.execute(&select).await?).await?,
        To::BatchDelta => write(session.execute(&select).await?, folder.path()).await?,
        To::Blackhole => {
            let sink = format!("CREATE SINK {name} WITH (connector = 'blackhole') AS {select}");
            session.execute(&sink).await?;
            database.run_once(&|_| ()).await?;
            0
        }
        To::Delta => {
            session.execute(&format!("CREATE MATERIALIZED VIEW {name} AS {select}")).await?;
            database.run_once(&|_| ()).await?;
            0
        }
    };
    // Files stand for a whole job, its start included.
    let start = if options.from == From::Files { began } else { declared };
    let seconds = start.elapsed().as_secs_f64();
    let memory_mib = peak_memory_mib();
    let rows = match to {
        To::Delta => count(session.execute(&format!("SELECT * FROM {name}")).await?).await?,
        _ => rows,
    };
    database.shutdown().await?;
    println!("{}", serde_json::to_string(&Measured { seconds, rows, memory_mib })?);
    Ok(())
}

async fn count(answer: Answer) -> Result<u64> {
    let Answer::Rows(mut rows) = answer else { return Err("a SELECT answers rows".into()) };
    let mut count = 0;
    while let Some(batch) = rows.try_next().await? {
        count += batch.num_rows() as u64;
    }
    Ok(count)
}

/// Writes an answer as a Delta table, with the writer that the views have.
async fn write(answer: Answer, folder: &Path) -> Result<u64> {
    let Answer::Rows(rows) = answer else { return Err("a SELECT answers rows".into()) };
    let path = folder.join("batch");
    let warehouse = Warehouse::open(path.to_str().ok_or("no UTF-8")?, Default::default())?;
    let spec = TableSpec {
        name: "answer".into(),
        location: warehouse.table_url("answer")?,
        storage_options: Default::default(),
        schema: rows.schema(),
        partition_by: Vec::new(),
        deletion_vectors: false,
    };
    let table = LakeTable::create(&warehouse, spec).await?;
    let staged = table.stage(rows).await?;
    let count = staged.rows as u64;
    table.commit(staged, None).await?;
    Ok(count)
}

/// The three streams, in epochs of the size asked for, and the side input.
async fn declare(session: &Session, options: &Options) -> Result<()> {
    let file = match options.from {
        From::Generator => "sources-generator.sql",
        From::Files => "sources-files.sql",
    };
    let text = read(&options.folder, file)?
        .replace("10000000", &options.events.to_string())
        .replace("nexmark/", &format!("{}/", options.files.display()));
    for statement in parse(&text)? {
        let sql = statement.text(&text);
        let share = SHARES.iter().find(|(name, _)| sql.contains(&format!("SOURCE {name} ")));
        let (_, share) = share.ok_or("a stream that Nexmark does not have")?;
        let rows = format!("max_rows_per_epoch = {}, connector", options.epoch * share / 100);
        session.execute(&sql.replacen("connector", &rows, 1)).await?;
    }
    let side = read(&options.folder, "side_input.sql")?;
    for statement in parse(&side)? {
        session.execute(statement.text(&side)).await?;
    }
    Ok(())
}

/// The query of the view that a file declares.
fn view(folder: &Path, query: u32) -> Result<String> {
    let text = read(folder, &format!("q{query}.sql"))?;
    match parse(&text)?.into_iter().next().map(|statement| statement.node) {
        Some(Statement::CreateMaterializedView(create)) => Ok(create.query.to_string()),
        _ => Err(format!("q{query}.sql declares no view").into()),
    }
}

fn read(folder: &Path, name: &str) -> Result<String> {
    let path = folder.join(name);
    Ok(fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?)
}

/// Writes the events as JSON lines, unless a run before has.
async fn write_files(options: &Options) -> Result<()> {
    let done = options.files.join(format!("{}.done", options.events));
    if done.exists() {
        return Ok(());
    }
    eprintln!("writing {} events to {}", options.events, options.files.display());
    let folder = tempfile::tempdir()?;
    let warehouse = folder.path().to_str().ok_or("the folder is no UTF-8")?.to_owned();
    let config = EngineConfig { warehouse, ..EngineConfig::default() };
    let database = Database::open(config, Access::Step).await?;
    let session = database.session();
    declare(&session, &Options { from: From::Generator, ..options.clone() }).await?;
    for (stream, _) in SHARES {
        let target = options.files.join(stream);
        if target.exists() {
            fs::remove_dir_all(&target)?;
        }
        fs::create_dir_all(&target)?;
        let columns = if stream == "bid" { "* EXCEPT (arrived_at)" } else { "*" };
        let answer = session.execute(&format!("SELECT {columns} FROM {stream}")).await?;
        let Answer::Rows(rows) = answer else { return Err("a SELECT answers rows".into()) };
        write_stream(rows, &target).await?;
    }
    database.shutdown().await?;
    fs::write(done, "")?;
    Ok(())
}

async fn write_stream(
    mut rows: datafusion::execution::SendableRecordBatchStream,
    target: &Path,
) -> Result<()> {
    let (mut writer, mut written, mut file) = (None, 0, 0);
    while let Some(batch) = rows.try_next().await? {
        if writer.is_none() || written >= FILE_ROWS {
            let path = target.join(format!("{file:05}.ndjson"));
            let to = BufWriter::with_capacity(1 << 20, File::create(path)?);
            writer = Some(arrow::json::LineDelimitedWriter::new(to));
            (written, file) = (0, file + 1);
        }
        if let Some(writer) = &mut writer {
            writer.write(&batch)?;
            written += batch.num_rows() as u64;
        }
    }
    Ok(())
}
