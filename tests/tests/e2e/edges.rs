//! What real brokers do besides keeping messages: transactions, compaction, TLS
//! and passwords, retention, and not being there.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tidemill_engine::source::kafka::producer::{Producer, Record};
use tidemill_sql::Access;

use crate::database::{
    count, execute, numbers, open, refusal, run_once, run_until, wait_for_reason, wait_for_rows,
};
use crate::kafka::Kafka;

/// A source of `{"id": n}`, with more options.
fn source(name: &str, bootstrap: &str, topic: &str, more: &str) -> String {
    format!(
        "CREATE SOURCE {name} (id BIGINT NOT NULL, \"offset\" BIGINT METADATA) \
         WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{bootstrap}', \
         format = 'json', on_error = 'fail'{more})"
    )
}

fn payload(id: u64) -> String {
    format!("{{\"id\":{id}}}")
}

/// Sends ids to partition 0, under a key each.
async fn produce(bootstrap: &str, topic: &str, ids: impl Iterator<Item = (String, u64)>) {
    let producer = Producer::new(bootstrap, &BTreeMap::new()).unwrap();
    for (key, id) in ids {
        let payload = payload(id);
        let record = Record {
            topic,
            partition: Some(0),
            key: Some(key.as_bytes()),
            payload: Some(payload.as_bytes()),
            ..Record::default()
        };
        producer.send(record).await.unwrap();
    }
    producer.flush().await.unwrap();
}

async fn produce_plain(bootstrap: &str, topic: &str, ids: std::ops::Range<u64>) {
    produce(bootstrap, topic, ids.map(|id| (id.to_string(), id))).await;
}

/// A transactional producer. Its calls block, for a few milliseconds each.
struct Transactions {
    native: BaseProducer,
    topic: &'static str,
}

impl Transactions {
    const TIMEOUT: Duration = Duration::from_secs(60);

    fn new(bootstrap: &str, topic: &'static str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("transactional.id", topic);
        let native: BaseProducer = config.create().unwrap();
        native.init_transactions(Self::TIMEOUT).unwrap();
        Self { native, topic }
    }

    fn begin(&self, ids: std::ops::Range<u64>) {
        self.native.begin_transaction().unwrap();
        for id in ids {
            let payload = payload(id);
            let record = BaseRecord::<str, str>::to(self.topic).partition(0).payload(&payload);
            self.native.send(record).map_err(|(error, _)| error).unwrap();
        }
        self.native.flush(Self::TIMEOUT).unwrap();
    }

    fn commit(&self) {
        self.native.commit_transaction(Self::TIMEOUT).unwrap();
    }

