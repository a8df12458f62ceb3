//! Arrow values as the text that scripts compare.
//!
//! NULL is `NULL`, an empty string `(empty)`, a line break `\n`; everything else
//! prints as Arrow does, so that a value that changes shows.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use sqllogictest::DefaultColumnType;

use crate::error::Result;

pub async fn collect(rows: SendableRecordBatchStream) -> Result<Vec<RecordBatch>> {
    Ok(rows.try_collect().await?)
}

/// Every row as the texts of its columns.
pub fn texts(batches: &[RecordBatch]) -> Result<Vec<Vec<String>>> {
    let options = FormatOptions::default().with_null("NULL").with_types_info(false);
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch
            .columns()
            .iter()
            .map(|column| Ok((column, ArrayFormatter::try_new(column, &options)?)))
            .collect::<Result<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|(array, text)| one(array, text, row)).collect());
        }
    }
    Ok(rows)
}

fn one(array: &ArrayRef, text: &ArrayFormatter, row: usize) -> String {
    let value = text.value(row).to_string();
    match value.is_empty() && array.is_valid(row) {
        true => "(empty)".into(),
        false => value.replace('\\', "\\\\").replace('\n', "\\n"),
    }
}

/// Rows in an order of their own, one line each: multisets compare as equal lists.
pub fn sorted_lines(batches: &[RecordBatch]) -> Result<Vec<String>> {
    let mut lines: Vec<String> = texts(batches)?.iter().map(|row| row.join(" | ")).collect();
    lines.sort_unstable();
    Ok(lines)
}

/// The same rows with the column types of `schema`, by position.
pub fn cast_to(batches: &[RecordBatch], schema: &Schema) -> Result<Vec<RecordBatch>> {
    let one = |batch: &RecordBatch| {
        let columns = batch
            .columns()
            .iter()
            .zip(schema.fields())
            .map(|(column, field)| Ok(cast(column, field.data_type())?))
            .collect::<Result<Vec<_>>>()?;
        let fields: Vec<_> =
            schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        Ok(RecordBatch::try_new(Schema::new(fields).into(), columns)?)
    };
    batches.iter().map(one).collect()
}

/// The letter of a column in a `query` line.
pub fn letter(ty: &DataType) -> DefaultColumnType {
    match ty {
        ty if ty.is_integer() => DefaultColumnType::Integer,
        ty if ty.is_floating() || ty.is_decimal() => DefaultColumnType::FloatingPoint,
        ty if ty.is_nested() || ty.is_null() => DefaultColumnType::Any,
        _ => DefaultColumnType::Text,
    }
}
