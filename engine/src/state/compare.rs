//! Whether rows are equal: column by column, NULL equal to NULL.

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::datatypes::DataType;

use crate::changelog::encode;
use crate::error::Result;

/// Which rows of `left` and `right`, columns of the same types, are equal. Floats are
/// compared by their bits.
pub(crate) fn equal_rows(
    left: &[ArrayRef],
    right: &[ArrayRef],
    rows: usize,
) -> Result<BooleanBuffer> {
    let mut equal = BooleanBuffer::new_set(rows);
    for (left, right) in left.iter().zip(right) {
        equal = &equal & &equal_values(left, right)?;
    }
    Ok(equal)
}

fn equal_values(left: &ArrayRef, right: &ArrayRef) -> Result<BooleanBuffer> {
    if left.data_type() == &DataType::Null {
        return Ok(BooleanBuffer::new_set(left.len()));
    }
    if !is_nested(left.data_type()) {
        let equal: BooleanArray = not_distinct(left, right)?;
        return Ok(equal.values().clone());
    }
    let (left, right) = (encode(&[left.clone()])?, encode(&[right.clone()])?);
    Ok(left.iter().zip(right.iter()).map(|(left, right)| left.data() == right.data()).collect())
}

fn is_nested(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => values.is_nested(),
        other => other.is_nested(),
    }
}

/// A column of plain words of four or eight bytes, for comparing single values at
/// random places without gathering them. Floats are none: they want normalising.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    words: Words,
    nulls: Option<NullBuffer>,
}

#[derive(Clone, Debug)]
enum Words {
    Four(ScalarBuffer<u32>),
    Eight(ScalarBuffer<u64>),
}

impl Fixed {
    /// None for other types.
    pub fn new(column: &ArrayRef) -> Option<Self> {
        let data_type = column.data_type();
        if data_type.is_floating() || !data_type.is_primitive() {
            return None;
        }
        let width = data_type.primitive_width()?;
        if width != 4 && width != 8 {
            return None;
        }
        let data = column.to_data();
        let (buffer, offset, rows) = (data.buffers().first()?, data.offset(), data.len());
        let words = match width {
            4 => Words::Four(ScalarBuffer::new(buffer.clone(), offset, rows)),
            _ => Words::Eight(ScalarBuffer::new(buffer.clone(), offset, rows)),
        };
        Some(Self { words, nulls: column.nulls().cloned() })
    }

    /// Whether value `row` equals value `other_row` of `other`, a column of the same type.
    #[inline]
    pub fn equal(&self, row: usize, other: &Fixed, other_row: usize) -> bool {
        if self.nulls.is_some() || other.nulls.is_some() {
            match (self.is_null(row), other.is_null(other_row)) {
                (false, false) => {}
                (left, right) => return left == right,
            }
        }
        match (&self.words, &other.words) {
            (Words::Eight(left), Words::Eight(right)) => left[row] == right[other_row],
            (Words::Four(left), Words::Four(right)) => left[row] == right[other_row],
            _ => false,
        }
    }

    fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, Int64Array, ListArray, NullArray, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn every_type_compares() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let others: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, None]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), None]));
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([
            Some(vec![Some(1), None]),
            None,
            Some(vec![]),
        ]));
        let nothing: ArrayRef = Arc::new(NullArray::new(3));
        let left = [numbers, texts.clone(), lists.clone(), nothing.clone()];
        let right = [others, texts, lists, nothing];
        let equal = equal_rows(&left, &right, 3).unwrap();
        assert_eq!(equal.iter().collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(equal_rows(&[], &[], 2).unwrap().count_set_bits(), 2);
    }

    #[test]
    fn words_know_their_offset_and_nulls() {
        let column: ArrayRef = Arc::new(Int32Array::from(vec![Some(9), Some(1), None, Some(2)]));
        let sliced = Fixed::new(&column.slice(1, 3)).unwrap();
        let whole = Fixed::new(&column).unwrap();
        assert!(sliced.equal(0, &whole, 1) && sliced.equal(1, &whole, 2));
        assert!(!sliced.equal(1, &whole, 3) && !sliced.equal(0, &whole, 0));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        assert!(Fixed::new(&texts).is_none());
    }
}
