//! A row as lines, a column each: for rows wider than the terminal (`\x`).

use std::io::Write;

use anyhow::Result;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use unicode_width::UnicodeWidthStr;

use super::{RowWriter, formatters};
use crate::units::grouped;

pub struct Expanded {
    schema: SchemaRef,
    width: usize,
    rows: u64,
}

impl Expanded {
    pub fn new(schema: SchemaRef) -> Self {
        let width = schema.fields().iter().map(|field| field.name().width()).max().unwrap_or(0);
        Self { schema, width, rows: 0 }
    }
}

impl RowWriter for Expanded {
    fn batch(&mut self, out: &mut dyn Write, batch: &RecordBatch) -> Result<()> {
        let formatters = formatters(batch)?;
        for row in 0..batch.num_rows() {
            self.rows += 1;
            writeln!(out, "-[ row {} ]{}", self.rows, "-".repeat(self.width))?;
            for (field, column) in self.schema.fields().iter().zip(&formatters) {
                let value = column.value(row).to_string();
                let space = " ".repeat(self.width - field.name().width());
                let mut lines = value.lines();
                writeln!(out, "{}{space} | {}", field.name(), lines.next().unwrap_or(""))?;
                for line in lines {
                    writeln!(out, "{} | {line}", " ".repeat(self.width))?;
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self, _out: &mut dyn Write) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<()> {
        let noun = if self.rows == 1 { "row" } else { "rows" };
        Ok(writeln!(out, "({} {noun})", grouped(self.rows))?)
    }
}
