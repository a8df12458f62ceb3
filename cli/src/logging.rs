//! Logs go to stderr, without tearing progress bars, or to a file under a live view.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow, bail};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::Settings;
use crate::progress;

/// Where log lines go.
#[derive(Debug, Clone)]
pub enum Destination {
    Stderr,
    /// A terminal view owns the screen.
    File(PathBuf),
}

/// Sets the process's logger. `level` holds where no setting says otherwise.
pub fn start(settings: &Settings, level: &str, destination: Destination) -> Result<()> {
    let directives = settings.get("log_level").map_or(level, |value| value.text.as_str());
    let filter = EnvFilter::try_new(expand(directives))
        .map_err(|error| anyhow!("log level \"{directives}\": {error}"))?;
    let sink = Sink::open(&destination)?;
    let colour = matches!(destination, Destination::Stderr) && crate::output::colour(&io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(sink);
    let format = settings.get("log_format").map_or("text", |value| value.text.as_str());
    let started = match format {
        "text" => builder.with_ansi(colour).with_target(false).try_init(),
        "json" => builder.json().try_init(),
        other => bail!("log_format \"{other}\": it is text or json"),
    };
    started.map_err(|error| anyhow!("can't start logging: {error}"))
}

/// A bare level is about Tidemill; its libraries speak up from `warn` on.
fn expand(directives: &str) -> String {
    let bare = ["error", "warn", "info", "debug", "trace", "off"];
    let level = directives.to_ascii_lowercase();
    if !bare.contains(&level.as_str()) {
        return directives.to_string();
    }
    let libraries = if matches!(level.as_str(), "off" | "error") { level.as_str() } else { "warn" };
    let ours = ["tidemill", "tidemill_engine", "tidemill_sql", "tidemill_flight_server"];
    let ours: Vec<String> = ours.iter().map(|name| format!("{name}={level}")).collect();
    // It tells of every binary column, with every file, that it keeps no statistics of it.
    let chatty = if libraries == "warn" { ",deltalake_core::writer=error" } else { "" };
    format!("{libraries}{chatty},{}", ours.join(","))
}

#[derive(Clone)]
enum Sink {
    Stderr,
    File(Arc<Mutex<File>>),
}

impl Sink {
    fn open(destination: &Destination) -> Result<Self> {
        Ok(match destination {
            Destination::Stderr => Sink::Stderr,
            Destination::File(path) => {
                let file = File::options().create(true).append(true).open(path);
                let file = file.with_context(|| format!("can't log to {}", path.display()))?;
                Sink::File(Arc::new(Mutex::new(file)))
            }
        })
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Sink;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Stderr => progress::suspended(|| io::stderr().write_all(line))?,
            Sink::File(file) => match file.lock() {
                Ok(mut file) => file.write_all(line)?,
                Err(_) => return Err(io::Error::other("the log file's lock is poisoned")),
            },
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_about_tidemill() {
        assert!(expand("debug").contains(",tidemill=debug"));
        assert!(expand("error").starts_with("error,"));
        assert_eq!(expand("datafusion=trace"), "datafusion=trace");
    }
}
