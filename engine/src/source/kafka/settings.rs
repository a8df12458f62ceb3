//! The options of a Kafka source, checked without contacting anything.
//!
//! `properties.<name>` goes to librdkafka as it is, except for what the engine
//! owns: positions live in the result table's epochs, never in a consumer
//! group, and an expired offset must be an error, never a silent jump.
//! Values of properties may be secrets: they stand in no message and no `Debug`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::epoch::Offsets;
use crate::error::{Error, Result};

/// Where a new query starts (`scan.startup.mode`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Startup {
    Earliest,
    Latest,
    /// At the first record at or after this time, in milliseconds since 1970.
    Timestamp(i64),
    /// At these offsets; a partition that is not named starts at its oldest.
    Offsets(Offsets),
}

/// The options of one source, checked.
#[derive(Clone)]
pub(super) struct Settings {
    pub topic: String,
    pub servers: String,
    pub startup: Startup,
    properties: BTreeMap<String, String>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("topic", &self.topic)
            .field("servers", &self.servers)
            .field("startup", &self.startup)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

const PREFIX: &str = "properties.";

/// Kafka's own limit.
const LONGEST_TOPIC: usize = 249;

/// Properties that the engine decides on, and why.
const OWNED: &[(&str, &str)] = &[
    ("group.id", "positions are kept with the result, not in a consumer group"),
    ("group.instance.id", "positions are kept with the result, not in a consumer group"),
    ("group.protocol", "positions are kept with the result, not in a consumer group"),
    ("enable.auto.commit", "positions are kept with the result, not in a consumer group"),
    ("auto.commit.enable", "positions are kept with the result, not in a consumer group"),
    ("enable.auto.offset.store", "positions are kept with the result, not in a consumer group"),
    ("auto.offset.reset", "use 'scan.startup.mode'; an offset that has expired is an error"),
    ("enable.partition.eof", "the reader depends on it"),
    ("allow.auto.create.topics", "a source never creates its topic"),
    ("metadata.broker.list", "use 'bootstrap.servers'"),
    ("bootstrap.servers", "use 'bootstrap.servers'"),
    ("plugin.library.paths", "a statement must not load code into the engine"),
    ("ssl.engine.location", "a statement must not load code into the engine"),
    ("sasl.kerberos.kinit.cmd", "a statement must not run commands"),
    ("enabled_events", "the reader depends on it"),
    ("log.queue", "the reader depends on it"),
    ("test.mock.num.brokers", "it would replace the brokers by a mock"),
];

/// What the engine sets unless the user does.
const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "tidemill"),
    ("isolation.level", "read_committed"),
    ("socket.timeout.ms", "10000"),
    // A broker that comes back is found within a second, not within ten.
    ("reconnect.backoff.max.ms", "1000"),
    // A fetch that waits holds up seeks and new partitions on the same broker.
    ("fetch.wait.max.ms", "100"),
    ("fetch.error.backoff.ms", "100"),
    // The default of a second starves a reader that empties the queue in a tenth of it.
    ("fetch.queue.backoff.ms", "10"),
    ("fetch.max.bytes", "16777216"),
    ("enable.metrics.push", "false"),
];

/// What the engine always sets.
const FIXED: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.partition.eof", "true"),
    ("auto.offset.reset", "error"),
    ("allow.auto.create.topics", "false"),
];

/// Prefetched bytes that a reader keeps, over all its partitions.
const PREFETCH_KBYTES: usize = 32 * 1024;

