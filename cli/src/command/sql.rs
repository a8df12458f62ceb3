//! `tidemill sql`: statements, files, or a person at a terminal.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use tidemill_sql::parser;
use tidemill_sql::session::Access;
use tidemill_sql::statement::Statement;

use super::read_script;
use crate::args::{Format, SqlArgs};
use crate::config::Config;
use crate::interrupt::{INTERRUPTED, finish};
use crate::output::{Style, talk};
use crate::repl;
use crate::script;
use crate::shell::{Outcome, Shell};
use crate::target::{Target, Typed};

pub async fn run(args: SqlArgs, config: Config) -> Result<ExitCode> {
    let scripts = scripts(&args)?;
    let access = access(&scripts);
    let typed = Typed::of(&args.warehouse, &args.connect);
    let target = Arc::new(Target::open(&config, access, &typed).await?);
    let mut shell =
        Shell::new(Arc::clone(&target), Style { format: config.format, expanded: false });
    shell.timing = args.timing;
    let ran = match &scripts {
        Some(scripts) => run_scripts(&mut shell, scripts).await,
        None => {
            shell.pager = !args.no_pager;
            interactive(&mut shell, &config).await
        }
    };
    // The warehouse is let go of whatever happened; what happened first is told first.
    let closed = finish(target.close()).await.and_then(|closed| closed);
    let outcome = ran?;
    closed?;
    Ok(match outcome {
        Outcome::Interrupted => ExitCode::from(INTERRUPTED),
        Outcome::Done | Outcome::TailLeft | Outcome::Quit => ExitCode::SUCCESS,
    })
}

/// Text to run, with the name it has in messages.
type Script = (Option<String>, String);

/// Files, then commands; stdin if it is no terminal; `None`: a person is there.
fn scripts(args: &SqlArgs) -> Result<Option<Vec<Script>>> {
    let mut scripts = Vec::new();
    for file in &args.file {
        let name = if file == "-" { "stdin" } else { file };
        scripts.push((Some(name.to_string()), read_script(Path::new(file))?));
    }
    scripts.extend(args.command.iter().map(|sql| (None, sql.clone())));
    if scripts.is_empty() && !std::io::stdin().is_terminal() {
        scripts.push((Some("stdin".into()), read_script(Path::new("-"))?));
    }
    Ok(Some(scripts).filter(|scripts| !scripts.is_empty()))
}

/// Continuous queries run behind a person at the shell. A script's statements
/// alone don't run them; one that only reads does not even ask for the lease.
fn access(scripts: &Option<Vec<Script>>) -> Access {
    match scripts {
        None => Access::Run,
        Some(scripts) if scripts.iter().all(|(_, text)| only_reads(text)) => Access::ReadOnly,
        Some(_) => Access::Step,
    }
}

fn only_reads(text: &str) -> bool {
    script::split(text).iter().all(|piece| {
        let parsed = (!piece.meta).then(|| parser::parse_one(&piece.text));
        match parsed {
            // `\i` may bring anything.
            None => !piece.text.starts_with("\\i"),
            Some(Ok(parsed)) => {
                let setting = matches!(parsed.node, Statement::Set(_) | Statement::Reset(_));
                setting || parsed.node.answers_rows()
            }
            // Its error is all that will come of it.
            Some(Err(_)) => true,
        }
    })
}

async fn run_scripts(shell: &mut Shell, scripts: &[Script]) -> Result<Outcome> {
    for (name, text) in scripts {
        let outcome = shell.script(text, name.as_deref()).await?;
        if outcome != Outcome::Done {
            return Ok(outcome);
        }
    }
    Ok(Outcome::Done)
}

async fn interactive(shell: &mut Shell, config: &Config) -> Result<Outcome> {
    shell.interactive = true;
    shell.timing = shell.timing || shell.style.format == Format::Table;
    let place = match &*shell.target {
        Target::Embedded { .. } => format!("warehouse {}", config.engine.warehouse),
        Target::Remote(remote) => remote.address().to_string(),
    };
    talk(format!("Tidemill {}, {place}. \\? for help, \\q to leave.", env!("CARGO_PKG_VERSION")));
    repl::run(shell, config.history_file.clone()).await?;
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_only_reads_needs_no_lease() {
        assert!(only_reads("select 1; show queries; set a = 1; \\dt"));
        assert!(!only_reads("select 1; create view v as select 1"));
        assert!(!only_reads("\\i other.sql"));
        assert!(only_reads("nonsense"));
    }
}
