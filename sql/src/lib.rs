//! The language: statements, parser, binding, checks, the session.

pub mod error;
pub mod options;
pub mod parser;
pub mod session;
pub mod statement;

pub use error::{Error, Kind, Result};
pub use parser::{Spanned, is_complete, parse};
pub use session::{Access, Answer, Database, Done, Prepared, Session};
pub use statement::Statement;
