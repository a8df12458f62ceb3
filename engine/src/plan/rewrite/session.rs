//! Aggregates over sessions: one row a session is kept, and none of its rows.
//!
//! `SESSION(…)` is a window function, which says of each row in which session it is. Where
//! all that is asked of it is a `GROUP BY` of its key and the session, window and aggregate
//! are one operator.

use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Window};

use crate::error::Result;
use crate::function::{SESSION_END, SESSION_START};
use crate::operator::rows::Closing;
use crate::plan::check;
use crate::plan::info::{Info, Watermarked, bare};
use crate::plan::node::{Op, SessionBy};
use crate::plan::rewrite::{Node, Rewriter, aggregate, ranking, substituted};

/// The one kind of session that all functions of a window are about.
pub(super) struct Call<'a> {
    pub time: &'a Expr,
    pub gap: &'a Expr,
    pub key: &'a [Expr],
    /// Columns of the window's result, and whether each is an end.
    pub bounds: Vec<(Column, bool)>,
}

impl<'a> Call<'a> {
    pub fn of(window: &'a Window) -> Result<Option<Self>> {
        let functions: Vec<&WindowFunction> =
            window.window_expr.iter().map(ranking::function).collect::<Result<_>>()?;
        let Some(first) = functions.first() else { return Ok(None) };
        let ([time, gap], [order]) =
            (first.params.args.as_slice(), first.params.order_by.as_slice())
        else {
            return Ok(None);
        };
        let same = |f: &&WindowFunction| {
            [SESSION_START, SESSION_END].contains(&f.fun.name())
                && f.params.args == first.params.args
                && f.params.partition_by == first.params.partition_by
                && f.params.order_by == first.params.order_by
                && f.params.filter.is_none()
        };
        if order.expr != *time || !order.asc || !functions.iter().all(same) {
            return Ok(None);
        }
        let columns = window.schema.columns();
        let columns = columns.into_iter().skip(window.input.schema().fields().len());
        let bounds = columns.zip(&functions).map(|(c, f)| (c, f.fun.name() == SESSION_END));
        let key = &first.params.partition_by;
        Ok(Some(Self { time, gap, key, bounds: bounds.collect() }))
    }
}

/// Where a group column's value comes from.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Key(usize),
    Start,
    End,
}

impl Rewriter {
    /// `None` for any other aggregate.
    pub(super) fn session_groups(&mut self, aggregate: &Aggregate) -> Result<Option<Node>> {
        let mut exprs: Vec<Expr> =
            aggregate.group_expr.iter().chain(&aggregate.aggr_expr).cloned().collect();
        let Some(window) = window_below(&aggregate.input, &mut exprs)? else { return Ok(None) };
        let Some(call) = Call::of(window)? else { return Ok(None) };
        if exprs.iter().any(check::asks_for_time) {
            return Ok(None);
        }
        let (groups, calls) = exprs.split_at(aggregate.group_expr.len());
        let parts: Option<Vec<Part>> = groups.iter().map(|expr| part(expr, &call)).collect();
        let Some(parts) = parts.filter(|parts| whole(parts, &call)) else { return Ok(None) };
        if !calls.iter().all(|call| is_over(call, window.input.schema())) {
            return Ok(None);
        }
        for call in calls {
            if !aggregate::call(call)?.params.order_by.is_empty() {
                return Ok(None);
            }
        }
        let input = self.node(&window.input)?;
        if input.info.retracting {
            return Ok(None);
        }
        let columns: Vec<Column> =
            aggregate.schema.columns().into_iter().take(parts.len()).collect();
        let watermarked = match bare(call.time) {
            Expr::Column(time) => input.info.watermark(time).cloned(),
            _ => None,
        };
        let ends = parts.iter().zip(&columns).filter(|(part, _)| **part == Part::End);
        let watermarks = watermarked.iter().flat_map(|watermarked| {
            let of = |(_, column): (_, &Column)| Watermarked {
                column: column.clone(),
                ..watermarked.clone()
            };
            ends.clone().map(of)
        });
        let info = Info {
            streaming: true,
            retracting: true,
            key: Some(columns.clone()),
            watermarks: watermarks.collect(),
            small: input.info.small,
        };
        let freed = match &watermarked {
            Some(_) => "freed as the watermark passes their end",
            None => "nothing frees it",
        };
        let notes = vec![format!("keeps accumulators of each session; {freed}")];
        let closing = watermarked.map(|watermarked| Closing {
            column: call.key.len() + 1,
            lag_us: watermarked.lag_us,
            sources: watermarked.sources.into_iter().collect(),
        });
        let op = Op::Aggregate {
            group: call.key.to_vec(),
            session: Some(SessionBy { time: call.time.clone(), gap: call.gap.clone() }),
            calls: calls.iter().map(|call| (call.clone(), false)).collect(),
            finish: Some(finish(&parts, call.key.len(), calls.len())),
            counted: false,
            closing,
        };
        self.stateful(op, vec![input.plan], &aggregate.schema, info, notes).map(Some)
    }
}

/// The window function that `plan` only names anew; `exprs`, which are over the columns of
/// the plan, then are over those of the window.
fn window_below<'a>(plan: &'a LogicalPlan, exprs: &mut [Expr]) -> Result<Option<&'a Window>> {
    let mut plan = plan;
    loop {
        let (schema, by, input) = match plan {
            LogicalPlan::Window(window) => return Ok(Some(window)),
            LogicalPlan::Projection(projection) => {
                (&projection.schema, projection.expr.clone(), &projection.input)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let columns = alias.input.schema().columns();
                (&alias.schema, columns.into_iter().map(Expr::Column).collect(), &alias.input)
            }
            _ => return Ok(None),
        };
        for expr in exprs.iter_mut() {
            *expr = substituted(expr, schema, &by)?;
        }
        plan = input;
    }
}

fn part(expr: &Expr, call: &Call<'_>) -> Option<Part> {
    let expr = bare(expr);
    if let Some((_, end)) = call.bounds.iter().find(|(c, _)| *expr == Expr::Column(c.clone())) {
        return Some(if *end { Part::End } else { Part::Start });
    }
    call.key.iter().position(|key| bare(key) == expr).map(Part::Key)
}

/// Whether groups by these are sessions, neither parts nor several of them.
fn whole(parts: &[Part], call: &Call<'_>) -> bool {
    let keys = (0..call.key.len()).all(|key| parts.contains(&Part::Key(key)));
    keys && (parts.contains(&Part::Start) || parts.contains(&Part::End))
}

fn is_over(expr: &Expr, schema: &DFSchema) -> bool {
    expr.column_refs().into_iter().all(|column| schema.has_column(column))
}

/// The columns of the result over those of the operator: the key, start and end, values.
fn finish(parts: &[Part], keys: usize, calls: usize) -> Vec<Expr> {
    let column = |name: String| Expr::Column(Column::new_unqualified(name));
    let groups = parts.iter().map(|part| match part {
        Part::Key(key) => column(format!("k{key}")),
        Part::Start => column(format!("k{keys}")),
        Part::End => column(format!("k{}", keys + 1)),
    });
    groups.chain((0..calls).map(|value| column(format!("v{value}")))).collect()
}
