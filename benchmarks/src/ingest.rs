//! Kafka → JSON → Delta, beside the two things that bound it: a librdkafka
//! consumer that throws its messages away, and the same rows, in Arrow already,
//! written to Delta. All in one run, against one broker, the backlog being there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tidemill_engine::config::EngineConfig;
use tidemill_engine::lake::{LakeTable, TableSpec};
use tidemill_engine::storage::Warehouse;
use tidemill_sql::{Access, Answer, Database};

use crate::Result;
use crate::events::{self, PARTITIONS, TOPIC};
use crate::kafka::Kafka;
use crate::machine::{peak_memory_mib, reset_peak_memory};
use crate::report::{Report, median};

/// One projection and one filter, which lets every row through.
const VIEW: &str = "CREATE MATERIALIZED VIEW kept AS SELECT event_id, user_id, product_id, \
     quantity * price AS amount, country, url, made_at FROM events WHERE quantity > 0";

pub async fn run(rows: u64, rounds: usize) -> Result<Report> {
    let kafka = Kafka::start()?;
    kafka.create_topic(TOPIC, PARTITIONS as u32)?;
    eprintln!("producing {rows} messages");
    let bytes = events::fill(&kafka.bootstrap, rows).await?;
    let mut report = Report::new("ingest");
    report.setting("messages", rows);
    report.setting("bytes a message", bytes.round() as u64);
    report.setting("partitions", PARTITIONS);
    let (mut bare, mut whole, mut arrow, mut memory) = (vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        eprintln!("round {}", round + 1);
        bare.push(consume(&kafka.bootstrap, rows).await?);
        reset_peak_memory();
        let folder = tempfile::tempdir()?;
        let (rate, database) = ingest(&kafka.bootstrap, rows, &folder).await?;
        whole.push(rate);
        memory.push(peak_memory_mib() as f64);
        arrow.push(write_again(&database, rows).await?);
        database.shutdown().await?;
    }
    let (bare, whole, arrow) = (median(bare), median(whole), median(arrow));
    report.figure("bare librdkafka consumer, messages/s", bare);
    report.figure("Kafka to JSON to Delta, messages/s", whole);
    report.figure("the same rows from Arrow to Delta, rows/s", arrow);
    report.figure("share of the bare consumer, percent", whole / bare * 100.0);
    report.figure("resident memory, peak MiB", memory.iter().copied().fold(0.0, f64::max));
    Ok(report)
}

/// Polls every message and looks only at its length. Answers messages a second.
async fn consume(bootstrap: &str, rows: u64) -> Result<f64> {
    let bootstrap = bootstrap.to_owned();
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &bootstrap)
            .set("group.id", "bare")
            .set("enable.auto.commit", "false")
            .set("fetch.message.max.bytes", "4194304")
            // librdkafka's default of a second starves a consumer whose queue was full once.
            .set("fetch.queue.backoff.ms", "10")
            .create()?;
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            all.add_partition_offset(TOPIC, i32::try_from(partition)?, Offset::Beginning)?;
        }
        let started = Instant::now();
        consumer.assign(&all)?;
        let mut seen = 0;
        while seen < rows {
            if let Some(message) = consumer.poll(Duration::from_secs(30)) {
                std::hint::black_box(message?.payload_len());
                seen += 1;
            }
        }
        Ok(rows as f64 / started.elapsed().as_secs_f64())
    })
    .await?
}

/// From opening the view to its last commit. Answers messages a second.
async fn ingest(
    bootstrap: &str,
    rows: u64,
    folder: &tempfile::TempDir,
) -> Result<(f64, Arc<Database>)> {
    let warehouse = folder.path().to_str().ok_or("the folder is no UTF-8")?.to_owned();
    let config = EngineConfig { warehouse, ..EngineConfig::default() };
    let database = Database::open(config, Access::Step).await?;
    let session = database.session();
    session.execute(&events::source(bootstrap)).await?;
    session.execute(VIEW).await?;
    let started = Instant::now();
    database.run_once(&|_| ()).await?;
    let seconds = started.elapsed().as_secs_f64();
    let Answer::Rows(answer) = session.execute("SELECT count(*) FROM kept").await? else {
        return Err("a SELECT answers rows".into());
    };
    let batches: Vec<_> = answer.try_collect().await?;
    let counted = arrow::util::display::array_value_to_string(batches[0].column(0), 0)?;
    if counted != rows.to_string() {
        return Err(format!("{counted} rows arrived of {rows}").into());
    }
    Ok((rows as f64 / seconds, database))
}

/// Writes the view's rows, read into memory first, to another table in one commit.
async fn write_again(database: &Arc<Database>, rows: u64) -> Result<f64> {
    let table = database.lake("kept").ok_or("no view")?;
    let context = SessionContext::new();
    let frame = context.read_table(table.snapshot()?)?;
    let batches = frame.collect().await?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().to_str().ok_or("the folder is no UTF-8")?;
    let warehouse = Warehouse::open(path, Default::default())?;
    let spec = TableSpec {
        name: "copy".into(),
        location: warehouse.table_url("copy")?,
        storage_options: Default::default(),
        schema: table.schema(),
        partition_by: Vec::new(),
        deletion_vectors: false,
    };
    let copy = LakeTable::create(&warehouse, spec).await?;
    let frame = context.read_batches(batches)?;
    let started = Instant::now();
    let staged = copy.stage(frame.execute_stream().await?).await?;
    copy.commit(staged, None).await?;
    Ok(rows as f64 / started.elapsed().as_secs_f64())
}
