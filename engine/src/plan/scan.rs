//! The leaf of a continuous plan: the rows that the epoch at hand has read.
//!
//! A physical plan is made once and executed for every epoch. What changes in
//! between is the content of a [`Slot`]: the engine fills it, the
//! [`EpochScanExec`]s of one source (a query may scan it several times) yield
//! what it holds.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, Statistics, StatisticsArgs,
};
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::leaf_node::{leaf_node, leaf_properties};
use crate::plan::reuse::statistics_of_stream;
use crate::source::DeclaredSource;
use crate::source::table::all_or;

/// The rows of one source in the epoch at hand.
#[derive(Debug, Default)]
pub struct Slot {
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    /// The columns that `batches` hold, as indices into the source's schema.
    projection: Vec<usize>,
    batches: Vec<RecordBatch>,
}

impl Slot {
    pub fn fill(&self, projection: Vec<usize>, batches: Vec<RecordBatch>) {
        *self.content.lock() = Content { projection, batches };
    }

    /// Frees the rows once the epoch was executed.
    pub fn clear(&self) {
        *self.content.lock() = Content::default();
    }

    /// The part `partition` of `n`, in the columns of `projection`. Parts follow each
    /// other: read one after the other they are the rows in the order of their offsets,
    /// however they were cut into batches.
    fn take(
        &self,
        schema: &SchemaRef,
        projection: &[usize],
        partition: usize,
        n: usize,
    ) -> Result<Vec<RecordBatch>> {
        let content = self.content.lock();
        let columns = positions(projection, &content.projection)?;
        let count = content.batches.len();
        let part = count * partition / n..count * (partition + 1) / n;
        content.batches[part].iter().map(|batch| select(schema, batch, &columns)).collect()
    }
}

/// Where each column of `wanted` stands in `held`.
fn positions(wanted: &[usize], held: &[usize]) -> Result<Vec<usize>> {
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let place = |column: &usize| {
        held.iter()
            .position(|h| h == column)
            .ok_or_else(|| Error::internal(format!("column {column} was not read")))
    };
    wanted.iter().map(place).collect()
}

fn select(schema: &SchemaRef, batch: &RecordBatch, columns: &[usize]) -> Result<RecordBatch> {
    let arrays = columns.iter().map(|i| Arc::clone(batch.column(*i))).collect();
    // A scan of no columns (count(*)) still has rows.
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?)
}

/// Stands in a continuous plan where the declared source stood.
#[derive(Debug)]
pub struct EpochTable {
    pub declared: DeclaredSource,
    pub slot: Arc<Slot>,
}

#[async_trait]
impl TableProvider for EpochTable {
    fn schema(&self) -> SchemaRef {
        self.declared.source.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let projection = all_or(projection, &self.schema());
        let schema = Arc::new(self.schema().project(&projection)?);
        Ok(Arc::new(EpochScanExec {
            source: self.declared.source.name().to_owned(),
            slot: Arc::clone(&self.slot),
            properties: Arc::new(leaf_properties(schema, state.config().target_partitions())),
            projection,
        }))
    }
}

/// Yields what the slot of its source holds.
#[derive(Debug)]
pub struct EpochScanExec {
    source: String,
    slot: Arc<Slot>,
    projection: Vec<usize>,
    properties: Arc<PlanProperties>,
}

impl EpochScanExec {
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Indices into the source's schema.
    pub fn projection(&self) -> &[usize] {
        &self.projection
    }
}

impl DisplayAs for EpochScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let fields = self.properties.eq_properties.schema().fields();
        let columns: Vec<_> = fields.iter().map(|f| f.name()).collect();
        write!(f, "EpochScanExec: source={}, columns={columns:?}", self.source)
    }
}

impl ExecutionPlan for EpochScanExec {
    leaf_node!("EpochScanExec");

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
        _context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let schema = self.schema();
        let n = self.properties.partitioning.partition_count();
        let batches = self.slot.take(&schema, &self.projection, partition, n)?;
        let rows = futures::stream::iter(batches.into_iter().map(Ok));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}
