//! The built program, as people and scripts use it: arguments in; stdout, stderr
//! and the exit code out.
//!
//! One test binary: every test starts its own processes in its own folder. Nothing
//! guesses a port or sleeps: what has to be waited for is read from the program's output.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, too")]

#[path = "cli/program.rs"]
mod program;

#[path = "cli/arguments.rs"]
mod arguments;
#[path = "cli/demo.rs"]
mod demo;
#[path = "cli/files.rs"]
mod files;
#[path = "cli/generate.rs"]
mod generate;
#[path = "cli/readme.rs"]
mod readme;
#[path = "cli/server.rs"]
mod server;
#[path = "cli/shell.rs"]
mod shell;
