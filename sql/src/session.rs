//! Sessions: what the REPL, `run`, and Flight SQL clients all talk to.
//!
//! A [`Session`] is one client of a [`Database`], with its own settings. Every
//! statement goes through [`Session::execute`], whoever sends it.

mod complete;
mod functions;
mod locate;
mod notice;
mod prepare;
mod rows;
mod show;
mod subscribe;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::sql::sqlparser::ast::Query;
use futures::{FutureExt, TryStreamExt};
use parking_lot::RwLock;
use tidemill_engine::plan::ContinuousPlan;

pub use crate::database::Database;
pub(crate) use notice::count_left_out;
pub use notice::{notice_of, noticed};
use transaction::OpenTransaction;

use crate::database::name_place;
use crate::error::{Error, Kind, Result};
use crate::parser::{self, Spanned};
use crate::plan;
use crate::statement::{ExplainMode, Set, Statement};

/// Name of the one catalog, and of its schema for user objects.
pub const CATALOG: &str = "tidemill";
pub const SCHEMA: &str = "public";

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
pub struct Session {
    database: Arc<Database>,
    state: RwLock<SessionState>,
    open: OpenTransaction,
}

/// What a statement answers.
pub enum Answer {
    /// Rows: finite for every statement but `SUBSCRIBE`. The last batch may be one without
    /// rows that carries a notice: see [`notice_of`].
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
    /// Whether it is an `INSERT … VALUES ($1, …)`, which [`Session::insert_rows`] takes.
    pub takes_rows: bool,
}

/// A table-like object, for metadata calls.
#[derive(Debug, Clone)]
pub struct Relation {
    pub catalog: String,
    pub schema: String,
    pub name: String,
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
#[derive(Debug, Clone, Default)]
pub struct QueryStatus {
    pub name: String,
    /// `running`, `paused`, `retrying`, `failed`, `finished`, `stopped`.
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
    /// Since the last commit.
    pub freshness: Option<Duration>,
    /// Rows read a second, over the last few seconds.
    pub rate: f64,
    /// The least watermark of its sources, microseconds since 1970; `i64::MAX` once
    /// their event time is over.
    pub watermark_us: Option<i64>,
    /// Rows that its operators keep, and bytes of memory that these take.
    pub state_rows: u64,
    pub state_bytes: u64,
    /// Rows that came after their window was closed.
    pub rows_late: u64,
}

/// Progress of [`Database::run_once`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    pub rows_done: u64,
    pub rows_total: u64,
}

