//! Apache Spark reads result tables: while they are being written to, at a version of long ago,
//! and in the end, it finds the rows that Tidemill finds.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;
use serde_json::{Value, json};
use tidemill_engine::lake::LakeTable;
use tidemill_sql::{Access, Database};
use tidemill_tests::oracle::compare;
use tidemill_tests::values::sorted_lines;

use crate::database::{PATIENCE, execute, open};
use crate::python::root;
use crate::report;

/// Rows that come all the time, and three kinds of tables: upserted by deletion vectors,
/// upserted by copies, appended to.
const SETUP: [&str; 4] = [
    "CREATE SOURCE orders WITH (connector = 'generator', template = 'orders', seed = 3, \
     rows_per_second = 2000)",
    "CREATE MATERIALIZED VIEW users WITH (trigger_interval = '100ms') AS \
     SELECT country, user_id, count(*) AS orders, sum(amount) AS amount, max(ordered_at) AS last_at \
     FROM orders GROUP BY country, user_id",
    "CREATE MATERIALIZED VIEW states PARTITIONED BY (status) \
     WITH (trigger_interval = '200ms', write_mode = 'copy_on_write') AS \
     SELECT status, count(*) AS orders, avg(quantity) AS quantity FROM orders GROUP BY status",
    "CREATE MATERIALIZED VIEW paid PARTITIONED BY (day) WITH (trigger_interval = '200ms') AS \
     SELECT order_id, amount, ordered_at, CAST(ordered_at AS DATE) AS day FROM orders \
     WHERE status = 'paid'",
];
/// Spark has to read a checkpoint of the log, too: there is one every hundred commits.
const COMMITS: u64 = 120;

/// One process of Spark, started by `scripts/spark.sh`; killed when dropped.
struct Spark {
    process: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Spark {
    /// Comes back at once; [`Spark::wait`] for it. `None` where there can be none.
    ///
    /// # Panics
    /// If it should be there (`TIDEMILL_REQUIRE_ALL=1`), or can't be fetched.
    fn start() -> Option<Self> {
        let mut script = Command::new(root().join("scripts/spark.sh"));
        let output = script.stderr(Stdio::inherit()).output().unwrap();
        if output.status.code() == Some(77) {
            let required = std::env::var("TIDEMILL_REQUIRE_ALL").is_ok_and(|value| value == "1");
            assert!(!required, "Apache Spark is required here");
            eprintln!("SKIPPED: no Apache Spark on this machine");
            return None;
        }
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "scripts/spark.sh: {said}");
        let value = |key: &str| said.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        let mut process = Command::new(value("spark="))
            .arg(root().join("tests/clients/spark.py"))
            .arg(value("jars="))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Warnings of the JVM, of which there are many.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap()).lines();
        Some(Self { process, answers })
    }

    fn answer(&mut self) -> Value {
        let line = self.answers.next().unwrap_or_else(|| panic!("Spark ended")).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Until it is up; answers its version.
    fn wait(&mut self) -> String {
        self.answer()["spark"].as_str().unwrap().to_owned()
    }

    /// The rows of a table at a version, or at its newest, sorted, as [`sorted_lines`] has them.
    fn read(&mut self, table: &LakeTable, version: Option<u64>) -> Vec<String> {
        let path = table.location().to_file_path().unwrap();
        let request = json!({ "table": path, "version": version });
        writeln!(self.process.stdin.as_mut().unwrap(), "{request}").unwrap();
        let answer = self.answer();
        assert_eq!(answer["error"], Value::Null, "{} at {version:?}: {answer}", table.name());
        let text = |value: &Value| match value.as_str() {
            None => "NULL".to_owned(),
            Some("") => "(empty)".to_owned(),
            Some(text) => text.to_owned(),
        };
        let line =
            |row: &Value| row.as_array().unwrap().iter().map(text).collect::<Vec<_>>().join(" | ");
        let mut lines: Vec<String> = answer["rows"].as_array().unwrap().iter().map(line).collect();
        lines.sort_unstable();
        lines
    }
}

impl Drop for Spark {
    fn drop(&mut self) {
        // It ends with its input; if not, it is killed. It may have ended by itself.
        drop(self.process.stdin.take());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn lines(table: Arc<dyn TableProvider>) -> Vec<String> {
    let rows = SessionContext::new().read_table(table).unwrap().collect().await.unwrap();
    sorted_lines(&rows).unwrap()
}

/// Waits until a table has this version.
async fn reach(table: &LakeTable, version: u64) {
    let mut versions = table.watch();
    let reached = versions.wait_for(|now| *now >= version);
    let reached = tokio::time::timeout(PATIENCE, reached).await;
    reached.unwrap_or_else(|_| panic!("{} stays before version {version}", table.name())).unwrap();
}

/// Whether a file of the table had rows masked at some version.
fn is_masked(table: &LakeTable) -> bool {
    let log = table.location().to_file_path().unwrap().join("_delta_log");
    let entries = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    let mut commits = entries.filter(|path| path.extension().is_some_and(|e| e == "json"));
    commits.any(|path| std::fs::read_to_string(path).unwrap().contains("\"deletionVector\":{"))
}

/// Compares what both find at some versions while commits go on. Answers the first of them.
async fn follow(spark: &mut Spark, table: &LakeTable) -> (u64, Vec<String>) {
    let mut first = None;
    let mut version = 0;
    for _ in 0..2 {
        reach(table, version + 1).await;
        version = table.version();
        let own = lines(table.snapshot_at(version).await.unwrap()).await;
        let read = spark.read(table, Some(version));
        compare(&format!("{} at {version}", table.name()), &own, &read).unwrap();
        first.get_or_insert((version, own));
    }
    first.unwrap()
}

fn lake(database: &Arc<Database>, view: &str) -> Arc<LakeTable> {
    database.lake(view).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn spark_finds_the_same_rows_while_a_query_runs_and_in_the_end() {
    let Some(mut spark) = Spark::start() else { return };
    let since = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder, Access::Run).await;
    for statement in SETUP {
        execute(&database, statement).await;
    }
    let users = lake(&database, "users");
    reach(&users, 10).await;
    let spark_version = spark.wait();
    let (early, then) = follow(&mut spark, &users).await;
    reach(&users, COMMITS).await;
    follow(&mut spark, &users).await;
    database.shutdown().await.unwrap();
    drop(database);

    let database = open(&folder, Access::ReadOnly).await;
    assert!(is_masked(&users) && !is_masked(&lake(&database, "states")));
    for view in ["users", "states", "paid"] {
        let table = lake(&database, view);
        let own = lines(table.snapshot().unwrap()).await;
        assert!(!own.is_empty(), "{view}");
        compare(view, &own, &spark.read(&table, None)).unwrap();
    }
    compare("users of then", &then, &spark.read(&users, Some(early))).unwrap();
    let what = format!(
        "Spark {spark_version} reads tables with and without deletion vectors, {} commits",
        users.version()
    );
    report::passed("spark_finds_the_same_rows_while_a_query_runs_and_in_the_end", &what, since);
}
