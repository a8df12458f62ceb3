//! What holds: flags over `TIDEMILL_*` environment over `tidemill.toml` over defaults.
//!
//! Every setting is one line of [`SETTINGS`]. [`Settings`] holds for each its
//! text and where that came from, so that `tidemill config` can show it and a
//! bad value can be blamed on the place where it was written; [`Config`] is
//! their meaning.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use tidemill_engine::config::EngineConfig;

use crate::args::Format;
use crate::units;

mod origin;
pub use origin::{Origin, Value};

/// Where a server listens, and where `submit` looks for one.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:50051";

/// A setting: its key in the file; `TIDEMILL_<KEY>` in the environment.
pub struct Setting {
    pub key: &'static str,
    pub default: Option<&'static str>,
    pub help: &'static str,
    pub secret: bool,
}

const fn setting(key: &'static str, default: Option<&'static str>, help: &'static str) -> Setting {
    Setting { key, default, help, secret: false }
}

/// All of them, in the order in which `tidemill config` shows them.
pub const SETTINGS: &[Setting] = &[
    setting("warehouse", Some("./tidemill-data"), "folder or URL that holds the tables"),
    setting(
        "listen",
        Some(DEFAULT_LISTEN),
        "serve: address of Flight SQL; port 0 takes a free one",
    ),
    setting("tls_cert", None, "serve: certificate chain, a PEM file"),
    setting("tls_key", None, "serve: private key, a PEM file"),
    setting("connect", None, "sql, submit, status: a server, grpc://HOST:PORT or grpc+tls://…"),
    setting("tls_ca", None, "grpc+tls: CA certificate to trust, a PEM file"),
    setting("user", None, "user name, of the server or to log in with"),
    Setting { key: "password", default: None, help: "its password", secret: true },
    setting("password_file", None, "file whose first line is the password"),
    setting("trigger_interval", Some("1s"), "how often a query looks for new rows"),
    setting("max_rows_per_epoch", Some("1000000"), "most rows an epoch takes from a source"),
    setting("epoch_bytes", Some("64MiB"), "payload that an epoch of a backlog aims at"),
    setting("target_partitions", Some("0"), "partitions of query plans; 0 takes the cores"),
    setting("memory_limit", Some("0"), "most memory of queries and their state; 0 has no limit"),
    setting("lease_duration", Some("15s"), "life of the warehouse's lease without renewal"),
    setting("snapshot_interval", Some("10s"), "how often the state of queries is saved"),
    setting("format", Some("table"), "sql: table, csv, json or ndjson"),
    setting("history_file", None, "sql: history [~/.tidemill_history]"),
    setting(
        "log_level",
        None,
        "error, warn, info, debug, trace, or a RUST_LOG filter [warn; serve, run: info]",
    ),
    setting("log_format", Some("text"), "text or json"),
];

/// Settings given as flags.
#[derive(Debug, Default)]
pub struct Flags {
    values: BTreeMap<&'static str, String>,
    /// `key=value` each.
    pub storage: Vec<String>,
}

impl Flags {
    pub fn set(&mut self, key: &'static str, value: &Option<String>) {
        if let Some(value) = value {
            self.values.insert(key, value.clone());
        }
    }
}

/// Every setting's text, with where it came from.
#[derive(Debug)]
pub struct Settings {
    values: BTreeMap<&'static str, Value>,
    /// Options of the warehouse's object store.
    pub storage: BTreeMap<String, Value>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Variables whose names look like a setting, and aren't.
    pub notes: Vec<NearMiss>,
}

/// A name that is almost that of a setting.
#[derive(Debug, thiserror::Error)]
#[error("{place}: no setting is called \"{key}\"; did you mean \"{nearest}\"?")]
pub struct NearMiss {
    place: String,
    key: String,
    nearest: &'static str,
}

/// The environment, as a function, so that tests can have their own.
pub type Environment = Vec<(String, String)>;

