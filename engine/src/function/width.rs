//! Widths of windows: intervals of a fixed length, in the unit of the times that they cut.

use std::fmt;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;

use crate::error::{Error, Result};
use crate::function::MAX_WINDOWS;

const NANOS_PER_DAY: i128 = 86_400_000_000_000;

/// An interval without months, to the nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Width {
    nanos: i128,
}

impl Width {
    /// # Errors
    /// What is no interval, is NULL, or holds months, which differ in length.
    pub fn of(value: &ScalarValue) -> Result<Self> {
        let fixed =
            |days: i32, nanos: i128| Self { nanos: i128::from(days) * NANOS_PER_DAY + nanos };
        match value {
            ScalarValue::IntervalMonthDayNano(Some(interval)) if interval.months == 0 => {
                Ok(fixed(interval.days, i128::from(interval.nanoseconds)))
            }
            ScalarValue::IntervalDayTime(Some(interval)) => {
                Ok(fixed(interval.days, i128::from(interval.milliseconds) * 1_000_000))
            }
            ScalarValue::IntervalMonthDayNano(Some(_))
            | ScalarValue::IntervalYearMonth(Some(_)) => Err(Error::invalid_hint(
                "months and years differ in length, so windows can't be that wide",
                "use days or less, or group by date_trunc('month', …)",
            )),
            other => Err(Error::invalid_hint(
                format!("a window's width is an interval, not {other}"),
                "write it as INTERVAL '10' MINUTE",
            )),
        }
    }

    pub fn nanos(self) -> i128 {
        self.nanos
    }

    #[must_use]
    pub fn negated(self) -> Self {
        Self { nanos: -self.nanos }
    }

    /// As an interval of days and nanoseconds.
    pub fn scalar(self) -> ScalarValue {
        let days = i32::try_from(self.nanos / NANOS_PER_DAY).unwrap_or(i32::MAX);
        let nanos = i64::try_from(self.nanos % NANOS_PER_DAY).unwrap_or_default();
        ScalarValue::new_interval_mdn(0, days, nanos)
    }

    /// # Errors
    /// Zero and below. `what` names it: `the size`.
    pub fn positive(self, what: &str) -> Result<Self> {
        if self.nanos > 0 {
            return Ok(self);
        }
        Err(Error::invalid(format!("{what} of a window must be positive, not {self}")))
    }

    /// How many units of `time` it is.
    ///
    /// # Errors
    /// A width that is no whole number of them, or too many.
    pub fn units(self, time: &DataType) -> Result<i64> {
        let unit: i128 = match time {
            DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
            DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
            DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
            DataType::Timestamp(TimeUnit::Nanosecond, _) => 1,
            other => return Err(Error::invalid(format!("windows need times, not {other}"))),
        };
        match i64::try_from(self.nanos / unit) {
            Ok(units) if self.nanos % unit == 0 => Ok(units),
            Ok(_) => Err(Error::invalid(format!("{self} is finer than the times that it cuts"))),
            Err(_) => Err(Error::invalid(format!("{self} is too long"))),
        }
    }
}

impl fmt::Display for Width {
    /// As SQL has it, in the largest unit that fits: `INTERVAL '90' SECOND`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            ("DAY", NANOS_PER_DAY),
            ("HOUR", NANOS_PER_DAY / 24),
            ("MINUTE", 60_000_000_000),
            ("SECOND", 1_000_000_000),
            ("MILLISECOND", 1_000_000),
            ("MICROSECOND", 1_000),
            ("NANOSECOND", 1),
        ];
        let (name, unit) = match units.into_iter().find(|(_, unit)| self.nanos % unit == 0) {
            Some(found) if self.nanos != 0 => found,
            _ => ("SECOND", 1_000_000_000),
        };
        write!(f, "INTERVAL '{}' {name}", self.nanos / unit)
    }
}

/// Checks the widths of hopping windows.
///
/// # Errors
/// Widths that are not positive, and more than [`MAX_WINDOWS`] windows a row.
pub fn check_hop(slide: Width, size: Width) -> Result<()> {
    let (slide, size) = (slide.positive("the slide")?, size.positive("the size")?);
    refuse_many(size, slide)
}

/// Checks the widths of cumulating windows.
///
/// # Errors
/// Widths that are not positive, a size that is no multiple of the step, and more than
/// [`MAX_WINDOWS`] windows a row.
pub fn check_cumulate(step: Width, size: Width) -> Result<()> {
    let (step, size) = (step.positive("the step")?, size.positive("the size")?);
    if size.nanos % step.nanos != 0 {
        return Err(Error::invalid(format!(
            "the size of a cumulating window must be a multiple of its step: {size} is none of {step}"
        )));
    }
    refuse_many(size, step)
}

fn refuse_many(size: Width, step: Width) -> Result<()> {
    let windows = (size.nanos + step.nanos - 1) / step.nanos;
    if windows <= i128::from(MAX_WINDOWS) {
        return Ok(());
    }
    Err(Error::invalid_hint(
        format!("every row would fall into {windows} windows; at most {MAX_WINDOWS} are allowed"),
        format!("{step} is too short for {size}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn width(days: i32, nanos: i64) -> Width {
        Width::of(&ScalarValue::new_interval_mdn(0, days, nanos)).unwrap()
    }

    #[test]
    fn widths_print_as_intervals() {
        for (width, text) in [
            (width(1, 0), "INTERVAL '1' DAY"),
            (width(0, 90_000_000_000), "INTERVAL '90' SECOND"),
            (width(0, -5_000), "INTERVAL '-5' MICROSECOND"),
            (width(0, 0), "INTERVAL '0' SECOND"),
        ] {
            assert_eq!(width.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_fixed_width_is_refused() {
        assert!(Width::of(&ScalarValue::new_interval_mdn(1, 0, 0)).is_err());
        assert!(Width::of(&ScalarValue::IntervalMonthDayNano(None)).is_err());
        assert!(Width::of(&ScalarValue::Int64(Some(5))).is_err());
        let millis = DataType::Timestamp(TimeUnit::Millisecond, None);
        assert!(width(0, 1_000).units(&millis).is_err());
        assert_eq!(width(1, 0).units(&millis).unwrap(), 86_400_000);
        assert!(
            width(i32::MAX, 0).units(&DataType::Timestamp(TimeUnit::Nanosecond, None)).is_err()
        );
    }

    #[test]
    fn steps_are_checked() {
        let second = 1_000_000_000;
        assert!(check_hop(width(0, second), width(0, 0)).is_err());
        assert!(check_hop(width(0, -second), width(0, second)).is_err());
        assert!(check_hop(width(0, 3 * second), width(0, 2 * second)).is_ok());
        assert!(check_hop(width(0, 1), width(1, 0)).is_err());
        assert!(check_cumulate(width(0, 3 * second), width(0, 10 * second)).is_err());
        assert!(check_cumulate(width(0, 2 * second), width(0, 10 * second)).is_ok());
    }
}
