//! Executes statements and meta-commands, and prints what they answer: what
//! `tidemill sql` is made of, with a terminal or without.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use futures::StreamExt;
use tidemill_sql::session::{Done, notice_of};

use crate::command::read_script;
use crate::declare;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::output::pager::Out;
use crate::output::{Style, row_writer, talk};
use crate::repl::meta::{self, Meta};
use crate::script::{self, Piece};
use crate::target::{Reply, Rows, Target};
use crate::units::{brief, grouped};

/// Rows that are printed between two looks at whether Ctrl-C was pressed.
const PRINTED_AT_ONCE: usize = 512;

/// How a statement came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Ctrl-C while it ran.
    Interrupted,
    /// Ctrl-C on rows that would never end: the way to leave them.
    TailLeft,
    /// `\q`.
    Quit,
}

/// Settings of one shell; meta-commands change them.
pub struct Shell {
    pub target: Arc<Target>,
    pub style: Style,
    pub timing: bool,
    pub pager: bool,
    /// A person is at the terminal.
    pub interactive: bool,
    /// Say what was done, statement by statement.
    pub tags: bool,
    /// Files may be run again: see [`declare`].
    pub rerun: bool,
    /// `\o`.
    file: Option<BufWriter<File>>,
    /// The last statement, for `\watch`.
    last: Option<String>,
}

impl Shell {
    pub fn new(target: Arc<Target>, style: Style) -> Self {
        Self {
            target,
            style,
            timing: false,
            pager: false,
            interactive: false,
            tags: false,
            rerun: false,
            file: None,
            last: None,
        }
    }

    /// Runs a script piece by piece; the first failure ends it. `name` says
    /// where it came from, for error messages.
    pub async fn script(&mut self, text: &str, name: Option<&str>) -> Result<Outcome> {
        for piece in script::split(text) {
            let outcome =
                self.piece(&piece).await.map_err(|error| placed(error, &piece, text, name))?;
            if outcome != Outcome::Done {
                return Ok(outcome);
            }
        }
        Ok(Outcome::Done)
    }

    /// Runs one statement or meta-command.
    async fn piece(&mut self, piece: &Piece) -> Result<Outcome> {
        if self.rerun {
            fit_for_files(piece)?;
        }
        if piece.meta {
            return Box::pin(self.meta(&piece.text)).await;
        }
        self.last = Some(piece.text.clone());
        self.statement(&piece.text).await
    }

    async fn meta(&mut self, text: &str) -> Result<Outcome> {
        match meta::parse(text)? {
            Meta::Quit => return Ok(Outcome::Quit),
            Meta::Help => self.say(meta::HELP)?,
            Meta::Show(sql) => return self.statement(&sql).await,
            Meta::Timing => {
                self.timing = !self.timing;
                talk(format!("Timing is {}.", on_off(self.timing)));
            }
            Meta::Expanded => {
                self.style.expanded = !self.style.expanded;
                talk(format!("Expanded display is {}.", on_off(self.style.expanded)));
            }
            Meta::Format(format) => self.style.format = format,
            Meta::Include(path) => {
                let text = read_script(Path::new(&path))?;
                return self.script(&text, Some(&path)).await;
            }
            Meta::Output(path) => self.redirect(path.as_deref())?,
            Meta::Watch(every) => return self.watch(every).await,
        }
        Ok(Outcome::Done)
    }

    fn redirect(&mut self, path: Option<&str>) -> Result<()> {
        if let Some(mut file) = self.file.take() {
            file.flush()?;
        }
        if let Some(path) = path {
            let file = File::create(path).with_context(|| format!("can't write {path}"))?;
            self.file = Some(BufWriter::new(file));
        }
        Ok(())
    }

