//! The server through real clients: arrow-flight's, our own, and Python's.

// All of this is test code, though not all of it stands in test functions.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod login;
mod metadata;
mod prepared;
mod python;
mod statements;
