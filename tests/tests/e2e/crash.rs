//! `kill -9` on the running program at random moments: every message exactly once in
//! the tables, state and results as one, and no `txn` version twice in a log.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use tidemill_tests::shop::{BLOCK, VIEWS};

use crate::events::{self, Sums};
use crate::house::House;
use crate::kafka::Kafka;
use crate::s3::S3;
use crate::{long, report, stateful};

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
    let (messages, commits) = keep(&kafka, &House::local(&folder), rounds).await;
    let what = format!("{rounds} rounds of kill -9, {messages} messages, {commits} commits");
    report::passed("kill_minus_nine_at_random_moments_neither_loses_nor_doubles", &what, since);
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_minus_nine_on_an_object_store_neither_loses_nor_doubles() {
    let Some(server) = S3::start() else { return };
    let Some(kafka) = Kafka::start() else { return };
    let since = Instant::now();
    let rounds = if long() { 20 } else { 3 };
    let (messages, commits) = keep(&kafka, &House::s3(&server), rounds).await;
    let what = format!("{rounds} rounds of kill -9 on S3, {messages} messages, {commits} commits");
    report::passed("kill_minus_nine_on_an_object_store_neither_loses_nor_doubles", &what, since);
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_minus_nine_leaves_state_and_results_as_one() {
    let Some(kafka) = Kafka::start() else { return };
    let since = Instant::now();
    let rounds = if long() { 50 } else { 5 };
    let folder = tempfile::tempdir().unwrap();
    let house = House::local(&folder);
    let (messages, commits) = remember(&kafka, &house, rounds).await;
    let what = format!(
        "{rounds} rounds of kill -9 on {} views with state, {messages} messages, {commits} commits",
        VIEWS.len()
    );
    report::passed("kill_minus_nine_leaves_state_and_results_as_one", &what, since);
}

/// A view that keeps every event. Answers messages and commits.
async fn keep(kafka: &Kafka, house: &House, rounds: u64) -> (u64, usize) {
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
    let produce = async |round: u64| {
        let range = round * per_round..(round + 1) * per_round;
        events::produce(&kafka.bootstrap, "events", 4, range, false).await;
    };
    kill_again_and_again(house, &file, rounds, produce).await;

    let figures =
        "SELECT count(*), sum(id), cast(sum(amount) * 100 AS BIGINT), count(DISTINCT id) FROM kept";
    let out = house.sql(figures);
    let produced = rounds * per_round;
    let Sums { rows, ids, cents } = events::sums(0..produced, false);
    let line = out.lines().nth(1).unwrap_or_default();
    assert_eq!(line, format!("{rows},{ids},{cents},{rows}"), "{out}");
    (produced, house.each_epoch_once().await)
}

/// Views of everything that keeps state, held against the batch answer over the same
/// topics. Answers messages and commits.
async fn remember(kafka: &Kafka, house: &House, rounds: u64) -> (u64, usize) {
    // Whole blocks: every payment has its order then.
    let per_round = 24 * BLOCK;
    stateful::create_topics(kafka);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("query.sql");
    std::fs::write(&file, stateful::script(&kafka.bootstrap)).unwrap();
    let produce = async |round: u64| {
        let range = round * per_round..(round + 1) * per_round;
        stateful::produce(&kafka.bootstrap, range).await;
    };
    kill_again_and_again(house, &file, rounds, produce).await;
    stateful::check(&house.open().await, rounds * per_round).await;
    (3 * rounds * per_round, house.each_epoch_once().await)
}

/// Runs the file, kills the program, runs it again, with more in the topics each time; the
/// last run comes to its end.
async fn kill_again_and_again(
    house: &House,
    file: &Path,
    rounds: u64,
    mut produce: impl AsyncFnMut(u64),
) {
    let seed = 0x5eed_u64 + u64::from(std::process::id());
    eprintln!("seed {seed}");
    let mut moments = Moments(seed);
    for round in 0..rounds {
        produce(round).await;
        let mut child = house.run(file, &[]);
        // From before it has opened the warehouse to well inside the work.
        tokio::time::sleep(moments.next(2500)).await;
        let ended = child.try_wait().unwrap().is_some();
        assert!(!ended, "round {round}: it ended by itself: {}", talk(child));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let last = house.run(file, &["--once"]).wait_with_output().unwrap();
    assert!(last.status.success(), "{}", String::from_utf8_lossy(&last.stderr));
}

fn talk(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}
