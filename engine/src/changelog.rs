//! Changelogs: rows with a weight, what flows between the operators of a query.
//!
//! A changelog is a batch with one more column, last, the *weight* ([`WEIGHT`],
//! `Int64`, never NULL): `+n` puts the row there n times, `−n` takes it away. It is
//! a Z-set (Budiu et al., DBSP, VLDB 2023). Plans that only ever append carry no
//! such column: a batch without it counts every row once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use hashbrown::HashTable;

use crate::error::{Error, Result};

/// The name of the weight column; it is always the last one.
pub const WEIGHT: &str = "__weight";

/// The field of the weight column.
pub fn weight_field() -> FieldRef {
    Arc::new(Field::new(WEIGHT, DataType::Int64, false))
}

/// Whether batches of `schema` carry weights.
pub fn has_weight(schema: &Schema) -> bool {
    schema.fields().last().is_some_and(|field| field.name() == WEIGHT)
}

/// `schema` with a weight column.
pub fn with_weight(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().cloned().chain([weight_field()]);
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// `schema` without its weight column, if it has one.
pub fn without_weight(schema: &SchemaRef) -> SchemaRef {
    if !has_weight(schema) {
        return Arc::clone(schema);
    }
    let rows = schema.fields().len() - 1;
    Arc::new(Schema::new(schema.fields()[..rows].to_vec()))
}

/// The rows of a changelog and their weights (all 1 if it carries none).
pub fn split(batch: &RecordBatch) -> Result<(RecordBatch, Int64Array)> {
    if !has_weight(batch.schema_ref()) {
        return Ok((batch.clone(), Int64Array::from_value(1, batch.num_rows())));
    }
    let rows = batch.num_columns() - 1;
    let weights = batch.column(rows).as_primitive::<Int64Type>().clone();
    Ok((batch.project(&(0..rows).collect::<Vec<_>>())?, weights))
}

/// `rows` with `weights` as their last column.
pub fn join(rows: &RecordBatch, weights: Int64Array) -> Result<RecordBatch> {
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(weights) as ArrayRef);
    Ok(RecordBatch::try_new(with_weight(rows.schema_ref()), columns)?)
}

/// Adds up the weights of equal rows and drops those that come to nothing.
/// Rows keep the order of their first appearance. NULL equals NULL.
///
/// `batches` are changelogs of one schema, with weights; so is the answer.
pub fn consolidate(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch> {
    if !has_weight(schema) {
        return Err(Error::internal("only a changelog with weights can be consolidated"));
    }
    let all = concat_batches(schema, batches)?;
    if all.num_rows() == 0 {
        return Ok(all);
    }
    let (rows, weights) = split(&all)?;
    let (first, sums) = sum_equal(&rows, &weights)?;
    if first.len() == all.num_rows() && !sums.contains(&0) {
        return Ok(all);
    }
    let kept = |(_, weight): &(&u32, &i64)| **weight != 0;
    let (first, sums): (Vec<u32>, Vec<i64>) =
        first.iter().zip(&sums).filter(kept).map(|(row, weight)| (*row, *weight)).unzip();
    if rows.num_columns() == 0 {
        return Ok(RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(sums))])?);
    }
    let rows = take_record_batch(&rows, &UInt32Array::from(first))?;
    join(&rows, Int64Array::from(sums))
}

/// Per distinct row where it stands first, and its weights' sum.
fn sum_equal(rows: &RecordBatch, weights: &Int64Array) -> Result<(Vec<u32>, Vec<i64>)> {
    if rows.num_columns() == 0 {
        return Ok((vec![0], vec![weights.values().iter().sum()]));
    }
    let encoded = encode(rows.columns())?;
    let state = ahash::RandomState::with_seeds(1, 2, 3, 4);
    let mut table: HashTable<u32> = HashTable::with_capacity(rows.num_rows());
    let (mut first, mut sums): (Vec<u32>, Vec<i64>) = (Vec::new(), Vec::new());
    for row in 0..rows.num_rows() {
        let bytes = encoded.row(row);
        let hash = state.hash_one(bytes.data());
        let found = table.entry(
            hash,
            |group| encoded.row(first[*group as usize] as usize) == bytes,
            |group| state.hash_one(encoded.row(first[*group as usize] as usize).data()),
        );
        let group = *found.or_insert(first.len() as u32).get() as usize;
        if group == first.len() {
            first.push(row as u32);
            sums.push(0);
        }
        sums[group] += weights.value(row);
    }
    Ok((first, sums))
}

/// Rows as comparable bytes: equal rows, and only those, have equal bytes. There must
/// be a column.
pub fn encode(columns: &[ArrayRef]) -> Result<Rows> {
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone()));
    Ok(RowConverter::new(fields.collect())?.convert_columns(columns)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;

    fn changes(rows: &[(Option<&str>, i64)]) -> RecordBatch {
        let names: StringArray = rows.iter().map(|(name, _)| *name).collect();
        let rows: Vec<i64> = rows.iter().map(|(_, weight)| *weight).collect();
        let names = RecordBatch::try_from_iter([("name", Arc::new(names) as ArrayRef)]).unwrap();
        join(&names, Int64Array::from(rows)).unwrap()
    }

    #[test]
    fn equal_rows_are_one_and_nothing_is_none() {
        let first = changes(&[(Some("a"), 1), (None, 1), (Some("b"), 1)]);
        let second = changes(&[(Some("a"), -1), (None, 2), (Some("c"), -1)]);
        let all = consolidate(&first.schema(), &[first.clone(), second]).unwrap();
        assert_eq!(all, changes(&[(None, 3), (Some("b"), 1), (Some("c"), -1)]));
    }

    #[test]
    fn rows_without_columns_are_equal() {
        let schema = with_weight(&Schema::empty());
        let weights = Arc::new(Int64Array::from(vec![2, -1])) as ArrayRef;
        let batch = RecordBatch::try_new(schema.clone(), vec![weights]).unwrap();
        let all = consolidate(&schema, &[batch]).unwrap();
        assert_eq!(split(&all).unwrap().1.values().to_vec(), vec![1]);
    }
}
