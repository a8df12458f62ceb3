//! The table a person reads, in psql's shape.
//!
//! ```text
//!  order_id | city
//! ----------+--------
//!         1 | Aachen
//! (1 row)
//! ```
//!
//! Columns are measured over the first rows ([`MEASURED`]); later rows of a big
//! result flow through at those widths, so that memory stays small.

use std::io::Write;

use anyhow::Result;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use unicode_width::UnicodeWidthStr;

use super::{RowWriter, formatters};
use crate::units::grouped;

/// Rows that are held back to find the columns' widths.
const MEASURED: usize = 1_000;

pub struct Table {
    schema: SchemaRef,
    /// Held back until the widths are known.
    pending: Vec<Vec<String>>,
    /// Known once the header is printed.
    widths: Option<Vec<usize>>,
    rows: u64,
}

impl Table {
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, pending: Vec::new(), widths: None, rows: 0 }
    }

    fn measure(&self) -> Vec<usize> {
        let names = self.schema.fields().iter().map(|field| field.name().width());
        let mut widths: Vec<usize> = names.collect();
        for row in &self.pending {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.lines().map(UnicodeWidthStr::width).max().unwrap_or(0));
            }
        }
        widths
    }

    fn header(&self, out: &mut dyn Write, widths: &[usize]) -> Result<()> {
        let names: Vec<String> =
            self.schema.fields().iter().map(|field| field.name().clone()).collect();
        self.row(out, widths, &names)?;
        let rules: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
        Ok(writeln!(out, "{}", rules.join("+"))?)
    }

    /// One row; a cell of many lines makes it as tall as it needs.
    fn row(&self, out: &mut dyn Write, widths: &[usize], cells: &[String]) -> Result<()> {
        let height = cells.iter().map(|cell| cell.lines().count()).max().unwrap_or(1).max(1);
        for line in 0..height {
            let mut text = String::new();
            for (i, (cell, width)) in cells.iter().zip(widths).enumerate() {
                let part = cell.lines().nth(line).unwrap_or("");
                let space = " ".repeat(width.saturating_sub(part.width()));
                let right = self.schema.field(i).data_type().is_numeric();
                let (before, after) =
                    if right { (space.as_str(), "") } else { ("", space.as_str()) };
                text.push_str(if i == 0 { " " } else { " | " });
                text.push_str(before);
                text.push_str(part);
                text.push_str(after);
            }
            writeln!(out, "{}", text.trim_end())?;
        }
        Ok(())
    }

    fn held_back(&mut self, out: &mut dyn Write) -> Result<()> {
        let widths = match self.widths.take() {
            Some(widths) => widths,
            None => {
                let widths = self.measure();
                self.header(out, &widths)?;
                widths
            }
        };
        for row in std::mem::take(&mut self.pending) {
            self.row(out, &widths, &row)?;
        }
        self.widths = Some(widths);
        Ok(())
    }
}

impl RowWriter for Table {
    fn batch(&mut self, out: &mut dyn Write, batch: &RecordBatch) -> Result<()> {
        let formatters = formatters(batch)?;
        for row in 0..batch.num_rows() {
            let cells = formatters.iter().map(|column| column.value(row).to_string());
            self.pending.push(cells.collect());
            if self.pending.len() >= MEASURED {
                self.held_back(out)?;
            }
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn flush(&mut self, out: &mut dyn Write) -> Result<()> {
        if !self.pending.is_empty() {
            self.held_back(out)?;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<()> {
        self.held_back(out)?;
        let noun = if self.rows == 1 { "row" } else { "rows" };
        Ok(writeln!(out, "({} {noun})", grouped(self.rows))?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    fn printed(batch: &RecordBatch) -> String {
        let mut out = Vec::new();
        let mut table = Table::new(batch.schema());
        table.batch(&mut out, batch).unwrap();
        table.finish(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn batch(ids: Vec<Option<i64>>, names: Vec<Option<&str>>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable([
            ("id", Arc::new(Int64Array::from(ids)) as _, true),
            ("name", Arc::new(StringArray::from(names)) as _, true),
        ])
        .unwrap()
    }

    #[test]
    fn numbers_stand_right_and_null_is_shown() {
        let text =
            printed(&batch(vec![Some(1), Some(1234), None], vec![Some("ä"), None, Some("")]));
        assert_eq!(
            text,
            "   id | name\n------+------\n    1 | ä\n 1234 | NULL\n NULL |\n(3 rows)\n"
        );
    }

    #[test]
    fn a_cell_of_many_lines_stays_in_its_column() {
        let text = printed(&batch(vec![Some(1)], vec![Some("a\n  b")]));
        assert_eq!(text, " id | name\n----+------\n  1 | a\n    |   b\n(1 row)\n");
    }

    #[test]
    fn rows_after_the_measured_ones_are_printed_too() {
        let n = 2_500;
        let text = printed(&batch((0..n).map(Some).collect(), vec![Some("x"); n as usize]));
        assert_eq!(text.lines().count(), n as usize + 3);
        assert!(text.ends_with("(2,500 rows)\n"));
    }
}
