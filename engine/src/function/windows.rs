//! `hop_windows` and `cumulate_windows`: the windows that a time falls into, as a list.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, IntervalUnit};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::Error;
use crate::function::width::{Width, check_cumulate, check_hop};

pub const HOP_WINDOWS: &str = "hop_windows";
pub const CUMULATE_WINDOWS: &str = "cumulate_windows";

/// Which windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// A window of `size` starts every `step`: their starts.
    Hop,
    /// Windows start every `size` and grow by `step`: their ends.
    Cumulate,
}

/// `hop_windows` or `cumulate_windows`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct WindowList {
    kind: Kind,
    signature: Signature,
}

impl WindowList {
    pub(super) fn hop() -> Self {
        Self { kind: Kind::Hop, signature: Signature::user_defined(Volatility::Immutable) }
    }

    pub(super) fn cumulate() -> Self {
        Self { kind: Kind::Cumulate, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

/// The type that a time argument is taken as.
pub(super) fn time_type(given: Option<&DataType>, function: &str) -> Result<DataType> {
    match given {
        Some(time @ DataType::Timestamp(_, _)) => Ok(time.clone()),
        Some(DataType::Null) => {
            Ok(DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None))
        }
        other => {
            let given = other.map_or("nothing".to_string(), ToString::to_string);
            Err(Error::invalid_hint(
                format!("{function} takes a TIMESTAMP, not {given}"),
                "CAST(… AS TIMESTAMP)",
            )
            .into())
        }
    }
}

pub(super) const WIDTH: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

impl ScalarUDFImpl for WindowList {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Hop => HOP_WINDOWS,
            Kind::Cumulate => CUMULATE_WINDOWS,
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        if !(3..=4).contains(&given.len()) {
            let step = if self.kind == Kind::Hop { "slide" } else { "step" };
            return Err(DataFusionError::Plan(format!(
                "{0} is written {0}(time, {step}, size[, offset])",
                self.name()
            )));
        }
        let time = time_type(given.first(), self.name())?;
        Ok(std::iter::once(time).chain(given[1..].iter().map(|_| WIDTH)).collect())
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new_list_field(
            time_type(given.first(), self.name())?,
            true,
        ))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut widths = Vec::with_capacity(3);
        for arg in &args.args[1..] {
            let ColumnarValue::Scalar(value) = arg else {
                let error = format!("the widths of {} must be constants", self.name());
                return Err(DataFusionError::Plan(error));
            };
            widths.push(Width::of(value)?);
        }
        let [step, size, ..] = widths[..] else {
            return Err(DataFusionError::Plan(format!("{} needs two widths", self.name())));
        };
        match self.kind {
            Kind::Hop => check_hop(step, size)?,
            Kind::Cumulate => check_cumulate(step, size)?,
        }
        let (times, scalar) = match &args.args[0] {
            ColumnarValue::Array(times) => (Arc::clone(times), false),
            ColumnarValue::Scalar(time) => (time.to_array()?, true),
        };
        let time = times.data_type();
        let offset = widths.get(2).map_or(Ok(0), |offset| offset.units(time))?;
        let cut = Cut { kind: self.kind, step: step.units(time)?, size: size.units(time)?, offset };
        let lists = cut.lists(&times)?;
        match scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&lists, 0)?)),
            false => Ok(ColumnarValue::Array(lists)),
        }
    }
}

/// Widths in the unit of the times.
#[derive(Debug, Clone, Copy)]
struct Cut {
    kind: Kind,
    step: i64,
    size: i64,
    offset: i64,
}

impl Cut {
    fn lists(self, times: &ArrayRef) -> Result<ArrayRef> {
        let of = times.data_type().clone();
        let raw = cast(times, &DataType::Int64)?;
        let raw = raw.as_primitive::<Int64Type>();
        let most = usize::try_from(self.size / self.step + 1).unwrap_or(usize::MAX);
        let mut values = Vec::with_capacity(raw.len().saturating_mul(most.min(64)));
        let mut offsets = Vec::with_capacity(raw.len() + 1);
        offsets.push(0i32);
        for (row, time) in raw.values().iter().enumerate() {
            if raw.is_valid(row) {
                self.push(*time, &mut values).ok_or_else(|| {
                    Error::invalid(format!("a time ({time}) too far away for windows"))
                })?;
            }
            offsets.push(i32::try_from(values.len()).map_err(|_| {
                Error::invalid("a batch of rows falls into more than 2147483647 windows")
            })?);
        }
        let values = cast(&Int64Array::new(ScalarBuffer::from(values), None), &of)?;
        let field = Arc::new(Field::new_list_field(of, true));
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        Ok(Arc::new(ListArray::try_new(field, offsets, values, raw.nulls().cloned())?))
    }

