//! A database in this process, and what the tests ask of it.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use tempfile::TempDir;
use tidemill_engine::config::EngineConfig;
use tidemill_engine::runtime::QueryState;
use tidemill_sql::{Access, Answer, Database};

/// Nothing here takes this long, however loaded the machine.
pub const PATIENCE: Duration = Duration::from_secs(240);

pub async fn open(folder: &TempDir, access: Access) -> Arc<Database> {
    let warehouse = folder.path().to_str().unwrap().to_owned();
    let config = EngineConfig { warehouse, ..EngineConfig::default() };
    Database::open(config, access).await.unwrap()
}

pub async fn execute(database: &Arc<Database>, sql: &str) -> Vec<RecordBatch> {
    match database.session().execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}")) {
        Answer::Rows(rows) => rows.try_collect().await.unwrap(),
        Answer::Done(_) => Vec::new(),
    }
}

/// What is wrong with a statement, at the latest when its rows are read.
pub async fn refusal(database: &Arc<Database>, sql: &str) -> String {
    match database.session().execute(sql).await {
        Err(error) => error.to_string(),
        Ok(Answer::Done(_)) => panic!("{sql} went well"),
        Ok(Answer::Rows(rows)) => {
            let rows: Result<Vec<RecordBatch>, _> = rows.try_collect().await;
            rows.map(|rows| panic!("{sql} answered {rows:?}")).unwrap_err().to_string()
        }
    }
}

/// The numbers of a column of BIGINT.
pub async fn numbers(database: &Arc<Database>, sql: &str) -> Vec<i64> {
    let batches = execute(database, sql).await;
    let Some(first) = batches.first() else { return Vec::new() };
    let batch = concat_batches(&first.schema(), &batches).unwrap();
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

pub async fn count(database: &Arc<Database>, table: &str) -> i64 {
    numbers(database, &format!("SELECT count(*) FROM {table}")).await[0]
}

pub async fn run_once(database: &Arc<Database>) {
    database.run_once(&|_| ()).await.unwrap();
}

/// Runs until `sql` answers `wanted`: for what brokers do a moment after they said so.
pub async fn run_until(database: &Arc<Database>, sql: &str, wanted: &[i64]) {
    let reached = async {
        loop {
            run_once(database).await;
            let found = numbers(database, sql).await;
            if found == wanted {
                return;
            }
            let prefix = wanted.get(..found.len()) == Some(&found);
            assert!(prefix, "{sql}: {found:?} on the way to {wanted:?}");
        }
    };
    let reached = tokio::time::timeout(PATIENCE, reached).await;
    reached.unwrap_or_else(|_| panic!("{sql} does not come to {wanted:?}"));
}

/// Waits until a query is in a state with a reason that holds `words`.
pub async fn wait_for_reason(database: &Arc<Database>, query: &str, state: &str, words: &str) {
    let mut states = database.engine().query(query).unwrap().watch();
    let there = |now: &QueryState| {
        now.word() == state && now.reason().is_some_and(|reason| reason.contains(words))
    };
    let told = tokio::time::timeout(PATIENCE, states.wait_for(there)).await.is_ok();
    assert!(told, "{query} is not {state} because of {words}: {:?}", database.queries());
}

/// Waits until a view holds as many rows, woken by its commits.
pub async fn wait_for_rows(database: &Arc<Database>, view: &str, rows: i64) {
    let table = database.lake(view).unwrap();
    let mut versions = table.watch();
    let reached = async {
        while count(database, view).await < rows {
            versions.changed().await.unwrap();
        }
    };
    if tokio::time::timeout(PATIENCE, reached).await.is_err() {
        let found = count(database, view).await;
        panic!("only {found} of {rows} rows after {PATIENCE:?}: {:?}", database.queries());
    }
}
