//! The language: statements, parser, binding, checks, the session.

pub mod error;
pub mod session;

pub use error::{Error, Result};
pub use session::{Access, Answer, Database, Done, Prepared, Session};
