//! What can go wrong while a script runs. SQL errors print as a client sees them.

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Sql(#[from] tidemill_sql::Error),
    /// The script itself is wrong.
    #[error("script: {0}")]
    Script(String),
    /// What a view holds is not what it must hold.
    #[error("{0}")]
    Wrong(String),
    #[error("{0}")]
    Sqllogictest(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl Error {
    pub fn script(message: impl Into<String>) -> Self {
        Error::Script(message.into())
    }

    pub fn wrong(message: impl Into<String>) -> Self {
        Error::Wrong(message.into())
    }
}

impl From<tidemill_engine::Error> for Error {
    fn from(error: tidemill_engine::Error) -> Self {
        Error::Sql(error.into())
    }
}

impl From<datafusion::error::DataFusionError> for Error {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        Error::Sql(error.into())
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Error::from(tidemill_engine::Error::from(error))
    }
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        Error::from(tidemill_engine::Error::from(error))
    }
}
