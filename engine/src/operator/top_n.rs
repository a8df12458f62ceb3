//! The first rows of every key by some order: `ORDER BY … LIMIT`, and
//! `ROW_NUMBER()`, `RANK()` or `DENSE_RANK()` `<= n`.
//!
//! Over an input that only appends, a key keeps no more than the rows that can still
//! be among the first: a row that was pushed out never comes back. Over one that
//! retracts, it keeps all its rows.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices};
use arrow::datatypes::SchemaRef;
use arrow::row::Rows;
use async_trait::async_trait;
use datafusion::physical_plan::PhysicalExpr;

use crate::changelog::{encode, has_weight, join, with_weight};
use crate::error::Result;
use crate::operator::rows::{batch, evaluate, take_rows};
use crate::operator::side::{Arrived, Keyed, Side};
use crate::operator::states::Change;
use crate::operator::{Epoch, Operator, Step};
use crate::state::{Address, Table, TableSpec};

/// How rows are counted that are equal in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd)]
pub enum Rank {
    /// Each has a number of its own, in the order of their arrival.
    RowNumber,
    /// The same number, and a gap after them.
    Rank,
    /// The same number, and no gap.
    DenseRank,
}

/// Keeps the first rows of every key.
#[derive(Debug)]
pub struct TopN {
    pub side: Side,
    pub order: Vec<(Arc<dyn PhysicalExpr>, SortOptions)>,
    pub rank: Rank,
    /// Ranks up to this are left out (`OFFSET`).
    pub skip: u64,
    /// Ranks up to this are kept, counted with those left out.
    pub last: u64,
    /// The rank is the last column of the result.
    pub numbered: bool,
    /// Columns of the result, without weight.
    pub rows: SchemaRef,
}

/// Rows of the touched keys: those held before, then those of the epoch.
struct Candidates {
    rows: RecordBatch,
    /// Per row its key.
    key: Vec<usize>,
    /// Addresses of the rows held before, the first ones.
    held: Vec<Address>,
    /// Whether the row is there before the epoch, and after it.
    before: Vec<bool>,
    after: Vec<bool>,
}

impl TopN {
    fn candidates(&self, table: &Table, arrived: &Arrived) -> Result<Candidates> {
        let keyed = Keyed::of(&[arrived])?;
        let found = table.get_all(&keyed.keys()?)?;
        let held_rows = table.gather(&found.rows, Some(&self.side.row_columns()))?;
        let held = batch(&self.side.rows, held_rows, found.rows.len())?;
        let taken = self.side.taken(table, &arrived.changes)?;
        let taken: HashSet<Address> = taken.into_iter().collect();
        let put = arrived.changes.inserted()?;
        let mut key: Vec<usize> = found.key.iter().map(|key| *key as usize).collect();
        for (id, weight) in keyed.ids[0].iter().zip(arrived.changes.weights.values()) {
            key.extend(std::iter::repeat_n(*id, usize::try_from(*weight).unwrap_or(0)));
        }
        let (old, new) = (found.rows.len(), put.num_rows());
        let before = [vec![true; old], vec![false; new]].concat();
        let mut after: Vec<bool> = found.rows.iter().map(|at| !taken.contains(at)).collect();
        after.resize(old + new, true);
        let rows = arrow::compute::concat_batches(&self.side.rows, &[held, put])?;
        Ok(Candidates { rows, key, held: found.rows, before, after })
    }

    /// Row numbers in the order of keys, then of the order asked for, then of arrival.
    fn sorted(&self, candidates: &Candidates) -> Result<(Vec<u32>, Vec<ArrayRef>)> {
        let exprs: Vec<_> = self.order.iter().map(|(expr, _)| Arc::clone(expr)).collect();
        let values = evaluate(&exprs, &candidates.rows)?;
        let n = candidates.key.len();
        let keys = UInt64Array::from_iter_values(candidates.key.iter().map(|key| *key as u64));
        let arrival = UInt32Array::from_iter_values(0..n as u32);
        let mut columns = vec![SortColumn { values: Arc::new(keys), options: None }];
        for (values, (_, options)) in values.iter().zip(&self.order) {
            columns.push(SortColumn { values: Arc::clone(values), options: Some(*options) });
        }
        columns.push(SortColumn { values: Arc::new(arrival), options: None });
        Ok((lexsort_to_indices(&columns, None)?.values().to_vec(), values))
    }

