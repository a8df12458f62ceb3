//! Subqueries wherever an expression may stand.
//!
//! DataFusion 55 makes joins of subqueries in filters, and of scalar ones in projections. So
//! those in aggregates, windows, sorts and conditions of joins, and those among the columns
//! that are not scalar, become columns of a projection below. `EXISTS`, `IN`, `ANY` and `ALL`
//! are conditions over scalar ones: there are rows where their count is above 0.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ExprSchema, Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::{count, max, min};
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Distinct, Expr, ExprSchemable, Filter, Join, LogicalPlan, LogicalPlanBuilder, Operator,
    Projection, Subquery, Union, Values, binary_expr, lit, not, when,
};
use datafusion::optimizer::AnalyzerRule;

/// Moves subqueries to where DataFusion makes joins of them.
#[derive(Debug)]
pub struct SubqueriesInProjections;

impl AnalyzerRule for SubqueriesInProjections {
    fn name(&self) -> &str {
        "subqueries_in_projections"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let moved = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Values(values) if any_subquery(values.values.iter().flatten())? => {
                projections(values)
            }
            LogicalPlan::Projection(_) => projection(node),
            LogicalPlan::Join(join) => sides(join),
            LogicalPlan::Aggregate(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Distinct(Distinct::On(_)) => below(node),
            node => Ok(Transformed::no(node)),
        })?;
        if !moved.transformed {
            return Ok(moved.data);
        }
        moved
            .data
            .transform_up_with_subqueries(|node| node.recompute_schema().map(Transformed::yes))
            .data()
    }
}

fn is_subquery(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_)
    )
}

