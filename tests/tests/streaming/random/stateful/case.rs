//! A random case of stateful queries: what arrives in three sources, where epochs are
//! cut, and the views over them.
//!
//! `a` and `b` are appended to, `u` is an upsert source whose rows
//! are replaced and deleted. Times in `a` grow, but for
//! less than its watermark lags behind: no row is late, and every view must hold what
//! its batch query answers. Where a query can wait for its windows to close, a second view
//! does; in the end a row of another day closes all windows but its own.

use std::fmt::Write;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tidemill_tests::way::Way;

use super::super::stateless::{cents, words};
use super::query::query;
use super::relation::{APPENDED, UPSERTED};

pub const SOURCES: [&str; 3] = [APPENDED[0], APPENDED[1], UPSERTED];

const COLUMNS: &str = "id BIGINT, k INT, n BIGINT, s VARCHAR, t TIMESTAMP, f DOUBLE, \
                       d DECIMAL(12,2), ok BOOLEAN, p STRUCT<x INT, y VARCHAR>";

pub const ON_CLOSE: &str = "EMIT ON WINDOW CLOSE";

/// Seconds between one event and the next, and how far a time may be ahead.
const STEP: usize = 20;
const AHEAD: u32 = 60;
/// Day of the last rows of `a`.
pub const LAST_DAY: &str = "2024-01-02";

/// A query that the engine takes.
#[derive(Debug, Clone)]
pub struct Kept {
    pub query: String,
    /// It takes it with EMIT ON WINDOW CLOSE too.
    pub closes: bool,
}

#[derive(Debug, Clone)]
pub struct Case {
    way: Way,
    partitions: usize,
    rows_an_epoch: Option<u64>,
    /// Bytes of state in memory.
    memory: Option<u64>,
    dimension: Vec<(Option<i32>, Option<String>)>,
    tapes: Vec<Vec<u16>>,
    /// How many events stand before the views.
    late: usize,
    events: Vec<Event>,
}

#[derive(Debug, Clone)]
enum Event {
    Append { source: usize, row: Value, ahead: Option<u32> },
    Upsert { id: u8, row: Value, ahead: Option<u32> },
    Delete { id: u8 },
    Step,
    Restart,
}

pub fn case() -> impl Strategy<Value = Case> {
    let ways = [Way::AsWritten, Way::Restarts, Way::AsWritten, Way::Overlapped, Way::OneEpoch];
    let dimension = vec((option::weighted(0.9, -2..4i32), option::weighted(0.9, words())), 0..5);
    let settings = (
        proptest::sample::select(ways.to_vec()),
        1..4usize,
        option::weighted(0.4, 1..6u64),
        option::weighted(0.2, prop_oneof![Just(1u64), Just(2048u64)]),
    );
    let tapes = vec(vec(any::<u16>(), 4..90), 1..5);
    (settings, dimension, tapes, 0..4usize, vec(event(), 0..36)).prop_map(
        |((way, partitions, rows_an_epoch, memory), dimension, tapes, late, events)| Case {
            way,
            partitions,
            rows_an_epoch,
            memory,
            dimension,
            tapes,
            late,
            events,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let ahead = || option::weighted(0.9, 0..AHEAD);
    prop_oneof![
        14 => (0..2usize, row(), ahead()).prop_map(|(source, row, ahead)| Event::Append { source, row, ahead }),
        6 => (0..6u8, row(), ahead()).prop_map(|(id, row, ahead)| Event::Upsert { id, row, ahead }),
        2 => (0..6u8).prop_map(|id| Event::Delete { id }),
        6 => Just(Event::Step),
        1 => Just(Event::Restart),
    ]
}

/// Values from small domains: keys meet, rows are there twice.
fn row() -> impl Strategy<Value = Value> {
    let numbers = (
        option::weighted(0.85, -2..4i32),
        option::weighted(0.85, prop_oneof![3 => -3..6i64, 1 => -1000..1000i64]),
        option::weighted(0.85, float()),
        option::weighted(
            0.85,
            prop_oneof![3 => (-4..5i64).prop_map(|n| n * 50), 1 => -9999..9999i64],
        ),
    );
    let parts = option::weighted(0.8, (option::of(-2..4i32), option::of(words())));
    (numbers, option::weighted(0.85, words()), option::of(any::<bool>()), parts).prop_map(
        |((k, n, f, d), s, ok, p)| {
            json!({
                "k": k, "n": n, "f": f, "d": d.map(cents), "s": s, "ok": ok,
                "p": p.map(|(x, y)| json!({ "x": x, "y": y })),
            })
        },
    )
}

fn float() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => (-8..9i32).prop_map(|quarters| json!(f64::from(quarters) / 4.0)),
        1 => Just(json!("NaN")),
    ]
}

impl Case {
    pub fn way(&self) -> Way {
        self.way
    }

    pub fn queries(&self) -> Vec<String> {
        self.tapes.iter().map(|tape| query(tape)).collect()
    }

