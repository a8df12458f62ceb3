//! The live view: throughput, queries, result tables moving, how to connect.
//!
//! [`draw`] is a plain function from [`Picture`] to a frame; the terminal and
//! its keys are round it.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::Result;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table};
use ratatui::{DefaultTerminal, Frame};
use tidemill_sql::session::QueryStatus;
use tokio::sync::mpsc;

use super::Plan;
use super::monitor::{self, ViewSample};
use super::stage::Stage;
use crate::interrupt::stop;
use crate::units::{brief, grouped};

/// How often the picture changes.
const REDRAW: Duration = Duration::from_millis(250);

/// Everything that one frame shows.
#[derive(Debug, Default)]
pub struct Picture {
    pub elapsed: Duration,
    pub produced: u64,
    /// Rows committed over all queries, a second, oldest first.
    pub throughput: Vec<u64>,
    pub queries: Vec<QueryStatus>,
    pub views: Vec<ViewSample>,
    pub connect: Vec<String>,
}

/// A view needs a terminal to draw on and keys to leave it by.
pub fn possible() -> bool {
    std::io::stdout().is_terminal() && std::io::stdin().is_terminal()
}

/// Keys that mean "leave", from a thread that reads the terminal.
fn leaving() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            let ready = event::poll(Duration::from_millis(200));
            match ready.and_then(|ready| if ready { event::read().map(Some) } else { Ok(None) }) {
                Ok(Some(Event::Key(key))) if leaves(key) => {
                    let _ = sender.blocking_send(());
                    return;
                }
                Ok(_) => {}
                // A terminal that is gone can't be looked at either.
                Err(_) => {
                    let _ = sender.blocking_send(());
                    return;
                }
            }
        }
    });
    receiver
}

fn leaves(key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => true,
        KeyCode::Char('c' | 'd') => control,
        _ => false,
    }
}

/// Draws until the time is over, or somebody leaves.
pub async fn play(plan: &Plan, stage: &Stage) -> Result<()> {
    let mut terminal = ratatui::try_init()?;
    let mut keys = leaving();
    let played = tokio::select! {
        played = animate(&mut terminal, plan, stage) => played,
        _ = keys.recv() => Ok(()),
        stopped = stop() => stopped,
    };
    drop(keys);
    ratatui::restore();
    played
}

async fn animate(terminal: &mut DefaultTerminal, plan: &Plan, stage: &Stage) -> Result<()> {
    let mut picture = Picture { connect: stage.connect_lines(), ..Picture::default() };
    let mut second = Second::default();
    while plan.duration.is_none_or(|duration| stage.started.elapsed() < duration) {
        stage.fault()?;
        picture.elapsed = stage.started.elapsed();
        picture.produced = stage.tally().events;
        picture.queries = stage.database.queries();
        picture.views = monitor::look(&stage.target, true).await?;
        stage.feed.ages.record(&picture.views);
        let committed = picture.queries.iter().map(|query| query.rows_written).sum();
        picture.throughput.extend(second.over(committed));
        terminal.draw(|frame| draw(frame, &picture))?;
        tokio::time::sleep(REDRAW).await;
    }
    Ok(())
}

/// Turns a growing count into one number a second.
struct Second {
    since: Instant,
    count: u64,
}

impl Default for Second {
    fn default() -> Self {
        Self { since: Instant::now(), count: 0 }
    }
}

impl Second {
    /// The rate over the second that has just ended.
    fn over(&mut self, count: u64) -> Option<u64> {
        let elapsed = self.since.elapsed().as_secs_f64();
        if elapsed < 1.0 {
            return None;
        }
        let rate = count.saturating_sub(self.count) as f64 / elapsed;
        *self = Self { since: Instant::now(), count };
        Some(rate as u64)
    }
}

fn draw(frame: &mut Frame<'_>, picture: &Picture) {
    let connect = picture.connect.len() as u16 + 2;
    let queries = picture.queries.len() as u16 + 3;
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(5),
        Constraint::Length(queries),
        Constraint::Min(4),
        Constraint::Length(connect),
    ])
    .split(frame.area());
    frame.render_widget(headline(picture), areas[0]);
    throughput(frame, picture, areas[1]);
    frame.render_widget(queries_table(&picture.queries), areas[2]);
    views(frame, &picture.views, areas[3]);
    let lines: Vec<Line<'_>> =
        picture.connect.iter().map(|line| Line::raw(line.as_str())).collect();
    frame
        .render_widget(Paragraph::new(lines).block(Block::bordered().title(" Connect ")), areas[4]);
}

