//! The server through real clients: arrow-flight's, our own, and Python's.

mod login;
mod metadata;
mod prepared;
mod python;
mod statements;
