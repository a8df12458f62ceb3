//! `time + INTERVAL '10' SECOND` as the addition of two integers.
//!
//! A calendar interval is added date by date: of months and, in a time zone, of days
//! nobody knows how long they are. Where it holds nothing of that kind it is a span of
//! time, which Arrow adds many times as fast. Windows end that way, row for row.

use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

const DAY_NS: i64 = 86_400_000_000_000;

/// Puts durations for intervals.
#[derive(Debug)]
pub struct IntervalsToDurations;

impl OptimizerRule for IntervalsToDurations {
    fn name(&self) -> &str {
        "intervals_to_durations"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        if plan.inputs().is_empty() {
            return Ok(Transformed::no(plan));
        }
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|expr| Ok(counted(expr, &schema)))?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })
    }
}

/// A timestamp plus or minus an interval, as one plus or minus a duration.
fn counted(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else {
        return Transformed::no(expr);
    };
    let duration = match (&op, left.as_ref(), right.as_ref()) {
        (Operator::Plus | Operator::Minus, time, Expr::Literal(interval, _)) => {
            duration(time, interval, schema).map(|of| (time.clone(), of))
        }
        (Operator::Plus, Expr::Literal(interval, _), time) => {
            duration(time, interval, schema).map(|of| (time.clone(), of))
        }
        _ => None,
    };
    match duration {
        Some((time, duration)) => {
            let (time, duration) = (Box::new(time), Box::new(Expr::Literal(duration, None)));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(time, op, duration)))
        }
        None => Transformed::no(Expr::BinaryExpr(BinaryExpr::new(left, op, right))),
    }
}

/// `interval` in the unit of `time`, if that loses nothing.
fn duration(time: &Expr, interval: &ScalarValue, schema: &DFSchema) -> Option<ScalarValue> {
    let ScalarValue::IntervalMonthDayNano(Some(interval)) = interval else { return None };
    let IntervalMonthDayNano { months: 0, days, nanoseconds } = *interval else { return None };
    let DataType::Timestamp(unit, zone) = time.get_type(schema).ok()? else { return None };
    if zone.is_some() && days != 0 {
        return None;
    }
    let nanos = i64::from(days).checked_mul(DAY_NS)?.checked_add(nanoseconds)?;
    let whole = |unit: i64| (nanos % unit == 0).then_some(nanos / unit);
    Some(match unit {
        TimeUnit::Second => ScalarValue::DurationSecond(Some(whole(1_000_000_000)?)),
        TimeUnit::Millisecond => ScalarValue::DurationMillisecond(Some(whole(1_000_000)?)),
        TimeUnit::Microsecond => ScalarValue::DurationMicrosecond(Some(whole(1_000)?)),
        TimeUnit::Nanosecond => ScalarValue::DurationNanosecond(Some(nanos)),
    })
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    async fn planned(sql: &str) -> String {
        let context = SessionContext::new();
        context.add_optimizer_rule(std::sync::Arc::new(IntervalsToDurations));
        let table = "CREATE TABLE t (s TIMESTAMP(0), u TIMESTAMP(6))";
        context.sql(table).await.unwrap().collect().await.unwrap();
        let frame = context.sql(sql).await.unwrap();
        let schema = frame.schema().clone();
        let plan = frame.into_optimized_plan().unwrap();
        assert_eq!(plan.schema().as_ref(), &schema, "names and types stay");
        plan.to_string()
    }

    #[tokio::test]
    async fn spans_of_time_are_counted_and_calendars_are_not() {
        for (sql, counted) in [
            ("SELECT u + INTERVAL '10' SECOND FROM t", true),
            ("SELECT INTERVAL '1' DAY + u FROM t", true),
            ("SELECT max(u - INTERVAL '1' HOUR) AS m FROM t", true),
            ("SELECT s FROM t WHERE s - INTERVAL '2' SECOND > TIMESTAMP '2024-01-01'", true),
            ("SELECT arrow_cast(u, 'Timestamp(us, \"+02:00\")') + INTERVAL '1' HOUR FROM t", true),
            ("SELECT arrow_cast(u, 'Timestamp(us, \"+02:00\")') + INTERVAL '1' DAY FROM t", false),
            ("SELECT u + INTERVAL '1' MONTH FROM t", false),
            ("SELECT s + INTERVAL '1' MILLISECOND FROM t", false),
        ] {
            let plan = planned(sql).await;
            let interval = plan.contains("IntervalMonthDayNano(\"");
            let duration = plan.contains("Duration");
            assert_eq!((duration, interval && !duration), (counted, !counted), "{sql}: {plan}");
        }
    }
}
