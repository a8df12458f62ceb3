//! The whole way on real Kafka: topic → continuous SQL → Delta table → a client.
//!
//! Apache Kafka is brought up by `scripts/kafka.sh`. Where that can't be (no
//! Java, no Maven) the tests say so loudly and count as skipped; with
//! `TIDEMILL_REQUIRE_ALL=1` they fail instead. By default they run in short
//! forms; `TIDEMILL_LONG=1` (`scripts/long.sh`) runs them whole.

// All of this is test code, though not all of it stands in test functions.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crash;
mod database;
mod edges;
mod events;
mod house;
mod ingest;
mod kafka;
mod nexmark;
mod person;
mod python;
mod report;
mod s3;
mod spark;
mod stateful;

/// Whether the long forms are asked for.
fn long() -> bool {
    std::env::var("TIDEMILL_LONG").is_ok_and(|value| value == "1")
}
