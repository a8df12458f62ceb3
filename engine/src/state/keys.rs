//! Keys to look up: columns, normalised and hashed, many rows at a time.
//!
//! Keys compare as `GROUP BY` groups: NULL equals NULL, −0.0 equals 0.0 and every
//! NaN every other. Floats are normalised here, so that equal keys have equal bits.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, OffsetSizeTrait,
    PrimitiveArray, StructArray, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float16Type, Float32Type, Float64Type};
use datafusion::common::hash_utils::{RandomState, create_hashes};

use super::compare::Cells;
use crate::error::{Error, Result};

/// Our own seed: rows arrive partitioned by DataFusion's hashes, and within a partition
/// those have bits in common.
const SEED: u64 = 0x7469_6465_6d69_6c6c;

/// Keys of `len()` rows.
#[derive(Clone, Debug)]
pub struct Keys {
    columns: Vec<ArrayRef>,
    hashes: Vec<u64>,
    cells: Option<Vec<Cells>>,
}

impl Keys {
    /// The keys that `columns` hold; where there are none, `rows` times the one key.
    pub fn new(columns: &[ArrayRef], rows: usize) -> Result<Self> {
        if let Some(column) = columns.iter().find(|column| column.len() != rows) {
            let rows = format!("{} rows of {rows}", column.len());
            return Err(Error::internal(format!("a key column has {rows}")));
        }
        let columns = columns.iter().map(normalise).collect::<Result<Vec<_>>>()?;
        let hashes = hash(&columns, rows)?;
        let cells = columns.iter().map(Cells::new).collect();
        Ok(Self { columns, hashes, cells })
    }

    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The key columns, with floats normalised.
    pub fn columns(&self) -> &[ArrayRef] {
        &self.columns
    }

    /// The keys at `rows`, in that order.
    pub fn take(&self, rows: &[u32]) -> Result<Self> {
        let columns = self.columns_at(rows)?;
        let hashes = rows.iter().map(|row| self.hashes[*row as usize]).collect();
        let cells = columns.iter().map(Cells::new).collect();
        Ok(Self { columns, hashes, cells })
    }

    /// The key columns at `rows`.
    pub(crate) fn columns_at(&self, rows: &[u32]) -> Result<Vec<ArrayRef>> {
        let all = rows.len() == self.len();
        if all && rows.iter().enumerate().all(|(at, row)| at == *row as usize) {
            return Ok(self.columns.clone());
        }
        let picked = UInt32Array::from(rows.to_vec());
        let taken = self.columns.iter().map(|column| take(column, &picked, None));
        Ok(taken.collect::<Result<_, _>>()?)
    }

    pub(crate) fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// The columns, if all can be compared value by value.
    pub(crate) fn cells(&self) -> Option<&[Cells]> {
        self.cells.as_deref()
    }
}

/// A hash a row, over all `columns`; good in every bit.
pub(crate) fn hash(columns: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![0; rows];
    create_hashes(columns, &RandomState::with_seed(SEED), &mut hashes)?;
    for hash in &mut hashes {
        *hash = (*hash ^ (*hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    #[cfg(test)]
    tests::collide(&mut hashes);
    Ok(hashes)
}

/// The array with one zero and one NaN, in nested fields too.
pub(crate) fn normalise(array: &ArrayRef) -> Result<ArrayRef> {
    if !has_floats(array.data_type()) {
        return Ok(Arc::clone(array));
    }
    Ok(match array.data_type() {
        DataType::Float16 => floats::<Float16Type>(array, |value| {
            let value = value.to_f32();
            <Float16Type as ArrowPrimitiveType>::Native::from_f32(one_f32(value))
        }),
        DataType::Float32 => floats::<Float32Type>(array, one_f32),
        DataType::Float64 => floats::<Float64Type>(array, one_f64),
        DataType::Struct(fields) => {
            let array = array.as_struct();
            let columns = array.columns().iter().map(normalise).collect::<Result<Vec<_>>>()?;
            let (rows, nulls) = (array.len(), array.nulls().cloned());
            Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, rows)?)
        }
        DataType::List(_) => list(array.as_list::<i32>())?,
        DataType::LargeList(_) => list(array.as_list::<i64>())?,
        DataType::FixedSizeList(field, size) => {
            let array = array.as_fixed_size_list();
            let values = normalise(array.values())?;
            let nulls = array.nulls().cloned();
            let rows = array.len();
            Arc::new(FixedSizeListArray::try_new_with_length(
                field.clone(),
                *size,
                values,
                nulls,
                rows,
            )?)
        }
        // A rare nesting: compared by its bits.
        _ => Arc::clone(array),
    })
}

fn list<O: OffsetSizeTrait>(array: &GenericListArray<O>) -> Result<ArrayRef> {
    let values = normalise(array.values())?;
    let field = match array.data_type() {
        DataType::List(field) | DataType::LargeList(field) => field.clone(),
        other => return Err(Error::internal(format!("{other} is no list"))),
    };
    let (offsets, nulls) = (array.offsets().clone(), array.nulls().cloned());
    Ok(Arc::new(GenericListArray::<O>::try_new(field, offsets, values, nulls)?))
}

fn floats<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    one: impl Fn(T::Native) -> T::Native,
) -> ArrayRef {
    let array: PrimitiveArray<T> = array.as_primitive::<T>().unary(one);
    Arc::new(array)
}

fn one_f32(value: f32) -> f32 {
    if value.is_nan() { f32::NAN } else { value + 0.0 }
}

fn one_f64(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value + 0.0 }
}

fn has_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => true,
        DataType::Struct(fields) => fields.iter().any(|field| has_floats(field.data_type())),
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            has_floats(field.data_type())
        }
        _ => false,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use arrow::array::{Float64Array, Int64Array, ListArray};

    use super::*;

    thread_local! {
        /// Whether most keys of this thread's tests have the same hash as others.
        pub static COLLIDE: Cell<bool> = const { Cell::new(false) };
    }

    pub fn collide(hashes: &mut [u64]) {
        if COLLIDE.get() {
            hashes.iter_mut().for_each(|hash| *hash &= 3 << 32);
        }
    }

    #[test]
    fn zeros_and_nans_have_one_hash() {
        let odd = f64::from_bits(f64::NAN.to_bits() | 1);
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, odd]));
        let keys = Keys::new(&[floats], 4).unwrap();
        assert_eq!(keys.hashes()[0], keys.hashes()[1]);
        assert_eq!(keys.hashes()[2], keys.hashes()[3]);
        assert_ne!(keys.hashes()[0], keys.hashes()[2]);
        let nested = ListArray::from_iter_primitive::<Float64Type, _, _>([
            Some(vec![Some(0.0), None]),
            Some(vec![Some(-0.0), None]),
        ]);
        let keys = Keys::new(&[Arc::new(nested)], 2).unwrap();
        assert_eq!(keys.hashes()[0], keys.hashes()[1]);
    }

    #[test]
    fn no_columns_are_one_key() {
        let keys = Keys::new(&[], 3).unwrap();
        assert_eq!(keys.len(), 3);
        assert!(keys.hashes().iter().all(|hash| *hash == keys.hashes()[0]));
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        assert!(Keys::new(&[column], 3).is_err());
    }
}
