//! What must hold for every changelog, checked on each edge of a plan while tests run.
//!
//! ```text
//! operator ─► [`CheckedExec`] ─► …    what flows through is passed on as it is
//!                  └─► when the epoch's last row has passed: [`Edge::check`]
//! ```
//!
//! - No row is taken away that is not there: over the life of an edge, no row's weight
//!   falls below zero.
//! - A node whose output only appends takes nothing away.
//! - Watermarks never go back.
//! - Nothing comes for a window after it was closed.
//!
//! The rows of an edge are kept in a [`Table`] like an operator's, under a number of its
//! own: saved with snapshots and rebuilt by replay, so that the check goes on after a
//! restart. That doubles the state; it is for tests.

use std::sync::Arc;

use arrow::array::{Array, BinaryArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::pretty::pretty_format_batches;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties,
};
use futures::{StreamExt, stream};
use parking_lot::Mutex;

use crate::changelog::{consolidate, encode, has_weight, split};
use crate::error::{Error, Result};
use crate::operator::rows::{Closing, below, take_rows};
use crate::operator::states::{Change, Moment, States};
use crate::state::{Keys, Table, TableSpec};

/// Numbers of edges begin here; operators have smaller ones.
pub const EDGES: usize = 1 << 32;

/// What is known of the changelog on one edge.
#[derive(Debug)]
pub struct Edge {
    id: usize,
    /// For messages.
    name: String,
    /// Nothing may be taken away.
    appends: bool,
    /// Columns that close.
    closings: Vec<Closing>,
    states: Arc<States>,
}

impl Edge {
    /// The edge out of operator `id` (0: out of the whole plan).
    pub fn new(
        id: usize,
        name: String,
        appends: bool,
        closings: Vec<Closing>,
        states: Arc<States>,
    ) -> Result<Self> {
        let id = EDGES + id;
        states.register(id, 1, || vec![spec()])?;
        Ok(Self { id, name, appends, closings, states })
    }

    fn broken(&self, what: &str, row: &RecordBatch) -> Error {
        let drawn = pretty_format_batches(std::slice::from_ref(row));
        let drawn = drawn.map_or_else(|error| error.to_string(), |table| table.to_string());
        Error::internal(format!("the changelog of {} {what}:\n{drawn}", self.name))
    }

    /// Checks an epoch's rows; answers what becomes of the rows that are known.
    fn check(
        &self,
        batches: &[RecordBatch],
        table: &Table,
        moment: &Moment,
    ) -> Result<Vec<Change>> {
        self.states.check_watermarks(moment)?;
        for batch in batches {
            self.check_closed(batch, moment)?;
        }
        let Some(schema) = batches.first().map(RecordBatch::schema) else { return Ok(Vec::new()) };
        if !has_weight(&schema) {
            return Ok(Vec::new());
        }
        let (rows, weights) = split(&consolidate(&schema, batches)?)?;
        let taken = weights.values().iter().position(|weight| *weight < 0);
        if let Some(row) = taken.filter(|_| self.appends) {
            let row = take_rows(&rows, &[row as u32])?;
            return Err(self.broken("may only append, and takes a row away", &row));
        }
        self.count(&rows, &weights, table)
    }

    /// Adds the rows put in, and finds those taken away.
    fn count(
        &self,
        rows: &RecordBatch,
        weights: &Int64Array,
        table: &Table,
    ) -> Result<Vec<Change>> {
        let texts = texts(rows)?;
        let (at, gone) = repeated(&texts, weights, -1)?;
        let found = table.find(&Keys::new(gone.columns(), at.len())?, &gone)?;
        if let Some(missing) = found.iter().position(|address| address.is_none()) {
            let row = take_rows(rows, &[at[missing]])?;
            return Err(self.broken("takes a row away that is not there", &row));
        }
        let (at, put) = repeated(&texts, weights, 1)?;
        let insert = Some((Keys::new(put.columns(), at.len())?, put));
        Ok(vec![Change { table: 0, remove: found, insert, replaced: Vec::new() }])
    }

