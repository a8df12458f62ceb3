//! Options held against the tables: unknown names, wrong values, what is missing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::spec::{OptionSpec, OptionType, connectors, known, prefixes};
use super::value::{parse_bytes, parse_duration, parse_offsets, parse_timestamp};
use super::{OptionEntry, OptionValue, Options};
use crate::error::{Error, Result, nearest};
use crate::statement::ObjectKind;

/// Options that were found right, with the defaults filled in.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// What was written, by its proper name.
    given: BTreeMap<String, OptionEntry>,
    /// Values in one form each, defaults included.
    values: BTreeMap<String, String>,
}

/// Holds options against what an object of this kind may have.
///
/// # Errors
/// Names that are unknown (with the nearest known one), come twice, or are missing;
/// values of the wrong type; options that contradict each other.
pub fn check(kind: ObjectKind, options: &Options) -> Result<Checked> {
    let connector = connector(kind, options)?;
    let mut checked = Checked::default();
    for entry in options.iter() {
        let (name, value) = understand(kind, connector, entry)?;
        checked.values.insert(name.clone(), value);
        if checked.given.insert(name.clone(), entry.clone()).is_some() {
            return Err(Error::option(format!("option \"{name}\" is given twice"))
                .at(entry.name_location()));
        }
    }
    for spec in known(kind, connector) {
        if let Some(default) = spec.default {
            checked.values.entry(spec.name.to_owned()).or_insert_with(|| default.to_owned());
        }
        if spec.required && !checked.is_set(spec.name) {
            let place = options.get("connector").and_then(OptionEntry::value_location);
            return Err(missing(kind, connector, spec).at(place));
        }
    }
    checked.agree()?;
    Ok(checked)
}

/// The connector, if this kind has one and it is known.
fn connector(kind: ObjectKind, options: &Options) -> Result<Option<&str>> {
    let connectors = connectors(kind);
    let Some(entry) = options.get("connector") else {
        return match (connectors.is_empty(), options.iter().next()) {
            (false, first) => {
                Err(missing_connector(kind).at(first.and_then(OptionEntry::name_location)))
            }
            (true, _) => Ok(None),
        };
    };
    let name = entry.value.text();
    if connectors.is_empty() || connectors.contains(&name) {
        return Ok(Some(name).filter(|_| !connectors.is_empty()));
    }
    let error = Error::option(format!("there is no connector '{name}' for a {kind}"));
    let error = error.at(entry.value_location());
    if kind == ObjectKind::Sink && name == "delta" {
        return Err(error.with_hint(
            "for a result in a Delta table, write CREATE MATERIALIZED VIEW, or INSERT INTO a table",
        ));
    }
    if let Some(other) = other_kind(kind, name) {
        let other = other.keyword();
        return Err(error.with_hint(format!("connector '{name}' is for CREATE {other}")));
    }
    let known = choices(connectors);
    Err(error.with_hint(match nearest(name, connectors.iter().copied()) {
        Some(near) => format!("did you mean '{near}'? It can be {known}"),
        None => format!("it can be {known}"),
    }))
}

/// A kind that does have this connector.
fn other_kind(kind: ObjectKind, connector: &str) -> Option<ObjectKind> {
    [ObjectKind::Source, ObjectKind::Table, ObjectKind::Sink]
        .into_iter()
        .find(|other| *other != kind && connectors(*other).contains(&connector))
}

/// The name that the tables know, and the value in the one form that getters read.
fn understand(
    kind: ObjectKind,
    connector: Option<&str>,
    entry: &OptionEntry,
) -> Result<(String, String)> {
    let name = entry.name.as_str();
    if let Some(spec) = known(kind, connector).find(|spec| spec.is_named(name)) {
        return Ok((spec.name.to_owned(), canonical(spec, entry)?));
    }
    let passes = |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty());
    if prefixes(kind, connector).iter().any(|spec| passes(spec.prefix)) {
        return Ok((name.to_owned(), entry.value.text().to_owned()));
    }
    Err(unknown(kind, connector, entry))
}

fn unknown(kind: ObjectKind, connector: Option<&str>, entry: &OptionEntry) -> Error {
    let name = &entry.name;
    let owner = owner(kind, connector);
    let error = Error::option(format!("unknown option \"{name}\" for {owner}"));
    let error = error.at(entry.name_location());
    let names = known(kind, connector).map(|spec| spec.name);
    let families = prefixes(kind, connector).iter().map(|spec| spec.prefix);
    if let Some(near) = nearest(name, names.clone()) {
        return error.with_hint(format!("did you mean \"{near}\"?"));
    }
    if name == "connector" {
        return error.with_hint(format!("a {kind} has no connector; leave it out"));
    }
    let families = families.map(|prefix| format!("{prefix}*"));
    let all: Vec<String> = names.map(str::to_owned).chain(families).collect();
    match all.is_empty() {
        true => error.with_hint(format!("a {kind} has no options")),
        false => error.with_hint(format!("there are {}", all.join(", "))),
    }
}

