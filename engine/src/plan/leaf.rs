//! A leaf whose rows somebody puts there before each execution.

use std::cmp::Ordering;
use std::fmt::{Formatter, Result as FmtResult};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::DFSchemaRef;
use datafusion::error::Result as DfResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use parking_lot::Mutex;

use crate::leaf_node::{leaf_node, leaf_properties};

/// Holds the rows of a [`LeafExec`].
#[derive(Debug, Default)]
pub struct Leaf {
    rows: Mutex<Vec<RecordBatch>>,
}

impl Leaf {
    pub fn fill(&self, rows: Vec<RecordBatch>) {
        *self.rows.lock() = rows;
    }
}

/// Input number `index` of a node that is planned by itself.
#[derive(Debug, Clone)]
pub struct LeafNode {
    pub index: usize,
    pub schema: DFSchemaRef,
}

impl PartialEq for LeafNode {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl Eq for LeafNode {}

impl PartialOrd for LeafNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.index.partial_cmp(&other.index)
    }
}

impl Hash for LeafNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.index.hash(state);
    }
}

impl UserDefinedLogicalNodeCore for LeafNode {
    fn name(&self) -> &str {
        "Leaf"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut Formatter) -> FmtResult {
        write!(f, "Leaf: {}", self.index)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, _: Vec<LogicalPlan>) -> DfResult<Self> {
        Ok(self.clone())
    }
}

/// Yields what its [`Leaf`] holds.
#[derive(Debug)]
pub struct LeafExec {
    pub index: usize,
    pub leaf: Arc<Leaf>,
    properties: Arc<PlanProperties>,
}

impl LeafExec {
    pub fn new(index: usize, schema: SchemaRef) -> Self {
        Self { index, leaf: Arc::default(), properties: Arc::new(leaf_properties(schema, 1)) }
    }
}

impl DisplayAs for LeafExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut Formatter) -> FmtResult {
        write!(f, "LeafExec: {}", self.index)
    }
}

impl ExecutionPlan for LeafExec {
    leaf_node!("LeafExec");

    fn execute(
        &self,
        _partition: usize,
        _context: Arc<TaskContext>,
    ) -> DfResult<SendableRecordBatchStream> {
        let rows = self.leaf.rows.lock().clone();
        let rows = futures::stream::iter(rows.into_iter().map(Ok));
        let schema = Arc::clone(self.properties.eq_properties.schema());
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}
