//! From an optimized logical plan to the incremental one.
//!
//! Bottom up, every node over rows of a source is kept (projections, filters: the
//! same node applied to the epoch's rows), or gives way to a [`Stateful`] one. Where
//! rows may be taken away, a weight column runs along as the last one. What reads
//! lake tables alone is an ordinary batch plan over the snapshot of the epoch, unless its
//! rows come out by themselves: then its tables are followed ([`follow`]).

mod aggregate;
mod follow;
mod interval;
mod join;
mod lookup;
mod ranking;
mod session;
mod time;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, TableReference};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{
    Expr, Extension, Filter, LogicalPlan, LogicalPlanBuilder, Projection, TableScan,
    TableScanBuilder, Union, Unnest, lit,
};

use crate::changelog::{WEIGHT, weight_field};
use crate::error::{Error, Result};
use crate::lake::LakeTable;
use crate::plan::check;
use crate::plan::info::{Info, Watermarked};
use crate::plan::node::{Op, Stateful};
use crate::plan::rewrite::follow::Following;
use crate::plan::scan::EpochTable;
use crate::plan::{Input, as_epoch, as_lake};

/// A rewritten node and what is known of its output.
#[derive(Debug, Clone)]
pub struct Node {
    pub plan: LogicalPlan,
    pub info: Info,
}

/// Rewrites one plan; numbers its stateful operators in the order in which it meets them.
#[derive(Debug)]
pub struct Rewriter {
    /// Those made so far: one that does the same over the same inputs is the same one.
    operators: Vec<Stateful>,
    /// `EMIT ON WINDOW CLOSE`.
    on_close: bool,
    /// The sources, and the tables that are followed like one.
    pub inputs: BTreeMap<String, Input>,
    /// Which tables are, in the part of the plan that is being rewritten.
    following: Following,
}

impl Rewriter {
    pub fn new(on_close: bool, inputs: BTreeMap<String, Input>) -> Self {
        Self { operators: Vec::new(), on_close, inputs, following: Following::Nothing }
    }

    /// Rewrites a whole query.
    pub fn query(&mut self, plan: &LogicalPlan) -> Result<Node> {
        // A table has no order: what is left of one at the top says nothing.
        let top = match plan {
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => sort.input.as_ref(),
            other => other,
        };
        let node = match is_empty(top) {
            true => self.node(top)?,
            false => self.streaming(top)?,
        };
        match self.on_close {
            true => self.close(node),
            false => Ok(node),
        }
    }