    fn abort(&self) {
        self.native.abort_transaction(Self::TIMEOUT).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_transactions_are_not_read_and_their_gaps_stall_nothing() {
    let Some(kafka) = Kafka::shared() else { return };
    kafka.create_topic("transactions", 1);
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder, Access::Step).await;
    // Some epochs hold nothing but aborted records and markers.
    let small = ", max_rows_per_epoch = 2";
    execute(&database, &source("committed", &kafka.bootstrap, "transactions", small)).await;
    let dirty = ", 'properties.isolation.level' = 'read_uncommitted'";
    execute(&database, &source("dirty", &kafka.bootstrap, "transactions", dirty)).await;
    execute(&database, "CREATE MATERIALIZED VIEW kept AS SELECT id FROM committed").await;
    execute(&database, "CREATE MATERIALIZED VIEW everything AS SELECT id FROM dirty").await;
    let kept = "SELECT id FROM kept ORDER BY id";

    let writer = Transactions::new(&kafka.bootstrap, "transactions");
    writer.begin(0..3);
    writer.commit();
    writer.begin(3..8);
    writer.abort();
    writer.begin(8..10);
    writer.commit();
    // Nothing that can be read follows the last of them.
    writer.begin(10..20);
    writer.abort();
    run_until(&database, kept, &[0, 1, 2, 8, 9]).await;
    run_until(&database, "SELECT count(*) FROM everything", &[20]).await;

    writer.begin(20..22);
    run_once(&database).await;
    assert_eq!(numbers(&database, kept).await, [0, 1, 2, 8, 9], "an open transaction was read");
    writer.commit();
    run_until(&database, kept, &[0, 1, 2, 8, 9, 20, 21]).await;
    // The same from a reader that starts anew, as one batch.
    assert_eq!(count(&database, "committed").await, 7);
    database.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_of_a_compacted_topic_stall_nothing() {
    let Some(kafka) = Kafka::shared() else { return };
    kafka.create_topic_with(
        "compacted",
        &[
            "cleanup.policy=compact",
            "segment.ms=50",
            "min.cleanable.dirty.ratio=0.001",
            "max.compaction.lag.ms=50",
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder, Access::Step).await;
    let small = ", max_rows_per_epoch = 97";
    execute(&database, &source("compacted", &kafka.bootstrap, "compacted", small)).await;
    execute(&database, "CREATE MATERIALIZED VIEW kept AS SELECT id FROM compacted").await;
    let keyed = |ids: std::ops::Range<u64>| ids.map(|id| (format!("key{}", id % 10), id));
    let mut produced = 0;
    let compacted = async {
        while count(&database, "compacted").await + 500 > produced as i64 {
            // A segment is closed, and so compacted, when something comes after its time.
            produce(&kafka.bootstrap, "compacted", keyed(produced..produced + 200)).await;
            produced += 200;
        }
    };
    tokio::time::timeout(crate::database::PATIENCE, compacted).await.expect("it is compacted");
    run_once(&database).await;

    let found = numbers(&database, "SELECT id FROM kept ORDER BY id").await;
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "a record was read twice: {found:?}");
    assert!(found.len() + 500 <= produced as usize, "{} of {produced}", found.len());
    let newest: Vec<i64> = (produced - 10..produced).map(|id| id as i64).collect();
    assert_eq!(found[found.len() - 10..], newest, "the newest of each key is always there");
    database.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_of_a_compacted_topic_delete() {
    let Some(kafka) = Kafka::shared() else { return };
    let compacting = [
        "cleanup.policy=compact",
        "segment.ms=50",
        "min.cleanable.dirty.ratio=0.001",
        "max.compaction.lag.ms=50",
        "delete.retention.ms=0",
    ];
    kafka.create_topic_with("tombstones", &compacting);
    let producer = Producer::new(&kafka.bootstrap, &BTreeMap::new()).unwrap();
    let send = async |id: u64, there: bool| {
        let (key, payload) = (id.to_string(), payload(id));
        let record = Record {
            topic: "tombstones",
            partition: Some(0),
            key: Some(key.as_bytes()),
            payload: there.then_some(payload.as_bytes()),
            ..Record::default()
        };
        producer.send(record).await.unwrap();
    };
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder, Access::Step).await;
    let create = source("keyed", &kafka.bootstrap, "tombstones", ", max_rows_per_epoch = 50");
    let create = create.replace(" METADATA)", " METADATA, PRIMARY KEY (id))");
    execute(&database, &create).await;
    execute(&database, "CREATE MATERIALIZED VIEW kept AS SELECT id FROM keyed").await;
    execute(&database, "CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n FROM keyed").await;
    for id in 0..200 {
        send(id, true).await;
    }
    producer.flush().await.unwrap();
    run_once(&database).await;
    assert_eq!(count(&database, "kept").await, 200);
    for id in 0..190 {
        send(id, false).await;
    }
    producer.flush().await.unwrap();
    run_once(&database).await;
    let left: Vec<i64> = (190..200).collect();
    assert_eq!(numbers(&database, "SELECT id FROM kept ORDER BY id").await, left);
    assert_eq!(numbers(&database, "SELECT n FROM total").await, [10]);
    assert_eq!(numbers(&database, "SELECT id FROM keyed ORDER BY id").await, left);

    // Once the broker has forgotten rows and tombstones alike, a view made anew is the same.
    let plain =
        source("everything", &kafka.bootstrap, "tombstones", "").replace("'fail'", "'skip'");
    execute(&database, &plain).await;
    let compacted = async {
        while count(&database, "everything").await > 150 {
            send(1_000, true).await;
            producer.flush().await.unwrap();
        }
    };
    tokio::time::timeout(crate::database::PATIENCE, compacted).await.expect("it is compacted");
    send(1_000, false).await;
    producer.flush().await.unwrap();
    execute(&database, "CREATE MATERIALIZED VIEW anew AS SELECT id FROM keyed").await;
    run_once(&database).await;
    for view in ["kept", "anew", "keyed"] {
        let found = numbers(&database, &format!("SELECT id FROM {view} ORDER BY id")).await;
        assert_eq!(found, left, "{view}");
    }
    database.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_a_password_lets_in_and_keeps_out() {
    let Some(kafka) = Kafka::shared() else { return };
    let secure = kafka.secure.as_ref().unwrap();
    kafka.create_topic("secret", 1);
    produce_plain(&kafka.bootstrap, "secret", 0..100).await;
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder, Access::Step).await;
    let entry = |mechanism: &str, password: &str, ca: &str| {
        format!(
            ", 'properties.security.protocol' = 'SASL_SSL', \
             'properties.sasl.mechanism' = '{mechanism}', \
             'properties.sasl.username' = '{}', 'properties.sasl.password' = '{password}', \
             'properties.ssl.ca.location' = '{ca}'",
            secure.user
        )
    };
    for (name, mechanism) in
        [("plain", "PLAIN"), ("scram256", "SCRAM-SHA-256"), ("scram512", "SCRAM-SHA-512")]
    {
        let options = entry(mechanism, &secure.password, &secure.ca);
        execute(&database, &source(name, &secure.bootstrap, "secret", &options)).await;
        let view = format!("CREATE MATERIALIZED VIEW {name}_kept AS SELECT id FROM {name}");
        execute(&database, &view).await;
    }
    run_once(&database).await;
    for view in ["plain_kept", "scram256_kept", "scram512_kept"] {
        assert_eq!(count(&database, view).await, 100, "{view}");
    }
    let shown = format!("{:?}", execute(&database, "SHOW CREATE SOURCE scram512").await);
    assert!(!shown.contains(&secure.password), "the password is shown: {shown}");

    let wrong = entry("SCRAM-SHA-512", "not the password", &secure.ca);
    execute(&database, &source("wrong", &secure.bootstrap, "secret", &wrong)).await;
    let error = refusal(&database, "SELECT count(*) FROM wrong").await;
    assert!(error.contains("can't be entered"), "{error}");
    assert!(!error.contains("not the password"), "{error}");
    // The system's authorities don't know this broker's; and one that is no file.
    let unknown = entry("PLAIN", &secure.password, &secure.ca)
        .replace(&format!(", 'properties.ssl.ca.location' = '{}'", secure.ca), "");
    execute(&database, &source("unknown", &secure.bootstrap, "secret", &unknown)).await;
    let error = refusal(&database, "SELECT count(*) FROM unknown").await;
    assert!(error.contains("can't be entered") && error.contains("certificate"), "{error}");
    let absent = entry("PLAIN", &secure.password, "/nowhere/ca.pem");
    execute(&database, &source("absent", &secure.bootstrap, "secret", &absent)).await;
    let error = refusal(&database, "SELECT count(*) FROM absent").await;
    assert!(error.contains("ssl.ca.location"), "{error}");
    database.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_told_and_never_passed_over() {
    let Some(kafka) = Kafka::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder, Access::Step).await;
    // Of one, the records up to 250 of 400 go while nobody reads; of the other, all of them.
    for topic in ["trimmed", "emptied"] {
        kafka.create_topic(topic, 1);
        execute(&database, &source(topic, &kafka.bootstrap, topic, "")).await;
        let view = format!("CREATE MATERIALIZED VIEW {topic}_kept AS SELECT id FROM {topic}");
        execute(&database, &view).await;
        produce_plain(&kafka.bootstrap, topic, 0..100).await;
    }
    run_once(&database).await;
    for topic in ["trimmed", "emptied"] {
        produce_plain(&kafka.bootstrap, topic, 100..400).await;
    }
    kafka.trim("trimmed", 0, 250);
    kafka.trim("emptied", 0, 400);
    let error = database.run_once(&|_| ()).await.unwrap_err().to_string();
    assert!(error.contains("offset 100 has expired"), "{error}");
    database.shutdown().await.unwrap();
    drop(database);

    // Nor after a restart.
    let database = open(&folder, Access::Run).await;
    for (view, oldest) in [("trimmed_kept", "250"), ("emptied_kept", "400")] {
        let words = format!("offset 100 has expired, the oldest that is left is {oldest}");
        wait_for_reason(&database, view, "failed", &words).await;
        assert_eq!(count(&database, view).await, 100, "{view}");
    }
    // What the hint says to do.
    execute(&database, "DROP MATERIALIZED VIEW trimmed_kept").await;
    execute(&database, "CREATE MATERIALIZED VIEW trimmed_kept AS SELECT id FROM trimmed").await;
    wait_for_rows(&database, "trimmed_kept", 150).await;
    assert_eq!(numbers(&database, "SELECT min(id) FROM trimmed_kept").await, [250]);
    database.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_at_create_is_waited_for_and_a_topic_that_is_missing_is_told() {
    let Some(kafka) = Kafka::start() else { return };
    kafka.create_topic("late", 1);
    produce_plain(&kafka.bootstrap, "late", 0..50).await;
    kafka.kill();
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder, Access::Run).await;
    let quick = ", 'properties.socket.timeout.ms' = 2000";
    execute(&database, &source("late", &kafka.bootstrap, "late", quick)).await;
    execute(&database, "CREATE MATERIALIZED VIEW late_kept AS SELECT id FROM late").await;
    wait_for_reason(&database, "late_kept", "retrying", "no answer from Kafka").await;
    kafka.restart();
    wait_for_rows(&database, "late_kept", 50).await;

    execute(&database, &source("missing", &kafka.bootstrap, "missing", quick)).await;
    execute(&database, "CREATE MATERIALIZED VIEW missing_kept AS SELECT id FROM missing").await;
    wait_for_reason(&database, "missing_kept", "failed", "topic 'missing' does not exist").await;
    let error = refusal(&database, "SELECT count(*) FROM missing").await;
    assert!(error.contains("topic 'missing' does not exist"), "{error}");
    kafka.create_topic("missing", 1);
    produce_plain(&kafka.bootstrap, "missing", 0..50).await;
    execute(&database, "ALTER MATERIALIZED VIEW missing_kept RESUME").await;
    wait_for_rows(&database, "missing_kept", 50).await;
    assert_eq!(count(&database, "late_kept").await, 50);
    database.shutdown().await.unwrap();
}
