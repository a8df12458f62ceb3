//! Which rows of a source came too late: for those who want to keep them as they were read.
//!
//! What operators leave out are their own inputs' rows: projected, in windows, joined with
//! tables. In the epochs in which they left some out, what lies between the source and the
//! operator is executed once more, over rows that carry their number; the numbers of those
//! that are behind the watermark tell which rows of the source they were. That costs
//! nothing as long as no row is late, and nothing below needs to know of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::datasource::{MemTable, provider_as_source, source_as_provider};
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, Projection, TableScanBuilder, Union,
};
use datafusion::physical_plan::collect;

use crate::epoch::EpochPlan;
use crate::error::{Error, Result};
use crate::operator::rows::{Closing, below};
use crate::operator::states::Moment;
use crate::plan::node::{Op, Stateful};
use crate::plan::{ContinuousPlan, Input, as_epoch, as_stateful};
use crate::source::Rows;
use crate::source::table::all_or;

/// The number of a source's row, among all rows of the epoch.
const ROW: &str = "__row";
/// The value that tells whether a row is late.
const TIME: &str = "__time";

/// An input of an operator that leaves late rows out, made of sources' rows one by one.
#[derive(Debug, Clone)]
pub struct LateInput {
    plan: LogicalPlan,
    time: Expr,
    closing: Closing,
    /// The sources whose rows flow in.
    pub sources: BTreeSet<String>,
}