    fn node(&mut self, plan: &LogicalPlan) -> Result<Node> {
        if !self.reads_source(plan)? {
            return Ok(Node { plan: plan.clone(), info: Info::default() });
        }
        if let Some(stamped) = time::stamped(plan)? {
            return self.node(&stamped);
        }
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.node(&alias.input)?;
                self.alias(input, &alias.alias)
            }
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Repartition(repartition) => self.node(&repartition.input),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Window(window) => self.window(window),
            LogicalPlan::Sort(sort) => match sort.fetch {
                Some(fetch) => self.first_rows(sort, 0, fetch as u64),
                None => self.node(&sort.input),
            },
            LogicalPlan::Limit(limit) => self.limit(limit),
            other => Err(check::refusal(other)),
        }
    }

    /// Puts a stateful operator over its inputs. One that the query has already, over the
    /// same inputs, is the same one: it keeps its state once, and runs once.
    fn stateful(
        &mut self,
        op: Op,
        inputs: Vec<LogicalPlan>,
        schema: &DFSchema,
        info: Info,
        notes: Vec<String>,
    ) -> Result<Node> {
        let schema = if info.retracting { with_weight(schema)? } else { Arc::new(schema.clone()) };
        let known = |made: &&Stateful| {
            made.op == op && made.schema == schema && same(&made.inputs, &inputs)
        };
        let known = self.operators.iter().find(known).map(|made| made.id);
        let closings = info.watermarks.iter().map(|w| closing(w, &schema));
        let closings = closings.collect::<Result<_>>()?;
        let key = info.key.clone();
        let id = known.unwrap_or(self.operators.len() + 1);
        let node = Stateful { id, op, inputs, schema, closings, key, notes };
        if known.is_none() {
            self.operators.push(node.clone());
        }
        Ok(Node { plan: LogicalPlan::Extension(Extension { node: Arc::new(node) }), info })
    }

    fn scan(&mut self, scan: &TableScan) -> Result<Node> {
        let provider = source_as_provider(&scan.source)?;
        let Some(table) = as_epoch(&provider) else { return self.follow(scan, provider) };
        let declared = &table.declared;
        let mut info =
            Info { streaming: true, small: declared.source.bounded(), ..Info::default() };
        if let Some(watermark) = &declared.watermark {
            let schema = declared.source.schema();
            let name = schema.field(watermark.column).name();
            info.watermarks.push(Watermarked {
                column: Column::new(Some(scan.table_name.clone()), name),
                lag_us: 1,
                sources: [declared.source.name().to_owned()].into(),
            });
        }
        info.watermarks.retain(|w| scan.projected_schema.has_column(&w.column));
        if declared.primary_key.is_empty() {
            return Ok(Node { plan: LogicalPlan::TableScan(scan.clone()), info });
        }
        self.upsert(scan, table, info)
    }

    /// A source with a primary key: the last row of each.
    fn upsert(&mut self, scan: &TableScan, table: &EpochTable, mut info: Info) -> Result<Node> {
        let schema = table.declared.source.schema();
        let wanted = crate::source::table::all_or(scan.projection.as_ref(), &schema);
        let mut columns = wanted.clone();
        columns.extend(&table.declared.primary_key);
        columns.extend(table.declared.deletes);
        columns.sort_unstable();
        columns.dedup();
        let place = |column: &usize| columns.iter().position(|c| c == column).unwrap_or_default();
        let key: Vec<usize> = table.declared.primary_key.iter().map(place).collect();
        let deletes = table.declared.deletes.as_ref().map(place);
        let whole = TableScanBuilder::new(scan.table_name.clone(), Arc::clone(&scan.source))
            .with_projection(Some(columns.clone()))
            .build()?;
        let of =
            |column: usize| Column::new(Some(scan.table_name.clone()), schema.field(column).name());
        info.key = Some(table.declared.primary_key.iter().map(|c| of(*c)).collect());
        info.retracting = true;
        // A row may be replaced long after its time: what it says is never closed.
        info.watermarks.clear();
        let scanned = Arc::clone(&whole.projected_schema);
        let notes = vec!["keeps the last row of each key; nothing frees it".to_owned()];
        let op = Op::Upsert { key, deletes };
        let node = self.stateful(op, vec![LogicalPlan::TableScan(whole)], &scanned, info, notes)?;
        let exprs: Vec<Expr> = wanted.iter().map(|c| Expr::Column(of(*c))).collect();
        self.project(node, exprs)
    }

    fn projection(&mut self, projection: &Projection) -> Result<Node> {
        let input = self.node(&projection.input)?;
        time::refuse(&input, &projection.expr)?;
        self.project(input, projection.expr.clone())
    }

    /// Projects, with the weight if there is one.
    fn project(&mut self, input: Node, mut exprs: Vec<Expr>) -> Result<Node> {
        let outputs = exprs.iter().map(|expr| {
            let (qualifier, name) = expr.qualified_name();
            (expr.clone(), Column::new(qualifier, name))
        });
        let info = input.info.project(&outputs.collect::<Vec<_>>());
        if info.retracting {
            exprs.push(weight());
        }
        let plan = Projection::try_new(exprs, Arc::new(input.plan))?;
        Ok(Node { plan: LogicalPlan::Projection(plan), info })
    }

    fn filter(&mut self, filter: &Filter) -> Result<Node> {
        if let LogicalPlan::Window(window) = filter.input.as_ref()
            && let Some(node) = self.top_of_window(&filter.predicate, window)?
        {
            return Ok(node);
        }
        if let LogicalPlan::Projection(projection) = filter.input.as_ref()
            && let LogicalPlan::Window(window) = projection.input.as_ref()
        {
            let predicate = substituted(&filter.predicate, &projection.schema, &projection.expr)?;
            if let Some(node) = self.top_of_window(&predicate, window)? {
                time::refuse(&node, &projection.expr)?;
                return self.project(node, projection.expr.clone());
            }
        }
        let input = self.node(&filter.input)?;
        time::refuse(&input, std::slice::from_ref(&filter.predicate))?;
        self.keep(input, filter.predicate.clone())
    }

    fn keep(&mut self, input: Node, predicate: Expr) -> Result<Node> {
        let plan = Filter::try_new(predicate, Arc::new(input.plan))?;
        Ok(Node { plan: LogicalPlan::Filter(plan), info: input.info })
    }

    /// The columns of `input` under another table name.
    fn alias(&mut self, input: Node, alias: &TableReference) -> Result<Node> {
        let columns = rows(&input);
        let exprs = columns.into_iter().map(|column| {
            let name = column.name.clone();
            Expr::Column(column).alias_qualified(Some(alias.clone()), name)
        });
        let exprs = exprs.collect();
        self.project(input, exprs)
    }

    fn unnest(&mut self, unnest: &Unnest) -> Result<Node> {
        let input = self.node(&unnest.input)?;
        let mut info = input.info.clone();
        // A row becomes many: no key. What an unnested list follows, its elements follow.
        info.key = None;
        let plan = LogicalPlanBuilder::from(input.plan)
            .unnest_columns_with_options(unnest.exec_columns.clone(), unnest.options.clone())?
            .build()?;
        let held = std::mem::take(&mut info.watermarks);
        for watermarked in held {
            let unnested = unnest.exec_columns.contains(&watermarked.column);
            let column = match unnested {
                false => Some(watermarked.column.clone()),
                true => {
                    let fields = plan.schema().columns().into_iter();
                    let mut of = fields.filter(|c| {
                        c.name.starts_with(watermarked.column.name.as_str())
                            || c.name == watermarked.column.name
                    });
                    of.next()
                }
            };
            if let Some(column) = column.filter(|c| plan.schema().has_column(c)) {
                info.watermarks.push(Watermarked { column, ..watermarked });
            }
        }
        Ok(Node { plan, info })
    }

    fn union(&mut self, union: &Union) -> Result<Node> {
        let inputs = union.inputs.iter().map(|input| self.streaming(input));
        let inputs = inputs.collect::<Result<_>>()?;
        self.all_of(inputs, &union.schema)
    }

    /// The rows of all inputs; they have as many columns as `schema`.
    fn all_of(&mut self, inputs: Vec<Node>, schema: &DFSchemaRef) -> Result<Node> {
        let retracting = inputs.iter().any(|input| input.info.retracting);
        let small = inputs.iter().all(|input| input.info.small);
        let columns = schema.columns();
        let watermarks = union_watermarks(&inputs, &columns);
        let mut plans = Vec::with_capacity(inputs.len());
        for input in inputs {
            plans.push(Arc::new(match retracting && !input.info.retracting {
                false => input.plan,
                true => {
                    let mut exprs: Vec<Expr> = rows(&input).into_iter().map(Expr::Column).collect();
                    exprs.push(lit(1i64).alias(WEIGHT));
                    LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input.plan))?)
                }
            }));
        }
        let schema = if retracting { with_weight(schema)? } else { Arc::clone(schema) };
        let info = Info { streaming: true, retracting, key: None, watermarks, small };
        Ok(Node { plan: LogicalPlan::Union(Union { inputs: plans, schema }), info })
    }

    /// Holds rows back until their window is closed.
    fn close(&mut self, input: Node) -> Result<Node> {
        let schema = without_weight(input.plan.schema());
        // A shifted value can have closed long before its row comes: the others tell sooner.
        let soonest = |w: &&Watermarked| (w.lag_us < 0, w.lag_us.abs());
        let found = input.info.watermarks.iter().min_by_key(soonest);
        let Some(watermarked) = found else {
            return Err(Error::unsupported(
                "EMIT ON WINDOW CLOSE for a result without a window",
                "declare WATERMARK FOR … on the source, and select window_start or window_end",
            ));
        };
        let closing = closing(watermarked, &schema)?;
        let info =
            Info { retracting: false, watermarks: vec![watermarked.clone()], ..input.info.clone() };
        let notes =
            vec!["keeps the rows of open windows; freed as the watermark passes".to_owned()];
        self.stateful(Op::Close(closing), vec![input.plan], &schema, info, notes)
    }
}

