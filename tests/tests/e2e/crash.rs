//! `kill -9` on the running program at random moments: every message exactly
//! once in the table, and no `txn` version twice in its log.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::events::{self, Sums};
use crate::kafka::Kafka;
use crate::{long, report};

/// The `tidemill` program beside this test's executable.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("tidemill");
    assert!(path.exists(), "{} is missing: cargo build --bin tidemill", path.display());
    path
}

fn sql(warehouse: &Path, statement: &str) -> String {
    let output = Command::new(program())
        .args(["sql", "--format", "csv", "--warehouse"])
        .arg(warehouse)
        .args(["-c", statement])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{statement}: {out}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    out
}

fn run(warehouse: &Path, file: &Path, once: bool) -> Child {
    let mut command = Command::new(program());
    command.arg("run").arg(file).arg("--warehouse").arg(warehouse);
    if once {
        command.arg("--once");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// A small generator of our own: the moments of the kills follow from the seed.
struct Moments(u64);

impl Moments {
    fn next(&mut self, below_ms: u64) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_millis(self.0 % below_ms)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_minus_nine_at_random_moments_neither_loses_nor_doubles() {
    let Some(kafka) = Kafka::start() else { return };
    let since = Instant::now();
    let rounds = if long() { 50 } else { 5 };
    let per_round = 20_000;
    kafka.create_topic("events", 4);
    let folder = tempfile::tempdir().unwrap();
    let warehouse = folder.path().join("warehouse");
    let file = folder.path().join("query.sql");
    let view = "CREATE MATERIALIZED VIEW IF NOT EXISTS kept PARTITIONED BY (country) \
                WITH (trigger_interval = '20ms') AS \
                SELECT id, country, amount FROM events WHERE id >= 0";
    let source = events::source("IF NOT EXISTS events", &kafka.bootstrap, "events")
        .replace("WITH (", "WITH (max_rows_per_epoch = 2000, ");
    std::fs::write(&file, format!("{source};\n{view};\n")).unwrap();

    let seed = 0x5eed_u64 + u64::from(std::process::id());
    eprintln!("seed {seed}");
    let mut moments = Moments(seed);
    let mut produced = 0;
    for round in 0..rounds {
        events::produce(&kafka.bootstrap, "events", 4, produced..produced + per_round, false).await;
        produced += per_round;
        let mut child = run(&warehouse, &file, false);
        // From before it has opened the warehouse to well inside the work.
        tokio::time::sleep(moments.next(2500)).await;
        assert!(
            child.try_wait().unwrap().is_none(),
            "round {round}: it ended by itself: {}",
            talk(child)
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let last = run(&warehouse, &file, true).wait_with_output().unwrap();
    assert!(last.status.success(), "{}", String::from_utf8_lossy(&last.stderr));

    let figures =
        "SELECT count(*), sum(id), cast(sum(amount) * 100 AS BIGINT), count(DISTINCT id) FROM kept";
    let out = sql(&warehouse, figures);
    let Sums { rows, ids, cents } = events::sums(0..produced, false);
    let line = out.lines().nth(1).unwrap_or_default();
    assert_eq!(line, format!("{rows},{ids},{cents},{rows}"), "{out}");
    let commits = each_epoch_once(&warehouse);
    let what = format!("{rounds} rounds of kill -9, {produced} messages, {commits} commits");
    report::passed("kill_minus_nine", &what, since);
}

fn talk(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Reads the table's log: every `txn` version stands in one commit. Answers how many.
fn each_epoch_once(warehouse: &Path) -> usize {
    let table = std::fs::read_dir(warehouse)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("kept"))
        .unwrap();
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(table.join("_delta_log")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let action: serde_json::Value = serde_json::from_str(line).unwrap();
            if let Some(version) = action["txn"]["version"].as_u64() {
                assert!(seen.insert(version), "epoch {version} was committed twice");
            }
        }
    }
    assert!(!seen.is_empty());
    seen.len()
}
