//! `tidemill submit`: the statements of SQL files, to a running server.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;

use super::read_script;
use crate::args::SubmitArgs;
use crate::config::{Config, DEFAULT_LISTEN};
use crate::interrupt::INTERRUPTED;
use crate::output::{Style, talk};
use crate::shell::{Outcome, Shell};
use crate::target::{Remote, Target};

pub async fn run(args: SubmitArgs, config: Config) -> Result<ExitCode> {
    let default = format!("grpc://{DEFAULT_LISTEN}");
    let address = config.connect.clone().unwrap_or(default);
    let mut scripts = Vec::new();
    for file in &args.files {
        scripts.push((file.display().to_string(), read_script(file)?));
    }
    let target = Arc::new(Target::Remote(Remote::connect(&address, &config).await?));
    let mut shell =
        Shell::new(Arc::clone(&target), Style { format: config.format, expanded: false });
    shell.rerun = true;
    shell.tags = true;
    let submitted = submit(&mut shell, &scripts).await;
    let closed = target.close().await;
    let outcome = submitted?;
    closed?;
    if outcome == Outcome::Interrupted {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    talk(format!("{address} runs them; `tidemill status --connect {address}` shows how they do"));
    Ok(ExitCode::SUCCESS)
}

async fn submit(shell: &mut Shell, scripts: &[(String, String)]) -> Result<Outcome> {
    for (name, text) in scripts {
        let outcome = shell.script(text, Some(name)).await?;
        if outcome != Outcome::Done {
            return Ok(outcome);
        }
    }
    Ok(Outcome::Done)
}
