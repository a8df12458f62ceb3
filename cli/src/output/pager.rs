//! Where rows go: stdout, a pager when they don't fit the terminal, or a file (`\o`).
//!
//! Output is kept until it is taller or wider than the terminal; only then a
//! pager is started, so that small results stay on the screen as they are.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::{Child, Command, Stdio};

use ratatui::crossterm::terminal;
use unicode_width::UnicodeWidthStr;

/// A writer for one result.
pub enum Out<'a> {
    Stdout(BufWriter<io::Stdout>),
    File(&'a mut BufWriter<File>),
    Paged(Paged),
}

impl<'a> Out<'a> {
    pub fn stdout() -> Self {
        Out::Stdout(BufWriter::new(io::stdout()))
    }

    /// A pager where stdout is a terminal, plain stdout elsewhere.
    pub fn terminal() -> Self {
        match Paged::new() {
            Some(paged) if io::stdout().is_terminal() => Out::Paged(paged),
            _ => Out::stdout(),
        }
    }

    /// Prints what is left and waits for the pager to be closed.
    pub fn close(self) -> io::Result<()> {
        match self {
            Out::Stdout(mut out) => out.flush(),
            Out::File(out) => out.flush(),
            Out::Paged(paged) => paged.close(),
        }
    }
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Out::Stdout(out) => out.write(bytes),
            Out::File(out) => out.write(bytes),
            Out::Paged(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Out::Stdout(out) => out.flush(),
            Out::File(out) => out.flush(),
            Out::Paged(out) => out.flush(),
        }
    }
}

/// Output that may turn out to need a pager.
pub struct Paged {
    command: OsString,
    columns: usize,
    rows: usize,
    held: Vec<u8>,
    lines: usize,
    child: Option<Child>,
}

impl Paged {
    fn new() -> Option<Self> {
        let command = std::env::var_os("PAGER").or_else(less)?;
        if command.is_empty() || command == "cat" {
            return None;
        }
        let (columns, rows) = terminal::size().ok().filter(|(_, rows)| *rows > 0)?;
        Some(Self {
            command,
            columns: columns.into(),
            rows: rows.into(),
            held: Vec::new(),
            lines: 0,
            child: None,
        })
    }

    fn fits(&mut self, bytes: &[u8]) -> bool {
        self.lines += bytes.iter().filter(|byte| **byte == b'\n').count();
        let wide = bytes.split(|byte| *byte == b'\n').any(|line| {
            line.len() > self.columns && String::from_utf8_lossy(line).width() > self.columns
        });
        !wide && self.lines + 1 < self.rows
    }

    /// Starts the pager; without one, output just goes on to stdout.
    fn start(&mut self) -> io::Result<()> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(&self.command).stdin(Stdio::piped());
        if std::env::var_os("LESS").is_none() {
            shell.env("LESS", "-SRFX");
        }
        match shell.spawn() {
            Ok(child) => self.child = Some(child),
            Err(_) => self.rows = usize::MAX,
        }
        let held = std::mem::take(&mut self.held);
        self.pass_on(&held)
    }

    fn pass_on(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.child.as_mut().and_then(|child| child.stdin.as_mut()) {
            Some(stdin) => stdin.write_all(bytes),
            None => io::stdout().write_all(bytes),
        }
    }

    fn close(mut self) -> io::Result<()> {
        let Some(mut child) = self.child.take() else {
            io::stdout().write_all(&self.held)?;
            return io::stdout().flush();
        };
        drop(child.stdin.take());
        child.wait().map(|_| ())
    }
}

/// The usual pager, where it is installed.
fn less() -> Option<OsString> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).any(|folder| folder.join("less").is_file());
    found.then(|| "less".into())
}

impl Drop for Paged {
    /// A result that failed half-way: the pager still gets its terminal to itself.
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

impl Write for Paged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.child.is_some() {
            self.pass_on(bytes)?;
        } else {
            self.held.extend_from_slice(bytes);
            if !self.fits(bytes) {
                self.start()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.child.as_mut().and_then(|child| child.stdin.as_mut()) {
            Some(stdin) => stdin.flush(),
            None => Ok(()),
        }
    }
}
