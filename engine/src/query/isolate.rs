//! Poisoned epochs: which rows make the plan fail, and on which expression.
//!
//! One cast that fails on one row of a million fails the whole execution. The
//! rows are then found by halving: each chunk is executed by itself, and the
//! halves of one that fails, down to single rows. That is sound because nothing
//! here depends on other rows (only what lies below the stateful operators is
//! tried), and it costs nothing as long as no row fails.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr, collect, execute_stream};
use futures::TryStreamExt;
use futures::future::BoxFuture;

use crate::error::{Error, Result};
use crate::operator::OperatorExec;
use crate::plan::Input;
use crate::query::outlet::fill;
use crate::sink::Sink;
use crate::source::{Chunk, Rejected};

/// Whether an execution failed because of the values in some row.
pub fn is_data_error(error: &Error) -> bool {
    match error {
        Error::Arrow(_) => true,
        Error::DataFusion(inner) => matches!(
            inner.find_root(),
            DataFusionError::ArrowError(..) | DataFusionError::Execution(_)
        ),
        _ => false,
    }
}

/// The parts of a plan below its stateful operators: what is evaluated row by row. In
/// them alone a row can be at fault by itself.
pub fn stateless(plan: Arc<dyn ExecutionPlan>) -> Vec<Arc<dyn ExecutionPlan>> {
    fn is_stateful(plan: &Arc<dyn ExecutionPlan>) -> bool {
        let own = (plan.as_ref() as &dyn std::any::Any).downcast_ref::<OperatorExec>();
        own.is_some() || plan.children().into_iter().any(is_stateful)
    }
    if !is_stateful(&plan) {
        return vec![plan];
    }
    plan.children().into_iter().flat_map(|child| stateless(Arc::clone(child))).collect()
}

/// A plan to try rows of one source on, all other sources being empty.
pub struct Trial<'a> {
    pub input: &'a Input,
    pub physical: Arc<dyn ExecutionPlan>,
    /// Where its rows go, if they go there as they are.
    pub sink: Option<&'a dyn Sink>,
    pub context: &'a Arc<TaskContext>,
}

impl Trial<'_> {
    /// Takes the rows that fail out of `chunks`.
    pub async fn split(&self, chunks: &mut [Chunk]) -> Result<Vec<Rejected>> {
        let mut rejected = Vec::new();
        for chunk in chunks {
            let mut bad = Vec::new();
            self.search(chunk, 0, &mut bad).await?;
            for (row, error) in &bad {
                rejected.push(chunk.reject(*row, error.clone()));
            }
            if !bad.is_empty() {
                *chunk = without(chunk, bad.iter().map(|(row, _)| *row))?;
            }
        }
        Ok(rejected)
    }

    /// Collects (row, reason) of the rows of `chunk` that fail; `base` is where
    /// `chunk` starts in the chunk that was asked for.
    fn search<'s>(
        &'s self,
        chunk: &'s Chunk,
        base: usize,
        bad: &'s mut Vec<(usize, String)>,
    ) -> BoxFuture<'s, Result<()>> {
        Box::pin(async move {
            let rows = chunk.batch.num_rows();
            let error = match self.run(chunk).await {
                Ok(()) => return Ok(()),
                Err(error) if is_data_error(&error) => error,
                Err(error) => return Err(error),
            };
            if rows <= 1 {
                bad.push((base, self.describe(&error).await));
                return Ok(());
            }
            let half = rows / 2;
            self.search(&chunk.slice(0, half), base, bad).await?;
            self.search(&chunk.slice(half, rows - half), base + half, bad).await
        })
    }

    /// Executes the plan over `chunk` and throws the result away.
    async fn run(&self, chunk: &Chunk) -> Result<()> {
        fill(self.input, std::slice::from_ref(chunk));
        let plan = reset_plan_states(Arc::clone(&self.physical))?;
        let mut rows = execute_stream(plan, Arc::clone(self.context))?;
        while let Some(batch) = rows.try_next().await? {
            self.sink.map_or(Ok(()), |sink| sink.check(&batch))?;
        }
        Ok(())
    }

    /// The error on the row in the slot, with the expression that it comes from.
    async fn describe(&self, error: &Error) -> String {
        let reason = match error {
            Error::DataFusion(inner) => match inner.find_root() {
                DataFusionError::ArrowError(error, _) => error.to_string(),
                DataFusionError::Execution(message) => message.clone(),
                other => other.strip_backtrace(),
            },
            other => other.to_string(),
        };
        let plan = reset_plan_states(Arc::clone(&self.physical));
        let culprit = match plan {
            Ok(plan) => blame(plan, self.context).await.err(),
            Err(_) => None,
        };
        match culprit {
            Some(expression) => format!("{expression}: {reason}"),
            None => reason,
        }
    }
}

/// Executes the plan bottom up; `Err` names the first expression that fails.
fn blame<'a>(
    plan: Arc<dyn ExecutionPlan>,
    context: &'a Arc<TaskContext>,
) -> BoxFuture<'a, Result<(), String>> {
    Box::pin(async move {
        for child in plan.children() {
            blame(Arc::clone(child), context).await?;
        }
        let node = plan.as_ref() as &dyn std::any::Any;
        let expressions: Vec<Arc<dyn PhysicalExpr>> =
            if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
                projection.expr().iter().map(|e| Arc::clone(&e.expr)).collect()
            } else if let Some(filter) = node.downcast_ref::<FilterExec>() {
                vec![Arc::clone(filter.predicate())]
            } else {
                return Ok(());
            };
        let Some(child) = plan.children().first().map(|child| Arc::clone(child)) else {
            return Ok(());
        };
        let Ok(fresh) = reset_plan_states(child) else { return Ok(()) };
        let Ok(batches) = collect(fresh, Arc::clone(context)).await else { return Ok(()) };
        match expressions.iter().find(|e| fails(e, &batches)) {
            Some(expression) => Err(expression.to_string()),
            None => Ok(()),
        }
    })
}

fn fails(expression: &Arc<dyn PhysicalExpr>, batches: &[RecordBatch]) -> bool {
    batches.iter().any(|batch| expression.evaluate(batch).is_err())
}

/// `chunk` without some of its rows.
fn without(chunk: &Chunk, rows: impl Iterator<Item = usize>) -> Result<Chunk> {
    let mut keep = vec![true; chunk.batch.num_rows()];
    rows.for_each(|row| keep[row] = false);
    let keep = BooleanArray::from(keep);
    let mut kept = chunk.clone();
    kept.batch = filter_record_batch(&chunk.batch, &keep)?;
    kept.origin = chunk.origin.filter(&keep)?;
    Ok(kept)
}
