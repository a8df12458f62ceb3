//! `tidemill run`: the continuous queries of SQL files, in the foreground.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use tidemill_sql::session::{Access, Database, QueryStatus};

use super::read_script;
use crate::args::{Format, RunArgs};
use crate::config::Config;
use crate::failure::Failure;
use crate::interrupt::{INTERRUPTED, finish, stop};
use crate::output::{Style, talk};
use crate::progress::{Bar, QueryLines, query_line};
use crate::shell::{Outcome, Shell};
use crate::target::Target;

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(500);

pub async fn run(args: RunArgs, config: Config) -> Result<ExitCode> {
    let access = if args.once { Access::Step } else { Access::Run };
    let scripts = read_all(&args.files)?;
    let database = Database::open(config.engine.clone(), access).await;
    let database = database.map_err(|error| Failure::of(&error, ""))?;
    let ran = tokio::select! {
        ran = work(&args, &database, &scripts) => ran,
        // What was asked for once is not done yet; what runs until stopped is.
        stopped = stop() => stopped.map(|()| match args.once {
            true => ExitCode::from(INTERRUPTED),
            false => ExitCode::SUCCESS,
        }),
    };
    if !args.once {
        talk("stopping: finishing the epochs in flight");
    }
    let closed = finish(database.shutdown()).await;
    let queries = database.queries();
    queries.iter().for_each(|query| talk(query_line(query)));
    let code = ran?;
    closed?.map_err(|error| Failure::of(&error, ""))?;
    fail_if_failed(&queries)?;
    Ok(code)
}

/// Files are read before anything runs: a name that is wrong costs nothing.
fn read_all(files: &[PathBuf]) -> Result<Vec<(String, String)>> {
    files.iter().map(|file| Ok((file.display().to_string(), read_script(file)?))).collect()
}

async fn work(
    args: &RunArgs,
    database: &Arc<Database>,
    scripts: &[(String, String)],
) -> Result<ExitCode> {
    let target = Arc::new(Target::of(Arc::clone(database)));
    let mut shell = Shell::new(target, Style { format: Format::Table, expanded: false });
    shell.rerun = true;
    for (name, text) in scripts {
        if shell.script(text, Some(name)).await? == Outcome::Interrupted {
            return Ok(ExitCode::from(INTERRUPTED));
        }
    }
    if database.queries().is_empty() {
        talk("note: there is no continuous query: CREATE MATERIALIZED VIEW makes one");
        return Ok(ExitCode::SUCCESS);
    }
    if args.once { once(database).await } else { follow(database).await }
}

async fn once(database: &Database) -> Result<ExitCode> {
    let bar = Mutex::new(Bar::new("rows"));
    let done = database
        .run_once(&|progress| {
            if let Ok(mut bar) = bar.lock() {
                bar.update(progress);
            }
        })
        .await;
    drop(bar);
    done.map_err(|error| Failure::of(&error, ""))?;
    Ok(ExitCode::SUCCESS)
}

/// Watches the queries until none of them can go on.
async fn follow(database: &Database) -> Result<ExitCode> {
    let mut lines = QueryLines::new();
    loop {
        let queries = database.queries();
        lines.update(&queries);
        if queries.iter().all(|query| matches!(query.state.as_str(), "finished" | "failed")) {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn fail_if_failed(queries: &[QueryStatus]) -> Result<()> {
    let failed: Vec<String> = queries
        .iter()
        .filter(|query| query.state == "failed")
        .map(|query| {
            format!("{}: {}", query.name, query.reason.as_deref().unwrap_or("no reason known"))
        })
        .collect();
    match failed.len() {
        0 => Ok(()),
        1 => Err(anyhow!("query {}", failed[0])),
        n => bail!("{n} queries failed\n  {}", failed.join("\n  ")),
    }
}
