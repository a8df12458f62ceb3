//! Interval joins: a condition that ties the two sides' times together tells when a
//! row can find no partner any more.
//!
//! From `left.time <= right.time + c`, a right row needs left rows no later than its
//! time plus `c`: once the left side's watermark has passed that, the row is free.
//! From `left.time >= right.time − c` the same follows for left rows.

use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};

use crate::error::Result;
use crate::operator::rows::Closing;
use crate::plan::info::{Watermarked, bare, interval_us};
use crate::plan::rewrite::{Node, closing, without_weight};

/// A time plus a constant number of microseconds.
struct Shifted {
    column: Column,
    by_us: i64,
}

/// When the rows of each side can find no partner any more.
pub(super) fn bounds(
    filter: Option<&Expr>,
    left: &Node,
    right: &Node,
) -> Result<[Option<Closing>; 2]> {
    let mut free = [None, None];
    let Some(filter) = filter else { return Ok(free) };
    for expr in split_conjunction(filter) {
        for (early, late, slack) in inequalities(expr) {
            // early <= late + slack: a row of `late` waits for rows up to its time + slack.
            let sides = [(left, right, 0), (right, left, 1)];
            for (own, other, index) in sides {
                let waits =
                    own.plan.schema().has_column(&late) && other.plan.schema().has_column(&early);
                let Some(followed) = other.info.watermark(&early).filter(|_| waits) else {
                    continue;
                };
                if !is_time(own, &late) {
                    continue;
                }
                let until = Watermarked {
                    column: late.clone(),
                    lag_us: followed.lag_us.saturating_add(slack),
                    sources: followed.sources.clone(),
                };
                free[index] = Some(closing(&until, &without_weight(own.plan.schema()))?);
            }
        }
    }
    Ok(free)
}

fn is_time(node: &Node, column: &Column) -> bool {
    let ty = Expr::Column(column.clone()).get_type(node.plan.schema().as_ref());
    matches!(ty, Ok(DataType::Timestamp(..)))
}

/// `(a, b, c)` for every `a <= b + c` that an expression says.
fn inequalities(expr: &Expr) -> Vec<(Column, Column, i64)> {
    match expr {
        Expr::Between(between) if !between.negated => {
            let (value, low, high) = (&between.expr, &between.low, &between.high);
            at_most(low, value).into_iter().chain(at_most(value, high)).collect()
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::LtEq | Operator::Lt => at_most(left, right).into_iter().collect(),
            Operator::GtEq | Operator::Gt => at_most(right, left).into_iter().collect(),
            Operator::Eq => at_most(left, right).into_iter().chain(at_most(right, left)).collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn at_most(left: &Expr, right: &Expr) -> Option<(Column, Column, i64)> {
    let (left, right) = (shifted(left)?, shifted(right)?);
    Some((left.column, right.column, right.by_us.checked_sub(left.by_us)?))
}

fn shifted(expr: &Expr) -> Option<Shifted> {
    match bare(expr) {
        Expr::Column(column) => Some(Shifted { column: column.clone(), by_us: 0 }),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let inner = shifted(left)?;
            let by = interval_us(right)?;
            let by_us = match op {
                Operator::Plus => inner.by_us.checked_add(by)?,
                Operator::Minus => inner.by_us.checked_sub(by)?,
                _ => return None,
            };
            Some(Shifted { column: inner.column, by_us })
        }
        _ => None,
    }
}
