//! Freshness: from the moment an event is made to the moment when a Flight SQL
//! query sees it, at a steady rate.
//!
//! Events are numbered as they are made, and dealt over the partitions in turn.
//! A client asks, again and again, up to which number the view holds *every*
//! partition. An event that was made at `t` and is covered for the first time by
//! an answer that arrived at `u` has waited `u - t`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use tidemill_engine::config::EngineConfig;
use tidemill_engine::source::kafka::producer::Producer;
use tidemill_flight_server::ServeOptions;
use tidemill_flight_server::client::{Client, Target};
use tidemill_sql::{Access, Answer, Database};

use crate::Result;
use crate::events::{self, PARTITIONS, TOPIC};
use crate::kafka::Kafka;
use crate::machine::peak_memory_mib;
use crate::report::{Report, percentile};

const VIEW: &str = "CREATE MATERIALIZED VIEW kept WITH (trigger_interval = '100ms') AS \
     SELECT event_id, user_id, quantity * price AS amount, made_at FROM events WHERE quantity > 0";
/// How far back an answer looks: more events than can be on their way.
const LOOK_BACK: u64 = 100_000;
/// Left out at the start, while everything warms up.
const WARM_UP: Duration = Duration::from_secs(5);

pub async fn run(rate: u64, seconds: u64) -> Result<Report> {
    let kafka = Kafka::start()?;
    kafka.create_topic(TOPIC, PARTITIONS as u32)?;
    let folder = tempfile::tempdir()?;
    let warehouse = folder.path().to_str().ok_or("the folder is no UTF-8")?.to_owned();
    let config = EngineConfig { warehouse, ..EngineConfig::default() };
    let database = Database::open(config, Access::Run).await?;
    database.session().execute(&events::source(&kafka.bootstrap)).await?;
    database.session().execute(VIEW).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("grpc://{}", listener.local_addr()?);
    let target = Target { url, ..Target::default() };
    let served = Arc::clone(&database);
    let server = tokio::spawn(tidemill_flight_server::serve(
        listener,
        served,
        ServeOptions::default(),
        std::future::pending(),
    ));

    let over = Arc::new(AtomicBool::new(false));
    let bootstrap = kafka.bootstrap.clone();
    let producing = tokio::spawn(produce(bootstrap, rate, seconds, Arc::clone(&over)));
    let sightings = watch(&target, &over).await?;
    let made = producing.await??;
    server.abort();
    database.shutdown().await?;

    let mut waits = waits(&made, &sightings);
    waits.sort_by(f64::total_cmp);
    let mut report = Report::new("freshness");
    report.setting("events a second", rate);
    report.setting("seconds", seconds);
    report.figure("answers seen", sightings.len() as f64);
    report.figure("freshness p50, ms", percentile(&waits, 0.50));
    report.figure("freshness p95, ms", percentile(&waits, 0.95));
    report.figure("freshness p99, ms", percentile(&waits, 0.99));
    report.figure("freshness worst, ms", percentile(&waits, 1.0));
    report.figure("events made a second", made.len() as f64 * 100.0 / seconds as f64);
    report.figure("resident memory, peak MiB", peak_memory_mib() as f64);
    Ok(report)
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Makes events at a steady rate; answers the time of every hundredth, by number.
async fn produce(
    bootstrap: String,
    rate: u64,
    seconds: u64,
    over: Arc<AtomicBool>,
) -> Result<Vec<(u64, i64)>> {
    let properties = BTreeMap::from([("linger.ms".to_owned(), "5".to_owned())]);
    let producer = Producer::new(&bootstrap, &properties)?;
    let mut made = Vec::new();
    let mut text = String::new();
    // The first record waits until the broker has handed out a producer id, which takes
    // seconds right after its start: that is not what is measured here.
    for id in 0..PARTITIONS {
        events::write(&mut text, id, now_us());
        producer.send(events::record(id, &text)).await?;
    }
    producer.flush().await?;
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let started = Instant::now();
    let mut id = PARTITIONS;
    while started.elapsed() < Duration::from_secs(seconds) {
        ticks.tick().await;
        let due = PARTITIONS + (started.elapsed().as_secs_f64() * rate as f64) as u64;
        while id < due {
            let at = now_us();
            events::write(&mut text, id, at);
            producer.send(events::record(id, &text)).await?;
            if id.is_multiple_of(100) {
                made.push((id, at));
            }
            id += 1;
        }
    }
    producer.flush().await?;
    over.store(true, Ordering::SeqCst);
    Ok(made)
}

/// Asks for the newest event until the producer is done; answers what was seen when.
async fn watch(target: &Target, over: &AtomicBool) -> Result<Vec<(u64, i64)>> {
    let client = Client::connect(target).await?;
    let mut sightings = Vec::new();
    let mut covered = 0;
    while !over.load(Ordering::SeqCst) {
        let Answer::Rows(rows) = client.execute(&newest(covered)).await? else {
            return Err("a SELECT answers rows".into());
        };
        let batches: Vec<RecordBatch> = rows.try_collect().await?;
        let at = now_us();
        if let Some(id) = first_number(&batches) {
            covered = u64::try_from(id)?;
            sightings.push((covered, at));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(sightings)
}

/// Up to which number every partition is there; NULL while one has nothing yet.
fn newest(covered: u64) -> String {
    let from = covered.saturating_sub(LOOK_BACK);
    format!(
        "SELECT CASE WHEN count(*) = {PARTITIONS} THEN min(newest) END FROM \
         (SELECT max(event_id) AS newest FROM kept WHERE event_id >= {from} \
          GROUP BY event_id % {PARTITIONS})"
    )
}

fn first_number(batches: &[RecordBatch]) -> Option<i64> {
    let batch = batches.iter().find(|batch| batch.num_rows() > 0)?;
    batch.column(0).as_primitive::<Int64Type>().iter().next().flatten()
}

/// Milliseconds that each sampled event waited for the first answer that had it.
fn waits(made: &[(u64, i64)], sightings: &[(u64, i64)]) -> Vec<f64> {
    let begin = made.first().map_or(0, |(_, at)| *at) + WARM_UP.as_micros() as i64;
    let late = made.iter().filter(|(_, at)| *at >= begin);
    late.filter_map(|(id, at)| {
        // Answers come in order, so the first that holds the event is found by halving.
        let first = sightings.partition_point(|(newest, _)| newest < id);
        sightings.get(first).map(|(_, seen)| (seen - at) as f64 / 1000.0)
    })
    .collect()
}
