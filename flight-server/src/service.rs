//! The Flight service: each call is authenticated, decoded, and handed on.
//!
//! `FlightService` itself rather than arrow-flight's `FlightSqlService` on top of it: that
//! leaves out GetSchema, PollFlightInfo and session management, which ADBC and JDBC call,
//! and has no place for the response headers that tokens travel in.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{Any, Command};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, Result as ActionResult, SchemaResult,
    Ticket,
};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use prost::Message;
use tidemill_sql::Database;
use tonic::{Request, Response, Status, Streaming};

use crate::auth::{Authenticator, Caller};
use crate::connection::ConnectInfo;
use crate::error::{Error, Result};
use crate::options::ServeOptions;
use crate::session::Sessions;
use crate::statements::Statements;
use crate::wire::{FlightDataStream, encode, schema_bytes};
use crate::{action, metadata};

/// What the calls share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Service {
    shared: Arc<Shared>,
}

struct Shared {
    sessions: Sessions,
    authenticator: Authenticator,
    statements: Statements,
    options: ServeOptions,
}

type Answer<T> = std::result::Result<Response<T>, Status>;
type Answers<T> = BoxStream<'static, std::result::Result<T, Status>>;

impl Service {
    pub fn new(database: Arc<Database>, options: ServeOptions) -> Self {
        let shared = Shared {
            sessions: Sessions::new(database),
            authenticator: Authenticator::new(&options),
            statements: Statements::new(&options),
            options,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Ends every query that is being read, so that the server can stop.
    pub fn stop(&self) {
        self.shared.statements.stop();
    }

    /// Forgets what has expired.
    pub fn sweep(&self, now: Instant) {
        self.shared.authenticator.sweep(now, self.shared.options.idle_timeout);
        self.shared.statements.sweep(now);
    }

    /// Ends a session: its token is unknown from now on, and so is what it holds.
    fn end(&self, session: u64) {
        self.shared.authenticator.end(session);
        self.shared.statements.end(session);
    }

    fn metadata(&self, command: Command) -> Result<RecordBatch> {
        let database = &self.shared.sessions.database;
        metadata::answer(command, || {
            database.relations().into_iter().chain(database.system_relations()).collect()
        })
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<Caller> {
        let connection = request.extensions().get::<ConnectInfo>();
        let Shared { authenticator, sessions, .. } = &*self.shared;
        authenticator.caller(request.metadata(), connection, sessions, Instant::now())
    }

    async fn flight_info(
        &self,
        caller: &Caller,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo> {
        let statements = &self.shared.statements;
        match command(&descriptor.cmd)? {
            Command::CommandStatementQuery(query) => {
                statements.info_of_query(&caller.session, query, descriptor).await
            }
            Command::CommandPreparedStatementQuery(query) => {
                let handle = query.prepared_statement_handle;
                statements.info_of_prepared(&caller.session, &handle, descriptor).await
            }
            metadata => {
                let any = metadata.clone().into_any();
                let batch = self.metadata(metadata)?;
                let info = FlightInfo::new().try_with_schema(&batch.schema())?;
                Ok(crate::statements::with_ticket(info, &any, descriptor))
            }
        }
    }

    async fn schema(&self, caller: &Caller, descriptor: FlightDescriptor) -> Result<SchemaResult> {
        let statements = &self.shared.statements;
        let schema = match command(&descriptor.cmd)? {
            Command::CommandStatementQuery(query) => {
                statements.schema_of_query(&caller.session, query).await?
            }
            Command::CommandPreparedStatementQuery(query) => statements
                .prepared(&caller.session, &query.prepared_statement_handle)?
                .schema
                .clone(),
            metadata => self.metadata(metadata)?.schema(),
        };
        Ok(SchemaResult { schema: schema_bytes(&schema)? })
    }

    async fn data(&self, caller: &Caller, ticket: Ticket) -> Result<FlightDataStream> {
        let statements = &self.shared.statements;
        match command(&ticket.ticket)? {
            Command::TicketStatementQuery(ticket) => {
                statements.read(&caller.session, ticket.statement_handle).await
            }
            Command::CommandPreparedStatementQuery(query) => {
                statements.read_prepared(&caller.session, &query.prepared_statement_handle).await
            }
            metadata => {
                let batch = self.metadata(metadata)?;
                Ok(encode(batch.schema(), stream::iter([Ok(batch)])))
            }
        }
    }

    async fn put(&self, caller: &Caller, mut messages: Streaming<FlightData>) -> Result<PutResult> {
        let first =
            messages.next().await.transpose().map_err(arrow_flight::error::FlightError::from)?;
        let first = first.ok_or_else(|| Error::request("DoPut came without a message"))?;
        let descriptor = first.flight_descriptor.clone();
        let descriptor =
            descriptor.ok_or_else(|| Error::request("DoPut came without a flight descriptor"))?;
        let messages = stream::iter([Ok(first)]).chain(messages);
        let app_metadata = match command(&descriptor.cmd)? {
            Command::CommandStatementUpdate(update) => {
                self.shared.statements.update(&caller.session, update).await?.encode_to_vec()
            }
            Command::CommandPreparedStatementQuery(query) => {
                let handle = query.prepared_statement_handle;
                let bound = self.shared.statements.bind(&caller.session, handle, messages).await?;
                bound.encode_to_vec()
            }
            Command::CommandPreparedStatementUpdate(update) => {
                let handle = update.prepared_statement_handle;
                let done =
                    self.shared.statements.update_prepared(&caller.session, handle, messages);
                done.await?.encode_to_vec()
            }
            Command::CommandStatementIngest(command) => {
                let loaded = self.shared.statements.ingest(&caller.session, command, messages);
                loaded.await?.encode_to_vec()
            }
            other => return Err(Error::Unsupported(format!("the command {}", other.type_url()))),
        };
        Ok(PutResult { app_metadata: app_metadata.into() })
    }

    async fn act(&self, caller: &Caller, action: Action) -> Result<Option<ActionResult>> {
        let (session, statements) = (&caller.session, &self.shared.statements);
        let body = match action.r#type.as_str() {
            action::CREATE_PREPARED_STATEMENT => {
                statements.create_prepared(session, unpack(&action.body)?).await?
            }
            action::CLOSE_PREPARED_STATEMENT => {
                statements.close_prepared(session, unpack(&action.body)?);
                return Ok(None);
            }
            action::CANCEL_QUERY => statements.cancel_query(session, unpack(&action.body)?)?,
            action::CANCEL_FLIGHT_INFO => statements.cancel_flight_info(session, &action.body)?,
            action::SET_SESSION_OPTIONS => action::set_options(session, &action.body).await?,
            action::GET_SESSION_OPTIONS => action::get_options(session),
            action::CLOSE_SESSION => {
                self.end(session.id);
                action::closed()
            }
            action::COMPLETE => {
                session.sql.completions(&String::from_utf8_lossy(&action.body)).join("\n").into()
            }
            other => return Err(Error::Unsupported(format!("the action {other:?}"))),
        };
        Ok(Some(ActionResult { body: body.into() }))
    }
}

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = FlightDataStream;
    type DoPutStream = Answers<PutResult>;
    type DoActionStream = Answers<ActionResult>;
    type ListActionsStream = Answers<ActionType>;
    type DoExchangeStream = Answers<FlightData>;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Answer<Self::HandshakeStream> {
        let Shared { authenticator, sessions, .. } = &*self.shared;
        let caller = authenticator
            .handshake(request.metadata(), sessions, Instant::now())
            .inspect_err(|error| {
                let peer = request.extensions().get::<ConnectInfo>().and_then(|info| info.peer);
                tracing::warn!(?peer, %error, "a login was refused");
            })?;
        if let Some(surplus) = sessions.surplus(&caller.session.principal, Instant::now()) {
            self.end(surplus);
        }
        Ok(caller.answer(stream::iter([Ok(HandshakeResponse::default())]).boxed()))
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Answer<Self::ListFlightsStream> {
        Ok(self.caller(&request)?.answer(stream::empty().boxed()))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        let caller = self.caller(&request)?;
        Ok(caller.answer(self.flight_info(&caller, request.into_inner()).await?))
    }

    /// The info is complete at once: there is nothing to poll for.
    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<PollInfo> {
        let caller = self.caller(&request)?;
        let info = self.flight_info(&caller, request.into_inner()).await?;
        Ok(caller.answer(PollInfo { info: Some(info), progress: Some(1.0), ..PollInfo::default() }))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        let caller = self.caller(&request)?;
        Ok(caller.answer(self.schema(&caller, request.into_inner()).await?))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Answer<Self::DoGetStream> {
        let caller = self.caller(&request)?;
        Ok(caller.answer(self.data(&caller, request.into_inner()).await?))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        let caller = self.caller(&request)?;
        let result = self.put(&caller, request.into_inner()).await?;
        Ok(caller.answer(stream::iter([Ok(result)]).boxed()))
    }

    async fn do_action(&self, request: Request<Action>) -> Answer<Self::DoActionStream> {
        let caller = self.caller(&request)?;
        let result = self.act(&caller, request.into_inner()).await?;
        Ok(caller.answer(stream::iter(result.map(Ok)).boxed()))
    }

    async fn list_actions(&self, request: Request<Empty>) -> Answer<Self::ListActionsStream> {
        let caller = self.caller(&request)?;
        Ok(caller.answer(stream::iter(action::list().into_iter().map(Ok)).boxed()))
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Answer<Self::DoExchangeStream> {
        self.caller(&request)?;
        Err(Error::Unsupported("DoExchange".to_owned()).into())
    }
}

/// The Flight SQL command in a descriptor or a ticket.
fn command(bytes: &[u8]) -> Result<Command> {
    let malformed = |error: String| Error::request(format!("not a Flight SQL command: {error}"));
    let any = Any::decode(bytes).map_err(|error| malformed(error.to_string()))?;
    Command::try_from(any).map_err(|error| malformed(error.to_string()))
}

/// The message in an action's body.
fn unpack<M: arrow_flight::sql::ProstMessageExt>(body: &[u8]) -> Result<M> {
    let malformed = |error: String| Error::request(format!("the action's body is wrong: {error}"));
    let any = Any::decode(body).map_err(|error| malformed(error.to_string()))?;
    let message = any.unpack().map_err(|error| malformed(error.to_string()))?;
    message.ok_or_else(|| malformed(format!("it is of type {}", any.type_url)))
}
