//! Stateful operators: the contract, and the plan node that executes one.
//!
//! ```text
//!   input 0 ──┐  gather: every partition whole,   ┌─ shard 0: step(tables, rows) ─► changes out
//!   input 1 ──┤  dealt out by hash of the key,    ├─ shard 1: …
//!             └─ in an order that never varies ───┘
//! ```
//!
//! An operator is a pure core, [`Operator::step`]: the tables as they were before
//! the epoch and the epoch's rows in; rows out, and what is to change in the tables.
//! The changes wait in the [`States`] until the whole plan was executed, so that
//! an execution that fails leaves no trace. The node holds an id and never the
//! state itself: one physical plan is executed again and again. Where the query has the
//! same operator twice, two nodes hold one id: whoever comes first executes it.
//!
//! The order of rows is the same in every run: inputs are taken partition by
//! partition, so that a run after a crash gives the same rows to the bit, float
//! sums included.

pub mod aggregate;
pub mod close;
pub mod complete;
pub mod invariants;
pub mod join;
pub mod lookup;
pub mod numbers;
pub mod once;
pub mod recompute;
pub mod rows;
pub mod sessions;
pub mod side;
pub mod states;
pub mod top_n;
pub mod upsert;

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
    Statistics, StatisticsArgs,
};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::operator::rows::deal;
use crate::operator::states::{Change, Gathered, Moment, States};
use crate::plan::reuse::statistics_of_stream;
use crate::state::{Table, TableSpec};

/// One stateful operator of a plan; the same for all shards and epochs.
#[async_trait]
pub trait Operator: Debug + Send + Sync {
    /// The tables that each shard keeps.
    fn tables(&self) -> Vec<TableSpec>;

    /// Columns of its output; with a weight column where it may retract.
    fn schema(&self) -> SchemaRef;

    /// Whether an epoch asks for its inputs; it has none of them otherwise.
    fn reads(&self, _first: bool) -> bool {
        true
    }

    /// One epoch of one shard. `inputs` are the epoch's rows by input.
    async fn step(&self, epoch: Epoch<'_>) -> Result<Step>;
}

/// What an operator sees of an epoch.
pub struct Epoch<'a> {
    pub shard: usize,
    /// As they were before the epoch.
    pub tables: &'a [Table],
    pub inputs: Vec<Vec<RecordBatch>>,
    pub moment: &'a Moment,
    /// The first execution ever of this shard.
    pub first: bool,
    pub task: &'a Arc<TaskContext>,
}

/// What a step comes to.
#[derive(Default)]
pub struct Step {
    pub output: Vec<RecordBatch>,
    pub changes: Vec<Change>,
    /// Rows that came after their window was closed.
    pub late: u64,
}

/// Executes an [`Operator`] over its inputs, shard by shard.
#[derive(Debug)]
pub struct OperatorExec {
    id: usize,
    operator: Arc<dyn Operator>,
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    /// How each input is dealt out over the shards; nothing: there is one shard.
    keys: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    states: Arc<States>,
    properties: Arc<PlanProperties>,
}

