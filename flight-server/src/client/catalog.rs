//! Reading what the metadata commands answer.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow_flight::IpcMessage;
use tidemill_sql::session::Relation;

use crate::metadata::kind_of;

/// The texts of a column over all batches; those that are there.
pub(super) fn text_column(batches: &[RecordBatch], name: &str) -> Vec<String> {
    let columns =
        batches.iter().filter_map(|batch| batch.column_by_name(name)?.as_string_opt::<i32>());
    columns.flat_map(|column| column.iter().flatten()).map(str::to_owned).collect()
}

/// The rows of GetTables, schemas included.
pub(super) fn relations(batches: &[RecordBatch]) -> Result<Vec<Relation>, ArrowError> {
    let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |at| (batch, at)));
    rows.map(|(batch, at)| relation(batch, at)).collect()
}

fn relation(batch: &RecordBatch, at: usize) -> Result<Relation, ArrowError> {
    let text = |name: &str| {
        let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        let valid = column.filter(|column| column.is_valid(at));
        valid.map(|column| column.value(at).to_owned()).unwrap_or_default()
    };
    let schema = batch
        .column_by_name("table_schema")
        .and_then(|column| column.as_binary_opt::<i32>())
        .map(|column| column.value(at).to_vec())
        .ok_or_else(|| ArrowError::SchemaError("a table came without its schema".to_owned()))?;
    Ok(Relation {
        catalog: text("catalog_name"),
        schema: text("db_schema_name"),
        name: text("table_name"),
        kind: kind_of(&text("table_type")),
        columns: Arc::new(Schema::try_from(IpcMessage(schema.into()))?),
    })
}

/// The values of GetSqlInfo that are texts.
pub(super) fn info_texts(batches: &[RecordBatch]) -> Vec<String> {
    let unions = batches.iter().filter_map(|batch| batch.column_by_name("value")?.as_union_opt());
    let values = unions.flat_map(|union| (0..union.len()).map(|at| union.value(at)));
    values.filter_map(|value| Some(value.as_string_opt::<i32>()?.value(0).to_owned())).collect()
}
