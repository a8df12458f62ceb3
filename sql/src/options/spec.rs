//! The options that there are: by kind of object and connector, with type,
//! default and what they mean. Documentation and completion read these tables.

use tidemill_engine::source::generator::TEMPLATES;

use crate::statement::ObjectKind;

/// One option.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptionSpec {
    pub name: &'static str,
    /// Other names that are taken for it.
    pub aliases: &'static [&'static str],
    pub ty: OptionType,
    pub required: bool,
    pub default: Option<&'static str>,
    /// One line.
    pub doc: &'static str,
}

/// What an option's value may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OptionType {
    /// Any text that is not empty.
    String,
    Boolean,
    /// A whole number, at least this.
    Integer {
        min: u64,
    },
    /// Rows a second: a number, 0 for as fast as it goes.
    Rate,
    /// `500ms`, `1 second`, `30 days`.
    Duration,
    /// `512 MiB`, or bytes.
    Bytes,
    /// One of these.
    Enum(&'static [&'static str]),
    /// ISO-8601, or milliseconds since 1970.
    Timestamp,
    /// ISO-8601, or `now`.
    StartTime,
    /// `0:42,1:300`: partition and offset.
    Offsets,
    /// One ASCII character; `\t` is a tab.
    Character,
}

/// A family of options whose rest of the name is not ours to know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrefixSpec {
    /// Ends in a dot.
    pub prefix: &'static str,
    pub doc: &'static str,
}

const fn option(name: &'static str, ty: OptionType, doc: &'static str) -> OptionSpec {
    OptionSpec { name, aliases: &[], ty, required: false, default: None, doc }
}

impl OptionSpec {
    const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    const fn default(self, value: &'static str) -> Self {
        Self { default: Some(value), ..self }
    }

