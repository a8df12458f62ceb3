//! What can go wrong while serving, and how it looks on the wire.
//!
//! A client is sent a gRPC code that says who can mend it, and the message as a person
//! should read it (never the `Debug` of something inside). The parts of a statement's
//! error (message, place, hint) travel beside it as metadata, so that our own client
//! draws the caret under the place as an embedded session would.

use arrow::error::ArrowError;
use arrow_flight::error::FlightError;
use datafusion::error::DataFusionError;
use tidemill_sql::error::{Cause, Kind, Location};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// `line:column:width`.
const LOCATION: &str = "tidemill-location";
const MESSAGE: &str = "tidemill-message-bin";
const HINT: &str = "tidemill-hint-bin";

/// Longest text in a header: gRPC's C core refuses more than 8 KiB of headers, and a
/// character may take 3 bytes there.
const MAX_TEXT: usize = 1500;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings that can't be served with.
    #[error("{message}; hint: {hint}")]
    Config { message: String, hint: String },

    /// What the statement's session answered.
    #[error(transparent)]
    Statement(#[from] tidemill_sql::Error),

    /// A request that makes no sense.
    #[error("{0}")]
    Request(String),

    /// No credentials, or wrong ones.
    #[error("{0}")]
    Unauthenticated(String),

    /// A handle that isn't there (any more), or belongs to somebody else.
    #[error("{0} is unknown: it has expired, was used or closed already, or is not yours")]
    UnknownHandle(&'static str),

    /// A session that holds too much.
    #[error("{0}")]
    Limit(String),

    /// A part of the protocol that Tidemill does not serve.
    #[error("{0} is not supported")]
    Unsupported(String),

    /// What a prepared statement or a ticket reads was replaced meanwhile.
    #[error("the columns of the result have changed since it was planned; run it again")]
    Changed,

    #[error("the statement was cancelled")]
    Cancelled,

    #[error("the server is shutting down")]
    ShuttingDown,

    #[error("{0}")]
    Arrow(#[from] ArrowError),

    #[error("{0}")]
    Io(#[from] std::io::Error),

    /// The server could not listen or be reached.
    #[error("{0}")]
    Transport(String),

    #[error("internal: {0}; this is a bug in Tidemill")]
    Internal(String),
}

impl Error {
    pub(crate) fn config(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Error::Config { message: message.into(), hint: hint.into() }
    }

    pub(crate) fn request(message: impl Into<String>) -> Self {
        Error::Request(message.into())
    }

    /// A transport error with its causes, which alone say what happened.
    pub(crate) fn transport(error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(Some(error), |error| error.source());
        Error::Transport(causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
    }

    fn code(&self) -> Code {
        match self {
            Error::Statement(error) => statement_code(error),
            Error::Request(_) | Error::Config { .. } => Code::InvalidArgument,
            Error::Unauthenticated(_) => Code::Unauthenticated,
            Error::UnknownHandle(_) => Code::NotFound,
            Error::Limit(_) => Code::ResourceExhausted,
            Error::Unsupported(_) => Code::Unimplemented,
            Error::Changed => Code::Aborted,
            Error::Cancelled => Code::Cancelled,
            Error::ShuttingDown | Error::Transport(_) => Code::Unavailable,
            Error::Arrow(_) | Error::Io(_) | Error::Internal(_) => Code::Internal,
        }
    }
}

fn statement_code(error: &tidemill_sql::Error) -> Code {
    match error.kind() {
        Kind::User => Code::InvalidArgument,
        Kind::External if error.retryable() => Code::Unavailable,
        Kind::External => Code::FailedPrecondition,
        Kind::Internal => Code::Internal,
    }
}

impl From<FlightError> for Error {
    fn from(error: FlightError) -> Self {
        match error {
            FlightError::Arrow(error) => Error::Arrow(error),
            FlightError::Tonic(status) if status.code() == Code::ResourceExhausted => {
                Error::Limit(status.message().to_owned())
            }
            FlightError::Tonic(status) => Error::Request(status.message().to_owned()),
            other => Error::Request(other.to_string()),
        }
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        Error::Statement(error.into())
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = error.code();
        if code == Code::Internal {
            tracing::error!(%error, "a request failed");
        }
        let mut status = Status::new(code, shortened(&error.to_string()));
        if let Error::Statement(error) = &error {
            add_parts(&mut status, error);
        }
        status
    }
}

impl From<Error> for FlightError {
    fn from(error: Error) -> Self {
        FlightError::Tonic(Box::new(error.into()))
    }
}

fn add_parts(status: &mut Status, error: &tidemill_sql::Error) {
    let metadata = status.metadata_mut();
    metadata.insert_bin(MESSAGE, MetadataValue::from_bytes(shortened(&error.message()).as_bytes()));
    if let Some(hint) = error.hint() {
        metadata.insert_bin(HINT, MetadataValue::from_bytes(shortened(&hint).as_bytes()));
    }
    let place = error.location().map(|l| format!("{}:{}:{}", l.line, l.column, l.width));
    if let Some(place) = place.and_then(|place| place.parse().ok()) {
        metadata.insert(LOCATION, place);
    }
}

/// The other way round: what a server sent, as the error of a statement.
pub(crate) fn from_status(status: &Status) -> tidemill_sql::Error {
    let text = |key| {
        let value = status.metadata().get_bin(key)?.to_bytes().ok()?;
        String::from_utf8(value.to_vec()).ok()
    };
    let kind = match status.code() {
        Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::Aborted => Kind::User,
        Code::Internal | Code::Unknown | Code::DataLoss => Kind::Internal,
        _ => Kind::External,
    };
    let message = text(MESSAGE).unwrap_or_else(|| describe(status));
    let retryable = status.code() == Code::Unavailable;
    let error = tidemill_sql::Error::from(Cause::DataFusion { message, kind, retryable });
    let error = error.at(location(status));
    match text(HINT) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

fn location(status: &Status) -> Option<Location> {
    let mut parts = status.metadata().get(LOCATION)?.to_str().ok()?.split(':');
    let mut next = || parts.next()?.parse().ok();
    Some(Location { line: next()?, column: next()?, width: next()? })
}

/// Errors that did not come from a session: the connection's own have their reason inside.
fn describe(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => Error::transport(source).to_string(),
        None if status.message().is_empty() => status.code().description().to_owned(),
        None => status.message().to_owned(),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
