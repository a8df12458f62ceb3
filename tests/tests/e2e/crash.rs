//! `kill -9` on the running program at random moments: every message exactly
//! once in the table, and no `txn` version twice in its log.

use std::process::Child;
use std::time::{Duration, Instant};

use crate::events::{self, Sums};
use crate::house::House;
use crate::kafka::Kafka;
use crate::s3::S3;
use crate::{long, report};

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
    let folder = tempfile::tempdir().unwrap();
    let (messages, commits) = kill_again_and_again(&kafka, &House::local(&folder), rounds).await;
    let what = format!("{rounds} rounds of kill -9, {messages} messages, {commits} commits");
    report::passed("kill_minus_nine", &what, since);
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_minus_nine_on_an_object_store_neither_loses_nor_doubles() {
    let Some(server) = S3::start() else { return };
    let Some(kafka) = Kafka::start() else { return };
    let since = Instant::now();
    let rounds = if long() { 20 } else { 3 };
    let (messages, commits) = kill_again_and_again(&kafka, &House::s3(&server), rounds).await;
    let what = format!("{rounds} rounds of kill -9 on S3, {messages} messages, {commits} commits");
    report::passed("kill_minus_nine_on_an_object_store", &what, since);
}

/// Runs, kills, runs again; in the end compares. Answers messages and commits.
async fn kill_again_and_again(kafka: &Kafka, house: &House, rounds: u64) -> (u64, usize) {
    let per_round = 20_000;
    kafka.create_topic("events", 4);
    let folder = tempfile::tempdir().unwrap();
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
        let mut child = house.run(&file, &[]);
        // From before it has opened the warehouse to well inside the work.
        tokio::time::sleep(moments.next(2500)).await;
        let ended = child.try_wait().unwrap().is_some();
        assert!(!ended, "round {round}: it ended by itself: {}", talk(child));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let last = house.run(&file, &["--once"]).wait_with_output().unwrap();
    assert!(last.status.success(), "{}", String::from_utf8_lossy(&last.stderr));

    let figures =
        "SELECT count(*), sum(id), cast(sum(amount) * 100 AS BIGINT), count(DISTINCT id) FROM kept";
    let out = house.sql(figures);
    let Sums { rows, ids, cents } = events::sums(0..produced, false);
    let line = out.lines().nth(1).unwrap_or_default();
    assert_eq!(line, format!("{rows},{ids},{cents},{rows}"), "{out}");
    (produced, house.each_epoch_once().await)
}

fn talk(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}