    const fn alias(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    /// Whether `name` is this option's name or one of its aliases.
    pub fn is_named(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

use OptionType::{
    Boolean, Bytes, Character, Duration, Enum, Integer, Offsets, Rate, StartTime, String, Timestamp,
};

/// Every source.
const SOURCE: &[OptionSpec] = &[
    option("on_error", Enum(&["fail", "skip", "dead_letter"]), "what becomes of a record that can't be decoded: the query fails, it is skipped and counted, or kept in <source>__dead_letters")
        .default("dead_letter"),
    option("max_rows_per_epoch", Integer { min: 1 }, "most rows that one epoch takes from this source"),
    option("idle_timeout", Duration, "a partition that brings nothing for this long does not hold the watermark back"),
    option("late_rows", Enum(&["drop", "table"]), "rows behind the watermark of a closed window: counted only, or kept in <view>__late_rows as well")
        .default("drop"),
];

const CONNECTOR: &[OptionSpec] =
    &[option("connector", String, "where the rows come from or go to").required()];

const KAFKA: &[OptionSpec] = &[
    option("topic", String, "the topic").required(),
    option("bootstrap.servers", String, "brokers to start from: host:port, comma separated")
        .required()
        .alias(&["properties.bootstrap.servers", "properties.bootstrap.server"]),
];

const KAFKA_SOURCE: &[OptionSpec] = &[
    option("format", Enum(&["json", "csv", "raw"]), "how payloads are encoded").default("json"),
    option(
        "scan.startup.mode",
        Enum(&["earliest", "latest", "timestamp", "offsets"]),
        "where a new query starts to read",
    )
    .default("earliest"),
    option(
        "scan.startup.timestamp",
        Timestamp,
        "first record timestamp to read, for mode 'timestamp'",
    ),
    option(
        "scan.startup.offsets",
        Offsets,
        "first offset of each partition, for mode 'offsets': '0:42,1:300'",
    ),
];

const KAFKA_SINK: &[OptionSpec] =
    &[option("format", Enum(&["json"]), "how payloads are encoded").default("json")];

const JSON: &[OptionSpec] = &[option(
    "json.timestamp_unit",
    Enum(&["s", "ms", "us", "ns"]),
    "what a number means where a TIMESTAMP is wanted",
)
.default("ms")];

const CSV: &[OptionSpec] = &[option(
    "csv.delimiter",
    Character,
    "what separates fields; a comma if not given, a tab for files that end in .tsv",
)];

const CSV_FILES: &[OptionSpec] = &[
    option("csv.header", Boolean, "whether a file's first line names the columns").default("true"),
    option("csv.multiline", Boolean, "whether quoted fields may hold line breaks").default("false"),
];

const FILES: &[OptionSpec] = &[
    option("path", String, "a file, folder or glob; local or a URL").required(),
    option(
        "format",
        Enum(&["json", "csv", "parquet", "raw"]),
        "how the files are encoded; told from their names if not given",
    ),
    option("watch", Boolean, "whether files that appear later are read too").default("false"),
];

const GENERATOR: &[OptionSpec] = &[
    option(
        "template",
        Enum(&TEMPLATES),
        "what it makes; after names and types of the declared columns if not given",
    ),
    option(
        "rows_per_second",
        Rate,
        "how fast rows appear; 1000 if not given (nexmark: 10000), or all at once where number_of_rows is given",
    ),
    option(
        "number_of_rows",
        Integer { min: 0 },
        "ends after this many rows; endless if not given, for products 1000 and users 10000",
    ),
    option("seed", Integer { min: 0 }, "another seed, other rows").default("0"),
    option(
        "start_time",
        StartTime,
        "event time of the first row, 'now' for when the source was created; 2025-01-01 if not given",
    ),
];

const MEMORY: &[OptionSpec] = &[
    option("scan.startup.mode", Enum(&["earliest", "latest"]), "where a new query starts to read")
        .default("earliest"),
    option("topic", String, "the topic; the source's name if not given"),
    option("format", Enum(&["json", "csv", "raw"]), "how payloads are encoded").default("json"),
];

const DELTA: &[OptionSpec] =
    &[option("location", String, "folder or URL of the Delta table").required()];

const DELTA_SCAN: &[OptionSpec] = &[
    option(
        "scan.mode",
        Enum(&["snapshot", "stream"]),
        "the table as it is, or its changes from commit to commit",
    ),
    option("scan.start.version", Integer { min: 0 }, "first version whose changes are read"),
    option("scan.start.timestamp", Timestamp, "first commit timestamp whose changes are read"),
];

/// Materialized views and continuous inserts.
const QUERY: &[OptionSpec] = &[
    option("trigger_interval", Duration, "how often it looks for new rows; the engine's setting if not given"),
    option("retention", Duration, "partitions older than this are dropped"),
    option("write_mode", Enum(&["deletion_vectors", "copy_on_write"]), "how rows of the result are replaced; copy_on_write is for readers that don't know deletion vectors")
        .default("deletion_vectors"),
    option("state_memory_limit", Bytes, "most memory that its state may take"),
    option("snapshot_interval", Duration, "how often its state is saved; the program's setting if not given")
        .alias(&["checkpoint_interval"]),
];

const MATERIALIZED_VIEW: &[OptionSpec] = &[option(
    "location",
    String,
    "folder or URL of the result table; inside the warehouse if not given",
)];

const SINK: &[OptionSpec] = &[
    option(
        "trigger_interval",
        Duration,
        "how often it looks for new rows; the engine's setting if not given",
    ),
    option("state_memory_limit", Bytes, "most memory that its state may take"),
    option(
        "snapshot_interval",
        Duration,
        "how often its state is saved; the program's setting if not given",
    ),
];

const STORAGE: PrefixSpec = PrefixSpec {
    prefix: "storage.",
    doc: "any option of the object store behind the location, as object_store names it",
};

const PROPERTIES: PrefixSpec =
    PrefixSpec { prefix: "properties.", doc: "any property of librdkafka" };

/// The connectors that objects of this kind can have; none for kinds without.
pub fn connectors(kind: ObjectKind) -> &'static [&'static str] {
    match kind {
        ObjectKind::Source => &["kafka", "files", "generator", "delta", "memory"],
        ObjectKind::Table => &["delta", "files"],
        ObjectKind::Sink => &["kafka", "blackhole"],
        ObjectKind::View | ObjectKind::MaterializedView | ObjectKind::Query => &[],
    }
}

/// The options of a kind of object with a connector. Without a connector: those that
/// it has whatever the connector.
pub fn known(
    kind: ObjectKind,
    connector: Option<&str>,
) -> impl Iterator<Item = &'static OptionSpec> + Clone {
    tables(kind, connector).into_iter().flatten()
}

fn tables(kind: ObjectKind, connector: Option<&str>) -> Vec<&'static [OptionSpec]> {
    match (kind, connector.unwrap_or_default()) {
        (ObjectKind::Source, "kafka") => vec![CONNECTOR, KAFKA, KAFKA_SOURCE, JSON, CSV, SOURCE],
        (ObjectKind::Source, "files") => vec![CONNECTOR, FILES, JSON, CSV, CSV_FILES, SOURCE],
        (ObjectKind::Source, "generator") => vec![CONNECTOR, GENERATOR, SOURCE],
        (ObjectKind::Source, "memory") => vec![CONNECTOR, MEMORY, JSON, CSV, SOURCE],
        (ObjectKind::Source, "delta") => vec![CONNECTOR, DELTA, DELTA_SCAN, SOURCE],
        (ObjectKind::Source, _) => vec![CONNECTOR, SOURCE],
        (ObjectKind::Table, "files") => vec![CONNECTOR, FILES, JSON, CSV, CSV_FILES],
        (ObjectKind::Table, "delta") => vec![CONNECTOR, DELTA, DELTA_SCAN],
        (ObjectKind::Sink, "kafka") => vec![CONNECTOR, KAFKA, KAFKA_SINK, JSON, SINK],
        (ObjectKind::Sink, "blackhole") => vec![CONNECTOR, SINK],
        (ObjectKind::Table | ObjectKind::Sink, _) => vec![CONNECTOR],
        (ObjectKind::MaterializedView, _) => vec![QUERY, MATERIALIZED_VIEW],
        (ObjectKind::Query, _) => vec![QUERY],
        (ObjectKind::View, _) => vec![],
    }
}

/// The families of options that pass through.
pub fn prefixes(kind: ObjectKind, connector: Option<&str>) -> &'static [PrefixSpec] {
    match (kind, connector.unwrap_or_default()) {
        (_, "kafka") => &[PROPERTIES],
        (_, "files" | "delta") | (ObjectKind::MaterializedView, _) => &[STORAGE],
        _ => &[],
    }
}
