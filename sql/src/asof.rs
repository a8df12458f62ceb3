//! `a ASOF JOIN b MATCH_CONDITION (a.t >= b.t) ON a.k = b.k`: every row of `a` with the latest
//! row of `b` that is not after it; without one, with NULLs.
//!
//! A row of `b` counts from its time up to the time of the next one with the same key. So
//! `lead(b.t) OVER (PARTITION BY b.k ORDER BY b.t)` makes an ordinary left join of it, over
//! keys and a range. For `<=` and `<` (the earliest row of `b` that is not before) it is `lag`.
//! Of rows of `b` with the same key and time one counts: the last, or for `<=` the first, by
//! their other columns.
//!
//! [`as_functions`] hides the join in a table function from DataFusion's parser of joins, for
//! which [`AsOfJoins`] then makes the plan.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::error::DataFusionError;
use datafusion::functions_window::lead_lag::{lag_udwf, lead_udwf};
use datafusion::logical_expr::expr::BinaryExpr;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, Operator, binary_expr,
};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Join, JoinConstraint,
    JoinOperator, ObjectName, Query, Select, Spanned as _, TableFactor, TableWithJoins, VisitMut,
    VisitorMut,
};

use crate::error::{Error, Location, Result};
use crate::window_tvf::call::{derived, everything_from, function, is};

const ASOF_JOIN: &str = "ASOF_JOIN";
/// Up to when a row of the right side counts.
const BOUND: &str = "__asof_bound";

/// Turns every ASOF join into `TABLE(ASOF_JOIN((SELECT * FROM a), (SELECT * FROM b), match, on))`.
pub fn as_functions(query: &mut Query) -> Result<()> {
    struct Joins;
    impl VisitorMut for Joins {
        type Break = Error;
        fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
            select.from.iter_mut().try_for_each(rewritten)
        }
        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
            match factor {
                TableFactor::NestedJoin { table_with_joins, .. } => rewritten(table_with_joins),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match query.visit(&mut Joins) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn is_asof(join: &Join) -> bool {
    matches!(join.join_operator, JoinOperator::AsOf { .. })
}

fn rewritten(tables: &mut TableWithJoins) -> ControlFlow<Error> {
    while let Some(at) = tables.joins.iter().position(is_asof) {
        let rest = tables.joins.split_off(at + 1);
        let Some(Join { relation: right, join_operator, .. }) = tables.joins.pop() else {
            return ControlFlow::Continue(());
        };
        let JoinOperator::AsOf { match_condition, constraint } = join_operator else {
            return ControlFlow::Continue(());
        };
        let JoinConstraint::On(on) = constraint else {
            return ControlFlow::Break(
                Error::refused("ASOF JOIN needs keys that are equal on both sides")
                    .at(Location::of(match_condition.span()))
                    .with_hint("write ON a.key = b.key behind the MATCH_CONDITION"),
            );
        };
        let left = std::mem::replace(
            tables,
            TableWithJoins { relation: derived(Box::new(nothing())), joins: rest },
        );
        let left = match left.joins.is_empty() {
            true => left.relation,
            false => TableFactor::NestedJoin { table_with_joins: Box::new(left), alias: None },
        };
        let side = |table| SqlExpr::Subquery(Box::new(everything_from(table)));
        let arguments = [side(left), side(right), match_condition, on];
        let arguments = arguments.map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)));
        let name = ObjectName::from(vec![Ident::new(ASOF_JOIN)]);
        let expr = SqlExpr::Function(function(name, arguments.to_vec()));
        tables.relation = TableFactor::TableFunction { expr, alias: None };
    }
    ControlFlow::Continue(())
}

/// Stands in a place for a moment.
fn nothing() -> Query {
    everything_from(crate::window_tvf::call::plain(ObjectName::from(Vec::new())))
}

/// Plans ASOF joins.
#[derive(Debug)]
pub struct AsOfJoins;

impl RelationPlanner for AsOfJoins {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning, DataFusionError> {
        if let TableFactor::TableFunction { expr: SqlExpr::Function(function), alias } = &relation
            && is(&function.name, ASOF_JOIN)
            && let FunctionArguments::List(list) = &function.args
            && let [left, right, matched, on] = list.args.as_slice()
            && let [
                Some(SqlExpr::Subquery(left)),
                Some(SqlExpr::Subquery(right)),
                Some(matched),
                Some(on),
            ] = [left, right, matched, on].map(expr_of)
        {
            let left = context.plan(derived(left.clone()))?;
            let right = context.plan(derived(right.clone()))?;
            let plan = joined(left, right, matched, on, context)?;
            return Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(
                plan,
                alias.clone(),
            ))));
        }
        Ok(RelationPlanning::Original(Box::new(relation)))
    }
}