    fn check_closed(&self, batch: &RecordBatch, moment: &Moment) -> Result<()> {
        for closing in &self.closings {
            let column = batch.column(closing.column);
            let Some(bound) = closing.over(column.data_type(), moment) else { continue };
            let late = below(column, bound)?;
            if let Some(row) = late.values().set_indices().next() {
                let row = take_rows(batch, &[row as u32])?;
                return Err(self.broken("has a row for a window that was closed", &row));
            }
        }
        Ok(())
    }

    /// The epoch is over on this edge: `batches` are all its rows.
    async fn end(&self, batches: &[RecordBatch]) -> Result<()> {
        let held = self.states.operator(self.id)?;
        let mut shard = held.shards[0].lock().await;
        let moment = self.states.moment();
        let changes = self.check(batches, &shard.tables()[0], &moment)?;
        shard.propose(changes, 0);
        Ok(())
    }
}

/// Rows as bytes that are equal where the rows are.
fn texts(rows: &RecordBatch) -> Result<BinaryArray> {
    if rows.num_columns() == 0 {
        return Ok(BinaryArray::from_iter_values(vec![b""; rows.num_rows()]));
    }
    let encoded = encode(rows.columns())?;
    Ok(BinaryArray::from_iter_values(encoded.iter().map(|row| row.data().to_vec())))
}

/// Each text as often as its row's weight, times `sign`, says; and the rows' indices.
fn repeated(
    texts: &BinaryArray,
    weights: &Int64Array,
    sign: i64,
) -> Result<(Vec<u32>, RecordBatch)> {
    let times = |weight: &i64| usize::try_from(sign * weight).unwrap_or(0);
    let each = weights.values().iter().enumerate();
    let at = each.flat_map(|(row, weight)| std::iter::repeat_n(row as u32, times(weight)));
    let at: Vec<u32> = at.collect();
    let picked = take(texts, &UInt32Array::from(at.clone()), None)?;
    Ok((at, RecordBatch::try_new(spec().schema, vec![picked])?))
}

fn spec() -> TableSpec {
    let row = Field::new("row", DataType::Binary, false);
    TableSpec { schema: Arc::new(Schema::new(vec![row])), key: vec![0] }
}

/// Passes rows on and checks them once all have passed.
#[derive(Debug)]
pub struct CheckedExec {
    edge: Arc<Edge>,
    input: Arc<dyn ExecutionPlan>,
    passed: Arc<Mutex<Passed>>,
}

/// What has flowed by in one execution.
#[derive(Debug, Default)]
struct Passed {
    batches: Vec<RecordBatch>,
    ended: usize,
}

impl CheckedExec {
    pub fn new(edge: Arc<Edge>, input: Arc<dyn ExecutionPlan>) -> Self {
        Self { edge, input, passed: Arc::default() }
    }

    pub fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }

    fn over(&self, input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self::new(Arc::clone(&self.edge), input))
    }
}

impl DisplayAs for CheckedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "CheckedExec: {}", self.edge.name)
    }
}

impl ExecutionPlan for CheckedExec {
    fn name(&self) -> &str {
        "CheckedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut inputs: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let input = inputs.pop();
        input
            .map(|input| self.over(input))
            .ok_or_else(|| DataFusionError::Internal("an edge has an input".into()))
    }

    fn reset_state(self: Arc<Self>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self.over(Arc::clone(&self.input)))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(
        &self,
        partition: usize,
        task: Arc<TaskContext>,
    ) -> DfResult<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, task)?;
        let schema: SchemaRef = rows.schema();
        let passed = Arc::clone(&self.passed);
        let seen = rows.inspect(move |batch| {
            if let Ok(batch) = batch {
                passed.lock().batches.push(batch.clone());
            }
        });
        let (edge, passed) = (Arc::clone(&self.edge), Arc::clone(&self.passed));
        let partitions = self.properties().partitioning.partition_count();
        let end = stream::once(async move {
            let batches = {
                let mut passed = passed.lock();
                passed.ended += 1;
                (passed.ended == partitions).then(|| std::mem::take(&mut passed.batches))
            };
            match batches {
                Some(batches) => edge.end(&batches).await.map_err(DataFusionError::from),
                None => Ok(()),
            }
        });
        // Nothing but the error, if there is one.
        let end = end.filter_map(|outcome| async move { outcome.err().map(Err) });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, seen.chain(end))))
    }
}

#[cfg(test)]
mod tests;
