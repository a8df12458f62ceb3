//! `tidemill config`: every setting, its value, and where that comes from.
//!
//! The output is a `tidemill.toml` that sets the same values again; what is
//! unset or secret stands in it as a comment.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;

use crate::config::{SETTINGS, Settings, Value};

pub fn run(settings: &Settings) -> Result<ExitCode> {
    let text = render(settings);
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn render(settings: &Settings) -> String {
    let mut text = match &settings.file {
        Some(path) => format!("# Read from {}.\n", path.display()),
        None => "# No tidemill.toml here.\n".to_string(),
    };
    text.push_str("# Flags beat TIDEMILL_* variables, which beat tidemill.toml.\n\n");
    let mut lines = Vec::new();
    for setting in SETTINGS {
        let value = settings.get(setting.key);
        let origin = value.map_or("not set".to_string(), |value| value.origin.to_string());
        lines.push((
            line(setting.key, value, setting.secret),
            format!("{} ({origin})", setting.help),
        ));
    }
    push_aligned(&mut text, &lines);
    if !settings.storage.is_empty() {
        text.push_str("\n# Options of the object store behind the warehouse.\n[storage]\n");
        let lines: Vec<_> = settings
            .storage
            .iter()
            .map(|(key, value)| {
                (line(key, Some(value), is_secret(key)), format!("({})", value.origin))
            })
            .collect();
        push_aligned(&mut text, &lines);
    }
    text
}

fn line(key: &str, value: Option<&Value>, secret: bool) -> String {
    match value {
        None => format!("# {key} ="),
        Some(_) if secret => format!("# {key} = \"***\""),
        Some(value) => format!("{key} = {}", toml::Value::String(value.text.clone())),
    }
}

fn push_aligned(text: &mut String, lines: &[(String, String)]) {
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(48);
    for (line, comment) in lines {
        text.push_str(&format!("{line:width$}  # {comment}\n"));
    }
}

/// Whether an object store's option should not be shown.
fn is_secret(key: &str) -> bool {
    [
        "secret",
        "token",
        "password",
        "access_key",
        "account_key",
        "sas",
        "private",
        "service_account_key",
    ]
    .iter()
    .any(|word| key.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;

    #[test]
    fn the_output_is_a_configuration_without_secrets() {
        let mut flags = Flags::default();
        flags.set("warehouse", &Some("a \"b\"".into()));
        flags.storage = vec!["aws_secret_access_key=s3cr3t".into(), "aws_region=x".into()];
        let env = vec![("TIDEMILL_PASSWORD".to_string(), "hunter2".to_string())];
        let path = std::env::temp_dir().join(format!("tidemill-{}-c.toml", std::process::id()));
        std::fs::write(&path, "").unwrap();
        let text = render(&Settings::load(flags, Some(path), &env).unwrap());
        assert!(!text.contains("hunter2") && !text.contains("s3cr3t"), "{text}");
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["warehouse"].as_str(), Some("a \"b\""));
        assert_eq!(table["storage"]["aws_region"].as_str(), Some("x"));
        assert!(text.contains("(--warehouse)") && text.contains("(TIDEMILL_PASSWORD)"));
    }
}
