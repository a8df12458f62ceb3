//! Window functions, and the first rows by some order.

use std::sync::Arc;

use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    BinaryExpr, Expr, FetchType, Limit, LogicalPlan, Operator, Projection, SkipType, Sort, Window,
    WindowFunctionDefinition,
};

use crate::error::{Error, Result};
use crate::operator::rows::Closing;
use crate::operator::sessions::Sessions;
use crate::operator::top_n::Rank;
use crate::plan::check;
use crate::plan::info::{Info, Watermarked, bare, interval_us};
use crate::plan::node::Op;
use crate::plan::rewrite::aggregate::freed;
use crate::plan::rewrite::session::Call;
use crate::plan::rewrite::{Node, Rewriter, closing, time, without_weight};

impl Rewriter {
    /// Keeps the partitions' rows and evaluates touched partitions anew.
    pub(super) fn window(&mut self, window: &Window) -> Result<Node> {
        let input = self.node(&window.input)?;
        let functions: Vec<&WindowFunction> =
            window.window_expr.iter().map(function).collect::<Result<_>>()?;
        // What all of them partition by: partitions of each lie within these.
        let mut key = functions.first().map(|f| f.params.partition_by.clone()).unwrap_or_default();
        key.retain(|expr| functions.iter().all(|f| f.params.partition_by.contains(expr)));
        let (mut info, closing) = partitioned(&input, &key)?;
        let sessions = match &closing {
            None => sessions(window, &input)?,
            Some(_) => None,
        };
        let mut template = window.clone();
        template.input = Arc::new(self.leaf(0, &input));
        let mut notes = match &sessions {
            None => vec![format!(
                "keeps the rows of each partition, evaluates touched partitions anew; {}",
                freed(&info)
            )],
            Some((_, ends)) => {
                info.watermarks.extend(ends.iter().cloned());
                let kept = "keeps the rows of open sessions, evaluates touched partitions anew; \
                            freed as the watermark passes their end";
                vec![kept.to_owned()]
            }
        };
        if key.is_empty() {
            notes.push("warning: without PARTITION BY every epoch costs what all rows cost".into());
        }
        let op = Op::Recompute {
            keys: vec![key],
            template: Box::new(LogicalPlan::Window(template)),
            from_nothing: false,
            closing: vec![closing],
            sessions: sessions.map(|(sessions, _)| sessions),
        };
        self.stateful(op, vec![input.plan], &window.schema, info, notes)
    }

    /// `ROW_NUMBER() … <= n` and its kin; `None` where the predicate says nothing of the kind.
    pub(super) fn top_of_window(
        &mut self,
        predicate: &Expr,
        window: &Window,
    ) -> Result<Option<Node>> {
        let [expr] = window.window_expr.as_slice() else { return Ok(None) };
        let function = function(expr)?;
        let Some(rank) = rank(function) else { return Ok(None) };
        if function.params.order_by.is_empty() || check::asks_for_time(expr) {
            return Ok(None);
        }
        let number = window.schema.columns().pop();
        let conjuncts = split_conjunction(predicate);
        let bound = number.and_then(|number| conjuncts.iter().find_map(|e| upper(e, &number)));
        let Some(last) = bound else { return Ok(None) };
        let input = self.node(&window.input)?;
        let key = function.params.partition_by.clone();
        let (info, closing) = partitioned(&input, &key)?;
        let notes = vec![kept(&input.info, &info)];
        let op = Op::TopN {
            key,
            order: function.params.order_by.clone(),
            rank,
            skip: 0,
            last,
            numbered: true,
            closing,
        };
        let node = self.stateful(op, vec![input.plan], &window.schema, info, notes)?;
        let rest = conjunction(conjuncts.into_iter().cloned());
        match rest {
            Some(rest) => {
                time::refuse(&node, std::slice::from_ref(&rest))?;
                self.keep(node, rest).map(Some)
            }
            None => Ok(Some(node)),
        }
    }

    /// `ORDER BY … LIMIT`: ranks `skip + 1 ..= last`.
    pub(super) fn first_rows(&mut self, sort: &Sort, skip: u64, last: u64) -> Result<Node> {
        let input = self.node(&sort.input)?;
        let info =
            Info { retracting: true, watermarks: Vec::new(), small: true, ..input.info.clone() };
        let schema = without_weight(input.plan.schema());
        let notes = vec![kept(&input.info, &Info::default())];
        let op = Op::TopN {
            key: Vec::new(),
            order: sort.expr.clone(),
            rank: Rank::RowNumber,
            skip,
            last,
            numbered: false,
            closing: None,
        };
        self.stateful(op, vec![input.plan], &schema, info, notes)
    }

