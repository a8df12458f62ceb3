//! What can go wrong with a statement: what happened, where, and what to do.
//!
//! An [`Error`] is a [`Cause`] with, where they are known, a [`Location`] in the
//! statement's text and a hint. It prints two ways: [`Display`](fmt::Display)
//! is one line for logs and for clients, [`Error::render`] draws the place
//! under the source text for terminals.

mod datafusion;
mod render;
mod suggest;
mod syntax;

use std::fmt;
use std::sync::Arc;

use ::datafusion::common::Span as PlanSpan;
use ::datafusion::sql::sqlparser::tokenizer::Span;

pub use suggest::nearest;
pub(crate) use syntax::{expectation, from_parser, from_tokenizer, unclosed};
pub use tidemill_engine::Kind;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a statement. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Error {
    cause: Arc<Cause>,
    location: Option<Location>,
    hint: Option<Arc<str>>,
}

/// What happened.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The text is no statement.
    #[error("{0}")]
    Syntax(String),
    /// A name that is not there, is there already, or means two things.
    #[error("{0}")]
    Name(String),
    /// An expression or a column of the wrong type.
    #[error("{0}")]
    Type(String),
    /// Understood, but not done by Tidemill.
    #[error("{0}")]
    Refused(String),
    /// An option that is unknown, missing or has a wrong value.
    #[error("{0}")]
    Option(String),
    /// What the engine reported.
    #[error(transparent)]
    Engine(tidemill_engine::Error),
    /// What DataFusion reported while it planned or executed.
    #[error("{message}")]
    DataFusion { message: String, kind: Kind, retryable: bool },
    /// A fault of Tidemill.
    #[error("internal: {0}; this is a bug in Tidemill")]
    Internal(String),
}

/// A place in the source text: where it starts, and how many characters wide it is.
///
/// Lines and columns count from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    pub line: u64,
    pub column: u64,
    /// Characters on that line; at least 1. More than the line holds means: to its end.
    pub width: u64,
}

impl Location {
    /// One character.
    pub fn point(line: u64, column: u64) -> Self {
        Self { line, column, width: 1 }
    }

    /// The place of a syntax node; `None` for nodes that were not parsed from text.
    pub fn of(span: Span) -> Option<Self> {
        Self::between((span.start.line, span.start.column), (span.end.line, span.end.column))
    }

    fn of_plan(span: PlanSpan) -> Option<Self> {
        Self::between((span.start.line, span.start.column), (span.end.line, span.end.column))
    }

    fn between(start: (u64, u64), end: (u64, u64)) -> Option<Self> {
        let (line, column) = start;
        let width = match end.0 {
            last if last > line => u64::MAX,
            _ => end.1.saturating_sub(column).max(1),
        };
        (line > 0 && column > 0).then_some(Self { line, column, width })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

impl From<Cause> for Error {
    fn from(cause: Cause) -> Self {
        Self { cause: Arc::new(cause), location: None, hint: None }
    }
}

impl Error {
    /// The text is no statement.
    pub fn syntax(message: impl Into<String>) -> Self {
        Cause::Syntax(message.into()).into()
    }

    /// A name that is not there, is there already, or means two things.
    pub fn name(message: impl Into<String>) -> Self {
        Cause::Name(message.into()).into()
    }

    /// An expression or a column of the wrong type.
    pub fn types(message: impl Into<String>) -> Self {
        Cause::Type(message.into()).into()
    }

    /// Understood, but not done by Tidemill.
    pub fn refused(message: impl Into<String>) -> Self {
        Cause::Refused(message.into()).into()
    }

    /// An option that is unknown, missing or has a wrong value.
    pub fn option(message: impl Into<String>) -> Self {
        Cause::Option(message.into()).into()
    }

    /// A fault of Tidemill.
    pub fn internal(message: impl Into<String>) -> Self {
        Cause::Internal(message.into()).into()
    }

    /// Says where, replacing what was known before. `None` changes nothing.
    #[must_use]
    pub fn at(mut self, location: impl Into<Option<Location>>) -> Self {
        self.location = location.into().or(self.location);
        self
    }

    /// Says where, unless a place is known already.
    #[must_use]
    pub fn or_at(mut self, location: impl Into<Option<Location>>) -> Self {
        self.location = self.location.or_else(|| location.into());
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl AsRef<str>) -> Self {
        self.hint = Some(Arc::from(hint.as_ref()));
        self
    }

    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// What happened, without place and hint.
    pub fn message(&self) -> String {
        self.cause.to_string()
    }

    pub fn location(&self) -> Option<Location> {
        self.location
    }

    /// What to do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match (&self.hint, self.cause()) {
            (Some(hint), _) => Some(hint.to_string()),
            (None, Cause::Engine(error)) => error.hint(),
            (None, _) => None,
        }
    }

    /// Who can mend it.
    pub fn kind(&self) -> Kind {
        match self.cause() {
            Cause::Engine(error) => error.kind(),
            Cause::DataFusion { kind, .. } => *kind,
            Cause::Internal(_) => Kind::Internal,
            _ => Kind::User,
        }
    }

    /// Whether the same statement can succeed later with nothing changed by a person.
    pub fn retryable(&self) -> bool {
        match self.cause() {
            Cause::Engine(error) => error.retryable(),
            Cause::DataFusion { retryable, .. } => *retryable,
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    /// One line: `message (line 3, column 9); hint: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.message()))?;
        if let Some(location) = self.location {
            write!(f, " ({location})")?;
        }
        match self.hint() {
            Some(hint) => write!(f, "; hint: {}", one_line(&hint)),
            None => Ok(()),
        }
    }
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(self.cause())
    }
}
