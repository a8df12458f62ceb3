//! Many messages, exactly once each, whatever happens to the broker meanwhile.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use tidemill_flight_server::client::{Client, Target};
use tidemill_sql::{Access, Answer, Database};

use crate::database::{count, execute, open, wait_for_rows};
use crate::events::{self, Sums};
use crate::kafka::Kafka;
use crate::{long, report};

const VIEW: &str = "CREATE MATERIALIZED VIEW kept PARTITIONED BY (country) \
     WITH (trigger_interval = '100ms') AS \
     SELECT id, user_id, country, amount, at, partition, \"offset\" FROM events WHERE id >= 0";
const FIGURES: &str = "SELECT count(*) AS n, coalesce(sum(id), 0) AS ids, \
     coalesce(cast(sum(amount) * 100 AS BIGINT), 0) AS cents, \
     count(DISTINCT id) AS different FROM kept";
fn messages() -> u64 {
    if long() { 1_000_000 } else { 100_000 }
}

fn figures(batches: &[RecordBatch]) -> Sums {
    let batch = batches.iter().find(|batch| batch.num_rows() == 1).unwrap();
    let value = |column: usize| batch.column(column).as_primitive::<Int64Type>().value(0);
    assert_eq!(value(0), value(3), "a message stands in the table twice");
    Sums { rows: value(0), ids: value(1), cents: value(2) }
}

/// The same figures by Flight SQL, through a real server.
async fn over_flight(database: &Arc<Database>) -> Sums {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(tidemill_flight_server::serve(
        listener,
        Arc::clone(database),
        tidemill_flight_server::ServeOptions::default(),
        async {
            // Either half of the channel going means the same.
            let _ = stopped.await;
        },
    ));
    let target = Target { url: format!("grpc://{address}"), ..Target::default() };
    let client = Client::connect(&target).await.unwrap();
    let Answer::Rows(rows) = client.execute(FIGURES).await.unwrap() else {
        panic!("a SELECT answers rows");
    };
    let batches: Vec<RecordBatch> = rows.try_collect().await.unwrap();
    client.close().await.unwrap();
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    figures(&batches)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_arrives_once_and_one_percent_broken_ones_are_kept() {
    let Some(kafka) = Kafka::start() else { return };
    let since = Instant::now();
    let n = messages();
    kafka.create_topic("events", 4);
    events::produce(&kafka.bootstrap, "events", 4, 0..n, true).await;
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder, Access::Step).await;
    execute(&database, &events::source("events", &kafka.bootstrap, "events")).await;
    execute(&database, VIEW).await;
    let second = "CREATE MATERIALIZED VIEW cheap AS SELECT id FROM events WHERE amount < 5";
    execute(&database, second).await;
    database.run_once(&|_| ()).await.unwrap();

    let expected = events::sums(0..n, true);
    assert_eq!(figures(&execute(&database, FIGURES).await), expected);
    assert_eq!(over_flight(&database).await, expected);
    let cheap = (0..n).filter(|id| id % 100 != 99 && id % 1000 < 500).count();
    assert_eq!(count(&database, "cheap").await, cheap as i64);
    // Two views met each broken message; it is kept once.
    assert_eq!(count(&database, "events__dead_letters").await, (n / 100) as i64);
    let letters =
        "SELECT count(DISTINCT partition * 100000000 + \"offset\") FROM events__dead_letters";
    let different = execute(&database, letters).await;
    assert_eq!(different[0].column(0).as_primitive::<Int64Type>().value(0), (n / 100) as i64);
    database.shutdown().await.unwrap();
    let what = format!("{n} messages over 4 partitions, 1% broken, two views, Flight SQL");
    report::passed("every_message_arrives_once_and_one_percent_broken_ones_are_kept", &what, since);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_comes_back_loses_nothing() {
    let Some(kafka) = Kafka::start() else { return };
    let since = Instant::now();
    let n = messages();
    kafka.create_topic("events", 4);
    events::produce(&kafka.bootstrap, "events", 4, 0..n / 2, false).await;
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder, Access::Run).await;
    execute(&database, &events::source("events", &kafka.bootstrap, "events")).await;
    execute(&database, VIEW).await;
    wait_for_rows(&database, "kept", 1).await;
    kafka.kill();
    kafka.restart();
    events::produce(&kafka.bootstrap, "events", 4, n / 2..n, false).await;
    wait_for_rows(&database, "kept", n as i64).await;
    assert_eq!(figures(&execute(&database, FIGURES).await), events::sums(0..n, false));
    database.shutdown().await.unwrap();
    let what = format!("{n} messages, broker killed and restarted in the middle");
    report::passed("a_broker_that_is_killed_and_comes_back_loses_nothing", &what, since);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_added_while_running_are_read_from_their_start() {
    let Some(kafka) = Kafka::start() else { return };
    let since = Instant::now();
    let n = messages();
    kafka.create_topic("events", 2);
    events::produce(&kafka.bootstrap, "events", 2, 0..n / 2, false).await;
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder, Access::Run).await;
    execute(&database, &events::source("events", &kafka.bootstrap, "events")).await;
    execute(&database, VIEW).await;
    wait_for_rows(&database, "kept", 1).await;
    kafka.grow_topic("events", 5);
    events::produce(&kafka.bootstrap, "events", 5, n / 2..n, false).await;
    wait_for_rows(&database, "kept", n as i64).await;
    assert_eq!(figures(&execute(&database, FIGURES).await), events::sums(0..n, false));
    let partitions = execute(&database, "SELECT count(DISTINCT partition) FROM kept").await;
    assert_eq!(partitions[0].column(0).as_primitive::<Int64Type>().value(0), 5);
    database.shutdown().await.unwrap();
    let what = format!("{n} messages, topic grown from 2 to 5 partitions while running");
    report::passed("partitions_added_while_running_are_read_from_their_start", &what, since);
}
