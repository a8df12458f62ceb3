//! What identifies a row: 96 bits over its key, the same for equal keys and, for all
//! practical purposes, only for those (at 10 million rows, a collision has a chance
//! of one in 10¹⁵).
//!
//! Keys are compared as they are *stored*: a row that goes to the table and one that
//! is read back from its files have the same hash. So zero has no sign, NaN is one
//! value, and an empty partition value is NULL, which is how Delta keeps it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, Scalar, StringArray};
use arrow::compute::kernels::cmp::eq;
use arrow::compute::nullif;
use arrow::datatypes::{DataType, Float32Type, Float64Type};

use crate::changelog;
use crate::error::Result;

/// A key's hash: 64 bits to look it up by, 32 more to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct KeyHash {
    pub lookup: u64,
    pub check: u32,
}

/// Hashes the keys of rows.
#[derive(Debug)]
pub(super) struct Hasher {
    /// Columns of a row as it is stored, and whether each partitions the table.
    columns: Vec<(usize, bool)>,
}

impl Hasher {
    pub fn new(columns: Vec<(usize, bool)>) -> Self {
        Self { columns }
    }

    /// Columns of the table that a key consists of.
    pub fn columns(&self) -> Vec<usize> {
        self.columns.iter().map(|(column, _)| *column).collect()
    }

    /// The hashes of whole rows.
    pub fn rows(&self, rows: &RecordBatch) -> Result<Vec<KeyHash>> {
        self.keys(&rows.project(&self.columns())?)
    }

    /// The hashes of rows of which only the key's columns are there, in its order.
    pub fn keys(&self, keys: &RecordBatch) -> Result<Vec<KeyHash>> {
        let columns = keys.columns().iter().zip(&self.columns);
        let columns: Vec<ArrayRef> = columns
            .map(|(column, (_, partitions))| normal(column, *partitions))
            .collect::<Result<_>>()?;
        let encoded = changelog::encode(&columns)?;
        let lookup = ahash::RandomState::with_seeds(0x7469, 0x6465, 0x6d69, 0x6c6c);
        let check = ahash::RandomState::with_seeds(0x6c61, 0x6b65, 0x726f, 0x7773);
        let hash = |row: arrow::row::Row<'_>| KeyHash {
            lookup: lookup.hash_one(row.data()),
            check: check.hash_one(row.data()) as u32,
        };
        Ok(encoded.iter().map(hash).collect())
    }
}

fn normal(column: &ArrayRef, partitions: bool) -> Result<ArrayRef> {
    Ok(match column.data_type() {
        DataType::Float32 => {
            let one = |value: f32| if value.is_nan() { f32::NAN } else { value + 0.0 };
            Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(one))
        }
        DataType::Float64 => {
            let one = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
            Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(one))
        }
        DataType::Utf8 if partitions => null_if_empty(column)?,
        _ => Arc::clone(column),
    })
}

/// Texts, with NULL for those that are empty.
pub(super) fn null_if_empty(texts: &ArrayRef) -> Result<ArrayRef> {
    let empty = Scalar::new(StringArray::from(vec![""]));
    Ok(nullif(texts, &eq(texts, &empty)?)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array};

    use super::*;

    #[test]
    fn equal_as_stored_is_equal() {
        let floats = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN, 1.0]));
        let batch = RecordBatch::try_from_iter([("f", floats as ArrayRef)]).unwrap();
        let hashes = Hasher::new(vec![(0, false)]).rows(&batch).unwrap();
        assert_eq!(hashes[0], hashes[1]);
        assert_eq!(hashes[2], hashes[3]);
        assert_ne!(hashes[0], hashes[4]);

        let names = Arc::new(StringArray::from(vec![Some(""), None]));
        let batch = RecordBatch::try_from_iter([("p", names as ArrayRef)]).unwrap();
        let partition = Hasher::new(vec![(0, true)]).rows(&batch).unwrap();
        assert_eq!(partition[0], partition[1]);
        let column = Hasher::new(vec![(0, false)]).rows(&batch).unwrap();
        assert_ne!(column[0], column[1]);
    }

    #[test]
    fn a_null_is_not_the_same_in_every_column() {
        let column = |values: Vec<Option<i64>>| Arc::new(Int64Array::from(values)) as ArrayRef;
        let batch = RecordBatch::try_from_iter([
            ("a", column(vec![None, None, Some(5)])),
            ("b", column(vec![None, Some(5), None])),
            ("c", column(vec![Some(5), None, None])),
        ])
        .unwrap();
        let hasher = Hasher::new(vec![(0, false), (1, false), (2, false)]);
        let hashes = hasher.rows(&batch).unwrap();
        assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2] && hashes[0] != hashes[2]);
    }
}
