//! Measures Tidemill, beside what bounds it, in one run on one machine.
//!
//! `benchmarks run ingest` (or `freshness`, `state`, `upsert`, `nexmark`) prints the
//! figures and writes them as JSON, with the machine's description; `benchmarks
//! compare A.json B.json` sets two such files side by side. Nothing here is a test: no
//! figure makes it fail.

mod events;
mod freshness;
mod growth;
mod ingest;
mod kafka;
mod machine;
mod nexmark;
mod report;
mod state;
mod upsert;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

pub type Error = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T> = std::result::Result<T, Error>;

/// Measures Tidemill on real Apache Kafka (scripts/kafka.sh).
#[derive(Parser)]
#[command(after_help = "Examples:\n  benchmarks run ingest --rows 2000000\n  \
                        benchmarks run freshness --rate 50000 --seconds 30 --out now.json\n  \
                        benchmarks run growth --keys 100000,1000000,10000000\n  \
                        benchmarks run limit --keys 20000000 --memory-limit 400\n  \
                        benchmarks run nexmark --queries 4,7 --to batch,blackhole,delta\n  \
                        benchmarks run nexmark --from files --files nexmark --to blackhole\n  \
                        benchmarks compare before.json now.json")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a benchmark.
    Run {
        what: What,
        /// Messages of `ingest`.
        #[arg(long, default_value_t = 2_000_000)]
        rows: u64,
        /// How often each part of `ingest` and `nexmark`, and `MERGE` in `upsert`, is run; the median counts.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Events a second of `freshness`.
        #[arg(long, default_value_t = 50_000)]
        rate: u64,
        /// How long `freshness` runs.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        /// Stored keys of `state`, `upsert`, `growth` and `limit`, one after the other.
        #[arg(long, value_delimiter = ',', default_values_t = [1_000_000, 10_000_000])]
        keys: Vec<u64>,
        /// Memory of each table of `state`, or of each operator of `limit`, in MiB.
        #[arg(long)]
        memory_limit: Option<usize>,
        /// Where the figures go as JSON.
        #[arg(long)]
        out: Option<PathBuf>,
        #[command(flatten)]
        nexmark: nexmark::Options,
    },
    /// One measurement of `nexmark`, for `run` itself.
    #[command(hide = true)]
    Measure {
        #[command(flatten)]
        options: nexmark::Options,
    },
    /// Sets the figures of two runs side by side.
    Compare { before: PathBuf, after: PathBuf },
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    Ingest,
    Freshness,
    State,
    Upsert,
    Nexmark,
    Growth,
    Limit,
}

#[tokio::main]
async fn main() -> ExitCode {
    tidemill_engine::heap::keep_freed_memory();
    match run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    let (report, out) = match command {
        Command::Compare { before, after } => return report::compare(&before, &after),
        Command::Measure { options } => return nexmark::measure(&options).await,
        Command::Run { what: What::Growth, keys, out, .. } => (growth::run(&keys).await?, out),
        Command::Run { what: What::Limit, keys, memory_limit, out, .. } => {
            let keys = keys.first().ok_or("--keys says how many keys there are")?;
            (growth::limited(*keys, memory_limit.unwrap_or(1024)).await?, out)
        }
        Command::Run { what: What::Nexmark, nexmark, rounds, out, .. } => {
            (nexmark::run(&nexmark, rounds).await?, out)
        }
        Command::Run { what: What::Ingest, rows, rounds, out, .. } => {
            (ingest::run(rows, rounds).await?, out)
        }
        Command::Run { what: What::Freshness, rate, seconds, out, .. } => {
            (freshness::run(rate, seconds).await?, out)
        }
        Command::Run { what: What::State, keys, memory_limit, out, .. } => {
            (state::run(&keys, memory_limit).await?, out)
        }
        Command::Run { what: What::Upsert, keys, rounds, out, .. } => {
            (upsert::run(&keys, rounds).await?, out)
        }
    };
    report.print();
    match out {
        Some(path) => report.write(&path),
        None => Ok(()),
    }
}
