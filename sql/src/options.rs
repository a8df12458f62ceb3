//! `WITH (name = value, …)`: options as written, and what they may be.
//!
//! [`Options`] is the list as the statement has it, in order. [`check`] holds it
//! against the tables of [`spec`] and answers [`Checked`], whose typed getters
//! know the defaults.
//!
//! Options carry passwords. The catalog has to store them, so `Display` prints
//! them; whatever is shown to a person goes through [`Options::redacted`] first.

mod check;
mod spec;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;

use datafusion::sql::sqlparser::tokenizer::Span;

use crate::error::Location;
use crate::statement::print;

pub use check::{Checked, check};
pub use spec::{OptionSpec, OptionType, PrefixSpec, connectors, known, prefixes};
pub use value::{parse_bytes, parse_duration, parse_offsets, parse_timestamp};

/// What stands for a secret where it is shown.
pub const MASK: &str = "***";

/// Options in the order they were written.
#[derive(Clone, Default)]
pub struct Options {
    entries: Vec<OptionEntry>,
}

/// One `name = value`.
#[derive(Clone)]
pub struct OptionEntry {
    /// Without quotes; lower case if it was written without.
    pub name: String,
    pub value: OptionValue,
    /// Where the name stands in the source text.
    pub name_span: Span,
    /// Where the value stands.
    pub value_span: Span,
}

/// The value of an option or a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionValue {
    String(String),
    /// As written, with its sign.
    Number(String),
    Boolean(bool),
}

impl Options {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &OptionEntry> {
        self.entries.iter()
    }

    pub fn get(&self, name: &str) -> Option<&OptionEntry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Adds an option at the end. [`check`] refuses names that come twice.
    pub fn push(&mut self, entry: OptionEntry) {
        self.entries.push(entry);
    }

    /// The same options with `***` for everything that may be a secret.
    #[must_use]
    pub fn redacted(&self) -> Self {
        self.entries.iter().map(OptionEntry::redacted).collect()
    }
}

impl OptionEntry {
    /// An option that stands in no text.
    pub fn new(name: impl Into<String>, value: OptionValue) -> Self {
        let (name_span, value_span) = (Span::empty(), Span::empty());
        Self { name: name.into(), value, name_span, value_span }
    }

    /// Where the name stands, for error messages.
    pub fn name_location(&self) -> Option<Location> {
        Location::of(self.name_span)
    }

    /// Where the value stands, for error messages.
    pub fn value_location(&self) -> Option<Location> {
        Location::of(self.value_span)
    }

    fn redacted(&self) -> Self {
        let value = match &self.value {
            _ if is_secret(&self.name) => OptionValue::String(MASK.to_owned()),
            OptionValue::String(text) => OptionValue::String(without_password(text)),
            other => other.clone(),
        };
        Self { value, ..self.clone() }
    }
}

impl OptionValue {
    /// The value as text, whatever it was written as.
    pub fn text(&self) -> &str {
        match self {
            OptionValue::String(text) | OptionValue::Number(text) => text,
            OptionValue::Boolean(true) => "true",
            OptionValue::Boolean(false) => "false",
        }
    }
}

impl FromIterator<OptionEntry> for Options {
    fn from_iter<I: IntoIterator<Item = OptionEntry>>(entries: I) -> Self {
        Self { entries: entries.into_iter().collect() }
    }
}

/// Equality ignores where in a text the options stand.
impl PartialEq for OptionEntry {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.value == other.value
    }
}

impl PartialEq for Options {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl fmt::Display for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionValue::String(text) => print::string(f, text),
            other => f.write_str(other.text()),
        }
    }
}

impl fmt::Display for OptionEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if print::is_plain_word(&self.name) {
            f.write_str(&self.name)?;
        } else {
            print::string(f, &self.name)?;
        }
        write!(f, " = {}", self.value)
    }
}

/// Prints the options in parentheses, secrets included.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print::list(f, &self.entries)
    }
}

/// `Debug` ends up in logs, so it shows no secrets.
impl fmt::Debug for OptionEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.redacted())
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.entries).finish()
    }
}

/// Whether the value of this option must never be shown.
pub fn is_secret(name: &str) -> bool {
    const SECRET: [&str; 13] = [
        "password",
        "passwd",
        "secret",
        "token",
        "credential",
        "private",
        "jaas",
        "access_key",
        "account_key",
        "service_account",
        "sas_key",
        "key.pem",
        "encryption_key",
    ];
    // Where the secret lies is none itself.
    const PUBLIC: [&str; 4] = [".location", "_path", "access_key_id", ".url"];
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|word| name.contains(word))
        && !PUBLIC.iter().any(|ending| name.ends_with(ending))
}

/// Masks the password of `scheme://user:password@host/…`.
fn without_password(text: &str) -> String {
    let masked = || {
        let (scheme, rest) = text.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let (user, host) = authority.rsplit_once('@')?;
        let (user, _) = user.split_once(':')?;
        let path = &rest[authority.len()..];
        Some(format!("{scheme}://{user}:{MASK}@{host}{path}"))
    };
    masked().unwrap_or_else(|| text.to_owned())
}
