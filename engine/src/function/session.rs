//! `session_start` and `session_end`: window functions that say which session a row is in.
//!
//! Rows belong to one session as long as each comes at most `gap` after the one before: as
//! in Flink, where the windows `[time, time + gap)` of two rows are merged when they overlap
//! or touch. A session lasts from its first time to its last time plus the gap.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{
    ExpressionArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs,
};
use datafusion::logical_expr::{PartitionEvaluator, Signature, Volatility, WindowUDFImpl};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;

use crate::error::Error;
use crate::function::width::Width;
use crate::function::windows::{WIDTH, time_type};

pub const SESSION_START: &str = "session_start";
pub const SESSION_END: &str = "session_end";

/// `session_start` or `session_end`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionBound {
    end: bool,
    signature: Signature,
}

impl SessionBound {
    pub(super) fn start() -> Self {
        Self { end: false, signature: Signature::user_defined(Volatility::Immutable) }
    }

    pub(super) fn end() -> Self {
        Self { end: true, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl WindowUDFImpl for SessionBound {
    fn name(&self) -> &str {
        if self.end { SESSION_END } else { SESSION_START }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        if given.len() != 2 {
            return Err(DataFusionError::Plan(format!(
                "{0} is written {0}(time, gap)",
                self.name()
            )));
        }
        Ok(vec![time_type(given.first(), self.name())?, WIDTH])
    }

    /// The gap is a constant: only the time is computed for every row.
    fn expressions(&self, args: ExpressionArgs) -> Vec<Arc<dyn PhysicalExpr>> {
        args.input_exprs().iter().take(1).cloned().collect()
    }

    fn partition_evaluator(
        &self,
        args: PartitionEvaluatorArgs,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        let gap = args.input_exprs().get(1).and_then(|expr| expr.downcast_ref::<Literal>());
        let gap = gap.ok_or_else(|| {
            DataFusionError::Plan(format!("the gap of {} must be a constant", self.name()))
        })?;
        let gap = Width::of(gap.value())?.positive("the gap")?;
        Ok(Box::new(Sessions { gap, end: self.end }))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        let time = args.get_input_field(0).map(|field| field.data_type().clone());
        Ok(Arc::new(Field::new(args.name(), time_type(time.as_ref(), self.name())?, true)))
    }

    fn sort_options(&self) -> Option<SortOptions> {
        Some(SortOptions { descending: false, nulls_first: false })
    }
}

#[derive(Debug)]
struct Sessions {
    gap: Width,
    end: bool,
}

impl PartitionEvaluator for Sessions {
    fn evaluate_all(&mut self, values: &[ArrayRef], _rows: usize) -> Result<ArrayRef> {
        let [times, ..] = values else {
            return Err(DataFusionError::Internal("a session function without a time".into()));
        };
        let of = times.data_type();
        let gap = self.gap.units(of)?;
        let raw = cast(times, &DataType::Int64)?;
        let raw = raw.as_primitive::<Int64Type>();
        let bounds = if self.end { ends(raw, gap)? } else { starts(raw, gap)? };
        let bounds = Int64Array::new(bounds.into(), raw.nulls().cloned());
        Ok(cast(&bounds, of)?)
    }
}

/// For each time, ascending, where its session starts. What stands at a NULL means nothing.
pub(crate) fn starts(times: &Int64Array, gap: i64) -> Result<Vec<i64>> {
    let mut session: Option<(i64, i64)> = None;
    let start = |row: usize| {
        let time = times.value(row);
        if times.is_null(row) {
            return Ok(0);
        }
        let start = match session {
            Some((_, last)) if time < last => return Err(unordered()),
            Some((start, last)) if time.saturating_sub(last) <= gap => start,
            _ => time,
        };
        session = Some((start, time));
        Ok(start)
    };
    (0..times.len()).map(start).collect()
}

/// For each time, ascending, where its session ends.
pub(crate) fn ends(times: &Int64Array, gap: i64) -> Result<Vec<i64>> {
    let mut session: Option<(i64, i64)> = None;
    let mut ends = vec![0; times.len()];
    for row in (0..times.len()).rev().filter(|row| times.is_valid(*row)) {
        let time = times.value(row);
        let last = match session {
            Some((_, next)) if time > next => return Err(unordered()),
            Some((last, next)) if next.saturating_sub(time) <= gap => last,
            _ => time,
        };
        session = Some((last, time));
        ends[row] = last
            .checked_add(gap)
            .ok_or_else(|| Error::invalid(format!("a time ({last}) too far away for windows")))?;
    }
    Ok(ends)
}

fn unordered() -> DataFusionError {
    Error::invalid_hint(
        "sessions need the rows in the order of their time",
        "write OVER (PARTITION BY … ORDER BY time)",
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_within_the_gap_share_a_session() {
        let times = Int64Array::from(vec![1, 1, 5, 9, 14, 30]);
        assert_eq!(starts(&times, 4).unwrap(), [1, 1, 1, 1, 14, 30]);
        assert_eq!(ends(&times, 4).unwrap(), [13, 13, 13, 13, 18, 34]);
    }

    #[test]
    fn nulls_are_in_no_session_and_disorder_is_an_error() {
        let times = Int64Array::from(vec![Some(1), None, Some(3)]);
        assert_eq!(starts(&times, 2).unwrap()[2], 1);
        assert_eq!(ends(&times, 2).unwrap()[0], 5);
        let times = Int64Array::from(vec![3, 1]);
        assert!(starts(&times, 2).is_err() && ends(&times, 2).is_err());
        assert!(ends(&Int64Array::from(vec![i64::MAX]), 2).is_err());
    }
}