fn headline(picture: &Picture) -> Paragraph<'_> {
    let text = format!(
        " Tidemill demo   {}   {} events produced   q leaves",
        brief(picture.elapsed),
        grouped(picture.produced),
    );
    Paragraph::new(text).style(accent(Color::Cyan))
}

fn throughput(frame: &mut Frame<'_>, picture: &Picture, area: Rect) {
    let now = picture.throughput.last().copied().unwrap_or(0);
    let title = format!(" Rows committed a second, all queries: {} ", grouped(now));
    let width = usize::from(area.width.saturating_sub(2));
    let shown = &picture.throughput[picture.throughput.len().saturating_sub(width)..];
    let line = Sparkline::default()
        .block(Block::bordered().title(title))
        .data(shown.iter().copied())
        .style(colour(Color::Green));
    frame.render_widget(line, area);
}

fn queries_table(queries: &[QueryStatus]) -> Table<'_> {
    let header =
        ["query", "state", "epoch", "read", "written", "rows/s", "lag", "fresh", "rejected"];
    let rows = queries.iter().map(|query| {
        let fresh = query.freshness.map_or("–".into(), brief);
        Row::new([
            query.name.clone(),
            query.state.clone(),
            query.epoch.to_string(),
            grouped(query.rows_read),
            grouped(query.rows_written),
            grouped(query.rate as u64),
            grouped(query.backlog),
            fresh,
            grouped(query.rows_rejected),
        ])
        .style(if query.state == "failed" { accent(Color::Red) } else { Style::new() })
    });
    let mut widths = vec![Constraint::Min(18), Constraint::Length(9), Constraint::Length(7)];
    widths.extend([Constraint::Length(11); 6]);
    Table::new(rows, widths)
        .header(Row::new(header).style(bold()))
        .block(Block::bordered().title(" Continuous queries "))
}

/// The result tables beside one another, newest rows on top.
fn views(frame: &mut Frame<'_>, views: &[ViewSample], area: Rect) {
    if views.is_empty() {
        return;
    }
    let share = Constraint::Ratio(1, views.len() as u32);
    let areas = Layout::horizontal(vec![share; views.len()]).split(area);
    for (view, area) in views.iter().zip(areas.iter()) {
        frame.render_widget(view_table(view), *area);
    }
}

fn view_table(view: &ViewSample) -> Table<'_> {
    let age = view.age.map(|age| format!(", newest {} old", brief(age))).unwrap_or_default();
    let title = format!(" {}: {} rows{age} ", view.name, grouped(view.rows));
    let header = Row::new(view.header.iter().map(|name| Cell::new(name.as_str()))).style(bold());
    let rows =
        view.latest.iter().map(|row| Row::new(row.iter().map(|cell| Cell::new(cell.as_str()))));
    let widths = vec![Constraint::Fill(1); view.header.len()];
    Table::new(rows, widths).header(header).block(Block::bordered().title(title))
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn accent(wanted: Color) -> Style {
    colour(wanted).add_modifier(Modifier::BOLD)
}

fn colour(wanted: Color) -> Style {
    match std::env::var_os("NO_COLOR") {
        Some(value) if !value.is_empty() => Style::new(),
        _ => Style::new().fg(wanted),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn picture() -> Picture {
        Picture {
            elapsed: Duration::from_secs(12),
            produced: 24_000,
            throughput: vec![1_000, 2_000],
            queries: vec![QueryStatus {
                name: "paid_orders".into(),
                state: "running".into(),
                reason: None,
                epoch: 17,
                rows_read: 8_000,
                rows_written: 6_500,
                rows_rejected: 3,
                backlog: 12,
                freshness: Some(Duration::from_millis(80)),
                rate: 667.0,
                ..QueryStatus::default()
            }],
            views: vec![ViewSample {
                name: "paid_orders".into(),
                rows: 6_500,
                age: Some(Duration::from_millis(120)),
                header: vec!["order_id".into(), "city".into()],
                latest: vec![vec!["7999".into(), "Aachen".into()]],
            }],
            connect: vec!["tidemill sql --connect grpc://127.0.0.1:50051".into()],
        }
    }

    fn drawn(picture: &Picture, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, picture)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn everything_that_moves_is_on_the_screen() {
        let text = drawn(&picture(), 120, 30);
        for part in
            ["24,000 events", "second, all queries: 2,000", "6,500", "80 ms", "Aachen", "--connect"]
        {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn a_tiny_terminal_or_an_empty_picture_is_no_panic() {
        for (width, height) in [(1, 1), (20, 5), (300, 3)] {
            drawn(&picture(), width, height);
            drawn(&Picture::default(), width, height);
        }
    }
}
