//! What is known of a node's output: its changelog mode, a key, watermarked columns.

use std::collections::BTreeSet;

use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{Alias, BinaryExpr, Cast, ScalarFunction};
use datafusion::logical_expr::{Expr, Operator};

/// Microseconds of a day.
const DAY_US: i64 = 86_400_000_000;

/// A column that follows a watermark: once the watermark of the sources has reached
/// `v + lag_us`, no row with value `v` is to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watermarked {
    pub column: Column,
    pub lag_us: i64,
    pub sources: BTreeSet<String>,
}

/// What is known of a node's output.
#[derive(Debug, Clone, Default)]
pub struct Info {
    /// Rows of a source flow through it.
    pub streaming: bool,
    /// It may take rows away; its rows carry weights.
    pub retracting: bool,
    /// Columns whose values no two of its rows share.
    pub key: Option<Vec<Column>>,
    pub watermarks: Vec<Watermarked>,
    /// It has few rows for good: a global aggregate, a `LIMIT`.
    pub small: bool,
}

impl Info {
    pub fn watermark(&self, column: &Column) -> Option<&Watermarked> {
        self.watermarks.iter().find(|w| w.column == *column)
    }

    /// What a projection onto (expression, output column) makes of it.
    pub fn project(&self, exprs: &[(Expr, Column)]) -> Info {
        let renamed = |column: &Column| {
            let same = |(expr, _): &&(Expr, Column)| bare(expr) == &Expr::Column(column.clone());
            exprs.iter().find(same).map(|(_, output)| output.clone())
        };
        let key = self.key.as_ref().and_then(|key| key.iter().map(renamed).collect());
        let watermarks = exprs.iter().filter_map(|(expr, column)| {
            let (lag_us, sources) = self.follow(expr)?;
            Some(Watermarked { column: column.clone(), lag_us, sources })
        });
        Info {
            streaming: self.streaming,
            retracting: self.retracting,
            key,
            watermarks: watermarks.collect(),
            small: self.small,
        }
    }

    /// How far an expression lags behind the watermark, if it follows one.
    pub fn follow(&self, expr: &Expr) -> Option<(i64, BTreeSet<String>)> {
        match expr {
            Expr::Alias(Alias { expr, .. }) => self.follow(expr),
            Expr::Column(column) => {
                let found = self.watermark(column)?;
                Some((found.lag_us, found.sources.clone()))
            }
            Expr::Cast(Cast { expr, field }) => {
                let (lag, sources) = self.follow(expr)?;
                use arrow::datatypes::DataType;
                match field.data_type() {
                    DataType::Date32 => Some((lag + DAY_US - 1, sources)),
                    // A coarser unit rounds down by less than a second.
                    DataType::Timestamp(..) => Some((lag + 999_999, sources)),
                    _ => None,
                }
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let (lag, sources) = self.follow(left)?;
                let by = interval_us(right)?;
                match op {
                    Operator::Plus => Some((lag - by, sources)),
                    Operator::Minus => Some((lag + by, sources)),
                    _ => None,
                }
            }
            Expr::ScalarFunction(call) => self.follow_call(call),
            _ => None,
        }
    }

    fn follow_call(&self, call: &ScalarFunction) -> Option<(i64, BTreeSet<String>)> {
        let args = &call.args;
        if call.func.name().starts_with("to_timestamp") && args.len() == 1 {
            // The time as a number or as text, from which a watermark was computed.
            let (lag, sources) = self.follow(&args[0])?;
            return Some((lag + 999_999, sources));
        }
        let (column, width) = match (call.func.name(), args.len()) {
            ("date_bin", 2 | 3) => (&args[1], interval_us(&args[0])?),
            ("date_trunc", 2) => (&args[1], trunc_us(&args[0])?),
            // Lists that are unnested: of window starts, within `size` before the time; of window
            // ends, each behind it.
            ("hop_windows", 3 | 4) => (&args[0], interval_us(&args[2])?),
            ("cumulate_windows", 3 | 4) => (&args[0], 0),
            _ => return None,
        };
        let (lag, sources) = self.follow(column)?;
        // A window is whole once the column's first value beyond it is: lag is at least 1.
        Some((lag + width - 1, sources))
    }
}

/// An expression without its aliases.
pub fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(Alias { expr, .. }) => bare(expr),
        other => other,
    }
}

/// Microseconds of an interval literal without months.
pub fn interval_us(expr: &Expr) -> Option<i64> {
    let Expr::Literal(value, _) = bare(expr) else { return None };
    match value {
        ScalarValue::IntervalMonthDayNano(Some(v)) if v.months == 0 => {
            Some(i64::from(v.days) * DAY_US + (v.nanoseconds + 999).div_euclid(1_000))
        }
        ScalarValue::IntervalDayTime(Some(v)) => {
            Some(i64::from(v.days) * DAY_US + i64::from(v.milliseconds) * 1_000)
        }
        ScalarValue::DurationSecond(Some(v)) => v.checked_mul(1_000_000),
        ScalarValue::DurationMillisecond(Some(v)) => v.checked_mul(1_000),
        ScalarValue::DurationMicrosecond(Some(v)) => Some(*v),
        ScalarValue::DurationNanosecond(Some(v)) => Some((v + 999).div_euclid(1_000)),
        _ => None,
    }
}

/// The longest stretch that `date_trunc` takes to one value.
fn trunc_us(unit: &Expr) -> Option<i64> {
    let Expr::Literal(unit, _) = bare(unit) else { return None };
    let text = unit.try_as_str()??;
    Some(match text.to_lowercase().as_str() {
        "microsecond" => 1,
        "millisecond" => 1_000,
        "second" => 1_000_000,
        "minute" => 60_000_000,
        "hour" => 3_600_000_000,
        "day" => DAY_US,
        "week" => 7 * DAY_US,
        "month" => 31 * DAY_US,
        "quarter" => 92 * DAY_US,
        "year" => 366 * DAY_US,
        _ => return None,
    })
}
