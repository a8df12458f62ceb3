//! The answer to whatever has no rule of its own: evaluated anew, for the keys that
//! the epoch touches and no others.
//!
//! ```text
//! rows of the touched keys, before ─► the node, by DataFusion ─► taken away ─┐
//! rows of the touched keys, after  ─► the same node           ─► put in     ─┴─► what differs
//! ```
//!
//! Right for every node that works key by key: window functions by their
//! `PARTITION BY`, aggregates whose state can't be subtracted from by their groups,
//! outer joins with a further condition by their join keys. The inputs' rows are
//! kept by key; an epoch costs what the touched keys hold.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::{ExecutionPlan, collect};

use crate::changelog::{consolidate, join, with_weight};
use crate::error::Result;
use crate::operator::rows::{Changes, batch};
use crate::operator::sessions::Sessions;
use crate::operator::side::{Keyed, Side};
use crate::operator::{Epoch, Operator, Step};
use crate::plan::leaf::Leaf;
use crate::state::{Address, Keys, Table, TableSpec};

/// A node over leaves that are filled before each execution.
#[derive(Debug, Clone)]
pub struct Template {
    pub plan: Arc<dyn ExecutionPlan>,
    /// The leaf of each input.
    pub leaves: Vec<Arc<Leaf>>,
}

impl Template {
    async fn run(
        &self,
        inputs: Vec<RecordBatch>,
        task: &Arc<TaskContext>,
    ) -> Result<Vec<RecordBatch>> {
        for (leaf, rows) in self.leaves.iter().zip(inputs) {
            leaf.fill(vec![rows]);
        }
        let plan = reset_plan_states(Arc::clone(&self.plan))?;
        let rows = collect(plan, Arc::clone(task)).await;
        self.leaves.iter().for_each(|leaf| leaf.fill(Vec::new()));
        Ok(rows?)
    }
}

/// Evaluates a node anew for the touched keys.
#[derive(Debug)]
pub struct Recompute {
    pub sides: Vec<Side>,
    /// One a shard: shards run side by side.
    pub templates: Vec<Template>,
    /// Columns of the result, without weight.
    pub rows: SchemaRef,
    /// A global aggregate has a row also for no input.
    pub from_nothing: bool,
    /// The only side's rows go by sessions.
    pub sessions: Option<Sessions>,
}

impl Recompute {
    async fn evaluate(
        &self,
        shard: usize,
        inputs: Vec<RecordBatch>,
        weight: i64,
        task: &Arc<TaskContext>,
        out: &mut Vec<RecordBatch>,
    ) -> Result<()> {
        for rows in self.templates[shard].run(inputs, task).await? {
            let n = rows.num_rows();
            let rows = batch(&self.rows, rows.columns().to_vec(), n)?;
            out.push(join(&rows, Int64Array::from_value(weight, n))?);
        }
        Ok(())
    }
}

/// The rows of `side` under the touched keys, before and after the epoch.
fn before_and_after(
    side: &Side,
    table: &Table,
    keys: &Keys,
    changes: &Changes,
) -> Result<(RecordBatch, RecordBatch)> {
    let held = table.get_all(keys)?.rows;
    let taken = side.taken(table, changes)?;
    let before = gather(side, table, &held)?;
    let after = match taken.is_empty() {
        true => before.clone(),
        false => {
            let taken: std::collections::HashSet<Address> = taken.into_iter().collect();
            let kept: Vec<Address> = held.into_iter().filter(|at| !taken.contains(at)).collect();
            gather(side, table, &kept)?
        }
    };
    let after = concat_batches(&side.rows, &[after, changes.inserted()?])?;
    Ok((before, after))
}

fn gather(side: &Side, table: &Table, rows: &[Address]) -> Result<RecordBatch> {
    batch(&side.rows, table.gather(rows, Some(&side.row_columns()))?, rows.len())
}

#[async_trait]
impl Operator for Recompute {
    fn tables(&self) -> Vec<TableSpec> {
        self.sides.iter().map(Side::table).collect()
    }

    fn schema(&self) -> SchemaRef {
        with_weight(&self.rows)
    }

    async fn step(&self, epoch: Epoch<'_>) -> Result<Step> {
        let Epoch { shard, tables, inputs, moment, first, task } = epoch;
        let (mut arrived, mut late) = (Vec::new(), 0);
        for (side, input) in self.sides.iter().zip(&inputs) {
            let (rows, dropped) = side.arrive(input, moment)?;
            arrived.push(rows);
            late += dropped;
        }
        let mut changes = Vec::new();
        for (index, (side, arrived)) in self.sides.iter().zip(&arrived).enumerate() {
            let mut kept = side.keep(index, &tables[index], arrived, moment)?;
            if let Some(sessions) = &self.sessions {
                for change in &mut kept {
                    sessions.free(side, &tables[index], arrived, moment, change)?;
                }
            }
            changes.extend(kept);
        }
        let nothing = arrived.iter().all(|arrived| arrived.changes.is_empty());
        if nothing && !(first && self.from_nothing) {
            return Ok(Step { changes, late, ..Step::default() });
        }
        let keys = Keyed::of(&arrived.iter().collect::<Vec<_>>())?.keys()?;
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for ((side, arrived), table) in self.sides.iter().zip(&arrived).zip(tables) {
            let (old, new) = before_and_after(side, table, &keys, &arrived.changes)?;
            before.push(old);
            after.push(new);
        }
        let mut output = Vec::new();
        let empty = before.iter().all(|rows| rows.num_rows() == 0);
        if !empty || (self.from_nothing && !first) {
            self.evaluate(shard, before, -1, task, &mut output).await?;
        }
        self.evaluate(shard, after, 1, task, &mut output).await?;
        let output = vec![consolidate(&with_weight(&self.rows), &output)?];
        Ok(Step { output, changes, late })
    }
}
