//! From a planned statement to its answer: queries as streams, everything else once.
//!
//! A query is planned by GetFlightInfo, which hands out a ticket, and executed by the
//! DoGet that brings the ticket; a ticket is good for one reading. Some clients send
//! everything as a query, `INSERT` and `CREATE` too: such a statement is executed by
//! GetFlightInfo, since that answer has room for the number of rows (ADBC's `rowcount`),
//! and its ticket reads an empty result. So nothing runs twice, and a statement that was
//! only asked for its schema does not run at all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::future::ready;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tidemill_sql::session::notice_of;
use tidemill_sql::{Answer, Done, Prepared};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::prepared::{Row, Statement};
use crate::session::ClientSession;
use crate::wire::{same_columns, to_wire, wire_schema};

/// What a command did, as it travels in a FlightInfo's `app_metadata` to our own client.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Outcome {
    #[prost(string, tag = "1")]
    pub tag: String,
    #[prost(uint64, optional, tag = "2")]
    pub rows: Option<u64>,
    #[prost(string, optional, tag = "3")]
    pub notice: Option<String>,
}

impl From<Done> for Outcome {
    fn from(done: Done) -> Self {
        Self { tag: done.tag, rows: done.rows, notice: done.notice }
    }
}

impl From<Outcome> for Done {
    fn from(outcome: Outcome) -> Self {
        Self { tag: outcome.tag, rows: outcome.rows, notice: outcome.notice }
    }
}

/// A statement that is ready to run, with the values it runs with.
pub(crate) struct Execution {
    pub session: Arc<ClientSession>,
    pub prepared: Arc<Prepared>,
    /// The columns that were promised, as they are sent.
    pub schema: SchemaRef,
    /// It runs once for each.
    rows: Arc<[Row]>,
    /// Or once for all of these.
    given: Option<Arc<[RecordBatch]>>,
}

type Batches = BoxStream<'static, Result<RecordBatch>>;

impl Execution {
    pub async fn new(statement: &Statement) -> Result<Self> {
        let (session, prepared) = (statement.session.clone(), statement.prepared.clone());
        let given = statement.rows_to_write();
        let rows = if given.is_some() { Arc::new([]) } else { statement.executions()? };
        let schema = match rows.first() {
            Some(row) if statement.is_open() => {
                wire_schema(&*session.sql.bound_schema(&prepared, row.clone()).await?)
            }
            _ => statement.schema.clone(),
        };
        Ok(Self { session, prepared, schema, rows, given })
    }

    /// What is left to read of a command that has run: nothing, with its columns.
    pub fn emptied(&self) -> Self {
        let (session, prepared) = (self.session.clone(), self.prepared.clone());
        Self { session, prepared, schema: self.schema.clone(), rows: Arc::new([]), given: None }
    }

    /// Runs a query; the results for several rows of parameters follow one another.
    pub async fn query(self: Arc<Self>) -> Result<Batches> {
        if self.rows.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let first = self.query_row(0).await?;
        let rest = stream::iter(1..self.rows.len()).then(move |at| {
            let execution = self.clone();
            async move { execution.query_row(at).await }
        });
        Ok(first.chain(rest.try_flatten()).boxed())
    }

    async fn query_row(&self, at: usize) -> Result<Batches> {
        let answer = self.session.sql.execute_prepared(&self.prepared, self.rows[at].clone());
        let stream = match answer.await? {
            Answer::Rows(stream) => stream,
            Answer::Done(_) => return Ok(stream::empty().boxed()),
        };
        if !same_columns(&wire_schema(&stream.schema()), &self.schema) {
            return Err(Error::Changed);
        }
        let (schema, session) = (self.schema.clone(), self.session.clone());
        let batches = stream.map(move |batch| {
            session.touch(Instant::now());
            to_wire(&batch?, &schema)
        });
        let says_something =
            |batch: &RecordBatch| ready(batch.num_rows() > 0 || notice_of(batch).is_some());
        Ok(batches.try_filter(says_something).boxed())
    }

    /// Runs a statement that does something. It runs to its end also when the client has
    /// gone away: nothing is left half done.
    pub async fn command(self: Arc<Self>) -> Result<Done> {
        detached(async move {
            if let Some(batches) = &self.given {
                let rows = stream_of(batches)?;
                return Ok(self.session.sql.insert_rows(&self.prepared, rows).await?);
            }
            let mut total = Done { tag: String::new(), rows: None, notice: None };
            for row in self.rows.iter() {
                let answer = self.session.sql.execute_prepared(&self.prepared, row.clone()).await?;
                let done = done(answer)?;
                let rows = total.rows.unwrap_or(0) + done.rows.unwrap_or(0);
                total = Done { rows: done.rows.map(|_| rows), ..done };
            }
            Ok(total)
        })
        .await
    }
}

