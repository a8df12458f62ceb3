//! The commands that start with `\`.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::args::Format;
use crate::{config, units};

pub const HELP: &str = "\
General
  \\?                this page
  \\q                leave (or Ctrl-D)
  \\i FILE           run the statements of a file
  \\o [FILE]         write results to a file; without one, to the screen again
  \\watch [N]        run the last statement every N seconds (2) until Ctrl-C
Looking
  \\d                everything that has columns
  \\d NAME           columns of a source, table or view
  \\ds \\dt \\dv \\dm   sources, tables, views, materialized views
  \\dq               continuous queries: state, backlog, freshness
Printing
  \\format FORMAT    table, csv, json or ndjson
  \\x                a line a column instead of a line a row, on or off
  \\timing           time of each statement, on or off
SQL
  Statements end with ; and may span lines. Tab completes. Ctrl-C cancels what
  runs. SUBSCRIBE TO source; shows its rows as they come.
";

/// Their names, for completion.
pub const NAMES: &[&str] = &[
    "\\?", "\\d", "\\dm", "\\dq", "\\ds", "\\dt", "\\dv", "\\format", "\\i", "\\o", "\\q",
    "\\timing", "\\watch", "\\x",
];

/// A meta-command, understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Meta {
    Help,
    Quit,
    /// A statement in short.
    Show(String),
    Timing,
    Expanded,
    Include(String),
    Output(Option<String>),
    Format(Format),
    Watch(Duration),
}

pub fn parse(line: &str) -> Result<Meta> {
    let line = line.trim().trim_end_matches(';').trim_end();
    let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let argument = Some(argument.trim()).filter(|argument| !argument.is_empty());
    Ok(match (name, argument) {
        ("\\?" | "\\h" | "\\help", None) => Meta::Help,
        ("\\q" | "\\quit" | "\\exit", None) => Meta::Quit,
        ("\\d", None) => Meta::Show(EVERYTHING.into()),
        ("\\d", Some(name)) => Meta::Show(format!("DESCRIBE {name}")),
        ("\\ds", None) => Meta::Show("SHOW SOURCES".into()),
        ("\\dt", None) => Meta::Show("SHOW TABLES".into()),
        ("\\dv", None) => Meta::Show("SHOW VIEWS".into()),
        ("\\dm", None) => Meta::Show("SHOW MATERIALIZED VIEWS".into()),
        ("\\dq", None) => Meta::Show("SHOW QUERIES".into()),
        ("\\timing", None) => Meta::Timing,
        ("\\x", None) => Meta::Expanded,
        ("\\i" | "\\include", Some(path)) => Meta::Include(path.into()),
        ("\\o" | "\\out", path) => Meta::Output(path.map(Into::into)),
        ("\\format", Some(format)) => Meta::Format(config::format(format)?),
        ("\\watch", every) => Meta::Watch(units::duration(every.unwrap_or("2"))?),
        ("\\i" | "\\include", None) => bail!("{name} wants a file; write it as {name} FILE"),
        ("\\format", None) => bail!("\\format wants table, csv, json or ndjson"),
        (name, Some(argument)) if NAMES.contains(&name) => {
            bail!("{name} takes no argument, and \"{argument}\" is one; \\? shows the commands")
        }
        (name, _) => bail!("there is no command {name}; \\? shows them"),
    })
}

/// The meta-command that a word means which stands alone at the prompt, as in psql.
pub fn bare(line: &str) -> Option<&'static str> {
    match line.trim().trim_end_matches(';').trim_end().to_ascii_lowercase().as_str() {
        "exit" | "quit" => Some("\\q"),
        "help" => Some("\\?"),
        _ => None,
    }
}

const EVERYTHING: &str = "SELECT table_name AS name, table_type AS kind \
    FROM information_schema.tables WHERE table_schema = 'public' ORDER BY name";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_understood() {
        assert_eq!(parse("\\q").unwrap(), Meta::Quit);
        assert_eq!(parse("\\d orders;").unwrap(), Meta::Show("DESCRIBE orders".into()));
        assert_eq!(parse("\\watch 0.5").unwrap(), Meta::Watch(Duration::from_millis(500)));
        assert_eq!(parse("\\watch").unwrap(), Meta::Watch(Duration::from_secs(2)));
        assert_eq!(parse("\\o").unwrap(), Meta::Output(None));
        assert_eq!(parse("\\format CSV").unwrap(), Meta::Format(Format::Csv));
    }

    #[test]
    fn words_that_stand_alone_leave_or_help() {
        assert_eq!(
            (bare(" EXIT;\n"), bare("quit"), bare("help")),
            (Some("\\q"), Some("\\q"), Some("\\?"))
        );
        assert_eq!((bare("quit now"), bare("")), (None, None));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, part) in [
            ("\\zz", "no command \\zz"),
            ("\\i", "wants a file"),
            ("\\dt now", "takes no argument"),
            ("\\format xml", "\"xml\" is not a format"),
            ("\\watch often", "not a duration"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn every_name_is_in_the_help() {
        for name in NAMES {
            assert!(HELP.contains(name), "{name}");
        }
    }
}
