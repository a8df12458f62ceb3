//! A database and its sessions: what the REPL, `run`, Flight SQL and
//! PostgreSQL clients all talk to.
//!
//! A [`Database`] is one warehouse, opened: its catalog, its engine. A
//! [`Session`] is one client of it, with its own settings. Every statement goes
//! through [`Session::execute`], whoever sends it.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::execution::SendableRecordBatchStream;
use tidemill_engine::config::EngineConfig;

use crate::error::{Error, Result};

/// Name of the one catalog, and of its schema for user objects.
pub const CATALOG: &str = "tidemill";
pub const SCHEMA: &str = "public";

/// An open warehouse.
#[derive(Debug)]
pub struct Database {}

/// How a warehouse is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Takes the lease and runs the continuous queries in the background.
    Run,
    /// Takes the lease; epochs are stepped by the caller (`run --once`, tests).
    Step,
    /// Takes no lease: reads what another process may be writing. Statements
    /// that change something are refused.
    ReadOnly,
    /// A throw-away catalog in memory, whatever the configuration's warehouse:
    /// statements are parsed, bound, planned and declared, but no broker, table
    /// or file is contacted and no rows flow (`tidemill check`).
    Offline,
}

/// One client.
#[derive(Debug)]
pub struct Session {}

/// What a statement answers.
pub enum Answer {
    /// Rows: finite for every statement but `SUBSCRIBE`.
    Rows(SendableRecordBatchStream),
    /// Something was done.
    Done(Done),
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The statement's words, as psql prints them: `CREATE SOURCE`, `INSERT`.
    pub tag: String,
    /// Rows written, for `INSERT`.
    pub rows: Option<u64>,
    /// Something the user should know: "exists already, skipped".
    pub notice: Option<String>,
}

/// A statement that was planned once and can be executed many times.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub sql: String,
    /// Columns of the answer; empty for a statement that only does something.
    pub schema: SchemaRef,
    /// Types of `$1`, `$2`, … in this order, as far as they can be told (Null otherwise).
    pub parameters: SchemaRef,
    /// Whether it answers rows.
    pub is_query: bool,
}

/// A table-like object, for metadata calls.
#[derive(Debug, Clone)]
pub struct Relation {
    pub catalog: String,
    pub schema: String,
    pub name: String,
    /// `SOURCE`, `TABLE`, `VIEW`, `MATERIALIZED VIEW`.
    pub kind: RelationKind,
    pub columns: SchemaRef,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    Source,
    Table,
    View,
    MaterializedView,
    /// `information_schema`.
    System,
}

/// One row of `SHOW QUERIES`.
#[derive(Debug, Clone)]
pub struct QueryStatus {
    pub name: String,
    /// `running`, `paused`, `retrying`, `failed`, `finished`.
    pub state: String,
    /// Why it failed, or what is being retried.
    pub reason: Option<String>,
    /// The last committed epoch.
    pub epoch: u64,
    pub rows_read: u64,
    pub rows_written: u64,
    pub rows_rejected: u64,
    /// Rows that wait at the sources.
    pub backlog: u64,
    /// Since the last commit's epoch timestamp.
    pub freshness: Option<Duration>,
    /// Rows read a second, over the last few seconds.
    pub rate: f64,
}

/// Progress of [`Database::run_once`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    pub rows_done: u64,
    pub rows_total: u64,
}

#[allow(unused_variables)]
impl Database {
    pub async fn open(config: EngineConfig, access: Access) -> Result<Arc<Self>> {
        Err(Error::internal("not written yet"))
    }

    pub fn session(self: &Arc<Self>) -> Session {
        Session {}
    }

    /// Everything that has columns, sorted by schema and name.
    pub fn relations(&self) -> Vec<Relation> {
        Vec::new()
    }

    pub fn queries(&self) -> Vec<QueryStatus> {
        Vec::new()
    }

    /// Runs every continuous query until it has read what its sources held when
    /// this was called, calling `progress` now and then. (`run --once`)
    pub async fn run_once(&self, progress: &(dyn Fn(Progress) + Sync)) -> Result<()> {
        Ok(())
    }

    /// Finishes the epochs in flight, releases the lease.
    pub async fn shutdown(&self) -> Result<()> {
        Ok(())
    }
}

#[allow(unused_variables)]
impl Session {
    pub fn database(&self) -> Arc<Database> {
        Arc::new(Database {})
    }

    /// Executes exactly one statement. Dropping the stream of [`Answer::Rows`] cancels it.
    pub async fn execute(&self, sql: &str) -> Result<Answer> {
        Err(Error::internal("not written yet"))
    }

    /// Plans a statement with `$1`-style (or `?`) parameters.
    pub async fn prepare(&self, sql: &str) -> Result<Prepared> {
        Err(Error::internal("not written yet"))
    }

    /// Executes a prepared statement with a value for each parameter.
    pub async fn execute_prepared(
        &self,
        statement: &Prepared,
        parameters: Vec<ScalarValue>,
    ) -> Result<Answer> {
        Err(Error::internal("not written yet"))
    }

    /// Words that can stand at the end of `before`: keywords, names, columns, functions.
    pub fn completions(&self, before: &str) -> Vec<String> {
        Vec::new()
    }
}