    async fn watch(&mut self, every: Duration) -> Result<Outcome> {
        let Some(sql) = self.last.clone() else {
            talk("There is no statement to watch yet.");
            return Ok(Outcome::Done);
        };
        let mut interrupts = Interrupts::listen();
        loop {
            match self.statement(&sql).await? {
                Outcome::Done => {}
                Outcome::Interrupted => return Ok(Outcome::TailLeft),
                outcome => return Ok(outcome),
            }
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = interrupts.next() => return Ok(Outcome::TailLeft),
            }
        }
    }

    async fn statement(&mut self, sql: &str) -> Result<Outcome> {
        let started = Instant::now();
        let mut interrupts = Interrupts::listen();
        let target = self.target.clone();
        let reply = tokio::select! {
            biased;
            () = interrupts.next() => return Ok(self.interrupted()),
            reply = self.execute(&target, sql) => reply?,
        };
        let outcome = match reply {
            Reply::Done(done) => {
                self.done(&done);
                Outcome::Done
            }
            Reply::Rows(rows) => self.rows(sql, rows, &mut interrupts).await?,
        };
        if self.timing && outcome == Outcome::Done {
            talk(format!("Time: {}", brief(started.elapsed())));
        }
        Ok(outcome)
    }

    async fn execute(&self, target: &Target, sql: &str) -> Result<Reply, tidemill_sql::Error> {
        if self.rerun
            && let Some(done) = declare::runs_already(target, sql).await
        {
            return Ok(Reply::Done(done));
        }
        match target.execute(sql).await {
            Err(error) if self.rerun => Ok(Reply::Done(declare::settle(target, sql, error).await?)),
            reply => reply,
        }
    }

    fn done(&self, done: &Done) {
        if let Some(notice) = &done.notice {
            talk(format!("note: {notice}"));
        }
        match done.rows {
            Some(1) => talk(format!("{} (1 row)", done.tag)),
            Some(rows) => talk(format!("{} ({} rows)", done.tag, grouped(rows))),
            None if self.interactive || self.tags => talk(&done.tag),
            None => {}
        }
    }

    async fn rows(
        &mut self,
        sql: &str,
        rows: Rows,
        interrupts: &mut Interrupts,
    ) -> Result<Outcome> {
        let endless = script::leading_words(sql, 1).first().is_some_and(|word| word == "SUBSCRIBE");
        let mut out = match &mut self.file {
            Some(file) => Out::File(file),
            None if self.pager && !endless => Out::terminal(),
            None => Out::stdout(),
        };
        let paged = matches!(out, Out::Paged(_));
        let printed = print(rows, self.style, endless, &mut out, interrupts).await;
        let closed = printed.and_then(|(outcome, notices)| {
            out.close()?;
            notices.iter().for_each(|notice| talk(format!("note: {notice}")));
            Ok(outcome)
        });
        match closed {
            // Somebody read as much as they wanted and left the pager.
            Err(error) if paged && is_broken_pipe(&error) => Ok(Outcome::Done),
            Ok(Outcome::Interrupted) => {
                let outcome = self.interrupted();
                Ok(if endless { Outcome::TailLeft } else { outcome })
            }
            closed => closed,
        }
    }

    fn interrupted(&self) -> Outcome {
        if self.interactive {
            talk("Cancelled.");
        }
        Outcome::Interrupted
    }

    fn say(&self, text: &str) -> Result<()> {
        let mut out = if self.pager { Out::terminal() } else { Out::stdout() };
        writeln!(out, "{}", text.trim_end())?;
        Ok(out.close()?)
    }
}

/// Prints rows until they end or Ctrl-C comes. Answers the notices among them, too.
async fn print(
    rows: Rows,
    style: Style,
    endless: bool,
    out: &mut Out<'_>,
    interrupts: &mut Interrupts,
) -> Result<(Outcome, Vec<String>)> {
    let mut notices = Vec::new();
    let mut writer = row_writer(style, rows.schema);
    let mut batches = rows.batches;
    let outcome = 'rows: loop {
        let batch = tokio::select! {
            biased;
            () = interrupts.next() => break Outcome::Interrupted,
            batch = batches.next() => batch,
        };
        let Some(batch) = batch else { break Outcome::Done };
        let batch = batch?;
        notices.extend(notice_of(&batch));
        for part in parts(&batch) {
            if interrupts.came() {
                break 'rows Outcome::Interrupted;
            }
            writer.batch(out, &part)?;
        }
        if endless && batch.num_rows() > 0 {
            writer.flush(out)?;
            out.flush()?;
        }
    };
    if outcome == Outcome::Done || endless {
        writer.finish(out)?;
    }
    Ok((outcome, notices))
}

/// A batch in pieces of [`PRINTED_AT_ONCE`] rows.
fn parts(batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> {
    let rows = batch.num_rows();
    (0..rows)
        .step_by(PRINTED_AT_ONCE)
        .map(move |start| batch.slice(start, PRINTED_AT_ONCE.min(rows - start)))
}

/// What makes sense at a prompt only is refused in files that are run or submitted.
fn fit_for_files(piece: &Piece) -> Result<(), tidemill_sql::Error> {
    if piece.meta {
        return Err(tidemill_sql::Error::syntax(format!("{} is no statement", piece.text))
            .with_hint("commands that start with \\ are for `tidemill sql`"));
    }
    if script::leading_words(&piece.text, 1).first().is_some_and(|word| word == "SUBSCRIBE") {
        return Err(tidemill_sql::Error::refused(
            "SUBSCRIBE never ends, so nothing after it would run",
        )
        .with_hint("use it in `tidemill sql`"));
    }
    Ok(())
}

/// A statement's error, drawn into the script that it stands in.
fn placed(error: anyhow::Error, piece: &Piece, text: &str, name: Option<&str>) -> anyhow::Error {
    match error.downcast::<tidemill_sql::Error>() {
        Ok(error) => Failure::in_script(&error, piece, text, name).into(),
        Err(error) if is_broken_pipe(&error) || error.is::<Failure>() => error,
        Err(error) => match name {
            Some(name) => error.context(format!("{name}:{}:{}", piece.line, piece.column)),
            None => error,
        },
    }
}

/// Whether the reader of our output has gone.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|io| io.kind() == ErrorKind::BrokenPipe)
            // The CSV and JSON writers of arrow keep only its text.
            || cause.to_string().contains("Broken pipe")
    })
}

fn on_off(flag: bool) -> &'static str {
    if flag { "on" } else { "off" }
}