fn stream_of(batches: &[RecordBatch]) -> Result<SendableRecordBatchStream> {
    let first = batches.first().ok_or_else(|| Error::Internal("no rows are given".to_owned()))?;
    let rows = stream::iter(batches.to_vec()).map(Ok);
    Ok(Box::pin(RecordBatchStreamAdapter::new(first.schema(), rows)))
}

/// Executes a statement that is sent as an update; answers the rows written.
pub(crate) async fn update(session: Arc<ClientSession>, sql: String) -> Result<Done> {
    detached(async move { done(session.sql.execute(&sql).await?) }).await
}

fn done(answer: Answer) -> Result<Done> {
    match answer {
        Answer::Done(done) => Ok(done),
        Answer::Rows(_) => {
            Err(Error::request("the statement answers rows: send it as a query, not as an update"))
        }
    }
}

pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let panicked = |_| Error::Internal("a statement panicked".to_owned());
    tokio::spawn(work).await.map_err(panicked)?
}

/// Queries that are being read, by the handle of their ticket.
#[derive(Default)]
pub(crate) struct Running {
    /// Cancelled when the server stops.
    pub all: CancellationToken,
    queries: Mutex<HashMap<Bytes, (Arc<str>, CancellationToken)>>,
}

/// Keeps a query among the running ones for as long as it lives.
pub(crate) struct RunningQuery {
    running: Arc<Running>,
    handle: Bytes,
    cancelled: CancellationToken,
}

impl Running {
    pub fn start(self: &Arc<Self>, principal: Arc<str>, handle: Bytes) -> RunningQuery {
        let cancelled = self.all.child_token();
        self.queries.lock().insert(handle.clone(), (principal, cancelled.clone()));
        RunningQuery { running: self.clone(), handle, cancelled }
    }

    /// Cancels a query; `false` when `principal` has none of that handle.
    pub fn cancel(&self, principal: &str, handle: &[u8]) -> bool {
        let queries = self.queries.lock();
        let query = queries.get(handle).filter(|(owner, _)| **owner == *principal);
        query.inspect(|(_, cancelled)| cancelled.cancel()).is_some()
    }
}

impl RunningQuery {
    fn reason(&self) -> Error {
        if self.running.all.is_cancelled() { Error::ShuttingDown } else { Error::Cancelled }
    }

    /// Waits for `work` unless the query is cancelled first.
    pub async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.cancelled.cancelled() => Err(self.reason()),
            result = work => result,
        }
    }
}

impl Drop for RunningQuery {
    fn drop(&mut self) {
        self.running.queries.lock().remove(&self.handle);
    }
}

/// The batches of a running query, until it is cancelled; an empty one whenever nothing
/// came for `keep_alive`. Dropping the stream drops the query.
pub(crate) fn watched(
    query: RunningQuery,
    schema: SchemaRef,
    batches: Batches,
    keep_alive: Duration,
) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
    stream::try_unfold((query, batches), move |(query, mut batches)| {
        let silent = RecordBatch::new_empty(schema.clone());
        async move {
            let next = async { Ok(tokio::time::timeout(keep_alive, batches.next()).await) };
            let batch = match query.unless_cancelled(next).await? {
                Ok(batch) => batch.transpose()?,
                Err(_) => Some(silent),
            };
            Ok(batch.map(|batch| (batch, (query, batches))))
        }
    })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use futures::FutureExt;

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]))
    }

    fn endless() -> Batches {
        stream::pending().boxed()
    }

    #[tokio::test]
    async fn a_query_is_cancelled_by_its_principal_only() {
        let running = Arc::new(Running::default());
        let query = running.start("ann".into(), Bytes::from_static(b"ticket"));
        let mut batches = Box::pin(watched(query, schema(), endless(), Duration::from_secs(60)));
        assert!(batches.next().now_or_never().is_none());
        assert!(!running.cancel("bob", b"ticket"));
        assert!(!running.cancel("ann", b"other"));
        assert!(running.cancel("ann", b"ticket"));
        let error = batches.next().await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the statement was cancelled");
        assert!(batches.next().await.is_none());
        drop(batches);
        assert!(!running.cancel("ann", b"ticket"), "it is forgotten with its stream");
    }

    #[tokio::test]
    async fn stopping_the_server_ends_every_query_with_its_reason() {
        let running = Arc::new(Running::default());
        let query = running.start("ann".into(), Bytes::from_static(b"ticket"));
        let mut batches = Box::pin(watched(query, schema(), endless(), Duration::from_secs(60)));
        running.all.cancel();
        let error = batches.next().await.unwrap().unwrap_err();
        assert!(matches!(error, Error::ShuttingDown));
    }

    #[tokio::test]
    async fn a_silent_query_sends_empty_batches() {
        let running = Arc::new(Running::default());
        let query = running.start("ann".into(), Bytes::from_static(b"ticket"));
        let mut batches = Box::pin(watched(query, schema(), endless(), Duration::ZERO));
        for _ in 0..3 {
            let batch = batches.next().await.unwrap().unwrap();
            assert_eq!((batch.num_rows(), batch.schema()), (0, schema()));
        }
    }
}