    /// The script with views of `queries` alone.
    pub fn script(&self, queries: &[Kept]) -> String {
        let mut script = format!("# A case made at random.\n# ways: {}\n", self.way.label());
        self.write(queries, &mut script).expect("writing to a string");
        script
    }

    /// Statements that make the sources and the table.
    pub fn setup(&self) -> Vec<String> {
        let budget =
            self.rows_an_epoch.map_or(String::new(), |n| format!(", max_rows_per_epoch = {n}"));
        let with = format!("WITH (connector = 'memory'{budget})");
        let watermark = format!("WATERMARK FOR t AS t - INTERVAL '{}' SECOND", AHEAD + 1);
        let mut statements = vec![
            format!("CREATE SOURCE a ({COLUMNS}, {watermark}) {with}"),
            format!("CREATE SOURCE b ({COLUMNS}) {with}"),
            format!("CREATE SOURCE u ({COLUMNS}, PRIMARY KEY (id)) {with}"),
            "CREATE TABLE dim (dk INT, name VARCHAR)".to_owned(),
        ];
        let text = |name: &String| format!("'{}'", name.replace('\'', "''"));
        statements.extend(self.dimension.iter().map(|(k, name)| {
            let k = k.map_or("NULL".into(), |k| k.to_string());
            format!("INSERT INTO dim VALUES ({k}, {})", name.as_ref().map_or("NULL".into(), text))
        }));
        statements
    }

    fn write(&self, queries: &[Kept], out: &mut String) -> std::fmt::Result {
        let closed: Vec<String> = closed(queries).map(|view| format!("c{view}")).collect();
        if !closed.is_empty() {
            writeln!(out, "# no oracle: {} (windows that are still open)", closed.join(", "))?;
        }
        out.push('\n');
        for source in SOURCES {
            writeln!(out, "statement ok\nTOPIC {source} {}\n", self.partitions)?;
        }
        for statement in self.setup() {
            writeln!(out, "statement ok\n{statement}\n")?;
        }
        let (early, rest) = self.events.split_at(self.late.min(self.events.len()));
        self.write_events(early, 0, out)?;
        let with =
            self.memory.map_or(String::new(), |n| format!("WITH (state_memory_limit = {n}) "));
        for (index, Kept { query, closes }) in queries.iter().enumerate() {
            writeln!(out, "statement ok\nCREATE MATERIALIZED VIEW v{index} {with}AS {query}\n")?;
            if *closes {
                let view = format!("c{index} {with}AS {query} {ON_CLOSE}");
                writeln!(out, "statement ok\nCREATE MATERIALIZED VIEW {view}\n")?;
            }
        }
        self.write_events(rest, early.len(), out)?;
        if !closed.is_empty() {
            for partition in 0..self.partitions {
                let last = format!(r#"{{"id": -1, "t": "{LAST_DAY}T12:00:00"}}"#);
                writeln!(out, "statement ok\nPRODUCE {} {partition} {last}\n", APPENDED[0])?;
            }
        }
        writeln!(out, "statement ok\nRUN")
    }

    fn write_events(&self, events: &[Event], first: usize, out: &mut String) -> std::fmt::Result {
        for (index, event) in events.iter().enumerate() {
            let at = first + index;
            out.push_str("statement ok\n");
            match event {
                Event::Append { source, row, ahead } => {
                    let record = record(at, at, row, *ahead);
                    writeln!(
                        out,
                        "PRODUCE {} {} {record}\n",
                        APPENDED[*source],
                        at % self.partitions
                    )?;
                }
                Event::Upsert { id, row, ahead } => {
                    let id = usize::from(*id);
                    let record = record(id, at, row, *ahead);
                    writeln!(out, "PRODUCE {UPSERTED} {} {record}\n", id % self.partitions)?;
                }
                Event::Delete { id } => {
                    let partition = usize::from(*id) % self.partitions;
                    writeln!(out, "PRODUCE {UPSERTED} {partition} KEY '{id}' TOMBSTONE\n")?;
                }
                Event::Step => out.push_str("STEP\n\n"),
                Event::Restart => out.push_str("RESTART\n\n"),
            }
        }
        Ok(())
    }
}

/// Which of the queries have a view that waits for its windows to close.
pub fn closed(queries: &[Kept]) -> impl Iterator<Item = usize> {
    queries.iter().enumerate().filter(|(_, kept)| kept.closes).map(|(index, _)| index)
}

/// The record of event `at`.
fn record(id: usize, at: usize, row: &Value, ahead: Option<u32>) -> Value {
    let mut fields = Map::from_iter([("id".to_owned(), json!(id))]);
    if let Some(ahead) = ahead {
        let second = at * STEP + ahead as usize;
        let time = format!("2024-01-01T00:{:02}:{:02}", second / 60, second % 60);
        fields.insert("t".into(), json!(time));
    }
    let values = row.as_object().into_iter().flatten();
    fields.extend(values.filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())));
    Value::Object(fields)
}