fn expr_of(argument: &FunctionArg) -> Option<&SqlExpr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

fn joined(
    left: LogicalPlan,
    right: LogicalPlan,
    matched: &SqlExpr,
    on: &SqlExpr,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let both = left.schema().join(right.schema())?;
    let sides = Sides { left: left.schema().as_ref(), right: right.schema().as_ref() };
    let condition = context.sql_to_expr(matched.clone(), &both)?;
    let (before, operator, after) = sides
        .ordered(condition)
        .filter(|(_, operator, _)| is_range(*operator))
        .ok_or_else(|| {
            Error::refused(
                "a MATCH_CONDITION compares a time of the left side with one of the right",
            )
            .at(Location::of(matched.span()))
            .with_hint("write MATCH_CONDITION (a.time >= b.time)")
        })?;
    let mut keys = Vec::new();
    for part in split_conjunction_owned(context.sql_to_expr(on.clone(), &both)?) {
        match sides.ordered(part) {
            Some((left, Operator::Eq, right)) => keys.push((left, right)),
            _ => {
                return Err(Error::refused("ASOF JOIN compares its keys with = only")
                    .at(Location::of(on.span()))
                    .with_hint("write ON a.key = b.key, and other conditions into WHERE"));
            }
        }
    }
    let columns: Vec<Expr> = left
        .schema()
        .columns()
        .into_iter()
        .chain(right.schema().columns())
        .map(Expr::Column)
        .collect();
    let right =
        bounded(right, &after, operator, keys.iter().map(|(_, key)| key.clone()).collect())?;
    let bound = Expr::Column(Column::from_name(BOUND));
    let within = binary_expr(before.clone(), opposite(operator), bound.clone()).or(bound.is_null());
    let matches = [binary_expr(before, operator, after), within];
    let equal = keys.into_iter().map(|(left, right)| left.eq(right));
    let join =
        LogicalPlanBuilder::from(left).join_on(right, JoinType::Left, equal.chain(matches))?;
    Ok(join.project(columns)?.build()?)
}

/// The right side with the time up to which, or from which on, each row counts.
fn bounded(
    right: LogicalPlan,
    time: &Expr,
    operator: Operator,
    keys: Vec<Expr>,
) -> Result<LogicalPlan> {
    let backwards = matches!(operator, Operator::GtEq | Operator::Gt);
    let neighbour = if backwards { lead_udwf() } else { lag_udwf() };
    let fields =
        right.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)));
    // Which of several rows with one time counts, may not depend on chance.
    let others = fields
        .filter(|(_, field)| !field.data_type().is_nested())
        .map(|(qualifier, field)| Expr::Column(Column::new(qualifier, field.name())));
    let order =
        std::iter::once(time.clone()).chain(others).map(|by| by.sort(true, false)).collect();
    let bound = neighbour.call(vec![time.clone()]).partition_by(keys).order_by(order).build()?;
    let columns: Vec<Expr> = right.schema().columns().into_iter().map(Expr::Column).collect();
    let named = Expr::Column(Column::from_name(bound.schema_name().to_string())).alias(BOUND);
    let windowed = LogicalPlanBuilder::from(right)
        .filter(time.clone().is_not_null())?
        .window([bound])?
        .project(columns.into_iter().chain([named]))?;
    Ok(windowed.build()?)
}

fn is_range(operator: Operator) -> bool {
    matches!(operator, Operator::GtEq | Operator::Gt | Operator::LtEq | Operator::Lt)
}

/// `<` for `>=`: what holds until the next row counts.
fn opposite(operator: Operator) -> Operator {
    match operator {
        Operator::GtEq => Operator::Lt,
        Operator::Gt => Operator::LtEq,
        Operator::LtEq => Operator::Gt,
        _ => Operator::GtEq,
    }
}

/// What both sides of the join have.
struct Sides<'a> {
    left: &'a DFSchema,
    right: &'a DFSchema,
}

impl Sides<'_> {
    /// A comparison with what is computed of the left side on the left.
    fn ordered(&self, expr: Expr) -> Option<(Expr, Operator, Expr)> {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return None };
        if of(&left, self.left) && of(&right, self.right) {
            return Some((*left, op, *right));
        }
        let swapped = op.swap()?;
        (of(&right, self.left) && of(&left, self.right)).then_some((*right, swapped, *left))
    }
}

/// Whether an expression is computed of these columns alone, and of at least one.
fn of(expr: &Expr, schema: &DFSchema) -> bool {
    let columns = expr.column_refs();
    !columns.is_empty() && columns.iter().all(|column| schema.has_column(column))
}
