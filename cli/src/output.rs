//! Rows to text: `table`, `csv`, `json`, `ndjson`, batch by batch.
//!
//! stdout is data, stderr is talk: rows go to an [`Out`](pager::Out), everything
//! that is said about them through [`talk`].

pub mod expanded;
pub mod pager;
pub mod table;
pub mod text;

use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::args::Format;
use crate::progress;

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    pub format: Format,
    /// Table only: a line a column instead of a line a row.
    pub expanded: bool,
}

/// Prints batches of one result.
pub trait RowWriter: Send {
    fn batch(&mut self, out: &mut dyn Write, batch: &RecordBatch) -> Result<()>;

    /// Prints what is held back to align it: rows of an endless result can't wait.
    fn flush(&mut self, out: &mut dyn Write) -> Result<()>;

    /// Prints what is left, and what belongs at the end.
    fn finish(&mut self, out: &mut dyn Write) -> Result<()>;
}

/// A writer for rows of that schema.
pub fn row_writer(style: Style, schema: SchemaRef) -> Box<dyn RowWriter> {
    match style.format {
        Format::Table if style.expanded => Box::new(expanded::Expanded::new(schema)),
        Format::Table => Box::new(table::Table::new(schema)),
        Format::Csv => Box::new(text::Csv::new(schema)),
        Format::Json => Box::new(text::Json::array()),
        Format::Ndjson => Box::new(text::Json::lines()),
    }
}

/// Formatters for the columns of a batch, NULL shown.
fn formatters(batch: &RecordBatch) -> Result<Vec<ArrayFormatter<'_>>> {
    const OPTIONS: FormatOptions<'_> =
        FormatOptions::new().with_null("NULL").with_display_error(true);
    let columns = batch.columns().iter();
    Ok(columns.map(|column| ArrayFormatter::try_new(column, &OPTIONS)).collect::<Result<_, _>>()?)
}

/// Says something on stderr; that nobody listens is no error.
pub fn talk(line: impl AsRef<str>) {
    progress::suspended(|| {
        let _ = writeln!(io::stderr(), "{}", line.as_ref());
    });
}

/// Whether colours are welcome: a terminal, and no `NO_COLOR`.
pub fn colour(stream: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stream.is_terminal() && !refused && !dumb
}
