//! Aggregates: with accumulators wherever rows only come, or can be subtracted;
//! anew for the touched groups otherwise.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, Cast};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Expr, ExprSchemable, GroupingSet, LogicalPlan, LogicalPlanBuilder,
    Operator, cast, lit, when,
};

use crate::error::{Error, Result};
use crate::operator::rows::Closing;
use crate::plan::info::{Info, Watermarked, bare};
use crate::plan::node::Op;
use crate::plan::rewrite::{Node, Rewriter, rows, weight};

/// How many of a row there are, where nothing tells equal ones apart.
pub(super) const COPIES: &str = "__copies";
/// `DISTINCT` calls of these count a value when a group first has it.
const ONCE: [&str; 5] = ["count", "sum", "avg", "min", "max"];

impl Rewriter {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate) -> Result<Node> {
        if let [Expr::GroupingSet(set)] = aggregate.group_expr.as_slice() {
            return self.grouping_sets(aggregate, set);
        }
        if let Some(node) = self.session_groups(aggregate)? {
            return Ok(node);
        }
        let input = self.node(&aggregate.input)?;
        let info = self.grouped(aggregate, &input)?;
        let calls: Vec<&AggregateFunction> =
            aggregate.aggr_expr.iter().map(call).collect::<Result<_>>()?;
        let ordered = calls.iter().any(|call| !call.params.order_by.is_empty());
        let linear = || linear(&calls, aggregate, input.plan.schema());
        match (ordered, input.info.retracting) {
            (false, false) => self.accumulate(aggregate, input, info),
            (false, true) => match linear()? {
                Some((calls, finish)) => self.subtract(aggregate, input, info, calls, finish),
                None => self.groups_anew(aggregate, input, info),
            },
            (true, _) => self.groups_anew(aggregate, input, info),
        }
    }

    /// What is known of a grouped result.
    fn grouped(&self, aggregate: &Aggregate, input: &Node) -> Result<Info> {
        let keys = aggregate.schema.columns().into_iter().take(aggregate.group_expr.len());
        let keys: Vec<Column> = keys.collect();
        let watermarks = aggregate.group_expr.iter().zip(&keys).filter_map(|(expr, column)| {
            let (lag_us, sources) = input.info.follow(expr)?;
            Some(Watermarked { column: column.clone(), lag_us, sources })
        });
        let watermarks = watermarks.collect();
        let distinct = aggregate.aggr_expr.is_empty() && !input.info.retracting;
        Ok(Info {
            streaming: true,
            retracting: !distinct,
            small: keys.is_empty() || input.info.small,
            key: Some(keys),
            watermarks,
        })
    }

    fn accumulate(&mut self, aggregate: &Aggregate, input: Node, info: Info) -> Result<Node> {
        let calls = aggregate.aggr_expr.iter().map(|expr| {
            let function = call(expr)?;
            let once = function.params.distinct
                && function.params.args.len() == 1
                && ONCE.contains(&function.func.name());
            let mut function = function.clone();
            function.params.distinct &= !once;
            Ok((Expr::AggregateFunction(function), once))
        });
        let calls = calls.collect::<Result<Vec<_>>>()?;
        let closing = first_closing(&info, aggregate);
        let mut notes = vec![format!("keeps accumulators of each group; {}", freed(&info))];
        if calls.iter().any(|(_, once)| *once) {
            notes.push("keeps the distinct values of each group".to_owned());
        }
        let op = Op::Aggregate {
            group: aggregate.group_expr.clone(),
            session: None,
            calls,
            finish: None,
            counted: false,
            closing,
        };
        self.stateful(op, vec![input.plan], &aggregate.schema, info, notes)
    }

    fn subtract(
        &mut self,
        aggregate: &Aggregate,
        input: Node,
        info: Info,
        calls: Vec<Expr>,
        finish: Vec<Expr>,
    ) -> Result<Node> {
        let closing = first_closing(&info, aggregate);
        let notes = vec![format!(
            "keeps accumulators of each group, of rows put in and taken away; {}",
            freed(&info)
        )];
        let op = Op::Aggregate {
            group: aggregate.group_expr.clone(),
            session: None,
            calls: calls.into_iter().map(|call| (call, false)).collect(),
            finish: Some(finish),
            counted: true,
            closing,
        };
        self.stateful(op, vec![input.plan], &aggregate.schema, info, notes)
    }

    /// Each row once, with [`COPIES`] of it.
    pub(super) fn counted(&mut self, input: Node) -> Result<Node> {
        let columns = rows(&input).into_iter().map(Expr::Column).collect();
        let calls = vec![count(lit(1i64)).alias(COPIES)];
        let aggregate = Aggregate::try_new(Arc::new(self.leaf(0, &input)), columns, calls)?;
        let info = self.grouped(&aggregate, &input)?;
        let calls: Vec<&AggregateFunction> =
            aggregate.aggr_expr.iter().map(call).collect::<Result<_>>()?;
        let (calls, finish) = linear(&calls, &aggregate, input.plan.schema())?
            .ok_or_else(|| Error::internal("a count that can't be subtracted from"))?;
        self.subtract(&aggregate, input, info, calls, finish)
    }

    /// Keeps the groups' rows and aggregates those of touched groups anew.
    fn groups_anew(&mut self, aggregate: &Aggregate, input: Node, info: Info) -> Result<Node> {
        let closing = info
            .watermarks
            .iter()
            .find_map(|watermarked| plain_closing(watermarked, aggregate, &input));
        let leaf = self.leaf(0, &input);
        let template = LogicalPlan::Aggregate(Aggregate::try_new_with_schema(
            Arc::new(leaf),
            aggregate.group_expr.clone(),
            aggregate.aggr_expr.clone(),
            Arc::clone(&aggregate.schema),
        )?);
        let notes = vec![format!(
            "keeps the rows of each group, aggregates those of touched groups anew; {}",
            if closing.is_some() { freed(&info) } else { freed(&Info::default()) }
        )];
        let op = Op::Recompute {
            keys: vec![aggregate.group_expr.clone()],
            template: Box::new(template),
            from_nothing: aggregate.group_expr.is_empty(),
            closing: vec![closing],
            sessions: None,
        };
        self.stateful(op, vec![input.plan], &aggregate.schema, info, notes)
    }

    /// One aggregate a set, and their union.
    fn grouping_sets(&mut self, aggregate: &Aggregate, set: &GroupingSet) -> Result<Node> {
        let all = set.distinct_expr().into_iter().cloned().collect::<Vec<_>>();
        let sets = sets_of(set)?;
        let mut inputs = Vec::with_capacity(sets.len());
        let fields = aggregate.schema.columns();
        for (ordinal, exprs) in sets.iter().enumerate() {
            let mut calls = aggregate.aggr_expr.clone();
            if exprs.is_empty() && calls.is_empty() {
                // The one row of all rows: it takes an aggregate to be a node.
                calls.push(count(lit(1i64)));
            }
            let one = LogicalPlanBuilder::from(aggregate.input.as_ref().clone())
                .aggregate(exprs.clone(), calls)?
                .build()?;
            let columns = one.schema().columns();
            let values = &columns[exprs.len()..][..aggregate.aggr_expr.len()];
            let mut outputs = Vec::with_capacity(fields.len());
            for (i, expr) in all.iter().enumerate() {
                let field = aggregate.schema.field(i);
                let value = match exprs.iter().position(|e| e == expr) {
                    Some(at) => Expr::Column(columns[at].clone()),
                    None => Expr::Literal(ScalarValue::try_from(field.data_type())?, None),
                };
                outputs.push(value);
            }
            let id = grouping_id(&all, exprs, &sets[..ordinal]);
            let ty = aggregate.schema.field(all.len()).data_type();
            outputs.push(Expr::Literal(ScalarValue::from(id).cast_to(ty)?, None));
            outputs.extend(values.iter().cloned().map(Expr::Column));
            let named = outputs
                .into_iter()
                .zip(aggregate.schema.iter())
                .map(|(e, (q, f))| e.alias_qualified(q.cloned(), f.name()));
            let one = LogicalPlanBuilder::from(one).project(named.collect::<Vec<_>>())?.build()?;
            inputs.push(self.node(&one)?);
        }
        self.all_of(inputs, &aggregate.schema)
    }
}

