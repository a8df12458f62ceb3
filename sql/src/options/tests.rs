//! What options are refused, with the exact words, and what the getters answer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Checked, OptionEntry, OptionValue, Options, check, is_secret, spec};
use crate::error::Result;
use crate::parser::parse_one;
use crate::statement::{ObjectKind, Statement};

/// Checks the options of a statement, as a session does.
fn checked(sql: &str) -> Result<Checked> {
    match parse_one(sql)?.node {
        Statement::CreateSource(create) => check(ObjectKind::Source, &create.options),
        Statement::CreateTable(create) => check(ObjectKind::Table, &create.options),
        Statement::CreateSink(create) => check(ObjectKind::Sink, &create.options),
        Statement::CreateMaterializedView(create) => {
            check(ObjectKind::MaterializedView, &create.options)
        }
        Statement::Insert(insert) => check(ObjectKind::Query, &insert.options),
        other => panic!("{other}"),
    }
}

fn source(options: &str) -> Result<Checked> {
    checked(&format!("CREATE SOURCE s WITH ({options})"))
}

fn refusal(sql: &str) -> String {
    match checked(sql) {
        Ok(_) => panic!("right: {sql}"),
        Err(error) => error.render(sql),
    }
}

/// Of a Kafka source that is right up to these options.
fn kafka(options: &str) -> String {
    refusal(&format!(
        "CREATE SOURCE s WITH (connector = 'kafka', topic = 't', bootstrap.servers = 'b',\n  {options})"
    ))
}

