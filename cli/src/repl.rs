//! The interactive shell: reads lines with history, completion and colours,
//! and hands what is complete to a [`Shell`].

pub mod helper;
pub mod highlight;
pub mod meta;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};

use crate::output::talk;
use crate::shell::{Outcome, Shell, is_broken_pipe};
use helper::Helper;

const PROMPT: &str = "tidemill> ";

type Lines = Editor<Helper, FileHistory>;

/// Reads and executes until Ctrl-D or `\q`.
pub async fn run(shell: &mut Shell, history: Option<PathBuf>) -> Result<()> {
    let mut lines = editor(shell, history.as_deref())?;
    let prompt = (PROMPT, lines.helper().map_or(PROMPT.into(), Helper::prompt));
    loop {
        // Reading blocks this thread, which nothing else runs on: queries and
        // the server run on the runtime's own.
        match lines.readline(&prompt) {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => {
                lines.add_history_entry(text.trim_end())?;
                let text = meta::bare(&text).unwrap_or(&text);
                if execute(shell, text).await? == Outcome::Quit {
                    break;
                }
            }
            // Ctrl-C throws away what was typed, like any shell.
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(path) = history
        && let Err(error) = lines.save_history(&path)
    {
        talk(format!("note: can't save the history {}: {error}", path.display()));
    }
    Ok(())
}

/// An error ends what was typed, not the shell.
async fn execute(shell: &mut Shell, text: &str) -> Result<Outcome> {
    match shell.script(text, None).await {
        Ok(outcome) => Ok(outcome),
        Err(error) if is_broken_pipe(&error) => Err(error),
        Err(error) => {
            talk(crate::describe(&error));
            Ok(Outcome::Done)
        }
    }
}

fn editor(shell: &Shell, history: Option<&std::path::Path>) -> Result<Lines> {
    let config = Config::builder()
        .history_ignore_space(true)
        .history_ignore_dups(true)?
        .max_history_size(10_000)?
        .completion_type(CompletionType::List)
        .bracketed_paste(true)
        .build();
    let mut lines = Lines::with_config(config)?;
    lines.set_helper(Some(Helper::new(Arc::clone(&shell.target))));
    if let Some(path) = history.filter(|path| path.exists())
        && let Err(error) = lines.load_history(path)
    {
        talk(format!("note: can't read the history {}: {error}", path.display()));
    }
    Ok(lines)
}
