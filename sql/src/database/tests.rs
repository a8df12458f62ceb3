//! The whole walk through a session: declare, create, produce, step, read, restart.

use std::sync::Arc;

use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use tidemill_engine::clock::Clock;
use tidemill_engine::config::EngineConfig;
use tidemill_engine::runtime::Parts;
use tidemill_engine::source::memory::MemoryBroker;

use crate::session::notice_of;
use crate::{Access, Answer, Database};

struct House {
    folder: tempfile::TempDir,
    memory: MemoryBroker,
    clock: Clock,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, memory: MemoryBroker::new(), clock: Clock::manual(1_000_000) }
    }

    async fn open(&self) -> Arc<Database> {
        let config = EngineConfig {
            warehouse: self.folder.path().to_str().unwrap().into(),
            ..EngineConfig::default()
        };
        let parts =
            Parts { clock: self.clock.clone(), memory: self.memory.clone(), ..Parts::default() };
        Database::open_with(config, Access::Step, parts).await.unwrap()
    }

    fn produce(&self, topic: &str, payload: &str) {
        self.memory.produce(topic, 0, payload.as_bytes().to_vec()).unwrap();
    }
}

async fn run(database: &Arc<Database>, sql: &str) -> String {
    match database.session().execute(sql).await {
        Ok(Answer::Done(done)) => format!("{done:?}"),
        Ok(Answer::Rows(rows)) => match rows.try_collect::<Vec<_>>().await {
            Ok(batches) => pretty_format_batches(&batches).unwrap().to_string(),
            Err(error) => panic!("{sql}: {error}"),
        },
        Err(error) => format!("error: {error}"),
    }
}

const SOURCE: &str = "CREATE SOURCE orders (id BIGINT NOT NULL, amount DECIMAL(12,2), at TIMESTAMP, \
     day DATE AS (CAST(at AS DATE)), \"offset\" BIGINT METADATA) \
     WITH (connector = 'memory', format = 'json')";

