//! Rows that a client sends: an `INSERT` of parameters that is bound many times, and
//! bulk loads.
//!
//! They stay Arrow batches from the wire to the table, and make one commit: a commit for
//! each row would be a file for each row.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, col};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::sql::sqlparser::ast::{Expr, Query, SetExpr, Value};
use futures::StreamExt;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::statement::Insert;

/// The parameters that an `INSERT … VALUES ($1, …)` writes, from 0, in the order of its
/// columns; `None` for an `INSERT` of another form. The placeholders are numbered.
pub(super) fn parameters(insert: &Insert) -> Option<Vec<usize>> {
    let Query { with: None, body, order_by: None, limit_clause: None, fetch: None, .. } =
        insert.query.as_ref()
    else {
        return None;
    };
    let SetExpr::Values(values) = body.as_ref() else { return None };
    let [row] = &values.rows[..] else { return None };
    row.content.iter().map(parameter).collect()
}

fn parameter(expr: &Expr) -> Option<usize> {
    let Expr::Value(value) = expr else { return None };
    let Value::Placeholder(name) = &value.value else { return None };
    name.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)
}

/// A plan that reads the columns of `rows` at the places `order`.
pub(super) fn plan(rows: SendableRecordBatchStream, order: &[usize]) -> Result<LogicalPlan> {
    let given = rows.schema();
    let fields = order.iter().enumerate().map(|(at, place)| {
        let field = given.fields().get(*place)?;
        Some(Field::new(format!("c{at}"), field.data_type().clone(), true))
    });
    let fields: Option<Vec<_>> = fields.collect();
    let fields = fields.ok_or_else(|| {
        Error::types(format!(
            "{} columns are given for {} values",
            given.fields().len(),
            order.len()
        ))
    })?;
    let schema = Arc::new(Schema::new(fields));
    let (renamed, order) = (Arc::clone(&schema), order.to_vec());
    let batches = rows.map(move |batch| {
        let columns = batch?.project(&order)?.columns().to_vec();
        Ok(RecordBatch::try_new(Arc::clone(&renamed), columns)?)
    });
    let stream: SendableRecordBatchStream =
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), batches));
    let given = Given { schema: Arc::clone(&schema), rows: Mutex::new(Some(stream)) };
    let table = StreamingTable::try_new(schema, vec![Arc::new(given)])?;
    let scan = LogicalPlanBuilder::scan("given", provider_as_source(Arc::new(table)), None)?;
    let columns = scan.schema().columns().into_iter().map(|column| col(column.name));
    let columns: Vec<_> = columns.collect();
    Ok(scan.project(columns)?.build()?)
}

/// A table of rows that can be read once.
struct Given {
    schema: SchemaRef,
    rows: Mutex<Option<SendableRecordBatchStream>>,
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Given").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl PartitionStream for Given {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        self.rows.lock().take().unwrap_or_else(|| {
            let again = DataFusionError::Internal("given rows are read twice".to_owned());
            let stream = futures::stream::iter([Err(again)]);
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream))
        })
    }
}