impl Settings {
    pub fn new(options: &BTreeMap<String, String>) -> Result<Self> {
        let topic = topic(options)?;
        let servers = servers(options)?;
        let startup = startup(options)?;
        let properties: BTreeMap<String, String> = options
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value)))
            .filter(|(key, _)| *key != "bootstrap.servers")
            .map(|(key, value)| (key.to_string(), value.clone()))
            .collect();
        for (key, value) in &properties {
            check_property(key, value)?;
        }
        Ok(Self { topic, servers, startup, properties })
    }

    /// How long a question about the topic may take before the broker counts as away.
    pub fn timeout(&self) -> Duration {
        let own = self.properties.get("socket.timeout.ms").and_then(|ms| ms.parse().ok());
        Duration::from_millis(own.unwrap_or(10_000))
    }

    /// For a client that asks about the topic.
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers);
        for (key, value) in DEFAULTS.iter().chain(FIXED) {
            config.set(*key, *value);
        }
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        let verbose = self.properties.contains_key("debug");
        let level = if verbose { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info };
        config.set_log_level(level);
        config
    }

    /// For a client that reads `partitions` of the topic.
    ///
    /// librdkafka bounds its prefetch queue per partition, so the budget is split.
    pub fn reader_config(&self, partitions: usize) -> ClientConfig {
        let mut config = self.client_config();
        if !self.properties.contains_key("queued.max.messages.kbytes") {
            let share = (PREFETCH_KBYTES / partitions.max(1)).max(1024);
            config.set("queued.max.messages.kbytes", share.to_string());
        }
        config
    }
}

fn topic(options: &BTreeMap<String, String>) -> Result<String> {
    let Some(topic) = options.get("topic").filter(|topic| !topic.is_empty()) else {
        return Err(Error::invalid_hint(
            "a kafka source needs the option 'topic'",
            "WITH (connector = 'kafka', topic = 'orders', ...)",
        ));
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !topic.chars().all(legal) || topic.len() > LONGEST_TOPIC || topic == "." || topic == ".." {
        return Err(Error::invalid_hint(
            format!("topic '{topic}' is not a name that Kafka allows"),
            "one topic a source: letters, digits, '.', '_' and '-', at most 249 of them; \
             combine several by UNION ALL",
        ));
    }
    Ok(topic.clone())
}

fn servers(options: &BTreeMap<String, String>) -> Result<String> {
    let plain = options.get("bootstrap.servers");
    let flink = options.get("properties.bootstrap.servers");
    if plain.is_some() && flink.is_some() && plain != flink {
        return Err(Error::invalid(
            "'bootstrap.servers' and 'properties.bootstrap.servers' are both given and differ",
        ));
    }
    match plain.or(flink).map(|servers| servers.trim()).filter(|servers| !servers.is_empty()) {
        Some(servers) => Ok(servers.to_string()),
        None => Err(Error::invalid_hint(
            "a kafka source needs the option 'bootstrap.servers'",
            "WITH (connector = 'kafka', 'bootstrap.servers' = 'localhost:9092', ...)",
        )),
    }
}

fn startup(options: &BTreeMap<String, String>) -> Result<Startup> {
    let mode = options.get("scan.startup.mode").map(String::as_str);
    let timestamp = options.get("scan.startup.timestamp");
    let offsets = options.get("scan.startup.offsets");
    let needs = |other: &str, mode: &str| {
        Error::invalid(format!("'{other}' needs 'scan.startup.mode' = '{mode}'"))
    };
    if timestamp.is_some() && mode != Some("timestamp") {
        return Err(needs("scan.startup.timestamp", "timestamp"));
    }
    if offsets.is_some() && mode != Some("offsets") {
        return Err(needs("scan.startup.offsets", "offsets"));
    }
    match (mode, timestamp, offsets) {
        (None | Some("earliest"), ..) => Ok(Startup::Earliest),
        (Some("latest"), ..) => Ok(Startup::Latest),
        (Some("timestamp"), Some(text), _) => parse_timestamp(text).map(Startup::Timestamp),
        (Some("offsets"), _, Some(text)) => parse_offsets(text).map(Startup::Offsets),
        (Some(mode @ ("timestamp" | "offsets")), ..) => Err(Error::invalid(format!(
            "'scan.startup.mode' = '{mode}' needs the option 'scan.startup.{mode}'"
        ))),
        (Some(other), ..) => Err(Error::invalid_hint(
            format!("'scan.startup.mode' = '{other}' is not known"),
            "one of 'earliest', 'latest', 'timestamp', 'offsets'",
        )),
    }
}

/// ISO-8601 (UTC unless it says otherwise) or milliseconds since 1970, to the latter.
fn parse_timestamp(text: &str) -> Result<i64> {
    let text = text.trim();
    let naive = |format: &str| NaiveDateTime::parse_from_str(text, format).ok();
    let parsed = text
        .parse::<i64>()
        .ok()
        .or_else(|| Some(DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis()))
        .or_else(|| Some(naive("%Y-%m-%dT%H:%M:%S%.f")?.and_utc().timestamp_millis()))
        .or_else(|| Some(naive("%Y-%m-%d %H:%M:%S%.f")?.and_utc().timestamp_millis()))
        .or_else(|| {
            let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
            Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis())
        });
    parsed.filter(|ms| *ms >= 0).ok_or_else(|| {
        Error::invalid_hint(
            format!("'scan.startup.timestamp' = '{text}' is not a point in time"),
            "ISO-8601 ('2026-01-31T08:00:00Z') or milliseconds since 1970",
        )
    })
}

