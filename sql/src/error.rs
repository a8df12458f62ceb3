//! What can go wrong with a statement.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl Error {
    pub fn internal(message: impl Into<String>) -> Self {
        Error(message.into())
    }
}
