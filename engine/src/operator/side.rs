//! One input of an operator that keeps its rows: how it is keyed, stored and freed.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::PhysicalExpr;

use crate::changelog::{consolidate, without_weight};
use crate::error::{Error, Result};
use crate::operator::numbers::Numbers;
use crate::operator::rows::{Changes, Closing, batch, below, drop_late, evaluate, normalized};
use crate::operator::states::{Change, Moment};
use crate::state::{Address, Keys, Table, TableSpec};

/// An input whose rows are kept by key.
#[derive(Debug, Clone)]
pub struct Side {
    pub key: Vec<Arc<dyn PhysicalExpr>>,
    /// Columns of its rows as they arrive, with their weight if they have one.
    pub input: SchemaRef,
    /// The same without weight.
    pub rows: SchemaRef,
    /// Rows, then those key columns that are not columns of the rows.
    stored: SchemaRef,
    key_columns: Vec<usize>,
    computed: Vec<Arc<dyn PhysicalExpr>>,
    /// Rows behind this are late when they arrive.
    pub late: Option<Closing>,
    /// Rows behind this are dropped: nothing that comes can need them.
    pub free: Option<Closing>,
}

/// The rows of an epoch, with their keys.
pub struct Arrived {
    pub changes: Changes,
    pub key: Vec<ArrayRef>,
}

impl Arrived {
    pub fn keys(&self) -> Result<Keys> {
        Keys::new(&self.key, self.changes.len())
    }

    pub fn filter(self, keep: &BooleanArray) -> Result<Self> {
        let key = self.key.iter().map(|column| filter(column, keep)).collect::<Result<_, _>>()?;
        Ok(Self { changes: self.changes.filter(keep)?, key })
    }
}

/// The distinct keys of an epoch's changes.
pub struct Keyed {
    /// Each key once, in the order in which they come.
    pub columns: Vec<ArrayRef>,
    /// How many keys there are once each input's changes are counted in.
    pub counts: Vec<usize>,
    /// By input, per row which key it has.
    pub ids: Vec<Vec<usize>>,
}

impl Keyed {
    /// The keys of the first input's changes, then those that the next ones add.
    pub fn of(inputs: &[&Arrived]) -> Result<Self> {
        let types = inputs.first().into_iter().flat_map(|first| &first.key);
        let mut numbers = Numbers::new(types.map(|key| key.data_type().clone()))?;
        let (mut counts, mut ids) = (Vec::new(), Vec::new());
        for arrived in inputs {
            ids.push(numbers.of(&arrived.key, arrived.changes.len())?);
            counts.push(numbers.count());
        }
        Ok(Self { columns: numbers.all()?.0, counts, ids })
    }

    /// How many keys there are in all.
    pub fn len(&self) -> usize {
        self.counts.last().copied().unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn keys(&self) -> Result<Keys> {
        Keys::new(&self.columns, self.len())
    }
}

impl Side {
    pub fn new(key: Vec<Arc<dyn PhysicalExpr>>, input: SchemaRef) -> Result<Self> {
        let rows = without_weight(&input);
        let mut fields: Vec<_> = rows.fields().iter().cloned().collect();
        let (mut key_columns, mut computed) = (Vec::new(), Vec::new());
        for (i, expr) in key.iter().enumerate() {
            match expr.downcast_ref::<Column>() {
                Some(column) if !is_float(column, &rows) => key_columns.push(column.index()),
                _ => {
                    key_columns.push(fields.len());
                    let ty = expr.data_type(&input)?;
                    fields.push(Arc::new(Field::new(format!("__key{i}"), ty, true)));
                    computed.push(Arc::clone(expr));
                }
            }
        }
        let stored = Arc::new(Schema::new(fields));
        Ok(Self { key, input, rows, stored, key_columns, computed, late: None, free: None })
    }

    pub fn table(&self) -> TableSpec {
        TableSpec { schema: self.stored.clone(), key: self.key_columns.clone() }
    }

    /// Where the columns of the rows stand in the table.
    pub fn row_columns(&self) -> Vec<usize> {
        (0..self.rows.fields().len()).collect()
    }

    /// The epoch's changes, late ones left out; how many those were.
    pub fn arrive(&self, batches: &[RecordBatch], moment: &Moment) -> Result<(Arrived, u64)> {
        let mut changes = Changes::concat(&self.input, batches)?;
        if changes.weights.values().iter().any(|weight| *weight < 0) {
            // A row that comes and goes within the epoch is not in the table yet.
            let all = consolidate(&self.input, batches)?;
            changes = Changes::concat(&self.input, &[all])?;
        }
        let column = |rows: &RecordBatch, late: &Closing| Ok(Arc::clone(rows.column(late.column)));
        let (changes, late) = drop_late(changes, self.late.as_ref(), column, moment)?;
        let key = normalized(evaluate(&self.key, &changes.rows)?)?;
        Ok((Arrived { changes, key }, late))
    }

    /// Rows as the table stores them.
    pub fn stored(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        if self.computed.is_empty() {
            return Ok(rows.clone());
        }
        let keys = normalized(evaluate(&self.computed, rows)?)?;
        let columns = rows.columns().iter().cloned().chain(keys).collect();
        batch(&self.stored, columns, rows.num_rows())
    }

    pub fn stored_keys(&self, stored: &RecordBatch) -> Result<Keys> {
        let columns: Vec<ArrayRef> =
            self.key_columns.iter().map(|i| Arc::clone(stored.column(*i))).collect();
        Keys::new(&columns, stored.num_rows())
    }

    /// What becomes of the table: the epoch's rows, and those that nothing needs any more.
    pub fn keep(
        &self,
        index: usize,
        table: &Table,
        arrived: &Arrived,
        moment: &Moment,
    ) -> Result<Vec<Change>> {
        let remove = self.taken(table, &arrived.changes)?;
        self.replace(index, table, remove, &arrived.changes.inserted()?, moment)
    }

    /// Takes rows away and puts others in, but for those that nothing needs any more.
    pub fn replace(
        &self,
        index: usize,
        table: &Table,
        mut remove: Vec<Address>,
        rows: &RecordBatch,
        moment: &Moment,
    ) -> Result<Vec<Change>> {
        let mut put = self.stored(rows)?;
        if let Some(free) = &self.free {
            let column = put.column(free.column);
            if let Some(bound) = free.closed(column.data_type(), moment) {
                remove.extend(table.below(free.column, bound)?);
                let keep = arrow::compute::not(&below(column, bound)?)?;
                put = arrow::compute::filter_record_batch(&put, &keep)?;
            }
        }
        let keys = self.stored_keys(&put)?;
        Ok(vec![Change::new(index, remove, (keys, put))])
    }

    /// Where the rows lie that the epoch takes away.
    pub fn taken(&self, table: &Table, changes: &Changes) -> Result<Vec<Address>> {
        if changes.weights.values().iter().all(|weight| *weight > 0) {
            return Ok(Vec::new());
        }
        let removed = self.stored(&changes.removed()?)?;
        let found = table.find(&self.stored_keys(&removed)?, &removed)?;
        if found.iter().any(|at| at.is_none()) && self.free.is_none() {
            return Err(Error::internal("a row is taken away that was never put in"));
        }
        Ok(found)
    }
}

/// Floats are stored as they are, but keyed so that −0 and 0 are one.
fn is_float(column: &Column, rows: &SchemaRef) -> bool {
    rows.field(column.index()).data_type().is_floating()
}