/// Whether plans give the same rows in every epoch.
fn same(some: &[LogicalPlan], others: &[LogicalPlan]) -> bool {
    some.len() == others.len()
        && some.iter().zip(others).all(|(one, other)| one == other && scans(one) == scans(other))
}

/// What a plan scans, by name where there is one of each name, else by where it lies.
fn scans(plan: &LogicalPlan) -> Vec<Result<String, usize>> {
    let mut found = Vec::new();
    if let LogicalPlan::TableScan(scan) = plan {
        let named = source_as_provider(&scan.source).ok().and_then(|provider| {
            let source = as_epoch(&provider).map(|table| table.declared.source.name());
            let name = source.or_else(|| as_lake(&provider).map(LakeTable::name));
            Some((name?.to_owned(), as_epoch(&provider).is_some()))
        });
        found.push(match named {
            Some((name, followed)) => Ok(format!("{followed} {name}")),
            None => Err(Arc::as_ptr(&scan.source).cast::<()>() as usize),
        });
    }
    plan.inputs().into_iter().for_each(|input| found.extend(scans(input)));
    found
}

/// Whether a plan never has rows.
fn is_empty(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(empty) => !empty.produce_one_row,
        LogicalPlan::Aggregate(aggregate) => {
            let grouped = matches!(aggregate.group_expr.as_slice(), [first, ..]
                if !matches!(first, Expr::GroupingSet(_)));
            grouped && is_empty(&aggregate.input)
        }
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::Union(_) => plan.inputs().into_iter().all(is_empty),
        _ => false,
    }
}

