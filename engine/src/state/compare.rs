//! Whether rows are equal: column by column, NULL equal to NULL.

use std::slice::from_ref;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray, StringViewArray};
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
    let (left, right) = (encode(from_ref(left))?, encode(from_ref(right))?);
    Ok(left.iter().zip(right.iter()).map(|(left, right)| left.data() == right.data()).collect())
}

fn is_nested(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => values.is_nested(),
        other => other.is_nested(),
    }
}

/// A column of which single values can be compared at random places, without gathering
/// them. Floats can't: they want normalising; nor can nested values.
#[derive(Clone, Debug)]
pub(crate) struct Cells {
    values: Values,
    nulls: Option<NullBuffer>,
}

#[derive(Clone, Debug)]
enum Values {
    One(ScalarBuffer<u8>),
    Two(ScalarBuffer<u16>),
    Four(ScalarBuffer<u32>),
    Eight(ScalarBuffer<u64>),
    Sixteen(ScalarBuffer<i128>),
    Text(StringArray),
    TextView(StringViewArray),
}

impl Cells {
    /// None for types that can't be compared so.
    pub fn new(column: &ArrayRef) -> Option<Self> {
        let values = match column.data_type() {
            DataType::Utf8 => Values::Text(column.as_string().clone()),
            DataType::Utf8View => Values::TextView(column.as_string_view().clone()),
            data_type if data_type.is_floating() => return None,
            data_type => Values::words(column, data_type.primitive_width()?)?,
        };
        Some(Self { values, nulls: column.nulls().cloned() })
    }

    /// Whether value `row` equals value `other_row` of `other`, a column of the same type.
    #[inline]
    pub fn equal(&self, row: usize, other: &Cells, other_row: usize) -> bool {
        if self.nulls.is_some() || other.nulls.is_some() {
            match (self.is_null(row), other.is_null(other_row)) {
                (false, false) => {}
                (left, right) => return left == right,
            }
        }
        match (&self.values, &other.values) {
            (Values::Eight(left), Values::Eight(right)) => left[row] == right[other_row],
            (Values::Text(left), Values::Text(right)) => left.value(row) == right.value(other_row),
            (Values::TextView(left), Values::TextView(right)) => {
                left.value(row) == right.value(other_row)
            }
            (Values::Four(left), Values::Four(right)) => left[row] == right[other_row],
            (Values::Sixteen(left), Values::Sixteen(right)) => left[row] == right[other_row],
            (Values::Two(left), Values::Two(right)) => left[row] == right[other_row],
            (Values::One(left), Values::One(right)) => left[row] == right[other_row],
            _ => false,
        }
    }

    fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }
}

impl Values {
    fn words(column: &ArrayRef, width: usize) -> Option<Self> {
        let data = column.to_data();
        let (buffer, offset, rows) = (data.buffers().first()?.clone(), data.offset(), data.len());
        Some(match width {
            1 => Values::One(ScalarBuffer::new(buffer, offset, rows)),
            2 => Values::Two(ScalarBuffer::new(buffer, offset, rows)),
            4 => Values::Four(ScalarBuffer::new(buffer, offset, rows)),
            8 => Values::Eight(ScalarBuffer::new(buffer, offset, rows)),
            // Decimals; intervals are aligned otherwise.
            16 if column.data_type().is_decimal() => {
                Values::Sixteen(ScalarBuffer::new(buffer, offset, rows))
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Decimal128Array, Float64Array, Int32Array, Int64Array, ListArray, NullArray, StringArray,
    };
    use arrow::compute::cast;
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
    fn cells_know_their_offset_and_nulls() {
        let column: ArrayRef = Arc::new(Int32Array::from(vec![Some(9), Some(1), None, Some(2)]));
        let sliced = Cells::new(&column.slice(1, 3)).unwrap();
        let whole = Cells::new(&column).unwrap();
        assert!(sliced.equal(0, &whole, 1) && sliced.equal(1, &whole, 2));
        assert!(!sliced.equal(1, &whole, 3) && !sliced.equal(0, &whole, 0));
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("b")]));
        for texts in [texts.clone(), cast(&texts, &DataType::Utf8View).unwrap()] {
            let (sliced, whole) = (Cells::new(&texts.slice(1, 2)).unwrap(), Cells::new(&texts));
            let whole = whole.unwrap();
            assert!(sliced.equal(0, &whole, 1) && sliced.equal(1, &whole, 2));
            assert!(!sliced.equal(0, &whole, 0) && !sliced.equal(1, &whole, 0));
        }
        let prices = Decimal128Array::from(vec![1, 2]).with_precision_and_scale(20, 2).unwrap();
        let prices = Cells::new(&(Arc::new(prices) as ArrayRef)).unwrap();
        assert!(prices.equal(1, &prices, 1) && !prices.equal(0, &prices, 1));
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.0]));
        assert!(Cells::new(&floats).is_none());
    }
}
