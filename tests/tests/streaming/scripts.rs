//! Every script under `slt/`, in every way that it runs.
//!
//! `SLT=unnest` picks the scripts with that in their path. `UPDATE_SLT=1` writes
//! today's answers into them: look at the diff.

use std::path::{Path, PathBuf};

use tidemill_tests::script::{Script, complete, find};
use tidemill_tests::way::Way;

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt");
    let wanted = std::env::var("SLT").unwrap_or_default();
    let mut found = find(&folder).expect("the folder of scripts");
    found.retain(|path| path.to_string_lossy().contains(&wanted));
    assert!(!found.is_empty(), "no script has \"{wanted}\" in its path");
    found
}

/// Runs all scripts in one way and reports every one that fails.
async fn run_all(way: Way) {
    let mut failures = Vec::new();
    for path in scripts() {
        let script = Script::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if !script.runs(way) {
            continue;
        }
        if let Err(error) = script.run(way).await {
            failures.push(format!("{}, {}:\n{error}", path.display(), way.label()));
        }
    }
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_written() {
    if std::env::var_os("UPDATE_SLT").is_some() {
        for path in scripts() {
            complete(&path).await.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
    run_all(Way::AsWritten).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_row_an_epoch() {
    run_all(Way::OneRow).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_in_one_epoch() {
    run_all(Way::OneEpoch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_after_every_epoch() {
    run_all(Way::Restarts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_partitions() {
    run_all(Way::ThreePartitions).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs_overlap() {
    run_all(Way::Overlapped).await;
}
