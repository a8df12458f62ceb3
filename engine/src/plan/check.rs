//! What a continuous query may not be made of.
//!
//! What each node becomes, and which are refused, is for [`super::rewrite`] to say;
//! here are the rules that hold wherever a node stands.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};

use crate::error::{Error, Result};
use crate::plan::{as_lake, as_source};

/// Refuses what no rule can maintain, wherever it stands; answers whether the plan
/// reads a source or a table at all.
pub fn check(plan: &LogicalPlan) -> Result<bool> {
    let mut reads = false;
    plan.apply_with_subqueries(|node| {
        refuse_volatile(node)?;
        if let LogicalPlan::TableScan(scan) = node {
            let provider = source_as_provider(&scan.source)?;
            reads |= as_source(&provider).is_some() || as_lake(&provider).is_some();
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(reads)
}

/// Why a node over rows of a source has no rule.
pub fn refusal(plan: &LogicalPlan) -> Error {
    let read = "leave it out here and apply it when you read the view";
    let what = match plan {
        LogicalPlan::RecursiveQuery(_) => "WITH RECURSIVE over a source",
        LogicalPlan::Subquery(_) => "a LATERAL subquery over a source",
        LogicalPlan::Distinct(_) => "DISTINCT here",
        other => return Error::unsupported(format!("{}", other.display()), read),
    };
    Error::unsupported(what, read)
}

/// A run after a crash must give the same rows: no `random()`, no `uuid()`.
fn refuse_volatile(plan: &LogicalPlan) -> Result<()> {
    for_each_function(plan, |name, volatility| match volatility {
        Volatility::Volatile => Err(Error::unsupported(
            format!("the volatile function {name}()"),
            "a run after a crash would give other rows; use a column, or now(), which is \
             recorded with each epoch",
        )),
        _ => Ok(()),
    })
}

/// Whether the plan calls `now()` or another function whose answer is fixed
/// when an epoch starts.
pub fn depends_on_time(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let walk = plan.apply_with_subqueries(|node| {
        let seen = for_each_function(node, |_, volatility| {
            found |= volatility == Volatility::Stable;
            Ok(())
        });
        seen.map(|()| TreeNodeRecursion::Continue).map_err(Into::into)
    });
    // An error can't come out of the closure above; if one did, planning anew is safe.
    found || walk.is_err()
}

/// Whether an expression calls `now()` or another function whose answer is fixed when
/// an epoch starts.
pub fn asks_for_time(expr: &Expr) -> bool {
    let timed = |e: &Expr| match e {
        Expr::ScalarFunction(call) => Ok(call.func.signature().volatility == Volatility::Stable),
        _ => Ok(false),
    };
    expr.exists(timed).unwrap_or(true)
}

/// Refuses what the optimizer could not turn into a join: DataFusion has no
/// physical plan for a reference to the row of an outer query.
pub fn refuse_lateral(optimized: &LogicalPlan) -> Result<()> {
    optimized.apply_with_subqueries(|node| {
        for expr in node.expressions() {
            if expr.exists(|e| Ok(matches!(e, Expr::OuterReferenceColumn(..))))? {
                return Err(Error::unsupported(
                    "a subquery that depends on the row it stands beside (LATERAL)",
                    "write unnest(…) among the columns of the SELECT, or the subquery as a join",
                )
                .into());
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn for_each_function(
    plan: &LogicalPlan,
    mut f: impl FnMut(&str, Volatility) -> Result<()>,
) -> Result<()> {
    for expr in plan.expressions() {
        expr.apply(|e| {
            if let Expr::ScalarFunction(call) = e {
                f(call.func.name(), call.func.signature().volatility)?;
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(())
}