/// The sets of a grouping, each with its expressions.
fn sets_of(set: &GroupingSet) -> Result<Vec<Vec<Expr>>> {
    Ok(match set {
        GroupingSet::GroupingSets(sets) => sets.clone(),
        GroupingSet::Rollup(exprs) => {
            (0..=exprs.len()).rev().map(|n| exprs[..n].to_vec()).collect()
        }
        GroupingSet::Cube(exprs) => {
            if exprs.len() > 12 {
                return Err(Error::unsupported("CUBE of more than 12 columns", "name the sets"));
            }
            let picked = |mask: usize| {
                let chosen = exprs.iter().enumerate().filter(|(i, _)| mask & (1 << i) != 0);
                chosen.map(|(_, expr)| expr.clone()).collect()
            };
            (0..1usize << exprs.len()).rev().map(picked).collect()
        }
    })
}

/// DataFusion's grouping id: a bit for every expression that is left out, the first
/// the highest; above them how often the same set came before.
fn grouping_id(all: &[Expr], set: &[Expr], earlier: &[Vec<Expr>]) -> u64 {
    let bits = all.iter().fold(0, |id, expr| (id << 1) | u64::from(!set.contains(expr)));
    let same = earlier.iter().filter(|other| other.as_slice() == set).count() as u64;
    bits | (same << all.len())
}

/// The aggregate function behind its aliases.
pub(super) fn call(expr: &Expr) -> Result<&AggregateFunction> {
    match bare(expr) {
        Expr::AggregateFunction(function) => Ok(function),
        other => Err(Error::internal(format!("{other} is no aggregate"))),
    }
}