/// `partition:0,offset:42;partition:1,offset:300`.
fn parse_offsets(text: &str) -> Result<Offsets> {
    let bad = |part: &str| {
        Error::invalid_hint(
            format!("'scan.startup.offsets': '{part}' is not understood"),
            "'partition:0,offset:42;partition:1,offset:300'",
        )
    };
    let mut offsets = Offsets::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (partition, offset) = part.split_once(',').ok_or_else(|| bad(part))?;
        let number = |text: &str, label: &str| -> Option<i64> {
            let (name, value) = text.split_once(':')?;
            (name.trim() == label).then_some(())?;
            value.trim().parse().ok().filter(|number| *number >= 0)
        };
        let partition = number(partition, "partition").ok_or_else(|| bad(part))?;
        let partition = i32::try_from(partition).map_err(|_| bad(part))?;
        let offset = number(offset, "offset").ok_or_else(|| bad(part))?;
        if offsets.insert(partition, offset).is_some() {
            return Err(Error::invalid(format!(
                "'scan.startup.offsets' names partition {partition} twice"
            )));
        }
    }
    if offsets.is_empty() {
        return Err(bad(text));
    }
    Ok(offsets)
}

/// Refuses what the engine owns and what librdkafka does not know. `key` is without the prefix
/// that it has among a source's options.
///
/// # Errors
/// What is wrong with it; never the value where that may be a secret.
pub fn check_property(key: &str, value: &str) -> Result<()> {
    if let Some((_, why)) = OWNED.iter().find(|(owned, _)| *owned == key) {
        return Err(Error::invalid_hint(format!("'{PREFIX}{key}' can't be set"), *why));
    }
    let mut config = ClientConfig::new();
    config.set(key, value);
    match config.create_native_config() {
        Ok(_) => Ok(()),
        Err(error) => Err(property_error(key, &error)),
    }
}

fn property_error(key: &str, error: &KafkaError) -> Error {
    use rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN;
    let unknown = matches!(error, KafkaError::ClientConfig(RD_KAFKA_CONF_UNKNOWN, ..));
    if key == "sasl.jaas.config" {
        return Error::invalid_hint(
            format!("'{PREFIX}{key}' is a property of the Java client"),
            "use 'properties.sasl.username' and 'properties.sasl.password'",
        );
    }
    if unknown {
        return Error::invalid_hint(
            format!("'{PREFIX}{key}': librdkafka knows no property of that name"),
            "its CONFIGURATION.md lists them all",
        );
    }
    // librdkafka's own words quote the value: only where that can't be a secret.
    let detail = match error {
        KafkaError::ClientConfig(_, detail, ..) if !sensitive(key) => format!(": {detail}"),
        _ => String::new(),
    };
    Error::invalid(format!("'{PREFIX}{key}' has a value that librdkafka refuses{detail}"))
}

