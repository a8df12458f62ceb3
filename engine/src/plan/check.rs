//! What a continuous query may be made of.
//!
//! A node is *streaming* when rows of a source flow through it. Streaming
//! nodes must be ones whose output for new rows is the same node applied to
//! the new rows alone; everything below that touches only lake tables is an
//! ordinary batch plan over the snapshot of the epoch and may be anything.

use datafusion::common::JoinType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Union, Volatility};

use crate::error::{Error, Result};
use crate::plan::as_source;

/// Refuses, by name, what can't be kept up to date; answers whether the plan
/// reads a source at all.
pub fn check(plan: &LogicalPlan) -> Result<bool> {
    refuse_volatile(plan)?;
    let inputs: Vec<bool> = plan.inputs().into_iter().map(check).collect::<Result<_>>()?;
    refuse_streaming_subqueries(plan)?;
    if let LogicalPlan::TableScan(scan) = plan {
        return Ok(source_as_provider(&scan.source).is_ok_and(|p| as_source(&p).is_some()));
    }
    if !inputs.iter().any(|streaming| *streaming) {
        return Ok(false);
    }
    match plan {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::Repartition(_) => Ok(true),
        LogicalPlan::Union(union) => check_union(union, &inputs),
        LogicalPlan::Join(join) => check_join(join, inputs[0], inputs[1]),
        other => Err(refusal(other)),
    }
}

fn check_union(_: &Union, inputs: &[bool]) -> Result<bool> {
    if inputs.iter().all(|streaming| *streaming) {
        return Ok(true);
    }
    Err(Error::unsupported(
        "UNION ALL of a source with a table",
        "put the table's rows there once with INSERT INTO, and let the view hold the source's",
    ))
}

/// A stream joins a table's snapshot as long as no row of the table can come
/// out by itself: such a row would have to be taken back later.
fn check_join(join: &Join, left: bool, right: bool) -> Result<bool> {
    if left && right {
        return Err(Error::unsupported(
            "a join of two sources",
            "a source can be joined with a table today",
        ));
    }
    let kept = match join.join_type {
        JoinType::Inner => true,
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => left,
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => right,
        JoinType::Full => false,
    };
    if kept {
        return Ok(true);
    }
    Err(Error::unsupported(
        format!(
            "a {} JOIN that keeps unmatched rows of the table",
            join.join_type.to_string().to_uppercase()
        ),
        "keep the source's rows instead: source LEFT JOIN table",
    ))
}

fn refusal(plan: &LogicalPlan) -> Error {
    let read = "leave it out here and apply it when you read the view";
    let (what, hint) = match plan {
        LogicalPlan::Aggregate(_) => ("an aggregate (GROUP BY, count, sum, …)", read),
        LogicalPlan::Distinct(_) => ("DISTINCT", read),
        LogicalPlan::Window(_) => ("a window function (OVER)", read),
        LogicalPlan::Sort(sort) if sort.fetch.is_some() => ("ORDER BY … LIMIT", read),
        LogicalPlan::Sort(_) => ("ORDER BY", "a table has no order: order when you read the view"),
        LogicalPlan::Limit(_) => ("LIMIT", read),
        LogicalPlan::RecursiveQuery(_) => ("WITH RECURSIVE over a source", read),
        LogicalPlan::Subquery(_) => ("a LATERAL subquery over a source", read),
        other => return Error::unsupported(format!("{}", other.display()), read),
    };
    Error::unsupported(what, hint)
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

/// A subquery over tables is evaluated on the epoch's snapshot; one over a
/// source would have to remember it.
fn refuse_streaming_subqueries(plan: &LogicalPlan) -> Result<()> {
    plan.apply_subqueries(|subquery| {
        let inner = match subquery {
            LogicalPlan::Subquery(subquery) => subquery.subquery.as_ref(),
            other => other,
        };
        if check(inner)? {
            return Err(Error::unsupported(
                "a subquery over a source",
                "read the source in FROM, and the table in the subquery",
            )
            .into());
        }
        Ok(TreeNodeRecursion::Jump)
    })?;
    Ok(())
}
