//! A source with a primary key: a later row with the same key takes the place of
//! the earlier one.
//!
//! Many rows of one key in one epoch fold to the last, with one retraction of the
//! old. The order is that of the offsets within a partition; the same key in two
//! partitions is the producer's mistake.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use crate::changelog::{join, with_weight};
use crate::error::Result;
use crate::operator::numbers::Numbers;
use crate::operator::rows::{batch, normalized, take_rows};
use crate::operator::states::Change;
use crate::operator::{Epoch, Operator, Step};
use crate::state::{Address, Keys, Table, TableSpec};

/// Keeps the last row of every key.
#[derive(Debug)]
pub struct Upsert {
    /// Columns of the source's rows.
    pub rows: SchemaRef,
    /// Which of them are the key.
    pub key: Vec<usize>,
    /// The column that says that a row deletes its key (a tombstone), if there is one.
    pub deletes: Option<usize>,
}

/// The last row of every key of an epoch.
struct Last {
    rows: RecordBatch,
    keys: Keys,
    deletes: Vec<bool>,
}

impl Upsert {
    fn last(&self, batches: &[RecordBatch]) -> Result<Last> {
        let all = concat_batches(&self.rows, batches)?;
        let columns: Vec<ArrayRef> =
            self.key.iter().map(|column| Arc::clone(all.column(*column))).collect();
        let mut numbers = Numbers::new(columns.iter().map(|key| key.data_type().clone()))?;
        let ids = numbers.of(&normalized(columns)?, all.num_rows())?;
        let mut last = vec![0u32; numbers.count()];
        ids.iter().enumerate().for_each(|(row, id)| last[*id] = row as u32);
        let (columns, _) = numbers.all()?;
        let rows = take_rows(&all, &last)?;
        let deletes = match self.deletes {
            None => vec![false; last.len()],
            Some(column) => {
                let marks = rows.column(column);
                let marks = marks.as_any().downcast_ref::<BooleanArray>();
                let mark = |row| marks.is_some_and(|marks| marks.value(row));
                (0..last.len()).map(mark).collect()
            }
        };
        let keys = Keys::new(&columns, last.len())?;
        Ok(Last { rows, keys, deletes })
    }

    /// The rows that are left of `batches`, all that a source holds.
    pub fn fold(&self, batches: &[RecordBatch]) -> Result<RecordBatch> {
        let last = self.last(batches)?;
        let stays: Vec<u32> =
            (0..last.deletes.len() as u32).filter(|row| !last.deletes[*row as usize]).collect();
        take_rows(&last.rows, &stays)
    }

    fn changes(&self, table: &Table, last: &Last) -> Result<(RecordBatch, Change)> {
        let at = table.get(&last.keys)?;
        let known: Vec<Address> = at.iter().copied().filter(|at| !at.is_none()).collect();
        let old = batch(&self.rows, table.gather(&known, None)?, known.len())?;
        let stays: Vec<u32> =
            (0..at.len() as u32).filter(|row| !last.deletes[*row as usize]).collect();
        let new = take_rows(&last.rows, &stays)?;
        let weights = [vec![-1; known.len()], vec![1; stays.len()]].concat();
        let gone = at.iter().zip(&last.deletes).filter(|(at, deletes)| **deletes && !at.is_none());
        let remove = gone.map(|(at, _)| *at).collect();
        let rows = concat_batches(&self.rows, &[old, new.clone()])?;
        let columns: Vec<ArrayRef> =
            self.key.iter().map(|column| Arc::clone(new.column(*column))).collect();
        let keys = Keys::new(&normalized(columns)?, new.num_rows())?;
        let replaced = stays.iter().map(|row| at[*row as usize]).collect();
        let change = Change { table: 0, remove, insert: Some((keys, new)), replaced };
        Ok((join(&rows, Int64Array::from(weights))?, change))
    }
}

#[async_trait]
impl Operator for Upsert {
    fn tables(&self) -> Vec<TableSpec> {
        vec![TableSpec { schema: self.rows.clone(), key: self.key.clone() }]
    }

    fn schema(&self) -> SchemaRef {
        with_weight(&self.rows)
    }

    async fn step(&self, epoch: Epoch<'_>) -> Result<Step> {
        let Epoch { tables, mut inputs, .. } = epoch;
        let rows: Vec<_> = inputs.remove(0).into_iter().filter(|b| b.num_rows() > 0).collect();
        if rows.is_empty() {
            return Ok(Step::default());
        }
        let last = self.last(&rows)?;
        let (output, change) = self.changes(&tables[0], &last)?;
        Ok(Step { output: vec![output], changes: vec![change], late: 0 })
    }
}