impl OperatorExec {
    pub fn new(
        id: usize,
        operator: Arc<dyn Operator>,
        inputs: Vec<Arc<dyn ExecutionPlan>>,
        keys: Vec<Vec<Arc<dyn PhysicalExpr>>>,
        states: Arc<States>,
    ) -> Result<Self> {
        let single = keys.iter().any(Vec::is_empty);
        let shards = if single { 1 } else { states.shards() };
        states.register(id, shards, || operator.tables())?;
        let properties = PlanProperties::new(
            EquivalenceProperties::new(operator.schema()),
            Partitioning::UnknownPartitioning(shards),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Ok(Self { id, operator, inputs, keys, states, properties: Arc::new(properties) })
    }

    /// Shards that have not been executed in this epoch.
    async fn left_out(&self) -> Result<Vec<usize>> {
        let mut left = Vec::new();
        for (shard, state) in self.states.operator(self.id)?.shards.iter().enumerate() {
            if !state.lock().await.ran() {
                left.push(shard);
            }
        }
        Ok(left)
    }

    fn with_inputs(&self, inputs: Vec<Arc<dyn ExecutionPlan>>) -> Self {
        Self {
            id: self.id,
            operator: Arc::clone(&self.operator),
            inputs,
            keys: self.keys.clone(),
            states: Arc::clone(&self.states),
            properties: Arc::clone(&self.properties),
        }
    }
}

/// What one shard's execution needs.
struct Run {
    id: usize,
    shard: usize,
    shards: usize,
    operator: Arc<dyn Operator>,
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    keys: Vec<Vec<Arc<dyn PhysicalExpr>>>,
    states: Arc<States>,
    task: Arc<TaskContext>,
}

impl Run {
    async fn run(self) -> Result<Vec<RecordBatch>> {
        let held = self.states.operator(self.id)?;
        let mut shard = held.shards[self.shard].lock().await;
        if let Some(output) = shard.output() {
            return Ok(output);
        }
        let first = !shard.started();
        let inputs = match self.operator.reads(first) {
            false => vec![Vec::new(); self.inputs.len()],
            true => {
                let gathered = held.gathered();
                let gathered = gathered.get_or_try_init(|| self.gather()).await?;
                std::mem::take(&mut *gathered[self.shard].lock())
            }
        };
        let moment = self.states.moment();
        let step = self
            .operator
            .step(Epoch {
                shard: self.shard,
                first,
                tables: shard.tables(),
                inputs,
                moment: &moment,
                task: &self.task,
            })
            .await?;
        shard.propose(step.changes, step.late);
        if held.is_shared() {
            shard.keep_output(&step.output);
        }
        Ok(step.output)
    }

    /// Reads every input whole and deals its rows out.
    async fn gather(&self) -> Result<Gathered> {
        let gathered: Gathered = (0..self.shards).map(|_| Mutex::default()).collect();
        for (input, keys) in self.inputs.iter().zip(&self.keys) {
            let batches = collect(input, &self.task).await?;
            let dealt = deal(batches, keys, self.shards)?;
            gathered.iter().zip(dealt).for_each(|(shard, rows)| shard.lock().push(rows));
        }
        Ok(gathered)
    }
}

/// The rows of all partitions, in the order of the partitions.
async fn collect(
    input: &Arc<dyn ExecutionPlan>,
    task: &Arc<TaskContext>,
) -> Result<Vec<RecordBatch>> {
    let partitions = input.properties().partitioning.partition_count();
    if partitions == 1 {
        return Ok(input.execute(0, Arc::clone(task))?.try_collect().await?);
    }
    let mut reading = JoinSet::new();
    for partition in 0..partitions {
        let stream = input.execute(partition, Arc::clone(task))?;
        reading.spawn(async move { (partition, stream.try_collect::<Vec<_>>().await) });
    }
    let mut parts = vec![Vec::new(); partitions];
    while let Some(ended) = reading.join_next().await {
        let (partition, batches) =
            ended.map_err(|error| Error::internal(format!("a partition died: {error}")))?;
        parts[partition] = batches?;
    }
    Ok(parts.into_iter().flatten().collect())
}

impl DisplayAs for OperatorExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "OperatorExec: #{} {:?}", self.id, self.operator)
    }
}

impl ExecutionPlan for OperatorExec {
    fn name(&self) -> &str {
        "OperatorExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inputs.iter().collect()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false; self.inputs.len()]
    }

    /// Also how a plan is made fresh for its next execution.
    fn with_new_children(
        self: Arc<Self>,
        inputs: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        Ok(Arc::new(self.with_inputs(inputs)))
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        Ok(Arc::new(self.with_inputs(self.inputs.clone())))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion, DataFusionError>,
    ) -> Result<TreeNodeRecursion, DataFusionError> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn statistics_from_inputs(
        &self,
        _: &[Arc<Statistics>],
        _: &StatisticsArgs,
    ) -> Result<Arc<Statistics>, DataFusionError> {
        Ok(statistics_of_stream(&self.schema()))
    }

    fn execute(
        &self,
        partition: usize,
        task: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let run = Run {
            id: self.id,
            shard: partition,
            shards: self.properties.partitioning.partition_count(),
            operator: Arc::clone(&self.operator),
            inputs: self.inputs.clone(),
            keys: self.keys.clone(),
            states: Arc::clone(&self.states),
            task,
        };
        let batches = async move {
            let batches = run.run().await.map_err(DataFusionError::from)?;
            Ok::<_, DataFusionError>(futures::stream::iter(batches.into_iter().map(Ok)))
        };
        let stream = futures::stream::once(batches).try_flatten().boxed();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.operator.schema(), stream)))
    }
}
