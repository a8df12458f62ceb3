//! Brings an execution to its end where DataFusion stops early.
//!
//! A join whose other side is empty has no reason to ask for the rows of this one. But
//! an operator below must take them in all the same: later epochs build on its state.

use std::any::Any;
use std::sync::Arc;

use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use futures::TryStreamExt;

use crate::error::Result;
use crate::operator::OperatorExec;
use crate::operator::invariants::CheckedExec;

/// Executes the shards of operators that an execution of `plan` has left out.
pub async fn complete(plan: Arc<dyn ExecutionPlan>, task: Arc<TaskContext>) -> Result<()> {
    let mut waiting = vec![plan];
    while let Some(node) = waiting.pop() {
        if let Some(operator) = operator(node.as_ref()) {
            for shard in operator.left_out().await? {
                let mut rows = node.execute(shard, Arc::clone(&task))?;
                while rows.try_next().await?.is_some() {}
            }
        }
        waiting.extend(node.children().into_iter().cloned());
    }
    Ok(())
}

/// The operator that a node is, or whose rows it checks.
fn operator(node: &dyn ExecutionPlan) -> Option<&OperatorExec> {
    let checked = (node as &dyn Any).downcast_ref::<CheckedExec>();
    let own = checked.map_or(node, |checked| checked.input().as_ref());
    (own as &dyn Any).downcast_ref()
}