    /// The rank of every row among those that `alive` selects; 0 for the others and
    /// those beyond the last rank.
    fn ranks(
        &self,
        sorted: &[u32],
        ties: Option<&Rows>,
        key: &[usize],
        alive: &[bool],
    ) -> Vec<u64> {
        let mut ranks = vec![0; key.len()];
        let (mut number, mut rank, mut last): (u64, u64, Option<usize>) = (0, 0, None);
        for row in sorted.iter().map(|row| *row as usize).filter(|row| alive[*row]) {
            let same_key = last.is_some_and(|last| key[last] == key[row]);
            if !same_key {
                (number, rank) = (0, 0);
            }
            number += 1;
            let tie = same_key
                && match (last, ties) {
                    (Some(last), Some(ties)) => ties.row(last) == ties.row(row),
                    _ => self.rank != Rank::RowNumber,
                };
            rank = match self.rank {
                Rank::RowNumber => number,
                Rank::Rank if tie => rank,
                Rank::Rank => number,
                Rank::DenseRank if tie => rank,
                Rank::DenseRank => rank + 1,
            };
            if rank <= self.last {
                ranks[row] = rank;
            }
            last = Some(row);
        }
        ranks
    }

    /// What changes in the table.
    fn keep(&self, candidates: &Candidates, after: &[u64]) -> Result<Change> {
        let appends = !has_weight(&self.side.input);
        let stays = |row: usize| candidates.after[row] && (!appends || after[row] > 0);
        let held = candidates.held.len();
        let remove = (0..held).filter(|row| !stays(*row)).map(|row| candidates.held[row]);
        let put: Vec<u32> =
            (held..after.len()).filter(|row| stays(*row)).map(|row| row as u32).collect();
        let put = self.side.stored(&take_rows(&candidates.rows, &put)?)?;
        Ok(Change::new(0, remove.collect(), (self.side.stored_keys(&put)?, put)))
    }

    /// Rows whose rank went, came or changed.
    fn output(&self, rows: &RecordBatch, before: &[u64], after: &[u64]) -> Result<RecordBatch> {
        let shown = |rank: u64| if rank > self.skip { rank } else { 0 };
        let (mut at, mut ranks, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (before, after)) in before.iter().zip(after).enumerate() {
            let (before, after) = (shown(*before), shown(*after));
            let same = before == after || (!self.numbered && before > 0 && after > 0);
            if same {
                continue;
            }
            for (rank, weight) in [(before, -1), (after, 1)] {
                if rank > 0 {
                    at.push(row as u32);
                    ranks.push(rank);
                    weights.push(weight);
                }
            }
        }
        let mut columns = take_rows(rows, &at)?.columns().to_vec();
        if self.numbered {
            columns.push(Arc::new(UInt64Array::from(ranks)));
        }
        join(&batch(&self.rows, columns, at.len())?, Int64Array::from(weights))
    }
}

#[async_trait]
impl Operator for TopN {
    fn tables(&self) -> Vec<TableSpec> {
        vec![self.side.table()]
    }

    fn schema(&self) -> SchemaRef {
        with_weight(&self.rows)
    }

    async fn step(&self, epoch: Epoch<'_>) -> Result<Step> {
        let Epoch { tables, inputs, moment, .. } = epoch;
        let (arrived, late) = self.side.arrive(&inputs[0], moment)?;
        let mut changes = Vec::new();
        if let Some(free) = &self.side.free {
            let ty = self.side.rows.field(free.column).data_type();
            if let Some(bound) = free.closed(ty, moment) {
                let remove = tables[0].below(free.column, bound)?;
                changes.push(Change::remove(0, remove));
            }
        }
        if arrived.changes.is_empty() {
            return Ok(Step { changes, late, ..Step::default() });
        }
        let candidates = self.candidates(&tables[0], &arrived)?;
        let (sorted, values) = self.sorted(&candidates)?;
        let ties = match self.rank {
            Rank::RowNumber => None,
            _ if values.is_empty() => None,
            _ => Some(encode(&values)?),
        };
        let rank = |alive| self.ranks(&sorted, ties.as_ref(), &candidates.key, alive);
        let (before, after) = (rank(&candidates.before), rank(&candidates.after));
        let output = vec![self.output(&candidates.rows, &before, &after)?];
        changes.push(self.keep(&candidates, &after)?);
        Ok(Step { output, changes, late })
    }
}
