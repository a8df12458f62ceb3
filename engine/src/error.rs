//! What can go wrong in the engine, sorted by who can mend it.
//!
//! Every error knows its [`Kind`] and whether a later try can succeed: the
//! runtime retries a query whose error is [`Error::retryable`] and marks it
//! failed otherwise.

mod storage;

use datafusion::error::DataFusionError;
use delta_kernel::Error as KernelError;
use deltalake::DeltaTableError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who can mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The statement or its data: the user changes it.
    User,
    /// Something outside: a broker, an object store, another engine.
    External,
    /// A fault of Tidemill.
    Internal,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A definition or an option that can't be right.
    #[error("{message}")]
    Invalid { message: String, hint: Option<String> },

    /// A query that can't be kept up to date incrementally, refused by name.
    #[error("{what} is not supported in a continuous query")]
    Unsupported { what: String, hint: Option<String> },

    #[error("{kind} \"{name}\" does not exist")]
    NotFound { kind: &'static str, name: String },

    #[error("{kind} \"{name}\" exists already")]
    Exists { kind: &'static str, name: String },

    /// A source that can't be reached or refuses; `retryable` says whether waiting can help.
    #[error("source \"{name}\": {message}")]
    Source { name: String, message: String, retryable: bool },

    /// Records that a topic did not take.
    #[error("topic \"{topic}\": {message}")]
    NotWritten { topic: String, message: String, retryable: bool },

    /// Records that should be read next are gone: never skipped silently.
    #[error(
        "source \"{name}\", partition {partition}: offset {wanted} has expired, \
         the oldest that is left is {oldest}"
    )]
    Expired { name: String, partition: i32, wanted: i64, oldest: i64 },

    /// A record that can't be decoded or evaluated, under `on_error = 'fail'`.
    #[error("source \"{name}\", partition {partition}, offset {offset}: {message}")]
    BadRecord { name: String, partition: i32, offset: i64, message: String },

    /// Another engine took the warehouse over: this one must not commit any more.
    #[error("the lease on the warehouse was taken over by {holder} (token {token})")]
    Fenced { holder: String, token: u64 },

    /// Another engine runs the warehouse, and is alive.
    #[error("the warehouse {warehouse} is run by another engine: {holder}")]
    InUse { warehouse: String, holder: String },

    /// A file of the warehouse that this version can't read.
    #[error("{path}: {message}")]
    Corrupt { path: String, message: String },

    /// Local room for what doesn't fit in memory.
    #[error("can't move state to {path}: {error}")]
    Spill { path: std::path::PathBuf, error: std::io::Error },

    #[error("delta table: {0}")]
    Delta(#[from] DeltaTableError),

    #[error("{0}")]
    DataFusion(#[source] Box<DataFusionError>),

    #[error("{0}")]
    Arrow(#[from] arrow::error::ArrowError),

    #[error("storage: {}", storage::told(.0))]
    Storage(#[from] object_store::Error),

    #[error("internal: {0}; this is a bug in Tidemill")]
    Internal(String),
}

impl From<DataFusionError> for Error {
    /// An engine error that travelled through a DataFusion stream comes out as itself.
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::External(inner) => match inner.downcast::<Error>() {
                Ok(own) => *own,
                Err(inner) => Error::DataFusion(Box::new(DataFusionError::External(inner))),
            },
            DataFusionError::Context(_, inner) => Error::from(*inner),
            other => Error::DataFusion(Box::new(other)),
        }
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        match error {
            Error::DataFusion(inner) => *inner,
            own => DataFusionError::External(Box::new(own)),
        }
    }
}

impl Error {
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::Invalid { message: message.into(), hint: None }
    }

    pub fn invalid_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Error::Invalid { message: message.into(), hint: Some(hint.into()) }
    }

    pub fn unsupported(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Error::Unsupported { what: what.into(), hint: Some(hint.into()) }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Error::Internal(message.into())
    }

    pub fn kind(&self) -> Kind {
        match self {
            Error::Invalid { .. }
            | Error::Unsupported { .. }
            | Error::NotFound { .. }
            | Error::Exists { .. }
            | Error::BadRecord { .. }
            | Error::Arrow(_) => Kind::User,
            Error::DataFusion(inner) => match inner.find_root() {
                DataFusionError::Internal(_) => Kind::Internal,
                DataFusionError::IoError(_)
                | DataFusionError::ObjectStore(_)
                | DataFusionError::External(_) => Kind::External,
                _ if caused_by_storage(inner.as_ref()) => Kind::External,
                _ => Kind::User,
            },
            Error::Internal(_) => Kind::Internal,
            Error::Source { .. }
            | Error::NotWritten { .. }
            | Error::Expired { .. }
            | Error::Fenced { .. }
            | Error::InUse { .. }
            | Error::Corrupt { .. }
            | Error::Spill { .. }
            | Error::Delta(_)
            | Error::Storage(_) => Kind::External,
        }
    }

    /// What to do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Invalid { hint, .. } | Error::Unsupported { hint, .. } => hint.clone(),
            Error::Expired { .. } => Some(
                "the rows between are lost to this query; raise the topic's retention, or drop \
                 and create the view again to start from what is left"
                    .into(),
            ),
            Error::BadRecord { .. } => {
                Some("on_error = 'dead_letter' or 'skip' on the source lets the rest go on".into())
            }
            Error::InUse { .. } => Some(
                "connect to that engine (--connect), or stop it first, or name another --warehouse"
                    .into(),
            ),
            Error::Spill { .. } => Some("state beyond its memory limit needs local disk".into()),
            Error::Storage(error) => storage::hint(error).map(Into::into),
            Error::Fenced { .. } => Some("only one engine may run a warehouse".into()),
            _ => None,
        }
    }

    /// Whether the same step can succeed later with nothing changed by a person.
    pub fn retryable(&self) -> bool {
        match self {
            Error::Source { retryable, .. } | Error::NotWritten { retryable, .. } => *retryable,
            Error::Storage(error) => !matches!(
                error,
                object_store::Error::NotImplemented { .. }
                    | object_store::Error::InvalidPath { .. }
                    | object_store::Error::PermissionDenied { .. }
                    | object_store::Error::Unauthenticated { .. }
                    | object_store::Error::UnknownConfigurationKey { .. }
            ),
            Error::Delta(DeltaTableError::Transaction { .. }) => true,
            Error::Delta(error) => caused_by_storage(error),
            Error::DataFusion(inner) => caused_by_storage(inner.as_ref()),
            _ => false,
        }
    }
}

/// Whether a failure of storage lies at the bottom of an error, however it was wrapped.
fn caused_by_storage(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<object_store::Error>() || error.is::<std::io::Error>() {
            return true;
        }
        if error.downcast_ref::<KernelError>().is_some_and(is_storage) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// delta_kernel does not say of these what caused them.
fn is_storage(error: &KernelError) -> bool {
    match error {
        KernelError::Backtraced { source, .. } => is_storage(source),
        KernelError::ObjectStore(_) | KernelError::IOError(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_that_fails_below_delta_kernel_is_worth_another_try() {
        let failed = || object_store::Error::Generic { store: "S3", source: "reset".into() };
        for kernel in [
            KernelError::ObjectStore(failed()),
            KernelError::IOError(std::io::Error::other("reset")),
            KernelError::generic_err(failed()),
        ] {
            let error = Error::from(DeltaTableError::from(kernel));
            assert!(error.retryable(), "{error}");
        }
        let other = Error::from(DeltaTableError::from(KernelError::generic("no such column")));
        assert!(!other.retryable());
    }
}
