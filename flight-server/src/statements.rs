//! The statements and prepared statements of all clients: planned, run, cancelled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, Command,
    CommandStatementIngest, CommandStatementQuery, CommandStatementUpdate,
    DoPutPreparedStatementResult, DoPutUpdateResult, ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{
    CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightData, FlightDescriptor,
    FlightEndpoint, FlightInfo, Ticket,
};
use bytes::Bytes;
use futures::Stream;
use prost::Message;
use tidemill_sql::Done;
use tonic::Status;

use crate::error::{Error, Result};
use crate::execution::{Execution, Outcome, Running, detached, update, watched};
use crate::ingest::ingest;
use crate::options::ServeOptions;
use crate::prepared::{Statement, read_batches};
use crate::session::ClientSession;
use crate::ticket::{Vault, WhenFull};
use crate::wire::{FlightDataStream, encode, schema_bytes};

pub(crate) struct Statements {
    prepared: Vault<Arc<Statement>>,
    /// Executions that wait to be read.
    tickets: Vault<Arc<Execution>>,
    running: Arc<Running>,
    keep_alive: Duration,
    max_message_size: usize,
}

type Session = Arc<ClientSession>;

impl Statements {
    pub fn new(options: &ServeOptions) -> Self {
        let limit = options.max_handles;
        Self {
            prepared: Vault::new(options.idle_timeout, limit, WhenFull::Refuse),
            tickets: Vault::new(options.ticket_lifetime, limit, WhenFull::DropOldest),
            running: Arc::default(),
            keep_alive: options.keep_alive,
            max_message_size: options.max_message_size,
        }
    }

    pub fn stop(&self) {
        self.running.all.cancel();
    }

    pub fn sweep(&self, now: Instant) {
        self.prepared.sweep(now, |_| true);
        self.tickets.sweep(now, |_| true);
    }

    /// Drops whatever a session holds.
    pub fn end(&self, session: u64) {
        self.prepared.remove_session(session);
        self.tickets.remove_session(session);
    }

    // ---- statements ------------------------------------------------------------

