//! `now()` and its kin inside of operators that keep rows.
//!
//! What is evaluated again later must come out as it did: the time is put beside each row
//! when it comes, as a column.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::{
    Aggregate, Expr, LogicalPlan, Projection, Sort, SortExpr, Volatility, Window,
};

use crate::error::{Error, Result};
use crate::plan::check;
use crate::plan::rewrite::Node;

const STAMP: &str = "__now_";

/// Columns in the place of the time.
#[derive(Default)]
struct Stamps(Vec<Expr>);

impl Stamps {
    fn replace(&mut self, expr: &Expr) -> Result<Expr> {
        let replaced = expr.clone().transform_down(|expr| match &expr {
            Expr::ScalarFunction(call)
                if call.func.signature().volatility == Volatility::Stable =>
            {
                let known = self.0.iter().position(|stamp| *stamp == expr);
                let at = known.unwrap_or_else(|| {
                    self.0.push(expr);
                    self.0.len() - 1
                });
                let column = Column::new_unqualified(format!("{STAMP}{at}"));
                Ok(Transformed::new(Expr::Column(column), true, TreeNodeRecursion::Jump))
            }
            _ => Ok(Transformed::no(expr)),
        })?;
        Ok(replaced.data)
    }

    /// The rows of `input` with the stamps behind them.
    fn over(self, input: &Arc<LogicalPlan>) -> Result<Arc<LogicalPlan>> {
        let stamps = self.0.into_iter().enumerate();
        let stamps = stamps.map(|(at, expr)| expr.alias(format!("{STAMP}{at}")));
        let columns = input.schema().columns().into_iter().map(Expr::Column);
        let projection = Projection::try_new(columns.chain(stamps).collect(), Arc::clone(input))?;
        Ok(Arc::new(LogicalPlan::Projection(projection)))
    }
}

/// The columns of `plan` at the places and with the names of `schema`.
fn named(plan: LogicalPlan, places: &[usize], schema: &DFSchema) -> Result<LogicalPlan> {
    let columns = plan.schema().columns();
    let exprs = places.iter().zip(schema.iter()).map(|(at, (qualifier, field))| {
        Expr::Column(columns[*at].clone()).alias_qualified(qualifier.cloned(), field.name())
    });
    Ok(LogicalPlan::Projection(Projection::try_new(exprs.collect(), Arc::new(plan))?))
}

/// The same node over rows that hold the time; `None` for one that does not ask for it.
pub fn stamped(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    if !plan.expressions().iter().any(check::asks_for_time) {
        return Ok(None);
    }
    let mut stamps = Stamps::default();
    let mut all =
        |exprs: &[Expr]| exprs.iter().map(|e| stamps.replace(e)).collect::<Result<Vec<_>>>();
    match plan {
        LogicalPlan::Aggregate(aggregate) => {
            let (group, calls) = (all(&aggregate.group_expr)?, all(&aggregate.aggr_expr)?);
            let input = stamps.over(&aggregate.input)?;
            let schema = Arc::clone(&aggregate.schema);
            let made = Aggregate::try_new_with_schema(input, group, calls, schema)?;
            Ok(Some(LogicalPlan::Aggregate(made)))
        }
        LogicalPlan::Window(window) => {
            let calls = all(&window.window_expr)?;
            let added = stamps.0.len();
            let made = Window::try_new(calls, stamps.over(&window.input)?)?;
            let rows = window.input.schema().fields().len();
            let places = (0..rows).chain((rows..window.schema.fields().len()).map(|at| at + added));
            let places: Vec<usize> = places.collect();
            named(LogicalPlan::Window(made), &places, &window.schema).map(Some)
        }
        LogicalPlan::Sort(sort) => {
            let exprs: Vec<Expr> = sort.expr.iter().map(|by| by.expr.clone()).collect();
            let expr = all(&exprs)?.into_iter().zip(&sort.expr);
            let expr = expr.map(|(expr, by)| SortExpr { expr, ..by.clone() }).collect();
            let made = Sort { expr, input: stamps.over(&sort.input)?, fetch: sort.fetch };
            let schema = sort.input.schema();
            let places: Vec<usize> = (0..schema.fields().len()).collect();
            named(LogicalPlan::Sort(made), &places, schema).map(Some)
        }
        _ => Ok(None),
    }
}

/// A row that is taken away later must then look as it did when it was put in.
pub fn refuse(input: &Node, exprs: &[Expr]) -> Result<()> {
    match input.info.retracting {
        true => refuse_in("over rows that can change later", exprs),
        false => Ok(()),
    }
}

/// Refuses the time in a place where it would be asked for again.
pub fn refuse_in(place: &str, exprs: &[Expr]) -> Result<()> {
    if exprs.iter().any(check::asks_for_time) {
        return Err(Error::unsupported(
            format!("now() {place}"),
            "stamp the source's rows: SELECT *, now() AS seen_at FROM the source, in a subquery",
        ));
    }
    Ok(())
}
