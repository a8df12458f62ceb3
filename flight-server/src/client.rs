//! A client of the server: what `--connect` talks through.
//!
//! [`Client::execute`] answers what `Session::execute` answers, errors included, so that
//! a shell need not know which of the two it has.

mod address;
mod catalog;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::{FlightSqlServiceClient, PreparedStatement};
use arrow_flight::sql::{CommandGetDbSchemas, CommandGetTables, SqlInfo};
use arrow_flight::{
    Action, CancelFlightInfoRequest, FlightInfo, HandshakeRequest, IpcMessage, Ticket,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use prost::Message;
pub use tidemill_sql::Answer;
use tidemill_sql::session::Relation;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::action;
use crate::error::{Error, from_status};
use crate::execution::Outcome;
use crate::wire::decode;

use address::Address;
pub use address::{DEFAULT_PORT, Target};
use catalog::{info_texts, relations, text_column};

/// Bytes of the largest message taken in: a row is never split over two.
const MAX_MESSAGE: usize = 256 << 20;

/// A connection to a server. Cheap to clone; clones share the session.
#[derive(Debug, Clone)]
pub struct Client {
    /// The token in it moves on with the server's rotation.
    flight: Arc<Mutex<FlightSqlServiceClient<Channel>>>,
    last: Arc<Mutex<Option<FlightInfo>>>,
}

/// What of [`tidemill_sql::Session`] the client can't do the same way.
type Result<T> = tidemill_sql::Result<T>;

/// A statement prepared at the server: bind parameters, then execute.
pub type Prepared = PreparedStatement<Channel>;

impl Client {
    /// Connects, logs in where a user is given, and makes sure that a Flight SQL server
    /// answers.
    ///
    /// # Errors
    /// An address that can't be read, a server that can't be reached, credentials that
    /// it refuses.
    pub async fn connect(target: &Target) -> crate::Result<Self> {
        let address = Address::parse(target)?;
        let endpoint = address.endpoint(target).await?;
        let unreachable =
            |error| Error::Transport(format!("{}: {}", address.url, Error::transport(&error)));
        let channel = endpoint.connect().await.map_err(unreachable)?;
        let inner = FlightServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let mut flight = FlightSqlServiceClient::new_from_inner(inner);
        if let Some(user) = &address.user {
            let password = address.password.as_deref().unwrap_or_default();
            log_in(&mut flight, user, password).await?;
        }
        flight.get_sql_info(vec![SqlInfo::FlightSqlServerName]).await.map_err(failed)?;
        Ok(Self { flight: Arc::new(Mutex::new(flight)), last: Arc::default() })
    }

    fn flight(&self) -> FlightSqlServiceClient<Channel> {
        self.flight.lock().clone()
    }

    /// Executes one statement. Dropping the stream of [`Answer::Rows`] cancels the query.
    pub async fn execute(&self, sql: &str) -> Result<Answer> {
        let info = self.flight().execute(sql.to_owned(), None).await.map_err(failed)?;
        self.answer(info).await
    }

    /// Plans a statement with `$1`-style or `?` parameters.
    pub async fn prepare(&self, sql: &str) -> Result<Prepared> {
        self.flight().prepare(sql.to_owned(), None).await.map_err(failed)
    }

    /// Executes a prepared statement with the rows of `parameters`, one column a parameter.
    pub async fn execute_prepared(
        &self,
        statement: &mut Prepared,
        parameters: Option<RecordBatch>,
    ) -> Result<Answer> {
        if let Some(parameters) = parameters {
            statement.set_parameters(parameters).map_err(failed)?;
        }
        let info = statement.execute().await.map_err(failed)?;
        self.answer(info).await
    }

    async fn answer(&self, info: FlightInfo) -> Result<Answer> {
        let schema = schema_of(&info)?;
        if schema.fields().is_empty() && !info.app_metadata.is_empty() {
            let outcome = Outcome::decode(info.app_metadata)
                .map_err(|error| tidemill_sql::Error::internal(error.to_string()))?;
            return Ok(Answer::Done(outcome.into()));
        }
        *self.last.lock() = Some(info.clone());
        self.read(info, schema).await.map(Answer::Rows)
    }

    async fn read(&self, info: FlightInfo, schema: SchemaRef) -> Result<SendableRecordBatchStream> {
        let mut streams = Vec::new();
        for endpoint in info.endpoint {
            streams.push(self.get(endpoint.ticket.unwrap_or_default()).await?);
        }
        let batches = futures::stream::iter(streams)
            .flat_map(decode)
            .map_err(|error| DataFusionError::External(Box::new(failed(error))));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    async fn get(&self, ticket: Ticket) -> Result<FlightRecordBatchStream> {
        let stream = self.flight().do_get(ticket).await.map_err(failed)?;
        if let Some(token) = bearer(stream.headers()) {
            self.flight.lock().set_token(token);
        }
        Ok(stream)
    }

    /// Cancels the query that was executed last, also while another clone reads it.
    ///
    /// # Errors
    /// Only when the server can't be reached: a query that has ended is no error.
    pub async fn cancel(&self) -> Result<()> {
        let Some(info) = self.last.lock().take() else { return Ok(()) };
        let body = CancelFlightInfoRequest { info: Some(info) }.encode_to_vec();
        self.act(action::CANCEL_FLIGHT_INFO, body).await.map(drop)
    }

    /// Words that can stand at the end of `before`.
    pub async fn completions(&self, before: &str) -> Result<Vec<String>> {
        let words = self.act(action::COMPLETE, before.as_bytes().to_vec()).await?;
        Ok(String::from_utf8_lossy(&words).lines().map(str::to_owned).collect())
    }

    /// Ends the session: its token and what it prepared.
    pub async fn close(&self) -> Result<()> {
        self.act(action::CLOSE_SESSION, Vec::new()).await.map(drop)
    }

    async fn act(&self, name: &str, body: Vec<u8>) -> Result<Vec<u8>> {
        let action = Action { r#type: name.to_owned(), body: body.into() };
        let mut results = self.flight().do_action(action).await.map_err(failed)?;
        let result = results.message().await.map_err(|status| from_status(&status))?;
        Ok(result.map(|result| result.body.to_vec()).unwrap_or_default())
    }

    // ---- metadata --------------------------------------------------------------

    pub async fn catalogs(&self) -> Result<Vec<String>> {
        let info = self.flight().get_catalogs().await.map_err(failed)?;
        Ok(text_column(&self.collect(info).await?, "catalog_name"))
    }

    /// Schemas whose names are LIKE the pattern.
    pub async fn schemas(&self, like: Option<&str>) -> Result<Vec<String>> {
        let db_schema_filter_pattern = like.map(str::to_owned);
        let command = CommandGetDbSchemas { catalog: None, db_schema_filter_pattern };
        let info = self.flight().get_db_schemas(command).await.map_err(failed)?;
        Ok(text_column(&self.collect(info).await?, "db_schema_name"))
    }

    /// Everything that has columns, as `Database::relations` answers it; only names LIKE
    /// the pattern. The types are those of the wire.
    pub async fn relations(&self, like: Option<&str>) -> Result<Vec<Relation>> {
        let command = CommandGetTables {
            table_name_filter_pattern: like.map(str::to_owned),
            include_schema: true,
            ..CommandGetTables::default()
        };
        let info = self.flight().get_tables(command).await.map_err(failed)?;
        relations(&self.collect(info).await?).map_err(|error| failed(error.into()))
    }

    /// Name and version of the server.
    pub async fn server(&self) -> Result<(String, String)> {
        let wanted = vec![SqlInfo::FlightSqlServerName, SqlInfo::FlightSqlServerVersion];
        let info = self.flight().get_sql_info(wanted).await.map_err(failed)?;
        let mut values = info_texts(&self.collect(info).await?).into_iter();
        Ok((values.next().unwrap_or_default(), values.next().unwrap_or_default()))
    }

    async fn collect(&self, info: FlightInfo) -> Result<Vec<RecordBatch>> {
        let schema = schema_of(&info)?;
        let stream = self.read(info, schema).await?;
        stream.try_collect().await.map_err(tidemill_sql::Error::from)
    }
}

/// Handshake by hand: arrow-flight's own wraps a refusal in the words of its transport.
async fn log_in(
    flight: &mut FlightSqlServiceClient<Channel>,
    user: &str,
    password: &str,
) -> Result<()> {
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
    let mut request = Request::new(futures::stream::iter([HandshakeRequest::default()]));
    let unsuitable = |_| tidemill_sql::Error::internal("base64 is no header value");
    request.metadata_mut().insert("authorization", basic.parse().map_err(unsuitable)?);
    let refused = |status: Status| from_status(&status);
    let response = flight.inner_mut().handshake(request).await.map_err(refused)?;
    if let Some(token) = bearer(response.metadata()) {
        flight.set_token(token);
    }
    response.into_inner().try_collect::<Vec<_>>().await.map_err(refused).map(drop)
}

fn bearer(metadata: &MetadataMap) -> Option<String> {
    let value = metadata.get("authorization")?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::to_owned)
}

fn schema_of(info: &FlightInfo) -> Result<SchemaRef> {
    match info.schema.is_empty() {
        true => Ok(Arc::new(Schema::empty())),
        false => Schema::try_from(IpcMessage(info.schema.clone()))
            .map(Arc::new)
            .map_err(|error| failed(error.into())),
    }
}

/// A failed call as the error of a statement, with place and hint where the server sent them.
fn failed(error: FlightError) -> tidemill_sql::Error {
    match error {
        FlightError::Tonic(status) => from_status(&status),
        other => tidemill_sql::Error::internal(other.to_string()),
    }
}
