//! Serving Tidemill over Arrow Flight SQL, and a client of it.
//!
//! A call comes in through [`service`](crate): its caller is found (`auth`), its command
//! decoded, and it is answered by the statements of the caller's session (`statements`,
//! `prepared`, `execution`) or from the catalog (`metadata`). Whatever leaves the server
//! has plain types and small messages (`wire`). Everything a client is given to bring
//! back later is a handle of `ticket`.

mod action;
mod auth;
pub mod client;
mod connection;
mod error;
mod execution;
mod ingest;
mod metadata;
mod options;
mod prepared;
mod server;
mod service;
mod session;
mod statements;
mod ticket;
mod wire;

pub use client::Client;
pub use error::{Error, Result};
pub use options::{ServeOptions, TlsOptions};
pub use server::serve;
