//! A random case: records, where epochs are cut, and the views over them.

use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tidemill_tests::way::Way;

use super::expression;

const COLUMNS: &str = "id BIGINT, a INT, b BIGINT, f DOUBLE, s VARCHAR, d DECIMAL(12,2), \
                       t TIMESTAMP, ok BOOLEAN, tags VARCHAR[], p STRUCT<x INT, y VARCHAR>";

/// The same columns as arrow-json reads them.
pub fn schema() -> Schema {
    let text = || DataType::Utf8;
    let item = Arc::new(Field::new("item", text(), true));
    let parts = [Field::new("x", DataType::Int32, true), Field::new("y", text(), true)];
    let columns = [
        ("id", DataType::Int64),
        ("a", DataType::Int32),
        ("b", DataType::Int64),
        ("f", DataType::Float64),
        ("s", text()),
        ("d", DataType::Decimal128(12, 2)),
        ("t", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ("ok", DataType::Boolean),
        ("tags", DataType::List(item)),
        ("p", DataType::Struct(Fields::from_iter(parts))),
    ];
    Schema::new(columns.map(|(name, ty)| Field::new(name, ty, true)).to_vec())
}

#[derive(Debug, Clone)]
pub struct Case {
    pub way: Way,
    partitions: usize,
    rows_an_epoch: Option<u64>,
    dimension: Vec<(Option<i32>, Option<String>)>,
    queries: Vec<String>,
    /// How many records stand before the first step: views may come late.
    late: usize,
    events: Vec<Event>,
}

#[derive(Debug, Clone)]
enum Event {
    Good(Value),
    Broken(&'static str),
    Step,
    Restart,
}

pub fn case() -> impl Strategy<Value = Case> {
    let dimension = vec((option::weighted(0.9, -3..6i32), option::weighted(0.9, words())), 0..6);
    let events = vec(event(), 0..24);
    let way = proptest::sample::select(vec![Way::AsWritten, Way::Restarts, Way::Overlapped]);
    (way, 1..4usize, option::of(1..5u64), dimension, vec(query(), 1..4), 0..4usize, events)
        .prop_map(|(way, partitions, rows_an_epoch, dimension, queries, late, events)| Case {
            way,
            partitions,
            rows_an_epoch,
            dimension,
            queries,
            late,
            events: numbered(events),
        })
}

/// Gives each record an id of its own, so that a difference can be told.
fn numbered(mut events: Vec<Event>) -> Vec<Event> {
    for (index, event) in events.iter_mut().enumerate() {
        if let Event::Good(value) = event {
            value["id"] = json!(index);
        }
    }
    events
}

fn event() -> impl Strategy<Value = Event> {
    let broken = prop_oneof![
        Just("{\"id\": "),
        Just("[1, 2]"),
        Just("nonsense"),
        Just("{\"id\": 1}}"),
        Just("7"),
    ];
    prop_oneof![
        12 => record().prop_map(Event::Good),
        1 => broken.prop_map(Event::Broken),
        4 => Just(Event::Step),
        1 => Just(Event::Restart),
    ]
}

/// One JSON object; a NULL is written out or left out.
fn record() -> impl Strategy<Value = Value> {
    let scalars = (
        option::weighted(0.8, -3..6i32),
        option::weighted(0.8, -1000..1000i64),
        option::weighted(0.8, -4000..4000i32),
        option::weighted(0.8, words()),
        option::weighted(0.8, -100_000..100_000i64),
        option::weighted(0.8, 0..1_000_000_000i64),
        option::weighted(0.8, proptest::bool::ANY),
    );
    let tags = option::weighted(0.8, vec(option::weighted(0.8, words()), 0..4));
    let parts = option::weighted(0.8, (option::of(-3..6i32), option::of(words())));
    (scalars, tags, parts, proptest::bool::ANY).prop_map(|(scalars, tags, parts, left_out)| {
        let (a, b, f, s, d, t, ok) = scalars;
        let fields = [
            ("a", json!(a)),
            ("b", json!(b)),
            ("f", json!(f.map(|quarters| f64::from(quarters) / 4.0))),
            ("s", json!(s)),
            ("d", json!(d.map(cents))),
            ("t", json!(t.map(instant))),
            ("ok", json!(ok)),
            ("tags", json!(tags)),
            ("p", parts.map_or(Value::Null, |(x, y)| json!({ "x": x, "y": y }))),
        ];
        let kept = fields.into_iter().filter(|(_, value)| !(left_out && value.is_null()));
        Value::Object(kept.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
    })
}

/// Hundredths as the text of a decimal.
pub fn cents(n: i64) -> String {
    format!("{}{}.{:02}", if n < 0 { "-" } else { "" }, n.abs() / 100, n.abs() % 100)
}

/// Milliseconds after 2024 began, at most a month, in ISO-8601.
fn instant(millis: i64) -> String {
    let (day, of_day) = (millis / 86_400_000 + 1, millis / 1000 % 86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("2024-01-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}", millis % 1000)
}

/// Short texts that are easily equal, some of them awkward.
pub fn words() -> impl Strategy<Value = String> {
    let words = ["a", "b c", "Ab", "", "ä'\"\\", "naïve ☃", "10", " x "];
    proptest::sample::select(words.to_vec()).prop_map(str::to_owned)
}

fn query() -> BoxedStrategy<String> {
    use expression::{any, boolean, integer, text};
    let join = prop_oneof![Just("JOIN"), Just("LEFT JOIN")];
    let among = prop_oneof![
        Just("a IN (SELECT k FROM dim)"),
        Just("a NOT IN (SELECT k FROM dim WHERE k IS NOT NULL)"),
        Just("EXISTS (SELECT 1 FROM dim WHERE k = a)"),
        Just("NOT EXISTS (SELECT 1 FROM dim WHERE k = a AND name IS NOT NULL)"),
        Just("b > (SELECT max(k) FROM dim)"),
    ];
    prop_oneof![
        3 => (any(), any(), boolean())
            .prop_map(|(x, y, w)| format!("SELECT id, {x} AS c1, {y} AS c2 FROM src WHERE {w}")),
        2 => (any(), boolean())
            .prop_map(|(x, w)| format!("SELECT id, unnest(tags) AS tag, {x} AS c FROM src WHERE {w}")),
        2 => (integer(), text(), boolean(), integer(), text()).prop_map(|(i, x, w, j, y)| format!(
            "SELECT id, {i} AS i, {x} AS x FROM src WHERE {w} \
             UNION ALL SELECT id, {j} AS i, {y} AS x FROM src"
        )),
        3 => (join, any(), boolean()).prop_map(|(join, x, w)| format!(
            "SELECT id, k, name, {x} AS c FROM src {join} dim ON a = k WHERE {w}"
        )),
        3 => (among, any())
            .prop_map(|(among, x)| format!("SELECT id, {x} AS c FROM src WHERE {among}")),
        1 => (any(), boolean(), boolean()).prop_map(|(x, v, w)| format!(
            "WITH part AS (SELECT *, {x} AS c FROM src WHERE {v}) SELECT id, c FROM part WHERE {w}"
        )),
    ]
    .boxed()
}

impl Case {
    /// Each view with its query.
    pub fn views(&self) -> impl Iterator<Item = (String, &str)> {
        self.queries.iter().enumerate().map(|(index, query)| (format!("v{index}"), query.as_str()))
    }

    pub fn dimension(&self) -> &[(Option<i32>, Option<String>)] {
        &self.dimension
    }

    /// The records that can be decoded, one a line.
    pub fn good_records(&self) -> String {
        let good = self.events.iter().filter_map(|event| match event {
            Event::Good(value) => Some(format!("{value}\n")),
            _ => None,
        });
        good.collect()
    }

    pub fn broken(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Broken(_))).count()
    }

    pub fn script(&self) -> String {
        let mut script = format!("# A case made at random.\n# ways: {}\n\n", self.way.label());
        self.write(&mut script).expect("writing to a string");
        script
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let budget =
            self.rows_an_epoch.map_or(String::new(), |n| format!(", max_rows_per_epoch = {n}"));
        writeln!(out, "statement ok\nTOPIC src {}\n", self.partitions)?;
        writeln!(
            out,
            "statement ok\nCREATE SOURCE src ({COLUMNS}) WITH (connector = 'memory'{budget})\n"
        )?;
        writeln!(out, "statement ok\nCREATE TABLE dim (k INT, name VARCHAR)\n")?;
        for (k, name) in &self.dimension {
            let k = k.map_or("NULL".into(), |k| k.to_string());
            let name =
                name.as_ref().map_or("NULL".into(), |n| format!("'{}'", n.replace('\'', "''")));
            writeln!(out, "statement ok\nINSERT INTO dim VALUES ({k}, {name})\n")?;
        }
        let (early, rest) = self.events.split_at(self.late.min(self.events.len()));
        self.write_events(early, 0, out)?;
        for (view, query) in self.views() {
            writeln!(out, "statement ok\nCREATE MATERIALIZED VIEW {view} AS {query}\n")?;
        }
        self.write_events(rest, early.len(), out)?;
        writeln!(out, "statement ok\nRUN")
    }

    fn write_events(&self, events: &[Event], first: usize, out: &mut String) -> std::fmt::Result {
        for (index, event) in events.iter().enumerate() {
            let partition = (first + index) % self.partitions;
            out.push_str("statement ok\n");
            match event {
                Event::Good(value) => writeln!(out, "PRODUCE src {partition} {value}\n")?,
                Event::Broken(text) => writeln!(out, "PRODUCE src {partition} RAW '{text}'\n")?,
                Event::Step => out.push_str("STEP\n\n"),
                Event::Restart => out.push_str("RESTART\n\n"),
            }
        }
        Ok(())
    }
}

/// Texts of which some are numbers, cast by a view.
#[derive(Debug, Clone)]
pub struct Poisoned {
    texts: Vec<Option<String>>,
    filter: &'static str,
    rows_an_epoch: u64,
}

pub fn poisoned() -> impl Strategy<Value = Poisoned> {
    let texts = vec(option::weighted(0.9, words()), 1..40);
    let filter = prop_oneof![Just("true"), Just("id % 3 <> 0")];
    (texts, filter, 1..20u64).prop_map(|(texts, filter, rows_an_epoch)| Poisoned {
        texts,
        filter,
        rows_an_epoch,
    })
}

impl Poisoned {
    pub fn script(&self) -> String {
        let records: Vec<_> = (self.texts.iter().enumerate())
            .map(|(id, text)| format!("{}\n", json!({ "id": id, "s": text })))
            .collect();
        format!(
            "# Casts that fail on some rows.\n# no oracle: v (the batch query fails)\n\n\
             statement ok\n\
             CREATE SOURCE src (id BIGINT, s VARCHAR) \
             WITH (connector = 'memory', max_rows_per_epoch = {})\n\n\
             statement ok\n\
             CREATE MATERIALIZED VIEW v AS \
             SELECT id, CAST(s AS BIGINT) AS n FROM src WHERE {}\n\n\
             statement ok\nPRODUCE src\n{}\n\
             statement ok\nRUN\n",
            self.rows_an_epoch,
            self.filter,
            records.concat(),
        )
    }

    /// What the view must hold.
    pub fn expected_query(&self) -> String {
        format!(
            "SELECT id, TRY_CAST(s AS BIGINT) AS n FROM src \
             WHERE {} AND (s IS NULL OR TRY_CAST(s AS BIGINT) IS NOT NULL)",
            self.filter
        )
    }

    /// The rows that must be dead letters.
    pub fn rejected_query(&self) -> String {
        format!(
            "SELECT id FROM src WHERE {} AND s IS NOT NULL AND TRY_CAST(s AS BIGINT) IS NULL",
            self.filter
        )
    }
}