fn missing(kind: ObjectKind, connector: Option<&str>, spec: &OptionSpec) -> Error {
    let (name, owner) = (spec.name, owner(kind, connector));
    let error = Error::option(format!("option \"{name}\" is missing for {owner}"));
    let name = if name.contains('.') { format!("'{name}'") } else { name.to_owned() };
    error.with_hint(format!("add {name} = '…': {}", spec.doc))
}

fn missing_connector(kind: ObjectKind) -> Error {
    Error::option(format!("option \"connector\" is missing for a {kind}"))
        .with_hint(format!("add connector = {}", choices(connectors(kind))))
}

fn owner(kind: ObjectKind, connector: Option<&str>) -> String {
    match connector {
        Some(connector) => format!("connector {connector}"),
        None => format!("a {kind}"),
    }
}

/// `'a', 'b' or 'c'`.
fn choices(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// The value in one form: booleans in small letters, times in milliseconds since 1970,
/// offsets as Flink writes them, everything else as it was written.
pub(super) fn canonical(spec: &OptionSpec, entry: &OptionEntry) -> Result<String> {
    let text = entry.value.text();
    let written = || text.to_owned();
    let value = match spec.ty {
        OptionType::String => Some(written()).filter(|text| !text.is_empty()),
        OptionType::Boolean => as_bool(text).map(|value| value.to_string()),
        OptionType::Integer { min } => {
            text.parse::<u64>().ok().filter(|number| *number >= min).map(|_| written())
        }
        OptionType::Rate => as_rate(text).map(|_| written()),
        OptionType::Duration => parse_duration(text).map(|_| written()),
        OptionType::Bytes => parse_bytes(text).map(|_| written()),
        OptionType::Enum(values) => Some(written()).filter(|text| values.contains(&text.as_str())),
        OptionType::Timestamp => parse_timestamp(text).map(|millis| millis.to_string()),
        OptionType::StartTime if text == "now" => Some(written()),
        // A bare number could be anything.
        OptionType::StartTime if text.parse::<i64>().is_ok() => None,
        OptionType::StartTime => parse_timestamp(text).map(|_| written()),
        OptionType::Offsets => parse_offsets(text).map(|offsets| long_form(&offsets)),
        OptionType::Character => as_character(text).map(|_| written()),
    };
    value.ok_or_else(|| wrong_value(spec, entry))
}

/// What a value of this type can be, for a hint.
fn wanted(ty: OptionType) -> String {
    match ty {
        OptionType::String => "any text that is not empty".to_owned(),
        OptionType::Boolean => "true or false".to_owned(),
        OptionType::Integer { min } => format!("a whole number from {min} on"),
        OptionType::Rate => "0, or a number from 0.001 to 1000000000".to_owned(),
        OptionType::Duration => "a duration such as '500ms', '1 second' or '30 days'".to_owned(),
        OptionType::Bytes => "a size such as '512 MiB', or bytes".to_owned(),
        OptionType::Enum(values) => choices(values),
        OptionType::Timestamp => {
            "a time such as '2026-01-31T12:00:00Z', or milliseconds since 1970".to_owned()
        }
        OptionType::StartTime => "a time such as '2026-01-31T12:00:00Z', or 'now'".to_owned(),
        OptionType::Offsets => "the offset of each partition, such as '0:42,1:300'".to_owned(),
        OptionType::Character => "a single ASCII character, or '\\t'".to_owned(),
    }
}

fn wrong_value(spec: &OptionSpec, entry: &OptionEntry) -> Error {
    let (text, wanted) = (entry.value.text(), wanted(spec.ty));
    let value =
        if super::is_secret(&entry.name) { "'***'".to_owned() } else { entry.value.to_string() };
    let error = Error::option(format!("option \"{}\" can't be {value}", entry.name));
    let error = error.at(entry.value_location());
    let near = match spec.ty {
        OptionType::Enum(values) => nearest(text, values.iter().copied()),
        _ => None,
    };
    error.with_hint(match near {
        Some(near) => format!("did you mean '{near}'? It can be {wanted}"),
        None => format!("it can be {wanted}"),
    })
}

/// Rows a second; 0 is as fast as it goes.
fn as_rate(text: &str) -> Option<f64> {
    text.parse().ok().filter(|rate| *rate == 0.0 || (0.001..=1e9).contains(rate))
}

fn as_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn as_character(text: &str) -> Option<char> {
    let mut chars = text.chars();
    match (text, chars.next(), chars.next()) {
        ("\\t", ..) => Some('\t'),
        (_, Some(only), None) if only.is_ascii() && !"\"\r\n".contains(only) => Some(only),
        _ => None,
    }
}

impl Checked {
    /// Whether it was given, rather than left to its default.
    pub fn is_set(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The option as it was written, for its place in the text.
    pub fn entry(&self, name: &str) -> Option<&OptionEntry> {
        self.given.get(name)
    }

    /// The value as text: given, or the default.
    pub fn string(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The value of an option that is required, and so is there.
    ///
    /// # Errors
    /// An internal error if the tables don't call it required.
    pub fn required(&self, name: &str) -> Result<&str> {
        self.string(name).ok_or_else(|| Error::internal(format!("option {name} is not required")))
    }

    pub fn bool(&self, name: &str) -> Option<bool> {
        self.string(name).and_then(as_bool)
    }

    pub fn u64(&self, name: &str) -> Option<u64> {
        self.string(name)?.parse().ok()
    }

    pub fn duration(&self, name: &str) -> Option<Duration> {
        self.string(name).and_then(parse_duration)
    }

    pub fn bytes(&self, name: &str) -> Option<u64> {
        self.string(name).and_then(parse_bytes)
    }

    /// Milliseconds since 1970.
    pub fn timestamp(&self, name: &str) -> Option<i64> {
        self.string(name).and_then(parse_timestamp)
    }

    /// Offset by partition.
    pub fn offsets(&self, name: &str) -> Option<BTreeMap<i32, i64>> {
        self.string(name).and_then(parse_offsets)
    }

    pub fn character(&self, name: &str) -> Option<char> {
        self.string(name).and_then(as_character)
    }

    /// Every option that was given or has a default, by its proper name: as the engine's
    /// connectors take them. Times are in milliseconds since 1970, offsets read
    /// `partition:0,offset:42;partition:1,offset:300`, everything else is as written.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// As [`Self::all`], to be handed over.
    pub fn texts(&self) -> BTreeMap<String, String> {
        self.values.clone()
    }

    /// Options of a family, without the prefix: `prefixed("properties.")`.
    pub fn prefixed<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.all().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value)))
    }

    /// Options that only make sense together.
    fn agree(&self) -> Result<()> {
        for (name, switch, value) in [
            ("scan.startup.timestamp", "scan.startup.mode", "timestamp"),
            ("scan.startup.offsets", "scan.startup.mode", "offsets"),
            ("scan.start.version", "scan.mode", "stream"),
            ("scan.start.timestamp", "scan.mode", "stream"),
        ] {
            self.agrees(name, switch, value)?;
        }
        self.needs_format("json.timestamp_unit", &["json", "csv"])?;
        self.needs_format("csv.header", &["csv"])?;
        self.needs_format("csv.multiline", &["csv"])?;
        self.needs_format("csv.delimiter", &["csv"])
    }

    /// `name` counts only where `switch = value`; startup modes need it there.
    fn agrees(&self, name: &str, switch: &str, value: &str) -> Result<()> {
        let Some(mode) = self.string(switch) else { return Ok(()) };
        match (self.given.get(name), mode == value) {
            (Some(entry), false) => {
                let message = format!("option \"{name}\" has no effect with {switch} = '{mode}'");
                Err(Error::option(message)
                    .at(entry.name_location())
                    .with_hint(format!("write '{switch}' = '{value}', or leave it out")))
            }
            (None, true) if switch == "scan.startup.mode" => {
                let place = self.given.get(switch).and_then(OptionEntry::value_location);
                Err(Error::option(format!("{switch} = '{value}' needs option \"{name}\""))
                    .at(place)
                    .with_hint(format!("add '{name}' = '…'")))
            }
            _ => Ok(()),
        }
    }

    /// An option of one format is a mistake beside another.
    fn needs_format(&self, name: &str, formats: &[&str]) -> Result<()> {
        match (self.given.get(name), self.string("format")) {
            (Some(entry), Some(other)) if !formats.contains(&other) => {
                let message = format!("option \"{name}\" has no effect with format = '{other}'");
                Err(Error::option(message).at(entry.name_location()).with_hint("leave it out"))
            }
            _ => Ok(()),
        }
    }
}

fn long_form(offsets: &BTreeMap<i32, i64>) -> String {
    let parts =
        offsets.iter().map(|(partition, offset)| format!("partition:{partition},offset:{offset}"));
    parts.collect::<Vec<_>>().join(";")
}

impl From<&str> for OptionValue {
    fn from(text: &str) -> Self {
        OptionValue::String(text.to_owned())
    }
}
