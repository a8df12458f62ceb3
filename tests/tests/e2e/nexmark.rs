//! Nexmark as a person runs it: `generate` fills a folder or topics, `run --once` brings q0 to
//! q22 up to date, and each view holds what its query answers as a batch over the same events.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use tempfile::TempDir;
use tidemill_engine::config::EngineConfig;
use tidemill_sql::{Access, Database};
use tidemill_tests::nexmark::{QUERIES, check, file, read, run};

use crate::house::{House, program};
use crate::kafka::Kafka;
use crate::{long, report};

fn events() -> u64 {
    if long() { 100_000 } else { 20_000 }
}

/// `tidemill generate nexmark`, so that the events lie in two windows of ten seconds.
fn generate(folder: &TempDir, to: &str) {
    let rows = events().to_string();
    let output = Command::new(program())
        .args(["generate", "nexmark", "--rows", &rows, "--start-time", "2025-01-01T00:00:09"])
        .args(["--to", to])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `tidemill run --once` of all queries, some epochs each.
fn run_once(house: &House, folder: &TempDir, sources: &Path) {
    let side_input = file("side_input.sql");
    let queries = QUERIES.map(|number| file(&format!("q{number}.sql")));
    let output = house
        .command(&["run", "--once", "--max-rows-per-epoch", "3000"])
        .args([sources, &side_input])
        .args(queries)
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The streams for batch queries, in a database of their own.
async fn batch(sources: &str, folder: &TempDir) -> Arc<Database> {
    let warehouse = folder.path().join("batch").to_str().unwrap().to_owned();
    let config = EngineConfig { warehouse, ..EngineConfig::default() };
    let database = Database::open(config, Access::Step).await.unwrap();
    let session = database.session();
    run(&session, sources).await.unwrap();
    run(&session, &read("side_input.sql").unwrap()).await.unwrap();
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn nexmark_from_files() {
    let since = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let house = House::local(&folder);
    generate(&folder, "nexmark");
    run_once(&house, &folder, &file("sources-files.sql"));
    // The test does not run in the folder.
    let place = format!("'{}/nexmark/", folder.path().display());
    let sources = read("sources-files.sql").unwrap().replace("'nexmark/", &place);
    let batch = batch(&sources, &folder).await;
    check(&house.open().await.session(), &batch.session()).await.unwrap();
    let what = format!("{} events in files, q0 to q22", events());
    report::passed("nexmark_from_files", &what, since);
}

#[tokio::test(flavor = "multi_thread")]
async fn nexmark_from_kafka() {
    let Some(kafka) = Kafka::shared() else { return };
    let since = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let house = House::local(&folder);
    for (topic, partitions) in [("nexmark-bid", 3), ("nexmark-auction", 2), ("nexmark-person", 1)] {
        kafka.create_topic(topic, partitions);
    }
    generate(&folder, &format!("kafka://{}/nexmark", kafka.bootstrap));
    let text = read("sources-kafka.sql").unwrap().replace("localhost:9092", &kafka.bootstrap);
    let sources = folder.path().join("sources.sql");
    std::fs::write(&sources, &text).unwrap();
    run_once(&house, &folder, &sources);
    let batch = batch(&text, &folder).await;
    check(&house.open().await.session(), &batch.session()).await.unwrap();
    let what = format!("{} events in topics, q0 to q22", events());
    report::passed("nexmark_from_kafka", &what, since);
}