    pub(super) fn limit(&mut self, limit: &Limit) -> Result<Node> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
            (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return Err(Error::unsupported("a LIMIT that is no number", "write the number"));
        };
        let last = fetch.map_or(u64::MAX, |fetch| (skip as u64).saturating_add(fetch as u64));
        self.limited(&limit.input, skip as u64, last)
    }

    /// Looks for the order under a limit.
    fn limited(&mut self, plan: &LogicalPlan, skip: u64, last: u64) -> Result<Node> {
        if let Some(stamped) = time::stamped(plan)? {
            return self.limited(&stamped, skip, last);
        }
        match plan {
            LogicalPlan::Sort(sort) => {
                let last = sort.fetch.map_or(last, |fetch| last.min(fetch as u64));
                self.first_rows(sort, skip, last)
            }
            LogicalPlan::Projection(Projection { input, expr, .. }) => {
                let input = self.limited(input, skip, last)?;
                time::refuse(&input, expr)?;
                self.project(input, expr.clone())
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.limited(&alias.input, skip, last)?;
                self.alias(input, &alias.alias)
            }
            _ => Err(Error::unsupported(
                "LIMIT without ORDER BY",
                "say which rows: ORDER BY … LIMIT n; or apply the limit when you read the view",
            )),
        }
    }
}

/// What is known of a result that is computed partition by partition.
fn partitioned(input: &Node, key: &[Expr]) -> Result<(Info, Option<Closing>)> {
    let columns = key.iter().filter_map(|expr| match bare(expr) {
        Expr::Column(column) => input.info.watermark(column).cloned(),
        _ => None,
    });
    let watermarks: Vec<_> = columns.collect();
    let schema = without_weight(input.plan.schema());
    let closing = watermarks.first().map(|w| closing(w, &schema)).transpose()?;
    Ok((Info { retracting: true, watermarks, ..input.info.clone() }, closing))
}

/// For windows that are sessions of a time that follows a watermark: when they close, and
/// which columns of the result are their ends.
fn sessions(window: &Window, input: &Node) -> Result<Option<(Sessions, Vec<Watermarked>)>> {
    let Some(call) = Call::of(window)?.filter(|_| !input.info.retracting) else { return Ok(None) };
    let Expr::Column(time) = bare(call.time) else { return Ok(None) };
    let (Some(watermarked), Some(gap_us)) = (input.info.watermark(time), interval_us(call.gap))
    else {
        return Ok(None);
    };
    let late = closing(watermarked, &without_weight(input.plan.schema()))?;
    let ends = call.bounds.into_iter().filter(|(_, end)| *end);
    let ends = ends.map(|(column, _)| Watermarked { column, ..watermarked.clone() });
    Ok(Some((Sessions { gap_us, late }, ends.collect())))
}

fn kept(input: &Info, info: &Info) -> String {
    let what = match input.retracting {
        true => "keeps all rows of each key in case others are taken away",
        false => "keeps the first rows of each key",
    };
    format!("{what}; {}", freed(info))
}

/// The window function behind its aliases.
pub(super) fn function(expr: &Expr) -> Result<&WindowFunction> {
    match bare(expr) {
        Expr::WindowFunction(function) => Ok(function),
        other => Err(Error::internal(format!("{other} is no window function"))),
    }
}

fn rank(function: &WindowFunction) -> Option<Rank> {
    let WindowFunctionDefinition::WindowUDF(udf) = &function.fun else { return None };
    match udf.name() {
        "row_number" => Some(Rank::RowNumber),
        "rank" => Some(Rank::Rank),
        "dense_rank" => Some(Rank::DenseRank),
        _ => None,
    }
}

/// The `n` of `number <= n`, `number < n + 1`, `number = 1`.
fn upper(expr: &Expr, number: &Column) -> Option<u64> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return None };
    let (left, op, right) = match (bare(left), bare(right)) {
        (Expr::Literal(..), Expr::Column(_)) => (right, op.swap()?, left),
        _ => (left, *op, right),
    };
    if !matches!(bare(left), Expr::Column(column) if column == number) {
        return None;
    }
    let Expr::Literal(value, _) = bare(right) else { return None };
    let ScalarValue::UInt64(Some(n)) = value.cast_to(&arrow::datatypes::DataType::UInt64).ok()?
    else {
        return None;
    };
    match op {
        Operator::LtEq => Some(n),
        Operator::Eq => Some(n),
        Operator::Lt => n.checked_sub(1),
        _ => None,
    }
}
