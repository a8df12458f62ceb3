//! Progress on stderr: bars on a terminal, plain lines every few seconds elsewhere.

use std::collections::BTreeMap;
use std::io::{IsTerminal, stderr};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tidemill_sql::session::{Progress, QueryStatus};

use crate::output::talk;
use crate::units::{brief, grouped};

/// How often plain lines come.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

static BARS: OnceLock<MultiProgress> = OnceLock::new();

fn bars() -> &'static MultiProgress {
    BARS.get_or_init(MultiProgress::new)
}

/// Does something to the terminal while no bar is drawn.
pub fn suspended<R>(f: impl FnOnce() -> R) -> R {
    match BARS.get() {
        Some(bars) => bars.suspend(f),
        None => f(),
    }
}

/// Whether bars can be drawn.
pub fn lively() -> bool {
    stderr().is_terminal()
}

/// A bar over work whose end is known, or a spinner where it isn't.
pub struct Bar {
    bar: Option<ProgressBar>,
    noun: &'static str,
    started: Instant,
    said: Instant,
}

impl Bar {
    pub fn new(noun: &'static str) -> Self {
        let bar = lively().then(|| bars().add(ProgressBar::no_length()));
        let now = Instant::now();
        Self { bar, noun, started: now, said: now }
    }

    pub fn update(&mut self, progress: Progress) {
        let Progress { rows_done, rows_total } = progress;
        match &self.bar {
            Some(bar) => {
                if rows_total > 0 && bar.length() != Some(rows_total) {
                    bar.set_length(rows_total);
                    bar.set_style(style("{bar:30} {percent:>3}% {msg} (ETA {eta})"));
                }
                bar.set_position(rows_done);
                bar.set_message(self.line(progress));
            }
            None if self.said.elapsed() >= PLAIN_EVERY => {
                self.said = Instant::now();
                talk(self.line(progress));
            }
            None => {}
        }
    }

    fn line(&self, progress: Progress) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-3);
        let rate = grouped((progress.rows_done as f64 / seconds) as u64);
        let of = match progress.rows_total {
            0 => String::new(),
            total => format!(" of {}", grouped(total)),
        };
        format!("{}{of} {}, {rate}/s", grouped(progress.rows_done), self.noun)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A line a continuous query: rate, backlog, freshness.
pub struct QueryLines {
    lines: BTreeMap<String, ProgressBar>,
    said: Option<Instant>,
    states: BTreeMap<String, String>,
}

impl QueryLines {
    pub fn new() -> Self {
        Self { lines: BTreeMap::new(), said: None, states: BTreeMap::new() }
    }

    pub fn update(&mut self, queries: &[QueryStatus]) {
        self.changes(queries);
        if lively() {
            self.draw(queries);
        } else if self.said.is_none_or(|said| said.elapsed() >= PLAIN_EVERY) {
            self.said = Some(Instant::now());
            queries.iter().for_each(|query| talk(query_line(query)));
        }
    }

    /// A query that fails or recovers is worth a line that stays.
    fn changes(&mut self, queries: &[QueryStatus]) {
        for query in queries {
            let before = self.states.insert(query.name.clone(), query.state.clone());
            if before.is_some_and(|before| before != query.state) {
                let reason = query.reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default();
                talk(format!("{} is now {}{reason}", query.name, query.state));
            }
        }
    }

    fn draw(&mut self, queries: &[QueryStatus]) {
        self.lines.retain(|name, line| {
            let stays = queries.iter().any(|query| &query.name == name);
            if !stays {
                line.finish_and_clear();
            }
            stays
        });
        for query in queries {
            let line = self.lines.entry(query.name.clone()).or_insert_with(|| {
                let line =
                    bars().add(ProgressBar::no_length().with_style(style("{spinner} {msg}")));
                line.enable_steady_tick(Duration::from_millis(200));
                line
            });
            line.set_message(query_line(query));
        }
    }
}

/// Lines that nobody moves on any more go away.
impl Drop for QueryLines {
    fn drop(&mut self) {
        self.lines.values().for_each(ProgressBar::finish_and_clear);
    }
}

/// `paid: 1,200 rows read, 1,180 written, 400/s, backlog 0, 0.2 s old`.
pub fn query_line(query: &QueryStatus) -> String {
    let mut line = format!(
        "{}: {} rows read, {} written, {}/s, backlog {}",
        query.name,
        grouped(query.rows_read),
        grouped(query.rows_written),
        grouped(query.rate as u64),
        grouped(query.backlog),
    );
    if let Some(freshness) = query.freshness {
        line.push_str(&format!(", {} old", brief(freshness)));
    }
    if query.rows_rejected > 0 {
        line.push_str(&format!(", {} rejected", grouped(query.rows_rejected)));
    }
    if query.state != "running" {
        line.push_str(&format!(" ({})", query.state));
    }
    line
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