    pub async fn info_of_query(
        &self,
        session: &Session,
        query: CommandStatementQuery,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo> {
        let statement = plan(session, query.query, query.transaction_id.as_ref()).await?;
        self.info(&statement, descriptor).await
    }

    pub async fn schema_of_query(
        &self,
        session: &Session,
        query: CommandStatementQuery,
    ) -> Result<SchemaRef> {
        Ok(plan(session, query.query, query.transaction_id.as_ref()).await?.schema)
    }

    pub async fn update(
        &self,
        session: &Session,
        command: CommandStatementUpdate,
    ) -> Result<DoPutUpdateResult> {
        no_transaction(command.transaction_id.as_ref())?;
        update(session.clone(), command.query).await.map(counted)
    }

    /// The answer to GetFlightInfo: a query's ticket, or what a command has done.
    async fn info(
        &self,
        statement: &Statement,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo> {
        let execution = Arc::new(Execution::new(statement).await?);
        let info = FlightInfo::new().try_with_schema(&execution.schema)?.with_ordered(true);
        let (info, execution) = match execution.prepared.is_query {
            true => (info, execution),
            false => {
                let left = Arc::new(execution.emptied());
                let done = execution.command().await?;
                let rows = done.rows.and_then(|rows| i64::try_from(rows).ok()).unwrap_or(-1);
                let outcome = Outcome::from(done).encode_to_vec();
                (info.with_total_records(rows).with_app_metadata(outcome), left)
            }
        };
        let owner = execution.session.owner();
        let statement_handle =
            self.tickets.insert(owner, execution, Instant::now()).ok_or_else(too_many)?;
        let ticket = TicketStatementQuery { statement_handle };
        Ok(with_ticket(info, &ticket.as_any(), descriptor))
    }

    /// Executes what a ticket stands for.
    pub async fn read(&self, session: &Session, handle: Bytes) -> Result<FlightDataStream> {
        let execution = self.tickets.take(&session.principal, &handle, Instant::now());
        let execution = execution.ok_or(Error::UnknownHandle("the ticket"))?;
        let query = self.running.start(session.principal.clone(), handle);
        let schema = execution.schema.clone();
        let batches = query.unless_cancelled(execution.query()).await?;
        Ok(encode(schema.clone(), watched(query, schema, batches, self.keep_alive)))
    }

    // ---- prepared statements ---------------------------------------------------

    pub fn prepared(&self, session: &Session, handle: &[u8]) -> Result<Arc<Statement>> {
        let statement = self.prepared.get(&session.principal, handle, Instant::now());
        statement.ok_or(Error::UnknownHandle("the prepared statement"))
    }

    pub async fn create_prepared(
        &self,
        session: &Session,
        request: ActionCreatePreparedStatementRequest,
    ) -> Result<Vec<u8>> {
        let statement = plan(session, request.query, request.transaction_id.as_ref()).await?;
        // JDBC takes a statement without a schema for an update.
        let dataset_schema = match statement.prepared.is_query {
            true => schema_bytes(&statement.schema)?,
            false => Bytes::new(),
        };
        let parameters = statement.parameter_schema();
        let parameter_schema = match parameters.fields().is_empty() {
            true => Bytes::new(),
            false => schema_bytes(&parameters)?,
        };
        let prepared_statement_handle = self
            .prepared
            .insert(session.owner(), Arc::new(statement), Instant::now())
            .ok_or_else(too_many)?;
        let result = ActionCreatePreparedStatementResult {
            prepared_statement_handle,
            dataset_schema,
            parameter_schema,
        };
        Ok(result.as_any().encode_to_vec())
    }

    pub fn close_prepared(&self, session: &Session, request: ActionClosePreparedStatementRequest) {
        let handle = request.prepared_statement_handle;
        self.prepared.take(&session.principal, &handle, Instant::now());
    }

    pub async fn bind(
        &self,
        session: &Session,
        handle: Bytes,
        messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    ) -> Result<DoPutPreparedStatementResult> {
        let statement = self.prepared(session, &handle)?;
        statement.bind(read_batches(messages, self.max_message_size).await?)?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
    }

    pub async fn update_prepared(
        &self,
        session: &Session,
        handle: Bytes,
        messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    ) -> Result<DoPutUpdateResult> {
        let statement = self.prepared(session, &handle)?;
        let batches = read_batches(messages, self.max_message_size).await?;
        // Parameters may come with the update, or have been bound before it.
        if !batches.is_empty() {
            statement.bind(batches)?;
        }
        if statement.prepared.is_query {
            return Err(Error::request("the statement answers rows: execute it as a query"));
        }
        Arc::new(Execution::new(&statement).await?).command().await.map(counted)
    }

    pub async fn info_of_prepared(
        &self,
        session: &Session,
        handle: &[u8],
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo> {
        let statement = self.prepared(session, handle)?;
        self.info(&statement, descriptor).await
    }

    /// Some clients make a ticket of the prepared statement's command themselves.
    pub async fn read_prepared(
        &self,
        session: &Session,
        handle: &[u8],
    ) -> Result<FlightDataStream> {
        let statement = self.prepared(session, handle)?;
        let info = self.info(&statement, FlightDescriptor::default()).await?;
        match tickets(&info).next() {
            Some(handle) => self.read(session, handle).await,
            None => Err(Error::Internal("an info came without its ticket".to_owned())),
        }
    }

    /// Loads the batches that follow into a table, in one commit.
    pub async fn ingest(
        &self,
        session: &Session,
        command: CommandStatementIngest,
        messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    ) -> Result<DoPutUpdateResult> {
        no_transaction(command.transaction_id.as_ref())?;
        let session = session.clone();
        detached(ingest(session, command, messages)).await.map(counted)
    }

    // ---- cancelling ------------------------------------------------------------

    pub fn cancel_query(
        &self,
        session: &Session,
        request: ActionCancelQueryRequest,
    ) -> Result<Vec<u8>> {
        let info = FlightInfo::decode(request.info).map_err(|error| malformed(&error))?;
        // CancelResult and CancelStatus have the same numbers.
        let result = self.cancel(session, &info) as i32;
        Ok(ActionCancelQueryResult { result }.as_any().encode_to_vec())
    }

    pub fn cancel_flight_info(&self, session: &Session, body: &[u8]) -> Result<Vec<u8>> {
        let request = CancelFlightInfoRequest::decode(body).map_err(|error| malformed(&error))?;
        let status = self.cancel(session, &request.info.unwrap_or_default()) as i32;
        Ok(CancelFlightInfoResult { status }.encode_to_vec())
    }

    fn cancel(&self, session: &Session, info: &FlightInfo) -> CancelStatus {
        let principal = &session.principal;
        let cancelled = tickets(info).filter(|handle| {
            self.tickets.take(principal, handle, Instant::now()).is_some()
                || self.running.cancel(principal, handle)
        });
        match cancelled.count() {
            0 => CancelStatus::NotCancellable,
            _ => CancelStatus::Cancelled,
        }
    }
}

async fn plan(session: &Session, sql: String, transaction: Option<&Bytes>) -> Result<Statement> {
    no_transaction(transaction)?;
    let prepared = session.sql.prepare(&sql).await?;
    Ok(Statement::new(session.clone(), prepared))
}

fn no_transaction(id: Option<&Bytes>) -> Result<()> {
    match id {
        Some(id) if !id.is_empty() => Err(Error::Unsupported("a transaction".to_owned())),
        _ => Ok(()),
    }
}

/// Completes an info with its one endpoint, read where the info came from: Grafana fails
/// on any other number of them, flightsql-dbapi reads the first only.
pub(crate) fn with_ticket(
    info: FlightInfo,
    ticket: &Any,
    descriptor: FlightDescriptor,
) -> FlightInfo {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket.encode_to_vec()));
    info.with_endpoint(endpoint).with_descriptor(descriptor)
}

/// The handles of the statements in an info's tickets.
fn tickets(info: &FlightInfo) -> impl Iterator<Item = Bytes> {
    info.endpoint.iter().filter_map(|endpoint| {
        let any = Any::decode(&*endpoint.ticket.as_ref()?.ticket).ok()?;
        match Command::try_from(any).ok()? {
            Command::TicketStatementQuery(ticket) => Some(ticket.statement_handle),
            _ => None,
        }
    })
}

/// Statements that write no rows count 0, as JDBC has it.
fn counted(done: Done) -> DoPutUpdateResult {
    let record_count = i64::try_from(done.rows.unwrap_or(0)).unwrap_or(i64::MAX);
    DoPutUpdateResult { record_count }
}

fn too_many() -> Error {
    Error::Limit("the session holds too many prepared statements: close some".to_owned())
}

fn malformed(error: &prost::DecodeError) -> Error {
    Error::request(format!("the action's body is wrong: {error}"))
}