/// Whether the value of this property is nobody's business.
pub(super) fn sensitive(key: &str) -> bool {
    ["password", "passphrase", "secret", "token", "pem", "username", "oauthbearer.config", "key"]
        .iter()
        .any(|word| key.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(extra: &[(&str, &str)]) -> Result<Settings> {
        let mut options = BTreeMap::from([
            ("topic".to_string(), "orders".to_string()),
            ("bootstrap.servers".to_string(), "localhost:9092".to_string()),
        ]);
        options.extend(extra.iter().map(|(k, v)| (k.to_string(), v.to_string())));
        Settings::new(&options)
    }

    fn refusal(extra: &[(&str, &str)]) -> String {
        let error = settings(extra).unwrap_err();
        format!("{error} | {}", error.hint().unwrap_or_default())
    }

    #[test]
    fn startup_modes() {
        let startup = |extra: &[(&str, &str)]| settings(extra).unwrap().startup;
        assert_eq!(startup(&[]), Startup::Earliest);
        assert_eq!(startup(&[("scan.startup.mode", "latest")]), Startup::Latest);
        let at =
            |text| startup(&[("scan.startup.mode", "timestamp"), ("scan.startup.timestamp", text)]);
        for text in [
            "1767225600000",
            "2026-01-01",
            "2026-01-01 00:00:00",
            "2026-01-01T00:00:00.000",
            "2026-01-01T02:00:00+02:00",
        ] {
            assert_eq!(at(text), Startup::Timestamp(1_767_225_600_000), "{text}");
        }
        let offsets = startup(&[
            ("scan.startup.mode", "offsets"),
            ("scan.startup.offsets", "partition:0,offset:42; partition:1, offset:300;"),
        ]);
        assert_eq!(offsets, Startup::Offsets(Offsets::from([(0, 42), (1, 300)])));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mode = ("scan.startup.mode", "offsets");
        assert!(refusal(&[("scan.startup.mode", "newest")]).contains("'latest'"));
        assert!(refusal(&[("scan.startup.mode", "timestamp")]).contains("scan.startup.timestamp"));
        assert!(refusal(&[("scan.startup.offsets", "partition:0,offset:1")]).contains("needs"));
        assert!(refusal(&[mode, ("scan.startup.offsets", "0:1")]).contains("'0:1'"));
        assert!(
            refusal(&[mode, ("scan.startup.offsets", "partition:0,offset:1;partition:0,offset:2")])
                .contains("twice")
        );
        assert!(refusal(&[("topic", "a,b")]).contains("UNION ALL"));
        assert!(refusal(&[("topic", "")]).contains("'topic'"));
        assert!(refusal(&[("bootstrap.servers", " ")]).contains("'bootstrap.servers'"));
        assert!(refusal(&[("properties.bootstrap.servers", "other:1")]).contains("differ"));
        assert!(refusal(&[("properties.group.id", "g")]).contains("consumer group"));
        assert!(refusal(&[("properties.auto.offset.reset", "latest")]).contains("scan.startup"));
        assert!(refusal(&[("properties.plugin.library.paths", "x.so")]).contains("load code"));
        assert!(refusal(&[("properties.fetch.wit", "1")]).contains("'properties.fetch.wit'"));
        assert!(refusal(&[("properties.fetch.wait.max.ms", "x")]).contains("fetch.wait.max"));
        assert!(refusal(&[("properties.sasl.jaas.config", "x")]).contains("sasl.username"));
    }

    #[test]
    fn secrets_are_never_shown() {
        let settings = settings(&[("properties.sasl.password", "hunter2")]).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
        let error = KafkaError::ClientConfig(
            rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "bad value hunter2".into(),
            "ssl.key.password".into(),
            "hunter2".into(),
        );
        assert!(!property_error("ssl.key.password", &error).to_string().contains("hunter2"));
    }

    #[test]
    fn the_user_overrides_defaults_but_not_what_is_owned() {
        let settings = settings(&[
            ("properties.isolation.level", "read_uncommitted"),
            ("properties.socket.timeout.ms", "3000"),
        ])
        .unwrap();
        let config = settings.reader_config(4);
        assert_eq!(config.get("isolation.level"), Some("read_uncommitted"));
        assert_eq!(config.get("auto.offset.reset"), Some("error"));
        assert_eq!(config.get("queued.max.messages.kbytes"), Some("8192"));
        assert_eq!(settings.timeout(), Duration::from_secs(3));
    }
}