/// When the groups close, by the group column's place.
fn first_closing(info: &Info, aggregate: &Aggregate) -> Option<Closing> {
    let watermarked = info.watermarks.first()?;
    super::closing(watermarked, &aggregate.schema).ok()
}

/// The same by the place of the input's column, if the group is one.
fn plain_closing(
    watermarked: &Watermarked,
    aggregate: &Aggregate,
    input: &Node,
) -> Option<Closing> {
    let at = aggregate.schema.index_of_column(&watermarked.column).ok()?;
    let Expr::Column(column) = bare(aggregate.group_expr.get(at)?) else { return None };
    let own = Watermarked { column: column.clone(), ..watermarked.clone() };
    super::closing(&own, input.plan.schema()).ok()
}

pub(super) fn freed(info: &Info) -> String {
    match info.watermarks.first() {
        Some(w) => format!("freed as the watermark passes {}", w.column.name),
        None => "nothing frees it".to_owned(),
    }
}

/// Calls over rows put in and rows taken away, and how their values combine; `None`
/// if some aggregate can't be subtracted from.
fn linear(
    calls: &[&AggregateFunction],
    aggregate: &Aggregate,
    schema: &DFSchema,
) -> Result<Option<(Vec<Expr>, Vec<Expr>)>> {
    let mut made = both(call(&count(lit(1i64)))?)?.to_vec();
    let mut finish: Vec<Expr> = (0..aggregate.group_expr.len())
        .map(|i| Expr::Column(Column::new_unqualified(format!("k{i}"))))
        .collect();
    for function in calls {
        let Some((calls, value)) = subtracted(function, made.len(), schema)? else {
            return Ok(None);
        };
        made.extend(calls);
        finish.push(value);
    }
    Ok(Some((made, finish)))
}

/// The calls that one aggregate needs, and its value from theirs, which are columns
/// `v<first>` and on.
fn subtracted(
    function: &AggregateFunction,
    first: usize,
    schema: &DFSchema,
) -> Result<Option<(Vec<Expr>, Expr)>> {
    let (false, [arg]) = (function.params.distinct, function.params.args.as_slice()) else {
        return Ok(None);
    };
    let value = |i: usize| Expr::Column(Column::new_unqualified(format!("v{}", first + i)));
    let ty = Expr::AggregateFunction(function.clone()).get_type(schema)?;
    let with = |func| both(&AggregateFunction { func, ..function.clone() });
    let sums_and_counts = || -> Result<Vec<Expr>> {
        Ok(with(sum_udaf())?.into_iter().chain(with(count_udaf())?).collect())
    };
    let difference = |zero: &Expr| Ok::<_, Error>(minus(or(value(0), zero)?, or(value(1), zero)?));
    let unless_empty = |result: Expr, null: ScalarValue| {
        when(value(2).eq(value(3)), Expr::Literal(null, None)).otherwise(result)
    };
    Ok(match function.func.name() {
        "count" => Some((with(count_udaf())?.to_vec(), minus(value(0), value(1)))),
        "sum" if exact(arg, schema)? => {
            let zero = Expr::Literal(ScalarValue::new_zero(&ty)?, None);
            let sum = cast(difference(&zero)?, ty.clone());
            Some((sums_and_counts()?, unless_empty(sum, ScalarValue::try_from(&ty)?)?))
        }
        "avg" if exact(arg, schema)? && ty == DataType::Float64 => {
            let rows = cast(minus(value(2), value(3)), DataType::Float64);
            let mean = divided(difference(&lit(0.0))?, rows);
            Some((sums_and_counts()?, unless_empty(mean, ScalarValue::Float64(None))?))
        }
        _ => None,
    })
}

/// Whether sums of the argument can be subtracted without a trace: integers and
/// decimals, and integers that were cast to floats.
fn exact(arg: &Expr, schema: &DFSchema) -> Result<bool> {
    let ty = arg.get_type(schema)?;
    if ty.is_integer() || ty.is_decimal() {
        return Ok(true);
    }
    match bare(arg) {
        Expr::Cast(Cast { expr, .. }) => Ok(expr.get_type(schema)?.is_integer()),
        _ => Ok(false),
    }
}

fn minus(left: Expr, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), Operator::Minus, Box::new(right)))
}

fn divided(left: Expr, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), Operator::Divide, Box::new(right)))
}

fn or(value: Expr, other: &Expr) -> Result<Expr> {
    Ok(when(value.clone().is_null(), other.clone()).otherwise(value)?)
}

/// An aggregate over the rows put in, and over those taken away.
fn both(function: &AggregateFunction) -> Result<[Expr; 2]> {
    let over = |condition: Expr| {
        let mut function = function.clone();
        let filter = match function.params.filter.take() {
            Some(filter) => filter.and(condition),
            None => condition,
        };
        function.params.filter = Some(Box::new(filter));
        Expr::AggregateFunction(function)
    };
    Ok([over(weight().gt(lit(0i64))), over(weight().lt(lit(0i64)))])
}