#[test]
fn unknown_names() {
    insta::assert_snapshot!(kafka("topik = 'x'"), @r#"
    error: unknown option "topik" for connector kafka
      --> line 2, column 3
       |
     2 |   topik = 'x')
       |   ^^^^^
       hint: did you mean "topic"?
    "#);
    insta::assert_snapshot!(kafka("'scan.startup-mode' = 'latest'"), @r#"
    error: unknown option "scan.startup-mode" for connector kafka
      --> line 2, column 3
       |
     2 |   'scan.startup-mode' = 'latest')
       |   ^^^^^^^^^^^^^^^^^^^
       hint: did you mean "scan.startup.mode"?
    "#);
    insta::assert_snapshot!(kafka("zzz = 1"), @r#"
    error: unknown option "zzz" for connector kafka
      --> line 2, column 3
       |
     2 |   zzz = 1)
       |   ^^^
       hint: there are connector, topic, bootstrap.servers, format, scan.startup.mode, scan.startup.timestamp, scan.startup.offsets, json.timestamp_unit, csv.delimiter, on_error, max_rows_per_epoch, idle_timeout, late_rows, properties.*
    "#);
    insta::assert_snapshot!(kafka("'properties.' = 1"), @r#"
    error: unknown option "properties." for connector kafka
      --> line 2, column 3
       |
     2 |   'properties.' = 1)
       |   ^^^^^^^^^^^^^
       hint: there are connector, topic, bootstrap.servers, format, scan.startup.mode, scan.startup.timestamp, scan.startup.offsets, json.timestamp_unit, csv.delimiter, on_error, max_rows_per_epoch, idle_timeout, late_rows, properties.*
    "#);
    insta::assert_snapshot!(refusal("CREATE SOURCE s WITH (topic = 'x')"), @r#"
    error: option "connector" is missing for a source
      --> line 1, column 23
       |
     1 | CREATE SOURCE s WITH (topic = 'x')
       |                       ^^^^^
       hint: add connector = 'kafka', 'files', 'generator', 'delta' or 'memory'
    "#);
    insta::assert_snapshot!(refusal("CREATE SOURCE s WITH (connector = 'kakfa')"), @"
    error: there is no connector 'kakfa' for a source
      --> line 1, column 35
       |
     1 | CREATE SOURCE s WITH (connector = 'kakfa')
       |                                   ^^^^^^^
       hint: did you mean 'kafka'? It can be 'kafka', 'files', 'generator', 'delta' or 'memory'
    ");
    insta::assert_snapshot!(refusal("CREATE TABLE s WITH (connector = 'kafka')"), @"
    error: there is no connector 'kafka' for a table
      --> line 1, column 34
       |
     1 | CREATE TABLE s WITH (connector = 'kafka')
       |                                  ^^^^^^^
       hint: connector 'kafka' is for CREATE SOURCE
    ");
    insta::assert_snapshot!(refusal("CREATE SINK s WITH (connector = 'delta') AS SELECT 1"), @"
    error: there is no connector 'delta' for a sink
      --> line 1, column 33
       |
     1 | CREATE SINK s WITH (connector = 'delta') AS SELECT 1
       |                                 ^^^^^^^
       hint: for a result in a Delta table, write CREATE MATERIALIZED VIEW, or INSERT INTO a table
    ");
    insta::assert_snapshot!(refusal("CREATE SOURCE s WITH (connector = 'generator', format = 'json')"), @r#"
    error: unknown option "format" for connector generator
      --> line 1, column 48
       |
     1 | CREATE SOURCE s WITH (connector = 'generator', format = 'json')
       |                                                ^^^^^^
       hint: there are connector, template, rows_per_second, number_of_rows, seed, start_time, on_error, max_rows_per_epoch, idle_timeout, late_rows
    "#);
    insta::assert_snapshot!(refusal("CREATE MATERIALIZED VIEW v WITH (triger_interval = '1s') AS SELECT 1"), @r#"
    error: unknown option "triger_interval" for a materialized view
      --> line 1, column 34
       |
     1 | CREATE MATERIALIZED VIEW v WITH (triger_interval = '1s') AS SELECT 1
       |                                  ^^^^^^^^^^^^^^^
       hint: did you mean "trigger_interval"?
    "#);
    insta::assert_snapshot!(refusal("CREATE MATERIALIZED VIEW v WITH (connector = 'delta') AS SELECT 1"), @r#"
    error: unknown option "connector" for a materialized view
      --> line 1, column 34
       |
     1 | CREATE MATERIALIZED VIEW v WITH (connector = 'delta') AS SELECT 1
       |                                  ^^^^^^^^^
       hint: a materialized view has no connector; leave it out
    "#);
}

#[test]
fn missing_names() {
    insta::assert_snapshot!(refusal("CREATE SOURCE s WITH (format = 'json')"), @r#"
    error: option "connector" is missing for a source
      --> line 1, column 23
       |
     1 | CREATE SOURCE s WITH (format = 'json')
       |                       ^^^^^^
       hint: add connector = 'kafka', 'files', 'generator', 'delta' or 'memory'
    "#);
    insta::assert_snapshot!(refusal("CREATE SOURCE s WITH (connector = 'kafka', topic = 't')"), @r#"
    error: option "bootstrap.servers" is missing for connector kafka
      --> line 1, column 35
       |
     1 | CREATE SOURCE s WITH (connector = 'kafka', topic = 't')
       |                                   ^^^^^^^
       hint: add 'bootstrap.servers' = '…': brokers to start from: host:port, comma separated
    "#);
    insta::assert_snapshot!(refusal("CREATE TABLE s WITH (connector = 'files')"), @r#"
    error: option "path" is missing for connector files
      --> line 1, column 34
       |
     1 | CREATE TABLE s WITH (connector = 'files')
       |                                  ^^^^^^^
       hint: add path = '…': a file, folder or glob; local or a URL
    "#);
}

#[test]
fn wrong_values() {
    insta::assert_snapshot!(kafka("on_error = 'ignore'"), @r#"
    error: option "on_error" can't be 'ignore'
      --> line 2, column 14
       |
     2 |   on_error = 'ignore')
       |              ^^^^^^^^
       hint: it can be 'fail', 'skip' or 'dead_letter'
    "#);
    insta::assert_snapshot!(kafka("scan.startup.mode = 'earliest-offset'"), @r#"
    error: option "scan.startup.mode" can't be 'earliest-offset'
      --> line 2, column 23
       |
     2 |   scan.startup.mode = 'earliest-offset')
       |                       ^^^^^^^^^^^^^^^^^
       hint: did you mean 'earliest'? It can be 'earliest', 'latest', 'timestamp' or 'offsets'
    "#);
    insta::assert_snapshot!(kafka("idle_timeout = 5"), @r#"
    error: option "idle_timeout" can't be 5
      --> line 2, column 18
       |
     2 |   idle_timeout = 5)
       |                  ^
       hint: it can be a duration such as '500ms', '1 second' or '30 days'
    "#);
    insta::assert_snapshot!(kafka("max_rows_per_epoch = 0"), @r#"
    error: option "max_rows_per_epoch" can't be 0
      --> line 2, column 24
       |
     2 |   max_rows_per_epoch = 0)
       |                        ^
       hint: it can be a whole number from 1 on
    "#);
    insta::assert_snapshot!(kafka("json.timestamp_unit = 'sec'"), @r#"
    error: option "json.timestamp_unit" can't be 'sec'
      --> line 2, column 25
       |
     2 |   json.timestamp_unit = 'sec')
       |                         ^^^^^
       hint: it can be 's', 'ms', 'us' or 'ns'
    "#);
    insta::assert_snapshot!(kafka("csv.delimiter = '::'"), @r#"
    error: option "csv.delimiter" can't be '::'
      --> line 2, column 19
       |
     2 |   csv.delimiter = '::')
       |                   ^^^^
       hint: it can be a single ASCII character, or '\t'
    "#);
    insta::assert_snapshot!(refusal("CREATE SOURCE s WITH (connector = 'generator', template = 'order')"), @r#"
    error: option "template" can't be 'order'
      --> line 1, column 59
       |
     1 | CREATE SOURCE s WITH (connector = 'generator', template = 'order')
       |                                                           ^^^^^^^
       hint: did you mean 'orders'? It can be 'orders', 'page_views', 'users', 'products', 'nexmark.bid', 'nexmark.auction' or 'nexmark.person'
    "#);
    insta::assert_snapshot!(refusal("CREATE SOURCE s WITH (connector = 'generator', rows_per_second = -1)"), @r#"
    error: option "rows_per_second" can't be -1
      --> line 1, column 66
       |
     1 | CREATE SOURCE s WITH (connector = 'generator', rows_per_second = -1)
       |                                                                  ^^
       hint: it can be 0, or a number from 0.001 to 1000000000
    "#);
    insta::assert_snapshot!(kafka("topic = ''"), @r#"
    error: option "topic" can't be ''
      --> line 2, column 11
       |
     2 |   topic = '')
       |           ^^
       hint: it can be any text that is not empty
    "#);
    insta::assert_snapshot!(kafka("topic = 'again'"), @r#"
    error: option "topic" is given twice
      --> line 2, column 3
       |
     2 |   topic = 'again')
       |   ^^^^^
    "#);
    insta::assert_snapshot!(kafka("properties.bootstrap.servers = 'again'"), @r#"
    error: option "bootstrap.servers" is given twice
      --> line 2, column 3
       |
     2 |   properties.bootstrap.servers = 'again')
       |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#);
}

#[test]
fn options_that_contradict_each_other() {
    insta::assert_snapshot!(kafka("scan.startup.offsets = '0:1'"), @r#"
    error: option "scan.startup.offsets" has no effect with scan.startup.mode = 'earliest'
      --> line 2, column 3
       |
     2 |   scan.startup.offsets = '0:1')
       |   ^^^^^^^^^^^^^^^^^^^^
       hint: write 'scan.startup.mode' = 'offsets', or leave it out
    "#);
    insta::assert_snapshot!(kafka("scan.startup.mode = 'timestamp'"), @r#"
    error: scan.startup.mode = 'timestamp' needs option "scan.startup.timestamp"
      --> line 2, column 23
       |
     2 |   scan.startup.mode = 'timestamp')
       |                       ^^^^^^^^^^^
       hint: add 'scan.startup.timestamp' = '…'
    "#);
    insta::assert_snapshot!(kafka("format = 'raw', json.timestamp_unit = 's'"), @r#"
    error: option "json.timestamp_unit" has no effect with format = 'raw'
      --> line 2, column 19
       |
     2 |   format = 'raw', json.timestamp_unit = 's')
       |                   ^^^^^^^^^^^^^^^^^^^
       hint: leave it out
    "#);
    insta::assert_snapshot!(refusal("CREATE TABLE t WITH (connector = 'delta', location = 'x', scan.mode = 'snapshot', scan.start.version = 3)"), @r#"
    error: option "scan.start.version" has no effect with scan.mode = 'snapshot'
      --> line 1, column 83
       |
     1 | … scan.mode = 'snapshot', scan.start.version = 3)
       |                           ^^^^^^^^^^^^^^^^^^
       hint: write 'scan.mode' = 'stream', or leave it out
    "#);
}

#[test]
fn getters_know_types_and_defaults() {
    let options = source(
        "connector = 'kafka', topic = 't', 'properties.bootstrap.servers' = 'b:1', \
         idle_timeout = '2 min', 'scan.startup.mode' = 'offsets', scan.startup.offsets = '0:7', \
         'properties.security.protocol' = 'ssl', max_rows_per_epoch = 500",
    )
    .unwrap();
    assert_eq!(options.required("bootstrap.servers").unwrap(), "b:1");
    assert_eq!(options.string("format"), Some("json"));
    assert!(!options.is_set("format"));
    assert_eq!(options.string("on_error"), Some("dead_letter"));
    assert_eq!(options.duration("idle_timeout"), Some(Duration::from_secs(120)));
    assert_eq!(options.offsets("scan.startup.offsets"), Some(BTreeMap::from([(0, 7)])));
    assert_eq!(options.u64("max_rows_per_epoch"), Some(500));
    assert_eq!(options.u64("no such option"), None);
    let properties: Vec<_> = options.prefixed("properties.").collect();
    assert_eq!(properties, [("security.protocol", "ssl")]);
}

#[test]
fn the_engine_gets_proper_names_and_canonical_values() {
    let texts = source(
        "connector = kafka, topic = 't', properties.bootstrap.servers = 'b:1', \
         'scan.startup.mode' = 'offsets', scan.startup.offsets = '0:7, 2:9', properties.debug = all",
    )
    .unwrap()
    .texts();
    let pairs: Vec<_> = texts.iter().map(|(name, text)| format!("{name}={text}")).collect();
    insta::assert_snapshot!(pairs.join("\n"), @"
    bootstrap.servers=b:1
    connector=kafka
    format=json
    json.timestamp_unit=ms
    late_rows=drop
    on_error=dead_letter
    properties.debug=all
    scan.startup.mode=offsets
    scan.startup.offsets=partition:0,offset:7;partition:2,offset:9
    topic=t
    ");
    let texts = source(
        "connector = kafka, topic = 't', bootstrap.servers = 'b:1', \
         scan.startup.mode = 'timestamp', scan.startup.timestamp = '2023-11-14 22:13:20'",
    );
    assert_eq!(texts.unwrap().texts()["scan.startup.timestamp"], "1700000000000");
}

#[test]
fn getters_of_files_and_views() {
    let options =
        source("connector = files, path = 'a/*.csv', format = csv, csv.delimiter = '\\t'").unwrap();
    assert_eq!(options.bool("csv.header"), Some(true));
    assert_eq!(options.bool("watch"), Some(false));
    assert_eq!(options.character("csv.delimiter"), Some('\t'));
    let texts =
        source("connector = generator, template = orders, rows_per_second = 0.5, start_time = now");
    assert_eq!(texts.unwrap().texts()["rows_per_second"], "0.5");
    let texts = source("connector = files, path = 'x.tsv', watch = TRUE").unwrap().texts();
    assert_eq!(texts["watch"], "true");
    assert!(!texts.contains_key("csv.delimiter"), "the engine knows better");
    let options = checked(
        "CREATE MATERIALIZED VIEW v WITH (state_memory_limit = '1 GiB', storage.region = 'x') \
         AS SELECT 1",
    )
    .unwrap();
    assert_eq!(options.bytes("state_memory_limit"), Some(1 << 30));
    assert_eq!(options.prefixed("storage.").collect::<Vec<_>>(), [("region", "x")]);
    assert!(checked("INSERT INTO t SELECT 1").unwrap().string("write_mode").is_some());
}

#[test]
fn every_table_is_right_in_itself() {
    for kind in ObjectKind::ALL {
        let connectors = super::connectors(kind).iter().copied().map(Some);
        for connector in connectors.chain([None]) {
            let specs: Vec<_> = super::known(kind, connector).collect();
            for (index, spec) in specs.iter().enumerate() {
                let twin = specs[..index].iter().any(|other| other.is_named(spec.name));
                assert!(!twin, "{kind} {connector:?}: {} twice", spec.name);
                assert!(!spec.doc.is_empty() && !spec.doc.ends_with('.'), "{}", spec.name);
                if let Some(default) = spec.default {
                    let entry = OptionEntry::new(spec.name, default.into());
                    assert!(super::check::canonical(spec, &entry).is_ok(), "{}", spec.name);
                }
            }
        }
    }
}

fn written(pairs: &[(&str, &str)]) -> Options {
    let string = |text: &str| OptionValue::String(text.to_owned());
    pairs.iter().map(|(name, value)| OptionEntry::new(*name, string(value))).collect()
}

#[test]
fn names_that_are_no_plain_words_are_quoted() {
    let options = written(&[("topic", "it's"), ("bootstrap.servers", "a:1"), ("o'k", "")]);
    assert_eq!(options.to_string(), "(topic = 'it''s', 'bootstrap.servers' = 'a:1', 'o''k' = '')");
}

#[test]
fn secrets_are_shown_only_to_the_catalog() {
    let options = written(&[
        ("properties.sasl.username", "ann"),
        ("properties.sasl.password", "hunter2"),
        ("storage.aws_secret_access_key", "hunter2"),
        ("properties.sasl.jaas.config", "… password=\"hunter2\";"),
        ("location", "https://ann:hunter2@lake.example/t?x=a@b"),
    ]);
    assert!(options.to_string().contains("hunter2"));
    let shown = options.redacted().to_string();
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("'properties.sasl.username' = 'ann'"));
    assert!(shown.contains("https://ann:***@lake.example/t?x=a@b"));
    assert!(!format!("{options:?}").contains("hunter2"));
}

#[test]
fn what_is_secret() {
    for name in [
        "properties.ssl.key.password",
        "properties.ssl.key.pem",
        "storage.AWS_SESSION_TOKEN",
        "storage.azure_storage_account_key",
        "storage.google_service_account",
        "storage.azure_client_secret",
        "storage.access_key",
    ] {
        assert!(is_secret(name), "{name}");
    }
    for name in [
        "topic",
        "bootstrap.servers",
        "properties.ssl.key.location",
        "properties.ssl.ca.location",
        "storage.aws_access_key_id",
        "storage.google_service_account_path",
        "properties.enable.auto.commit",
        "primary_key",
    ] {
        assert!(!is_secret(name), "{name}");
    }
}

#[test]
fn the_reference_names_every_option() {
    let text = include_str!("../../../docs/sql.md");
    for kind in ObjectKind::ALL {
        for connector in spec::connectors(kind).iter().copied().map(Some).chain([None]) {
            for option in spec::known(kind, connector) {
                let name = format!("`{}`", option.name);
                assert!(text.contains(&name), "docs/sql.md does not name {name}");
            }
        }
    }
}