impl Settings {
    /// Puts the sources over one another. `file` is what `--config` names.
    pub fn load(flags: Flags, file: Option<PathBuf>, environment: &Environment) -> Result<Self> {
        let lookup =
            |name: &str| environment.iter().find(|(key, value)| key == name && !value.is_empty());
        let named = file.or_else(|| lookup("TIDEMILL_CONFIG").map(|(_, path)| path.into()));
        let file = named.or_else(|| Some(PathBuf::from("tidemill.toml")).filter(|p| p.is_file()));
        let mut settings =
            Self { values: BTreeMap::new(), storage: BTreeMap::new(), file, notes: vec![] };
        for setting in SETTINGS {
            if let Some(default) = setting.default {
                settings.put(setting.key, default, Origin::Default);
            }
        }
        if let Some(path) = settings.file.clone() {
            settings.read_file(&path)?;
        }
        settings.read_environment(environment)?;
        for (key, value) in flags.values {
            settings.put(key, &value, Origin::Flag(key));
        }
        for option in flags.storage {
            let (key, value) = option.split_once('=').ok_or_else(|| {
                anyhow!(
                    "--storage-option {option}: write it as KEY=VALUE, such as aws_region=eu-west-1"
                )
            })?;
            settings.put_storage(key, value, Origin::Flag("storage-option"));
        }
        settings.read_store_environment(environment);
        settings.password_follows_its_file();
        Ok(settings)
    }

    /// What a key holds.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    fn put(&mut self, key: &'static str, text: &str, origin: Origin) {
        self.values.insert(key, Value { text: text.to_string(), origin });
    }

    fn put_storage(&mut self, key: &str, text: &str, origin: Origin) {
        let value = Value { text: text.to_string(), origin };
        self.storage.insert(key.to_ascii_lowercase(), value);
    }

    fn read_file(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("can't read the configuration {}", path.display()))?;
        let table: toml::Table =
            text.parse().map_err(|error| anyhow!("{}: {error}", path.display()))?;
        for (key, value) in table {
            let origin = Origin::File(path.to_path_buf());
            match value {
                toml::Value::Table(options) if key == "storage" => {
                    for (key, value) in options {
                        self.put_storage(&key, &scalar(&key, &value, path)?, origin.clone());
                    }
                }
                value => {
                    let known = known(&key, &format!("{}", path.display()))?;
                    self.put(known, &scalar(&key, &value, path)?, origin);
                }
            }
        }
        Ok(())
    }

    /// What other tools take from the environment for these stores is taken here too.
    fn read_store_environment(&mut self, environment: &Environment) {
        let warehouse = self.get("warehouse").map_or("", |value| value.text.as_str());
        let prefixes: &[&str] = match warehouse.split_once("://").map(|(scheme, _)| scheme) {
            Some("s3" | "s3a") => &["AWS_"],
            Some("gs" | "gcs") => &["GOOGLE_"],
            Some("az" | "azure" | "adl" | "abfs" | "abfss") => &["AZURE_"],
            _ => &[],
        };
        for (name, value) in environment.iter().filter(|(_, value)| !value.is_empty()) {
            let known = self.storage.contains_key(&name.to_ascii_lowercase());
            if !known && prefixes.iter().any(|prefix| name.starts_with(prefix)) {
                self.put_storage(name, value, Origin::Environment(name.clone()));
            }
        }
    }

    fn read_environment(&mut self, environment: &Environment) -> Result<()> {
        for (name, value) in environment.iter().filter(|(_, value)| !value.is_empty()) {
            let origin = Origin::Environment(name.clone());
            let Some(key) = name.strip_prefix("TIDEMILL_") else { continue };
            if key == "CONFIG" {
                continue;
            }
            match key.strip_prefix("STORAGE_") {
                Some(option) => self.put_storage(option, value, origin),
                None => match known(&key.to_ascii_lowercase(), name) {
                    Ok(known) => self.put(known, value, origin),
                    // Other programs may have variables of that name; a near miss is told.
                    Err(unknown) => self.notes.extend(unknown.downcast::<NearMiss>().ok()),
                },
            }
        }
        let Some((_, filter)) = environment.iter().find(|(name, _)| name == "RUST_LOG") else {
            return Ok(());
        };
        self.put("log_level", filter, Origin::Environment("RUST_LOG".into()));
        Ok(())
    }

    /// A password and a password file at different places: the stronger place counts.
    fn password_follows_its_file(&mut self) {
        let rank = |key: &str| self.get(key).map_or(0, |value| value.origin.rank());
        let (password, file) = (rank("password"), rank("password_file"));
        if password > 0 && file > 0 {
            self.values.remove(if file > password { "password" } else { "password_file" });
        }
    }

    /// Whether `a` was given at a stronger place than `b`.
    pub fn stronger(&self, a: &str, b: &str) -> bool {
        let rank = |key: &str| self.get(key).map_or(0, |value| value.origin.rank());
        rank(a) > rank(b)
    }

    fn parse<T>(&self, key: &'static str, parse: impl Fn(&str) -> Result<T>) -> Result<T> {
        let value = self.get(key).ok_or_else(|| anyhow!("{key} is not set"))?;
        parse(&value.text).map_err(|error| anyhow!("{key} ({}): {error}", value.origin))
    }

    fn text(&self, key: &str) -> Option<String> {
        self.get(key).map(|value| value.text.clone())
    }
}

