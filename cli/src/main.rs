//! The `tidemill` program: parse, run, exit code.
//!
//! In reading order: [`args`] is what was typed, [`config`] what it means,
//! [`command`] a verb a file; [`target`] executes statements here or on a
//! server, [`shell`] prints what they answer ([`output`]), [`repl`] is the
//! terminal in front of it.
//!
//! stdout is data, stderr is talk; a reader who leaves early (`| head`) is no
//! error; the exit code is 0 only when all went well.

mod args;
mod command;
mod config;
mod declare;
mod failure;
mod interrupt;
mod logging;
mod output;
mod pace;
mod progress;
mod repl;
mod script;
mod shell;
mod target;
mod units;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

use args::Args;
use config::{Config, Flags, Settings};

fn main() -> ExitCode {
    tidemill_engine::heap::keep_freed_memory();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(1);
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match run(args) {
        Ok(code) => code,
        Err(error) if shell::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::talk(describe(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<ExitCode> {
    let mut flags = Flags::default();
    args.global.flags(&mut flags);
    args.command.flags(&mut flags);
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let settings = Settings::load(flags, args.global.config.clone(), &environment)?;
    settings.notes.iter().for_each(|note| output::talk(format!("note: {note}")));
    let config = Config::from_settings(&settings)?;
    // Deeply nested queries are planned by recursion, unoptimised in a debug build.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(8 << 20)
        .build()?;
    let outcome = runtime.block_on(command::run(args.command, settings, config));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// An error as it is printed: a statement's own drawing, or the chain of causes in a line.
pub fn describe(error: &anyhow::Error) -> String {
    if let Some(failure) = error.downcast_ref::<failure::Failure>() {
        return failure.to_string();
    }
    match error.downcast_ref::<tidemill_sql::Error>() {
        Some(error) => error.render(""),
        None => format!("error: {error:#}"),
    }
}