fn any_subquery<'a>(exprs: impl IntoIterator<Item = &'a Expr>) -> Result<bool> {
    for expr in exprs {
        if expr.exists(|expr| Ok(is_subquery(expr)))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `VALUES` as a union of projections, one a row.
fn projections(values: Values) -> Result<Transformed<LogicalPlan>> {
    let fields = values.schema.fields();
    let row = |row: Vec<Expr>| {
        let exprs = row.into_iter().zip(fields).map(|(expr, field)| expr.alias(field.name()));
        let one = LogicalPlanBuilder::empty(true).project(exprs.collect::<Vec<_>>())?.build()?;
        Ok(Arc::new(projection(one)?.data))
    };
    let mut rows = values.values.into_iter().map(row).collect::<Result<Vec<_>>>()?;
    Ok(Transformed::yes(match rows.len() {
        1 => Arc::unwrap_or_clone(rows.remove(0)),
        _ => LogicalPlan::Union(Union::try_new_with_loose_types(rows)?),
    }))
}

/// A projection whose subqueries are scalar ones; DataFusion takes those as they are.
fn projection(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let others = |expr: &Expr| Ok(is_subquery(expr) && !matches!(expr, Expr::ScalarSubquery(_)));
    for expr in node.expressions() {
        if expr.exists(others)? {
            return below(node);
        }
    }
    Ok(Transformed::no(node))
}

/// The node with its subqueries in a projection of its input.
fn below(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let [input] = node.inputs()[..] else { return Ok(Transformed::no(node)) };
    let was = Arc::clone(node.schema());
    let mut side = Side::new(input, "__subquery");
    let names = NamePreserver::new(&node);
    let node = node.map_expressions(|expr| {
        if let Expr::GroupingSet(_) = expr {
            return Ok(Transformed::no(expr));
        }
        let name = names.save(&expr);
        let expr = side.moved(expr)?;
        Ok(expr.update_data(|expr| name.restore(expr)))
    })?;
    if !node.transformed {
        return Ok(node);
    }
    let input = side.projected()?;
    let node = node.data.map_children(|_| Ok(Transformed::yes(input.clone())))?.data;
    shaped(node.recompute_schema()?, &was)
}

/// The join with the subqueries of its condition in projections of its sides, each where the
/// columns beside it come from.
fn sides(mut join: Join) -> Result<Transformed<LogicalPlan>> {
    if !any_subquery(&join.filter)? {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    let was = Arc::clone(&join.schema);
    let mut left = Side::new(&join.left, "__subquery_left");
    let mut right = Side::new(&join.right, "__subquery_right");
    let filter = join
        .filter
        .take()
        .map(|filter| {
            filter
                .transform_down(|expr| {
                    if !any_subquery([&expr])? {
                        return Ok(Transformed::new(expr, false, TreeNodeRecursion::Jump));
                    }
                    let columns = columns(&expr)?;
                    let (on_left, on_right) = (left.has(&columns), right.has(&columns));
                    let moved = match (on_left, on_right) {
                        (true, _) if !columns.is_empty() || is_subquery(&expr) => {
                            left.moved(expr)?
                        }
                        (false, true) => right.moved(expr)?,
                        _ => return Ok(Transformed::no(expr)),
                    };
                    Ok(Transformed::new(moved.data, true, TreeNodeRecursion::Jump))
                })
                .data()
        })
        .transpose()?;
    join.filter = filter;
    join.left = Arc::new(left.projected()?);
    join.right = Arc::new(right.projected()?);
    shaped(LogicalPlan::Join(join).recompute_schema()?, &was)
}

/// The columns that an expression names, in its subqueries too.
fn columns(expr: &Expr) -> Result<Vec<Column>> {
    let mut columns: Vec<Column> = expr.column_refs().into_iter().cloned().collect();
    expr.apply(|expr| {
        let subquery = match expr {
            Expr::ScalarSubquery(subquery)
            | Expr::Exists(Exists { subquery, .. })
            | Expr::InSubquery(InSubquery { subquery, .. })
            | Expr::SetComparison(SetComparison { subquery, .. }) => subquery,
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        for outer in &subquery.outer_ref_columns {
            if let Expr::OuterReferenceColumn(_, column) = outer {
                columns.push(column.clone());
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(columns)
}

/// The plan with the columns of `schema` alone.
fn shaped(plan: LogicalPlan, schema: &DFSchema) -> Result<Transformed<LogicalPlan>> {
    if plan.schema().fields().len() == schema.fields().len() {
        return Ok(Transformed::yes(plan));
    }
    let columns = schema.columns().into_iter().map(Expr::Column).collect();
    let plan = Projection::try_new(columns, Arc::new(plan))?;
    Ok(Transformed::yes(LogicalPlan::Projection(plan)))
}

/// An input, and the subqueries that become columns of it.
struct Side {
    input: LogicalPlan,
    /// What the columns' names begin with.
    prefix: &'static str,
    exprs: Vec<Expr>,
}

impl Side {
    fn new(input: &LogicalPlan, prefix: &'static str) -> Self {
        Self { input: input.clone(), prefix, exprs: Vec::new() }
    }

    fn has(&self, columns: &[Column]) -> bool {
        columns.iter().all(|column| self.input.schema().has_column(column))
    }

    /// The expression with columns for its subqueries.
    fn moved(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        let schema = Arc::clone(self.input.schema());
        expr.transform_down(|expr| {
            if !is_subquery(&expr) {
                return Ok(Transformed::no(expr));
            }
            let value = scalar(expr, &schema)?.data.transform_down(|expr| match expr {
                Expr::ScalarSubquery(_) => Ok(Transformed::yes(self.column(expr))),
                expr => Ok(Transformed::no(expr)),
            })?;
            Ok(Transformed::new(value.data, value.transformed, TreeNodeRecursion::Jump))
        })
    }

    /// The column of a subquery. One that is there already is the same.
    fn column(&mut self, subquery: Expr) -> Expr {
        let known = self.exprs.iter().position(|own| *own == subquery);
        let nth = known.unwrap_or_else(|| {
            self.exprs.push(subquery);
            self.exprs.len() - 1
        });
        Expr::Column(Column::new_unqualified(self.name(nth)))
    }

    fn name(&self, nth: usize) -> String {
        format!("{}_{nth}", self.prefix)
    }

    fn projected(self) -> Result<LogicalPlan> {
        if self.exprs.is_empty() {
            return Ok(self.input);
        }
        let own = self.input.schema().columns().into_iter().map(Expr::Column);
        let names: Vec<String> = (0..self.exprs.len()).map(|nth| self.name(nth)).collect();
        let exprs =
            own.chain(self.exprs.into_iter().zip(names).map(|(expr, name)| expr.alias(name)));
        let exprs = exprs.collect();
        Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(self.input))?))
    }
}

/// A subquery expression over rows of `input` in terms of scalar subqueries.
fn scalar(expr: Expr, input: &DFSchema) -> Result<Transformed<Expr>> {
    let whether = match expr {
        Expr::Exists(Exists { subquery, negated }) => {
            let exists = exists(&subquery, None)?;
            if negated { not(exists) } else { exists }
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            let any = any(*expr, Operator::Eq, &subquery, input)?;
            if negated { not(any) } else { any }
        }
        Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => match quantifier {
            SetQuantifier::Any => any(*expr, op, &subquery, input)?,
            SetQuantifier::All => {
                let Some(op) = op.negate() else {
                    let expr = SetComparison { expr, subquery, op, quantifier };
                    return Ok(Transformed::no(Expr::SetComparison(expr)));
                };
                not(any(*expr, op, &subquery, input)?)
            }
        },
        expr => return Ok(Transformed::no(expr)),
    };
    Ok(Transformed::yes(whether))
}

/// `value op ANY (subquery)`, which is NULL where it would hold if one of the NULLs were
/// another value.
fn any(value: Expr, op: Operator, subquery: &Subquery, input: &DFSchema) -> Result<Expr> {
    let rows = subquery.subquery.as_ref();
    let own = Expr::Column(rows.schema().columns().remove(0));
    let extreme = |aggregate: fn(Expr) -> Expr| -> Result<Expr> {
        let compared = subquery_of(subquery, rows.clone(), aggregate(own.clone()))?;
        Ok(binary_expr(value.clone(), op, compared).is_true())
    };
    let some = match op {
        Operator::Gt | Operator::GtEq => extreme(min)?,
        Operator::Lt | Operator::LtEq => extreme(max)?,
        Operator::NotEq => extreme(min)?.or(extreme(max)?),
        _ => exists(subquery, Some(binary_expr(outer(value.clone(), input)?, op, own.clone())))?,
    };
    let (value_nullable, own_nullable) = (value.nullable(input)?, own.nullable(rows.schema())?);
    let mut unknown = Vec::new();
    if value_nullable {
        unknown.push(value.is_null().and(exists(subquery, None)?));
    }
    if own_nullable {
        unknown.push(exists(subquery, Some(own.is_null()))?);
    }
    match unknown.into_iter().reduce(Expr::or) {
        Some(unknown) => when(some, lit(true))
            .when(unknown, lit(ScalarValue::Boolean(None)))
            .otherwise(lit(false)),
        None => Ok(some),
    }
}

/// Whether the subquery has rows that pass the filter.
fn exists(subquery: &Subquery, filter: Option<Expr>) -> Result<Expr> {
    let mut rows = subquery.subquery.as_ref().clone();
    match filter {
        Some(filter) => rows = LogicalPlan::Filter(Filter::try_new(filter, Arc::new(rows))?),
        None => rows = without_shape(rows),
    }
    let count = subquery_of(subquery, rows, count(lit(1_i64)))?;
    Ok(count.gt(lit(0_i64)))
}

/// The rows without what doesn't decide whether there are any.
fn without_shape(rows: LogicalPlan) -> LogicalPlan {
    let input = match &rows {
        LogicalPlan::Projection(projection) => &projection.input,
        LogicalPlan::Sort(sort) if sort.fetch.is_none_or(|fetch| fetch > 0) => &sort.input,
        LogicalPlan::Distinct(Distinct::All(input)) => input,
        LogicalPlan::Limit(limit) if limit.skip.is_none() => match limit.fetch.as_deref() {
            Some(Expr::Literal(ScalarValue::Int64(Some(1..)), _)) => &limit.input,
            _ => return rows,
        },
        _ => return rows,
    };
    without_shape(input.as_ref().clone())
}

/// An aggregate over all rows, as a scalar subquery.
fn subquery_of(subquery: &Subquery, rows: LogicalPlan, aggregate: Expr) -> Result<Expr> {
    let plan =
        LogicalPlanBuilder::from(rows).aggregate(Vec::<Expr>::new(), [aggregate])?.build()?;
    Ok(Expr::ScalarSubquery(Subquery {
        outer_ref_columns: plan.all_out_ref_exprs(),
        subquery: Arc::new(plan),
        spans: subquery.spans.clone(),
    }))
}

/// The expression as a subquery sees it from inside.
fn outer(expr: Expr, input: &DFSchema) -> Result<Expr> {
    expr.transform(|expr| match expr {
        Expr::Column(column) => {
            let field = Arc::clone(input.field_from_column(&column)?);
            Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
        }
        expr => Ok(Transformed::no(expr)),
    })
    .data()
}
