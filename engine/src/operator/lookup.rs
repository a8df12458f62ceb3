//! Rows that change, joined with a lake table.
//!
//! A row that is taken away must look as it did when it was put in, but the table may have
//! changed since. So what each row was joined with is kept, by the row's key. A key whose row
//! comes, changes or goes gives up what it has; what its row is joined with now takes the
//! place.

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use async_trait::async_trait;

use crate::changelog::{consolidate, join, with_weight};
use crate::error::Result;
use crate::operator::rows::batch;
use crate::operator::side::{Keyed, Side};
use crate::operator::{Epoch, Operator, Step};
use crate::state::TableSpec;

/// Keeps the joined rows of each key. Its input is the joined rows that are put in, and the
/// rows that are taken away, of which the key alone counts.
#[derive(Debug)]
pub struct Lookup {
    pub side: Side,
    /// Columns of the result, without weight.
    pub rows: SchemaRef,
    /// The input's last column says how many of a row there are.
    pub copies: bool,
}

impl Lookup {
    fn weighed(&self, rows: &RecordBatch, sign: i64) -> Result<RecordBatch> {
        let n = rows.num_rows();
        let mut columns = rows.columns().to_vec();
        let copies = if self.copies { columns.pop() } else { None };
        let weights = match copies {
            Some(copies) => copies.as_primitive::<Int64Type>().unary(|count| count * sign),
            None => Int64Array::from_value(sign, n),
        };
        join(&batch(&self.rows, columns, n)?, weights)
    }
}

#[async_trait]
impl Operator for Lookup {
    fn tables(&self) -> Vec<TableSpec> {
        vec![self.side.table()]
    }

    fn schema(&self) -> SchemaRef {
        with_weight(&self.rows)
    }

    async fn step(&self, epoch: Epoch<'_>) -> Result<Step> {
        let Epoch { tables, inputs, moment, .. } = epoch;
        let table = &tables[0];
        let (arrived, late) = self.side.arrive(&inputs[0], moment)?;
        if arrived.changes.is_empty() {
            let changes = self.side.replace(0, table, Vec::new(), &arrived.changes.rows, moment)?;
            return Ok(Step { changes, late, ..Step::default() });
        }
        let held = table.get_all(&Keyed::of(&[&arrived])?.keys()?)?.rows;
        let columns = table.gather(&held, Some(&self.side.row_columns()))?;
        let old = batch(&self.side.rows, columns, held.len())?;
        let new = arrived.changes.inserted()?;
        let output = [self.weighed(&old, -1)?, self.weighed(&new, 1)?];
        let output = vec![consolidate(&with_weight(&self.rows), &output)?];
        let changes = self.side.replace(0, table, held, &new, moment)?;
        Ok(Step { output, changes, late })
    }
}