    /// Appends the windows of one time, ascending; `None` where they leave the range of times.
    fn push(self, time: i64, windows: &mut Vec<i64>) -> Option<()> {
        match self.kind {
            Kind::Hop => {
                let last = self.floor(time, self.step)?;
                // The first window that has not ended yet starts after `time - size`.
                let after = time.checked_sub(self.size)?;
                let steps = last.checked_sub(after)?.checked_sub(1)?.div_euclid(self.step);
                windows.extend((0..=steps).rev().map(|n| last - n * self.step));
            }
            Kind::Cumulate => {
                let start = self.floor(time, self.size)?;
                let end = start.checked_add(self.size)?;
                let passed = time.checked_sub(start)? / self.step;
                let first = start.checked_add((passed + 1).checked_mul(self.step)?)?;
                let more = (end - first) / self.step;
                windows.extend((0..=more).map(|n| first + n * self.step));
            }
        }
        Some(())
    }

    /// The latest multiple of `width`, counted from the offset, that is not after `time`.
    fn floor(self, time: i64, width: i64) -> Option<i64> {
        time.checked_sub(time.checked_sub(self.offset)?.rem_euclid(width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(kind: Kind, step: i64, size: i64, offset: i64, time: i64) -> Option<Vec<i64>> {
        let mut found = Vec::new();
        Cut { kind, step, size, offset }.push(time, &mut found)?;
        Some(found)
    }

    #[test]
    fn hopping_windows_hold_their_time() {
        let hop = |step, size, time| windows(Kind::Hop, step, size, 0, time).unwrap();
        assert_eq!(hop(2, 10, 11), [2, 4, 6, 8, 10]);
        assert_eq!(hop(2, 10, 10), [2, 4, 6, 8, 10]);
        assert_eq!(hop(10, 10, -1), [-10]);
        assert_eq!(hop(4, 10, 9), [0, 4, 8]);
        // A slide longer than the size leaves gaps.
        assert_eq!(hop(10, 4, 3), [0]);
        assert!(hop(10, 4, 4).is_empty());
        assert_eq!(windows(Kind::Hop, 10, 10, 3, 2).unwrap(), [-7]);
        assert_eq!(windows(Kind::Hop, 10, 10, -7, 3).unwrap(), [3]);
        for (step, size) in [(1, 7), (3, 7), (7, 3), (5, 5), (4, 12)] {
            for time in -30..30 {
                let expected: Vec<i64> = (-60..=60)
                    .map(|n| n * step)
                    .filter(|start| *start <= time && time < start + size)
                    .collect();
                assert_eq!(hop(step, size, time), expected, "{step} {size} {time}");
            }
        }
    }

    #[test]
    fn cumulating_windows_end_after_their_time() {
        let cumulate = |step, size, time| windows(Kind::Cumulate, step, size, 0, time).unwrap();
        assert_eq!(cumulate(2, 6, 0), [2, 4, 6]);
        assert_eq!(cumulate(2, 6, 2), [4, 6]);
        assert_eq!(cumulate(2, 6, 5), [6]);
        assert_eq!(cumulate(2, 6, -1), [0]);
        assert_eq!(windows(Kind::Cumulate, 2, 6, 1, 0).unwrap(), [1]);
    }

    #[test]
    fn times_at_the_end_of_time_do_not_overflow() {
        for time in [i64::MIN, i64::MAX] {
            assert!(windows(Kind::Hop, 7, 10, -5, time).is_none_or(|found| !found.is_empty()));
            assert!(windows(Kind::Cumulate, 5, 10, 5, time).is_none_or(|found| !found.is_empty()));
        }
    }

    #[test]
    fn a_list_for_each_row() {
        let times = arrow::array::TimestampMillisecondArray::from(vec![Some(5), None, Some(12)]);
        let cut = Cut { kind: Kind::Hop, step: 5, size: 10, offset: 0 };
        let lists = cut.lists(&(Arc::new(times) as ArrayRef)).unwrap();
        let lists = lists.as_list::<i32>();
        assert_eq!((lists.value_length(0), lists.is_null(1), lists.value_length(2)), (2, true, 2));
    }
}
