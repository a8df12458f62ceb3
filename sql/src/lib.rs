//! The language: from the text of a statement to what it does.
//!
//! 1. [`statement`]: what can be said, and how it prints back;
//! 2. [`parser`]: text to statements, with the places of everything;
//! 3. [`options`]: what may stand in `WITH (…)`;
//! 4. [`schema`]: column definitions to Arrow;
//! 5. [`plan`]: queries to DataFusion plans, windows (`window_tvf`) and
//!    ASOF joins (`asof`) included;
//! 6. [`objects`] and [`database`]: what the names stand for, made durable and
//!    handed to the engine;
//! 7. [`session`]: one client, through which every statement goes;
//! 8. [`error`]: what happened, where, and what to do instead.

mod asof;
pub mod database;
pub mod error;
pub mod objects;
pub mod options;
pub mod parser;
pub mod plan;
pub mod schema;
pub mod session;
pub mod statement;
mod window_tvf;

pub use error::{Error, Kind, Result};
pub use parser::{Spanned, is_complete, parse};
pub use session::{Access, Answer, Database, Done, Prepared, Session};
pub use statement::Statement;
