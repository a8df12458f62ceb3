//! The verbs, a file each.

mod check;
mod config;
mod demo;
mod generate;
mod run;
mod serve;
mod sql;
mod status;
mod submit;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::args::Command;
use crate::config::{Config, Settings};
use crate::logging::{self, Destination};

/// Runs a verb. Logging starts here, for the verbs differ in how much they say.
pub async fn run(command: Command, settings: Settings, config: Config) -> Result<ExitCode> {
    let log = |level| logging::start(&settings, level, Destination::Stderr);
    match command {
        Command::Demo(args) => demo::run(args, &settings, config).await,
        Command::Sql(args) => {
            log("error")?;
            sql::run(args, config).await
        }
        Command::Run(args) => {
            log("warn")?;
            run::run(args, config).await
        }
        Command::Serve(args) => {
            log("info")?;
            serve::run(args, config).await
        }
        Command::Submit(args) => {
            log("warn")?;
            submit::run(args, config).await
        }
        Command::Status(args) => {
            log("error")?;
            status::run(args, config).await
        }
        Command::Check(args) => {
            log("error")?;
            check::run(args, config).await
        }
        Command::Generate(args) => {
            log("warn")?;
            generate::run(args).await
        }
        Command::Config(_) => config::run(&settings),
    }
}

/// The text of a SQL file; `-` is stdin. A byte order mark at its start is no part of it.
pub(crate) fn read_script(path: &Path) -> Result<String> {
    let text = match path.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()).context("can't read stdin")?,
        false => std::fs::read_to_string(path)
            .with_context(|| format!("can't read {}", path.display()))?,
    };
    Ok(text.strip_prefix('\u{FEFF}').map(str::to_owned).unwrap_or(text))
}