impl Session {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        let state = RwLock::new(database.state.clone());
        Self { database, state, open: OpenTransaction::default() }
    }

    pub fn database(&self) -> Arc<Database> {
        Arc::clone(&self.database)
    }

    /// Executes exactly one statement. Dropping the stream of [`Answer::Rows`] cancels it.
    pub async fn execute(&self, sql: &str) -> Result<Answer> {
        let statement = parser::parse_one(sql)?;
        match (self.dispatch(&statement).boxed().await, statement.node) {
            (Ok(Answer::Rows(rows)), Statement::Query(query)) => {
                Ok(Answer::Rows(self.placing(rows, query)))
            }
            (Err(error), node) => {
                Err(self.placed(error, sql, &node).boxed().await.or_at(statement.start))
            }
            (answer, _) => answer,
        }
    }

    /// The error with its place in the statement, if it can be found.
    async fn placed(&self, error: Error, sql: &str, statement: &Statement) -> Error {
        if error.location().is_some() || error.kind() != Kind::User {
            return error;
        }
        if let Statement::Insert(insert) = statement
            && let Some(place) = locate::place_of_value(self, insert).await
        {
            return error.at(place);
        }
        let place = locate::place_of(self, sql, statement, &error).await;
        error.or_at(place)
    }

    /// Rows whose error, should there be one, has its place in the query, if it can be found.
    fn placing(
        &self,
        rows: SendableRecordBatchStream,
        query: Box<Query>,
    ) -> SendableRecordBatchStream {
        let session = Self {
            database: self.database(),
            state: RwLock::new(self.state()),
            open: OpenTransaction::default(),
        };
        let look_up = Arc::new((session, query));
        let schema = rows.schema();
        let rows = rows.or_else(move |error| {
            let look_up = Arc::clone(&look_up);
            async move {
                let (session, query) = look_up.as_ref();
                let error = Error::from(error);
                let place = match error.kind() {
                    Kind::User => locate::place_of_constant(session, query, &error).await,
                    _ => None,
                };
                Err(DataFusionError::from(error.or_at(place)))
            }
            .boxed()
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }

    /// Boxed by its callers: what calls a session should not have to compile all
    /// that a statement can set off.
    async fn dispatch(&self, spanned: &Spanned<Statement>) -> Result<Answer> {
        let database = &self.database;
        let done = match &spanned.node {
            Statement::Query(query) => {
                return self.select(plan::query(&self.state(), query).await?).await;
            }
            Statement::Explain(explain) => return self.explain(explain).await,
            Statement::Show(show) => return self.show(show).await,
            Statement::ShowCreate(show) => return self.show_create(show).await,
            Statement::Describe(describe) => return self.describe(describe).await,
            Statement::Subscribe(subscribe) => return self.subscribe(subscribe).await,
            Statement::CreateSource(create) => database.create_source(create).await?,
            Statement::CreateTable(create) => database.create_table(create).await?,
            Statement::CreateView(create) => database.create_view(create).await?,
            Statement::CreateMaterializedView(create) => {
                database.create_materialized_view(create).await?
            }
            Statement::CreateSink(create) => database.create_sink(create).await?,
            Statement::Insert(insert) => database.insert(insert).await?,
            Statement::Alter(alter) => database.alter(alter).await?,
            Statement::Drop(drop) => database.drop_objects(drop).await?,
            Statement::Set(set) => return Ok(Answer::Done(self.set(set)?)),
            Statement::Reset(name) => {
                return Ok(Answer::Done(self.reset(name.as_ref().map(ToString::to_string))?));
            }
            Statement::Transaction(transaction) => {
                self.open.control(*transaction)?;
                return Ok(Answer::Done(done(spanned.node.tag())));
            }
            Statement::Discard => return Ok(Answer::Done(done(spanned.node.tag()))),
        };
        self.open.wrote();
        Ok(Answer::Done(done))
    }

    /// The session's own state: the database's, with what was `SET`.
    pub(crate) fn state(&self) -> SessionState {
        self.state.read().clone()
    }

    /// Runs a batch query over the last committed version of every table in it.
    async fn select(&self, plan: LogicalPlan) -> Result<Answer> {
        self.refresh(&plan).await?;
        let mut state = self.state();
        state.execution_props_mut().query_execution_start_time = Some(chrono::Utc::now());
        let left_out = notice::count_left_out(&mut state);
        let physical = state.create_physical_plan(&plan).await?;
        let rows = execute_stream(physical, Arc::new(TaskContext::from(&state)))?;
        Ok(Answer::Rows(notice::with_notice(rows, left_out)))
    }

    /// Looks for commits that this process did not make itself.
    async fn refresh(&self, plan: &LogicalPlan) -> Result<()> {
        for table in plan::lakes(plan, &self.database.objects)? {
            if self.database.access == Access::ReadOnly || !self.database.is_managed(table.name()) {
                table.refresh().await?;
            }
        }
        Ok(())
    }

    async fn explain(&self, explain: &crate::statement::Explain) -> Result<Answer> {
        if explain.mode == ExplainMode::Incremental {
            let plan = self.incremental_plan(&explain.statement).await?;
            return show::lines(
                "incremental plan",
                &tidemill_engine::plan::explain::explain(&plan)?,
            );
        }
        let Statement::Query(query) = explain.statement.as_ref() else {
            return Err(Error::refused("EXPLAIN takes a query")
                .with_hint("EXPLAIN INCREMENTAL takes CREATE MATERIALIZED VIEW and INSERT INTO"));
        };
        let inner = plan::query(&self.state(), query).await?;
        let statement = show::explain_statement(explain, &crate::window_tvf::prepared(query)?)?;
        self.refresh(&inner).await?;
        let state = self.state();
        let plan = state.statement_to_plan(statement).await?;
        self.select(plan).await
    }

    async fn incremental_plan(&self, statement: &Statement) -> Result<ContinuousPlan> {
        let plan = self.continuous_plan(statement).await?;
        Ok(ContinuousPlan::new(plan, self.database.state.clone(), &Default::default())?)
    }

    /// The plan that a statement would run continuously.
    async fn continuous_plan(&self, statement: &Statement) -> Result<LogicalPlan> {
        let query = match statement {
            Statement::Query(query) => query,
            Statement::CreateMaterializedView(create) => &create.query,
            Statement::CreateSink(create) => &create.query,
            Statement::Insert(insert) => return self.database.prepare_insert(insert).await,
            other => {
                return Err(Error::refused(format!(
                    "EXPLAIN INCREMENTAL does not take {}",
                    other.tag()
                ))
                .with_hint("give it a SELECT or a CREATE MATERIALIZED VIEW"));
            }
        };
        plan::query(&self.state(), query).await
    }

    /// Settings are DataFusion's, such as `datafusion.execution.target_partitions`;
    /// those that clients of other databases send are taken and do nothing.
    fn set(&self, set: &Set) -> Result<Done> {
        let name = set.name.to_string().to_lowercase();
        let value: Vec<_> = set.values.iter().map(|value| value.text().to_owned()).collect();
        if !name.contains('.') {
            let notice = Some(format!("setting \"{name}\" is not known and has no effect"));
            return Ok(Done { notice, ..done("SET".into()) });
        }
        let mut state = self.state.write();
        let value = value.join(",");
        state.config_mut().options_mut().set(&name, &value).map_err(|error| {
            let cause = Error::from(error).message();
            Error::option(format!("setting \"{name}\" can't be '{value}': {cause}"))
                .at(name_place(&set.name))
        })?;
        Ok(done("SET".into()))
    }

    fn reset(&self, name: Option<String>) -> Result<Done> {
        let fresh = self.database.state.clone();
        let mut state = self.state.write();
        match name {
            None => *state = fresh,
            Some(name) => {
                let entries = fresh.config().options().entries();
                let default = entries.into_iter().find(|entry| entry.key == name.to_lowercase());
                if let Some(value) = default.and_then(|entry| entry.value) {
                    state.config_mut().options_mut().set(&name.to_lowercase(), &value)?;
                }
            }
        }
        Ok(done("RESET".into()))
    }
}

fn done(tag: String) -> Done {
    Done { tag, rows: None, notice: None }
}

/// An answer of rows that are there already.
fn rows(batch: RecordBatch) -> Answer {
    let schema = batch.schema();
    let stream = futures::stream::iter([Ok(batch)]);
    Answer::Rows(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
}

impl Session {
    /// Plans a statement with `$1`-style (or `?`) parameters.
    pub async fn prepare(&self, sql: &str) -> Result<Prepared> {
        prepare::prepare(self, sql).boxed().await
    }

    /// The columns that a prepared query answers with these values. They differ from
    /// those in [`Prepared`] where the type of a parameter can't be told without a value.
    pub async fn bound_schema(
        &self,
        statement: &Prepared,
        parameters: Vec<ScalarValue>,
    ) -> Result<SchemaRef> {
        prepare::bound_schema(self, statement, parameters).boxed().await
    }

    /// Executes a prepared statement with a value for each parameter.
    pub async fn execute_prepared(
        &self,
        statement: &Prepared,
        parameters: Vec<ScalarValue>,
    ) -> Result<Answer> {
        prepare::execute(self, statement, parameters).boxed().await
    }

    /// Executes a prepared `INSERT … VALUES ($1, …)` for every row of `rows`, in one commit.
    /// The columns of `rows` are the parameters, `$1` first.
    pub async fn insert_rows(
        &self,
        statement: &Prepared,
        rows: SendableRecordBatchStream,
    ) -> Result<Done> {
        prepare::insert_rows(self, statement, rows).boxed().await
    }

    /// Words that can stand at the end of `before`: keywords, names, columns, functions.
    pub fn completions(&self, before: &str) -> Vec<String> {
        complete::completions(self, before)
    }
}