#[tokio::test]
async fn a_view_follows_its_source_across_a_restart() {
    let house = House::new();
    house.memory.create_topic("orders", 1);
    let database = house.open().await;
    assert!(run(&database, SOURCE).await.contains("CREATE SOURCE"));
    let view = "CREATE MATERIALIZED VIEW paid PARTITIONED BY (day) AS \
         SELECT id, amount * 2 AS twice, day, \"offset\" FROM orders WHERE amount > 1";
    let created = run(&database, view).await;
    assert!(created.contains("CREATE MATERIALIZED VIEW"), "{created}");
    house.produce("orders", r#"{"id": 1, "amount": 1.50, "at": "2026-01-02T03:04:05Z"}"#);
    house.produce("orders", r#"{"id": 2, "amount": 0.50, "at": "2026-01-02T03:04:05Z"}"#);
    house.produce("orders", "broken");
    assert_eq!(database.engine().step("paid").await.unwrap(), Some(1));
    assert_eq!(database.engine().step("paid").await.unwrap(), None);
    let rows = run(&database, "SELECT id, twice, day FROM paid").await;
    assert!(rows.contains("| 1  | 3.00  | 2026-01-02 |"), "{rows}");
    drop(database);

    let database = house.open().await;
    house.produce("orders", r#"{"id": 3, "amount": 9, "at": 1767323045000}"#);
    assert_eq!(database.engine().step("paid").await.unwrap(), Some(2));
    let rows = run(&database, "SELECT count(*) AS n, sum(twice) AS s FROM paid").await;
    assert!(rows.contains("| 2 | 21.00 |"), "{rows}");
    let batch = run(&database, "SELECT count(*) AS n FROM orders WHERE amount > 1").await;
    assert!(batch.contains("| 2 |"), "{batch}");
    let letters = run(&database, "SELECT \"offset\", error FROM orders__dead_letters").await;
    assert!(letters.contains("| 2      |"), "{letters}");
}

#[tokio::test]
async fn a_table_takes_rows_and_joins_a_stream() {
    let house = House::new();
    house.memory.create_topic("orders", 1);
    let database = house.open().await;
    run(&database, SOURCE).await;
    let made = run(&database, "CREATE TABLE names (id BIGINT, name VARCHAR)").await;
    assert!(made.contains("CREATE TABLE"), "{made}");
    let inserted = run(&database, "INSERT INTO names VALUES (1, 'one'), (2, 'two')").await;
    assert!(inserted.contains("rows: Some(2)"), "{inserted}");
    let view = "CREATE MATERIALIZED VIEW named AS SELECT o.id, n.name, now() AS seen \
         FROM orders o LEFT JOIN names n ON o.id = n.id";
    let created = run(&database, view).await;
    assert!(created.contains("CREATE MATERIALIZED VIEW"), "{created}");
    house.produce("orders", r#"{"id": 1}"#);
    house.produce("orders", r#"{"id": 7}"#);
    assert_eq!(database.engine().step("named").await.unwrap(), Some(1));
    let rows = run(&database, "SELECT id, name, seen FROM named ORDER BY id").await;
    assert!(rows.contains("| 1  | one  | 1970-01-01T00:00:01Z |"), "{rows}");
    assert!(rows.contains("| 7  |      |"), "{rows}");
    let plan = run(&database, "EXPLAIN INCREMENTAL SELECT id FROM orders WHERE id > 1").await;
    assert!(plan.contains("append-only"), "{plan}");
    let refused =
        run(&database, "CREATE MATERIALIZED VIEW n AS SELECT id FROM orders LIMIT 3").await;
    assert!(refused.contains("ORDER BY"), "{refused}");
    let refused = run(&database, "DROP TABLE names").await;
    assert!(refused.contains("is read by materialized view \"named\""), "{refused}");
}

#[tokio::test]
async fn a_view_that_can_not_be_opened_is_a_query_that_failed() {
    let house = House::new();
    let lake = tempfile::tempdir().unwrap();
    house.memory.create_topic("orders", 1);
    let database = house.open().await;
    run(&database, SOURCE).await;
    let elsewhere = format!("WITH (location = '{}/ids')", lake.path().display());
    for (name, options) in [("ids", elsewhere.as_str()), ("days", "")] {
        let view = format!("CREATE MATERIALIZED VIEW {name} {options} AS SELECT id FROM orders");
        let created = run(&database, &view).await;
        assert!(created.contains("CREATE MATERIALIZED VIEW"), "{created}");
    }
    drop(database);
    let log = lake.path().join("ids/_delta_log/00000000000000000000.json");
    std::fs::write(&log, "no log").unwrap();

    let database = house.open().await;
    let mut queries = database.queries();
    queries.sort_by(|a, b| a.name.cmp(&b.name));
    let states: Vec<_> = queries.iter().map(|q| (q.name.as_str(), q.state.as_str())).collect();
    assert_eq!(states, [("days", "running"), ("ids", "failed")]);
    assert!(queries[1].reason.is_some());
    let refused = run(&database, "SELECT * FROM ids").await;
    assert!(refused.contains("could not be opened"), "{refused}");
}

/// Names in a folder, sorted; none if it is not there.
fn names_in(folder: &std::path::Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn files_in(folder: &std::path::Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let count = |path: std::path::PathBuf| if path.is_dir() { files_in(&path) } else { 1 };
    entries.map(|entry| count(entry.unwrap().path())).sum()
}

#[tokio::test]
async fn what_is_dropped_or_replaced_leaves_no_files() {
    let house = House::new();
    let database = house.open().await;
    let path = house.folder.path();
    std::fs::write(path.join("in.json"), "{\"id\": 1}\n").unwrap();
    let source = format!(
        "CREATE SOURCE f (id BIGINT) WITH (connector = 'files', path = '{}')",
        path.join("in.json").display()
    );
    let made = run(&database, &source).await;
    assert!(made.contains("CREATE SOURCE"), "{made}");
    run(&database, "CREATE MATERIALIZED VIEW v AS SELECT id FROM f").await;
    assert_eq!(database.engine().step("v").await.unwrap(), Some(1));
    let logs = path.join("_tidemill/sources");
    assert_eq!(files_in(&logs), 1);
    run(&database, "DROP SOURCE f CASCADE").await;
    assert_eq!(files_in(&logs), 0);

    run(&database, "CREATE TABLE t AS SELECT 1 AS id").await;
    for _ in 0..3 {
        let again = run(&database, "CREATE OR REPLACE TABLE t AS SELECT id + 1 AS id FROM t").await;
        assert!(again.contains("rows: Some(1)"), "{again}");
    }
    let tables = names_in(path).into_iter().filter(|name| name.starts_with('t'));
    assert_eq!(tables.filter(|name| files_in(&path.join(name)) > 0).count(), 1);
    drop(database);
    let rows = run(&house.open().await, "SELECT id FROM t").await;
    assert!(rows.contains("| 4  |"), "{rows}");
}

/// The next rows of a subscription.
async fn next(rows: &mut SendableRecordBatchStream) -> String {
    let batch = tokio::time::timeout(std::time::Duration::from_secs(60), rows.try_next());
    let batch = batch.await.expect("rows that come").unwrap().unwrap();
    pretty_format_batches(&[batch]).unwrap().to_string()
}

#[tokio::test]
async fn a_subscription_tells_what_comes_and_what_goes() {
    let house = House::new();
    house.memory.create_topic("accounts", 1);
    let database = house.open().await;
    let source = "CREATE SOURCE accounts (id BIGINT, n BIGINT, PRIMARY KEY (id)) \
         WITH (connector = 'memory')";
    run(&database, source).await;
    let session = database.session();
    let Ok(Answer::Rows(mut rows)) = session.execute("SUBSCRIBE TO accounts").await else {
        panic!("no rows");
    };
    house.produce("accounts", r#"{"id": 1, "n": 5}"#);
    assert!(next(&mut rows).await.contains("| insert    | 1     | 1  | 5 |"));
    house.produce("accounts", r#"{"id": 1, "n": 6}"#);
    let changed = next(&mut rows).await;
    assert!(changed.contains("| delete    | 2     | 1  | 5 |"), "{changed}");
    assert!(changed.contains("| insert    | 2     | 1  | 6 |"), "{changed}");
}

#[tokio::test]
async fn what_was_written_since_begin_is_not_rolled_back_silently() {
    let house = House::new();
    let database = house.open().await;
    let session = database.session();
    let run = async |sql: &str| match session.execute(sql).await {
        Ok(Answer::Done(done)) => done.tag,
        Ok(Answer::Rows(_)) => "rows".into(),
        Err(error) => error.to_string(),
    };
    run("CREATE TABLE t (id BIGINT)").await;
    for passes in [
        &["ROLLBACK"][..],
        &["BEGIN", "SELECT 1", "SET a = 1", "ROLLBACK"],
        &["BEGIN", "INSERT INTO t VALUES (1)", "COMMIT", "ROLLBACK"],
        &["INSERT INTO t VALUES (1)", "ROLLBACK"],
        &["BEGIN", "INSERT INTO nowhere VALUES (1)", "ROLLBACK"],
    ] {
        for sql in passes {
            let answer = run(sql).await;
            assert!(!answer.contains("can't be rolled back"), "{passes:?}: {answer}");
        }
    }
    for written in ["INSERT INTO t VALUES (1)", "CREATE TABLE u (id BIGINT)"] {
        run("START TRANSACTION").await;
        run(written).await;
        let answer = run("ROLLBACK").await;
        assert!(answer.contains("can't be rolled back"), "{written}: {answer}");
        assert_eq!(run("ROLLBACK").await, "ROLLBACK", "that one is over");
    }
}

#[tokio::test]
async fn a_batch_query_tells_how_many_records_it_leaves_out() {
    let house = House::new();
    house.memory.create_topic("orders", 1);
    let database = house.open().await;
    run(&database, SOURCE).await;
    for record in [r#"{"id": 1}"#, r#"{"id": "one"}"#, "nothing"] {
        house.produce("orders", record);
    }
    let notices = async |sql: &str| match database.session().execute(sql).await.unwrap() {
        Answer::Done(done) => done.notice,
        Answer::Rows(rows) => {
            let batches: Vec<_> = rows.try_collect().await.unwrap();
            batches.iter().find_map(notice_of)
        }
    };
    let two = Some("2 records of \"orders\" could not be decoded and are left out".to_owned());
    assert_eq!(notices("SELECT id FROM orders").await, two);
    assert_eq!(notices("SELECT a.id FROM orders a JOIN orders b ON a.id = b.id").await, two);
    // What is not read need not be decoded.
    let one = Some("1 record of \"orders\" could not be decoded and is left out".to_owned());
    assert_eq!(notices("SELECT \"offset\" FROM orders").await, one);
    assert_eq!(notices("SELECT 1").await, None);
}