/// The key of a setting by that name; an unknown one is refused with the nearest.
fn known(key: &str, place: &str) -> Result<&'static str> {
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) {
        return Ok(setting.key);
    }
    let nearest = SETTINGS
        .iter()
        .map(|setting| (strsim::jaro_winkler(setting.key, key), setting.key))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.85);
    match nearest {
        Some((_, nearest)) => {
            Err(NearMiss { place: place.to_string(), key: key.to_string(), nearest }.into())
        }
        None => bail!("{place}: no setting is called \"{key}\"; `tidemill config` lists them"),
    }
}

fn scalar(key: &str, value: &toml::Value, path: &Path) -> Result<String> {
    Ok(match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(flag) => flag.to_string(),
        _ => bail!("{}: {key} wants text or a number, not {}", path.display(), value.type_str()),
    })
}

/// What the settings mean.
#[derive(Debug)]
pub struct Config {
    pub engine: EngineConfig,
    pub listen: String,
    pub tls_cert: Option<String>,
    pub tls_key: Option<String>,
    pub connect: Option<String>,
    pub tls_ca: Option<String>,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub format: Format,
    pub history_file: Option<PathBuf>,
}

impl Config {
    pub fn from_settings(settings: &Settings) -> Result<Self> {
        Ok(Self {
            engine: engine(settings)?,
            listen: settings.parse("listen", |text| Ok(text.to_string()))?,
            tls_cert: settings.text("tls_cert"),
            tls_key: settings.text("tls_key"),
            // A --warehouse on the command line beats a server named in the environment.
            connect: settings
                .text("connect")
                .filter(|_| !settings.stronger("warehouse", "connect")),
            tls_ca: settings.text("tls_ca"),
            user: settings.text("user"),
            password: password(settings)?,
            format: settings.parse("format", format)?,
            history_file: settings.text("history_file").map(PathBuf::from).or_else(default_history),
        })
    }

    /// A user with a password, neither, or an error.
    pub fn login(&self) -> Result<Option<(String, String)>> {
        match (&self.user, &self.password) {
            (Some(user), Some(Secret(password))) => Ok(Some((user.clone(), password.clone()))),
            (None, None) => Ok(None),
            (Some(_), None) => {
                bail!("a user without a password; give --password-file or TIDEMILL_PASSWORD")
            }
            (None, Some(_)) => bail!("a password without a user; give --user"),
        }
    }
}

/// Text that is never printed by accident.
#[derive(Clone)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn engine(settings: &Settings) -> Result<EngineConfig> {
    let storage_options: HashMap<String, String> =
        settings.storage.iter().map(|(key, value)| (key.clone(), value.text.clone())).collect();
    Ok(EngineConfig {
        warehouse: settings.parse("warehouse", |text| Ok(text.to_string()))?,
        storage_options,
        trigger_interval: settings.parse("trigger_interval", positive)?,
        max_rows_per_epoch: settings.parse("max_rows_per_epoch", units::count)?,
        epoch_bytes: settings.parse("epoch_bytes", units::bytes)?,
        target_partitions: settings.parse("target_partitions", |text| {
            text.parse().map_err(|_| anyhow!("\"{text}\" is not a number of partitions"))
        })?,
        memory_limit: settings.parse("memory_limit", units::bytes)?,
        lease_duration: settings.parse("lease_duration", positive)?,
        snapshot_interval: settings.parse("snapshot_interval", units::duration)?,
    })
}

fn positive(text: &str) -> Result<Duration> {
    match units::duration(text)? {
        Duration::ZERO => bail!("must be longer than nothing"),
        duration => Ok(duration),
    }
}

/// `table`, `csv`, `json`, `ndjson`.
pub fn format(text: &str) -> Result<Format> {
    Format::from_str(text, true)
        .map_err(|_| anyhow!("\"{text}\" is not a format; it is table, csv, json or ndjson"))
}

fn password(settings: &Settings) -> Result<Option<Secret>> {
    if let Some(file) = settings.get("password_file") {
        let text = std::fs::read_to_string(&file.text).with_context(|| {
            format!("can't read the password file {} ({})", file.text, file.origin)
        })?;
        let line = text.lines().next().unwrap_or("").to_string();
        if line.is_empty() {
            bail!("the first line of the password file {} is empty", file.text);
        }
        return Ok(Some(Secret(line)));
    }
    Ok(settings.text("password").map(Secret))
}

fn default_history() -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(".tidemill_history"))
}

#[cfg(test)]
mod tests;