/// All such inputs of a plan: behind an operator rows are not the sources' any more.
pub fn inputs(incremental: &LogicalPlan) -> Result<Vec<LateInput>> {
    let mut found = Vec::new();
    incremental.apply(|node| {
        if let Some(stateful) = as_stateful(node) {
            for (input, plan) in stateful.inputs.iter().enumerate() {
                if let Some((time, closing)) = late(stateful, input)
                    && let Some(sources) = only_sources(plan)?
                {
                    found.push(LateInput { plan: plan.clone(), time, closing, sources });
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// What is late in an input of an operator: a value over the input's columns.
fn late(stateful: &Stateful, input: usize) -> Option<(Expr, Closing)> {
    let column = |closing: &Closing| {
        let (qualifier, field) = stateful.inputs[input].schema().qualified_field(closing.column);
        (Expr::Column(Column::new(qualifier.cloned(), field.name())), closing.clone())
    };
    match &stateful.op {
        Op::Aggregate { session: Some(session), closing, .. } => {
            Some((session.time.clone(), closing.clone()?))
        }
        Op::Aggregate { group, closing, .. } => {
            let closing = closing.clone()?;
            Some((group.get(closing.column)?.clone(), closing))
        }
        Op::Join { late, .. } => late[input].as_ref().map(column),
        Op::Recompute { closing, sessions, .. } => match sessions {
            Some(sessions) => Some(column(&sessions.late)),
            None => closing.get(input)?.as_ref().map(column),
        },
        Op::TopN { closing, .. } => closing.as_ref().map(column),
        Op::Close(closing) => Some(column(closing)),
        Op::Lookup { .. } | Op::Once | Op::Upsert { .. } => None,
    }
}

/// The sources below; `None` with an operator in between.
fn only_sources(plan: &LogicalPlan) -> Result<Option<BTreeSet<String>>, DataFusionError> {
    let mut sources = BTreeSet::new();
    let mut direct = true;
    plan.apply(|node| {
        direct &= as_stateful(node).is_none();
        if let LogicalPlan::TableScan(scan) = node
            && let Some(table) = as_epoch(&source_as_provider(&scan.source)?)
        {
            sources.insert(table.declared.source.name().to_owned());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(Some(sources).filter(|_| direct))
}

/// The rows of one source in an epoch, in the columns of its input's projection.
struct Numbered<'a> {
    input: &'a Input,
    batches: Vec<&'a RecordBatch>,
    /// The number of its first row.
    first: u64,
}

impl LateInput {
    /// Rows' times and numbers, as a plan over the epoch's rows.
    fn over(&self, rows: &BTreeMap<String, Numbered<'_>>) -> Result<LogicalPlan> {
        let plan = self.plan.clone().transform_up(|node| Ok(numbered(node, rows)?))?.data;
        let time = self.time.clone().alias(TIME);
        Ok(LogicalPlan::Projection(Projection::try_new(vec![time, row()], Arc::new(plan))?))
    }

    /// The numbers of the late rows of what that plan yields.
    fn late(&self, found: &[RecordBatch], moment: &Moment, late: &mut BTreeSet<u64>) -> Result<()> {
        for batch in found {
            let time = batch.column(0);
            let Some(bound) = self.closing.late(time.data_type(), moment) else { continue };
            let mask = below(time, bound)?;
            let rows = arrow::compute::filter(batch.column(1), &mask)?;
            late.extend(rows.as_primitive::<UInt64Type>().values());
        }
        Ok(())
    }
}

fn row() -> Expr {
    Expr::Column(Column::new_unqualified(ROW))
}

/// The node with the rows' numbers among its columns, if they are below it.
fn numbered(
    node: LogicalPlan,
    rows: &BTreeMap<String, Numbered<'_>>,
) -> Result<Transformed<LogicalPlan>> {
    if let LogicalPlan::TableScan(scan) = &node {
        let provider = source_as_provider(&scan.source)?;
        let Some(table) = as_epoch(&provider) else { return Ok(Transformed::no(node)) };
        let name = table.declared.source.name();
        let rows = rows.get(name).ok_or_else(|| Error::internal(format!("no rows of {name}")))?;
        let schema = table.declared.source.schema();
        let table = rows.table(&schema, &all_or(scan.projection.as_ref(), &schema))?;
        let source = provider_as_source(Arc::new(table));
        let scan = TableScanBuilder::new(scan.table_name.clone(), source).build()?;
        // The number has no qualifier wherever it is.
        let own = Column::new(Some(scan.table_name.clone()), ROW);
        let plan = LogicalPlan::TableScan(scan);
        let columns = plan.schema().columns().into_iter().map(|column| match column == own {
            true => Expr::Column(column).alias(ROW),
            false => Expr::Column(column),
        });
        let columns = columns.collect();
        let plan = LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?);
        return Ok(Transformed::yes(plan));
    }
    let carries = |plan: &&LogicalPlan| plan.schema().has_column_with_unqualified_name(ROW);
    if !node.inputs().iter().any(carries) {
        return Ok(Transformed::no(node));
    }
    let plan = match node {
        LogicalPlan::Projection(projection) => {
            let exprs = projection.expr.into_iter().chain([row()]).collect();
            LogicalPlan::Projection(Projection::try_new(exprs, projection.input)?)
        }
        LogicalPlan::Unnest(unnest) => LogicalPlanBuilder::from(unnest.input.as_ref().clone())
            .unnest_columns_with_options(unnest.exec_columns, unnest.options)?
            .build()?,
        LogicalPlan::Union(union) => {
            let number = Arc::new(Field::new(ROW, DataType::UInt64, false));
            let fields = union.schema.iter().map(|(q, f)| (q.cloned(), Arc::clone(f)));
            let fields = fields.chain([(None, number)]).collect();
            let schema = DFSchema::new_with_metadata(fields, Default::default())?;
            LogicalPlan::Union(Union { inputs: union.inputs, schema: Arc::new(schema) })
        }
        other => {
            let inputs = other.inputs().into_iter().cloned().collect();
            other.with_new_exprs(other.expressions(), inputs)?
        }
    };
    Ok(Transformed::yes(plan))
}

impl Numbered<'_> {
    /// The columns of `projection`, which are among those that were read, and the numbers.
    fn table(&self, schema: &SchemaRef, projection: &[usize]) -> Result<MemTable> {
        let held = &self.input.projection;
        let places = projection.iter().map(|column| held.iter().position(|h| h == column));
        let places: Option<Vec<usize>> = places.collect();
        let places = places.ok_or_else(|| Error::internal("a column was not read"))?;
        let fields = projection.iter().map(|column| Arc::new(schema.field(*column).clone()));
        let number = Arc::new(Field::new(ROW, DataType::UInt64, false));
        let schema = Arc::new(Schema::new(fields.chain([number]).collect::<Vec<_>>()));
        let mut next = self.first;
        let mut batches = Vec::with_capacity(self.batches.len());
        for batch in &self.batches {
            let end = next + batch.num_rows() as u64;
            let number = Arc::new(UInt64Array::from_iter_values(next..end)) as ArrayRef;
            let columns = places.iter().map(|place| Arc::clone(batch.column(*place)));
            let columns = columns.chain([number]).collect();
            batches.push(RecordBatch::try_new(Arc::clone(&schema), columns)?);
            next = end;
        }
        Ok(MemTable::try_new(schema, vec![batches])?)
    }

    /// The rows with these numbers, in the order in which they were read.
    fn pick(&self, late: &BTreeSet<u64>, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let mut first = self.first;
        let mut picked = Vec::new();
        for batch in &self.batches {
            let end = first + batch.num_rows() as u64;
            let rows: Vec<u32> = late.range(first..end).map(|row| (row - first) as u32).collect();
            if !rows.is_empty() {
                let rows = crate::operator::rows::take_rows(batch, &rows)?;
                picked.push(in_columns(&rows, schema)?);
            }
            first = end;
        }
        Ok(picked)
    }

    fn len(&self) -> u64 {
        self.batches.iter().map(|batch| batch.num_rows() as u64).sum()
    }
}

/// The columns of `schema` by their names; NULL where there is none.
fn in_columns(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| match rows.column_by_name(field.name()) {
        Some(column) => Arc::clone(column),
        None => arrow::array::new_null_array(field.data_type(), rows.num_rows()),
    };
    let columns = schema.fields().iter().map(column).collect();
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

impl ContinuousPlan {
    /// Columns of the table of late rows, if rows can be late and some source wants to
    /// keep its.
    ///
    /// # Errors
    /// If two such sources have a column of one name with different types.
    pub fn late_schema(&self) -> Result<Option<SchemaRef>> {
        let kept: Vec<&Input> = self.inputs.values().filter(|input| self.keeps(input)).collect();
        match kept.is_empty() {
            true => Ok(None),
            false => table_schema(kept.into_iter()).map(Some),
        }
    }

    /// Whether late rows of a source are to be kept, and there can be any.
    pub(super) fn keeps(&self, input: &Input) -> bool {
        let name = input.declared.source.name();
        input.declared.keeps_late
            && self.late_inputs.iter().any(|input| input.sources.contains(name))
    }

    /// The rows that came too late in an epoch whose execution left some out.
    pub async fn late_rows(
        &self,
        epoch: &EpochPlan,
        rows: &BTreeMap<String, Rows>,
        moment: &Moment,
        context: &Arc<TaskContext>,
    ) -> Result<Vec<RecordBatch>> {
        let Some(schema) = self.late_schema()? else { return Ok(Vec::new()) };
        let mut numbered = BTreeMap::new();
        let mut first = 0;
        for (name, input) in &self.inputs {
            let chunks = rows.get(name).map_or(&[][..], |rows| &rows.chunks);
            let batches = chunks.iter().map(|chunk| &chunk.batch).collect();
            let rows = Numbered { input, batches, first };
            first += rows.len();
            numbered.insert(name.clone(), rows);
        }
        let mut late = BTreeSet::new();
        let kept = |name: &String| self.inputs.get(name).is_some_and(|input| self.keeps(input));
        for input in self.late_inputs.iter().filter(|input| input.sources.iter().any(kept)) {
            let physical = self.plan_stateless(input.over(&numbered)?, epoch).await?;
            let found = collect(physical, Arc::clone(context)).await?;
            input.late(&found, moment, &mut late)?;
        }
        let kept = numbered.values().filter(|rows| self.keeps(rows.input));
        let picked = kept.map(|rows| rows.pick(&late, &schema));
        Ok(picked.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }
}

fn table_schema<'a>(inputs: impl Iterator<Item = &'a Input>) -> Result<SchemaRef> {
    let mut fields: Vec<Field> = Vec::new();
    for input in inputs {
        let declared = &input.declared;
        let schema = declared.source.schema();
        for (at, field) in schema.fields().iter().enumerate() {
            if Some(at) == declared.deletes {
                continue;
            }
            let own = Field::new(field.name(), field.data_type().clone(), true);
            match fields.iter().find(|known| known.name() == own.name()) {
                None => fields.push(own),
                Some(known) if *known == own => {}
                Some(_) => {
                    return Err(Error::unsupported(
                        format!(
                            "late_rows = 'table' for sources whose columns \"{}\" differ in type",
                            field.name()
                        ),
                        "set it for one of the sources, or name the columns differently",
                    ));
                }
            }
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}