/// What all inputs of a union follow, column by column.
fn union_watermarks(inputs: &[Node], columns: &[Column]) -> Vec<Watermarked> {
    let of = |(i, column): (usize, &Column)| {
        let mut all = inputs.iter().map(|input| {
            let own = rows(input).into_iter().nth(i)?;
            input.info.watermark(&own).cloned()
        });
        let first = all.next()??;
        all.try_fold(first, |sum, one| {
            let one = one?;
            let sources = sum.sources.union(&one.sources).cloned().collect();
            Some(Watermarked { column: sum.column, lag_us: sum.lag_us.max(one.lag_us), sources })
        })
        .map(|w| Watermarked { column: column.clone(), ..w })
    };
    columns.iter().enumerate().filter_map(of).collect()
}

/// Which column closes, by its place among the columns of `schema`.
fn closing(watermarked: &Watermarked, schema: &DFSchema) -> Result<crate::operator::rows::Closing> {
    Ok(crate::operator::rows::Closing {
        column: schema.index_of_column(&watermarked.column)?,
        lag_us: watermarked.lag_us,
        sources: watermarked.sources.iter().cloned().collect(),
    })
}

/// The weight column as an expression.
fn weight() -> Expr {
    Expr::Column(Column::new_unqualified(WEIGHT))
}

/// Columns of a node's rows, without the weight.
fn rows(node: &Node) -> Vec<Column> {
    let mut columns = node.plan.schema().columns();
    if node.info.retracting {
        columns.pop();
    }
    columns
}

fn with_weight(schema: &DFSchema) -> Result<DFSchemaRef> {
    let mut fields: Vec<_> =
        schema.iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
    fields.push((None, weight_field()));
    Ok(Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?))
}

/// `schema` without its weight column, if it has one.
fn without_weight(schema: &DFSchemaRef) -> DFSchemaRef {
    let fields = schema.iter().filter(|(_, field)| field.name() != WEIGHT);
    let fields = fields.map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)));
    match DFSchema::new_with_metadata(fields.collect(), HashMap::new()) {
        Ok(schema) => Arc::new(schema),
        // Fewer columns can't clash where more did not.
        Err(_) => Arc::clone(schema),
    }
}

/// An expression over columns of `schema` with `by` in their places.
fn substituted(expr: &Expr, schema: &DFSchema, by: &[Expr]) -> Result<Expr> {
    let replaced = expr.clone().transform_down(|expr| {
        let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
        let at = schema.index_of_column(column)?;
        let inner = by[at].clone().unalias_nested().data;
        // What stands in its place is over other columns already.
        Ok(Transformed::new(inner, true, TreeNodeRecursion::Jump))
    })?;
    Ok(replaced.data)
}

/// Left columns, then right ones, without weights: what a join's filter sees.
pub fn pairs_schema(left: &LogicalPlan, right: &LogicalPlan) -> Result<DFSchema> {
    Ok(without_weight(left.schema()).join(&without_weight(right.schema()))?)
}
