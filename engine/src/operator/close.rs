//! `EMIT ON WINDOW CLOSE`: rows are held back until the watermark passes the end of
//! their window; then they are put out, once and for good.

use arrow::array::RecordBatch;
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use crate::error::Result;
use crate::operator::rows::{Closing, batch, below};
use crate::operator::side::Side;
use crate::operator::states::Change;
use crate::operator::{Epoch, Operator, Step};
use crate::state::{Address, TableSpec};

/// Holds the rows of open windows back. Its side is keyed by the closing column.
#[derive(Debug)]
pub struct Close {
    pub side: Side,
    pub closing: Closing,
}

#[async_trait]
impl Operator for Close {
    fn tables(&self) -> Vec<TableSpec> {
        vec![self.side.table()]
    }

    fn schema(&self) -> SchemaRef {
        self.side.rows.clone()
    }

    async fn step(&self, epoch: Epoch<'_>) -> Result<Step> {
        let Epoch { tables, inputs, moment, .. } = epoch;
        let table = &tables[0];
        let (arrived, late) = self.side.arrive(&inputs[0], moment)?;
        let mut remove = self.side.taken(table, &arrived.changes)?;
        let mut put = arrived.changes.inserted()?;
        let mut output = Vec::new();
        let ty = self.side.rows.field(self.closing.column).data_type();
        if let Some(bound) = self.closing.closed(ty, moment) {
            let taken: std::collections::HashSet<Address> = remove.iter().copied().collect();
            let due = table.below(self.closing.column, bound)?;
            let due: Vec<Address> = due.into_iter().filter(|at| !taken.contains(at)).collect();
            let columns = table.gather(&due, Some(&self.side.row_columns()))?;
            output.push(batch(&self.side.rows, columns, due.len())?);
            let over = below(put.column(self.closing.column), bound)?;
            output.push(filter_record_batch(&put, &over)?);
            put = filter_record_batch(&put, &not(&over)?)?;
            remove.extend(due);
        }
        let output: Vec<RecordBatch> = output.into_iter().filter(|b| b.num_rows() > 0).collect();
        let put = self.side.stored(&put)?;
        let changes = vec![Change::new(0, remove, (self.side.stored_keys(&put)?, put))];
        Ok(Step { output, changes, late })
    }
}
