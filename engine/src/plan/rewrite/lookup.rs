//! Joins of a stream with a table's snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, DFSchema, DFSchemaRef, JoinType, ScalarValue};
use datafusion::logical_expr::{Expr, Filter, Join, LogicalPlan, Projection, Union, lit};

use crate::error::Result;
use crate::plan::as_stateful;
use crate::plan::info::Info;
use crate::plan::node::Op;
use crate::plan::rewrite::aggregate::{COPIES, freed};
use crate::plan::rewrite::{Node, Rewriter, closing, weight, with_weight};

impl Rewriter {
    /// A stream joins a table's snapshot where no row of the table comes out by itself. Rows
    /// that are never taken away need no state for it.
    pub(super) fn join_table(&mut self, join: &Join, left: Node, right: Node) -> Result<Node> {
        let stream = if left.info.streaming { &left } else { &right };
        if stream.info.retracting {
            return self.lookup(join, left, right);
        }
        let mut info = stream.info.clone();
        info.key = None;
        info.watermarks.retain(|w| join.schema.has_column(&w.column));
        let mut made = join.clone();
        (made.left, made.right) = (Arc::new(left.plan), Arc::new(right.plan));
        Ok(Node { plan: LogicalPlan::Join(made), info })
    }

    /// Rows that change are joined when they are put in; what they were joined with is kept.
    fn lookup(&mut self, join: &Join, left: Node, right: Node) -> Result<Node> {
        let on_left = left.info.streaming;
        let (stream, table) = if on_left { (left, right) } else { (right, left) };
        super::time::refuse(&stream, join.filter.as_slice())?;
        let copies = stream.info.key.is_none() || !is_net(&stream.plan);
        let stream = if copies { self.counted(stream)? } else { stream };
        let key: Vec<Column> = stream.info.key.clone().unwrap_or_default();
        let mut info = Info {
            streaming: true,
            retracting: true,
            key: None,
            watermarks: stream.info.watermarks.clone(),
            small: stream.info.small,
        };
        info.watermarks.retain(|w| join.schema.has_column(&w.column));
        let pairs = matches!(join.join_type, JoinType::Inner | JoinType::Left | JoinType::Right);
        if !copies && (!pairs || table.plan.max_rows() == Some(1)) {
            info.key = Some(key.clone());
        }
        let schema = nullable(&join.schema, copies)?;
        let count = copies.then(|| Expr::Column(Column::new_unqualified(COPIES)));
        let tail: Vec<Expr> = count.into_iter().chain([weight()]).collect();
        let taken = taken(join, &stream.plan, &tail)?;
        let put_in = put_in(join, &stream.plan, table.plan, on_left, &tail)?;
        let inputs = vec![Arc::new(put_in), Arc::new(taken)];
        let closing = info.watermarks.first().map(|w| closing(w, &schema)).transpose()?;
        let input = LogicalPlan::Union(Union { inputs, schema });
        let op = Op::Lookup { key: key.into_iter().map(Expr::Column).collect(), copies, closing };
        let notes = vec![format!("keeps what each row was joined with; {}", freed(&info))];
        self.stateful(op, vec![input], &join.schema, info, notes)
    }
}

/// Whether what an epoch puts in stays. A join of two streams pairs what one side takes away
/// with what the other puts in, and takes the pair away in the same epoch.
fn is_net(stream: &LogicalPlan) -> bool {
    match as_stateful(stream) {
        Some(stateful) => !matches!(stateful.op, Op::Join { .. }),
        None => stream.inputs().into_iter().all(is_net),
    }
}

/// The rows that are put in, joined.
fn put_in(
    join: &Join,
    stream: &LogicalPlan,
    table: LogicalPlan,
    on_left: bool,
    tail: &[Expr],
) -> Result<LogicalPlan> {
    let stream = Filter::try_new(weight().gt(lit(0i64)), Arc::new(stream.clone()))?;
    let (stream, table) = (Arc::new(LogicalPlan::Filter(stream)), Arc::new(table));
    let mut made = join.clone();
    (made.left, made.right) = if on_left { (stream, table) } else { (table, stream) };
    let joined = LogicalPlan::Join(made).recompute_schema()?;
    let columns = join.schema.columns().into_iter().map(Expr::Column);
    let exprs = columns.chain(tail.iter().cloned()).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(joined))?))
}

/// The rows that are taken away, with NULLs for what they were joined with.
fn taken(join: &Join, stream: &LogicalPlan, tail: &[Expr]) -> Result<LogicalPlan> {
    let rows = Filter::try_new(weight().lt(lit(0i64)), Arc::new(stream.clone()))?;
    let exprs = join.schema.iter().map(|(qualifier, field)| {
        let column = Column::new(qualifier.cloned(), field.name());
        if stream.schema().has_column(&column) {
            return Ok(Expr::Column(column));
        }
        let null = Expr::Literal(ScalarValue::try_from(field.data_type())?, None);
        Ok(null.alias_qualified(qualifier.cloned(), field.name()))
    });
    let mut exprs = exprs.collect::<Result<Vec<_>>>()?;
    exprs.extend(tail.iter().cloned());
    let rows = Arc::new(LogicalPlan::Filter(rows));
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, rows)?))
}

/// The columns of the joined rows, NULL where they were taken away, and those behind them.
fn nullable(schema: &DFSchema, copies: bool) -> Result<DFSchemaRef> {
    let mut fields: Vec<_> = schema
        .iter()
        .map(|(of, field)| (of.cloned(), Arc::new(field.as_ref().clone().with_nullable(true))))
        .collect();
    if copies {
        fields.push((None, Arc::new(Field::new(COPIES, DataType::Int64, true))));
    }
    with_weight(&DFSchema::new_with_metadata(fields, HashMap::new())?)
}
