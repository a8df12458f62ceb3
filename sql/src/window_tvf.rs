//! Windows as tables: `TUMBLE`, `HOP`, `CUMULATE` and `SESSION` in `FROM`.
//!
//! Each adds `window_start` and `window_end` to the rows of a table, and becomes an ordinary
//! plan, so that batch and continuous planning need to know no windows:
//!
//! | written | planned as |
//! |---|---|
//! | `TUMBLE(t, ts, size)` | `date_bin(size, ts)`, and that `+ size` |
//! | `HOP(t, ts, slide, size)` | `unnest(hop_windows(ts, slide, size))`, and that `+ size` |
//! | `CUMULATE(t, ts, step, size)` | `date_bin(size, ts)`, `unnest(cumulate_windows(ts, step, size))` |
//! | `SESSION(t PARTITION BY k, ts, gap)` | `session_start(ts, gap) OVER (PARTITION BY k ORDER BY ts)`, `session_end(…)` |
//!
//! It happens while DataFusion plans, in two parts. Before, [`prepared`] turns the table
//! handed to a window function into a subquery, so that DataFusion sees a table where the
//! parser saw a column's name. Then DataFusion asks [`WindowTables`] for the plan. The
//! statement itself stays as it was written.

pub(crate) mod call;
mod grouped;

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, NullHandling, ScalarValue, UnnestOptions};
use datafusion::error::DataFusionError;
use datafusion::functions::datetime::date_bin;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, ExprSchemable, LogicalPlan, LogicalPlanBuilder, lit,
};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, Function, Query, Spanned as _, TableFactor,
};
use tidemill_engine::function::{
    Width, check_cumulate, check_hop, cumulate_windows, hop_windows, session_end, session_start,
};

use crate::error::{Error, Location, Result};
use crate::plan::sources;
use call::{Call, Kind, is};

pub use call::{PARTITION_BY, WINDOW_FUNCTIONS};

/// What `t FOR SYSTEM_TIME AS OF now()` is parsed as, called with `t`.
pub const SYSTEM_TIME_AS_OF: &str = "SYSTEM_TIME_AS_OF";

/// The columns that a window function adds.
const WINDOW_START: &str = "window_start";
const WINDOW_END: &str = "window_end";

/// The query as it is handed to DataFusion.
pub fn prepared(query: &Query) -> Result<Query> {
    let mut query = query.clone();
    grouped::rewrite(&mut query)?;
    crate::asof::as_functions(&mut query)?;
    call::tables_as_subqueries(&mut query);
    Ok(query)
}

/// Plans window functions in `FROM`.
#[derive(Debug)]
pub struct WindowTables;

impl RelationPlanner for WindowTables {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning, DataFusionError> {
        let TableFactor::TableFunction { expr: SqlExpr::Function(function), alias } = &relation
        else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let plan = match Kind::of(&function.name) {
            Some(kind) => planned(Call::of(kind, function)?, context)?,
            None if is(&function.name, SYSTEM_TIME_AS_OF) => as_of_now(function, context)?,
            None => return Ok(RelationPlanning::Original(Box::new(relation))),
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}

/// A table as it is when it is read, which is how a stream joins it anyway.
fn as_of_now(function: &Function, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let place = Location::of(function.name.span());
    let query = call::table_as_of(function).ok_or_else(|| {
        Error::syntax("FOR SYSTEM_TIME AS OF stands behind a table's name").at(place)
    })?;
    let plan = context.plan(call::derived(Box::new(query.clone())))?;
    match sources(&plan)?.first() {
        None => Ok(plan),
        Some(source) => Err(Error::refused(format!(
            "FOR SYSTEM_TIME AS OF needs a table, and \"{}\" is a source",
            source.source.name()
        ))
        .at(place)
        .with_hint("leave it out: the join then sees all that was read so far")),
    }
}

fn planned(call: Call, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let input = context.plan(call.table()?)?;
    let (time, of) = time(&call, &input, context)?;
    let schema = Arc::clone(input.schema());
    let mut width = |name| call.width(name, &of, &schema, context);
    match call.kind {
        Kind::Tumble => {
            let size = width("SIZE")?.required("SIZE", &call)?.positive("the size");
            let size = size.map_err(|error| Error::from(error).or_at(call.place("SIZE")))?;
            tumble(input, time, size, width("OFFSET")?, &of)
        }
        Kind::Hop => {
            let slide = width("SLIDE")?.required("SLIDE", &call)?;
            let size = width("SIZE")?.required("SIZE", &call)?;
            check_hop(slide, size)
                .map_err(|error| Error::from(error).or_at(call.place("SLIDE")))?;
            hop(input, time, slide, size, width("OFFSET")?)
        }
        Kind::Cumulate => {
            let step = width("STEP")?.required("STEP", &call)?;
            let size = width("SIZE")?.required("SIZE", &call)?;
            check_cumulate(step, size)
                .map_err(|error| Error::from(error).or_at(call.place("STEP")))?;
            cumulate(input, time, step, size, width("OFFSET")?, &of)
        }
        Kind::Session => {
            let gap = width("GAP")?.required("GAP", &call)?.positive("the gap");
            let gap = gap.map_err(|error| Error::from(error).or_at(call.place("GAP")))?;
            let keys = call.partition_by()?.into_iter();
            let keys = keys.map(|key| context.sql_to_expr(key, &schema));
            let keys = keys.collect::<Result<Vec<_>, _>>()?;
            session(input, time, gap, keys)
        }
    }
}

/// The time argument and its type.
fn time(
    call: &Call,
    input: &LogicalPlan,
    context: &mut dyn RelationPlannerContext,
) -> Result<(Expr, DataType)> {
    let written = call.time()?;
    let place = Location::of(written.span());
    let time = context.sql_to_expr(written, input.schema())?;
    let of = time.get_type(input.schema())?;
    if matches!(of, DataType::Timestamp(_, _)) {
        return Ok((time, of));
    }
    Err(Error::types(format!("{} needs a TIMESTAMP, not {of}", call.kind.name()))
        .at(place)
        .with_hint("give it a column of type TIMESTAMP, or a subquery that casts it"))
}

fn tumble(
    input: LogicalPlan,
    time: Expr,
    size: Width,
    offset: Option<Width>,
    of: &DataType,
) -> Result<LogicalPlan> {
    let columns = others(&input);
    let start = binned(&time, size, offset, of)?;
    let input = with_time(input, &time)?;
    let started = LogicalPlanBuilder::from(input)
        .project(columns.iter().cloned().chain([start.alias(WINDOW_START)]))?;
    ended(started, columns, size)
}

fn hop(
    input: LogicalPlan,
    time: Expr,
    slide: Width,
    size: Width,
    offset: Option<Width>,
) -> Result<LogicalPlan> {
    let columns = others(&input);
    let widths = [Some(slide), Some(size), offset];
    let arguments = std::iter::once(time).chain(widths.into_iter().flatten().map(literal));
    let starts = hop_windows().call(arguments.collect());
    let listed = LogicalPlanBuilder::from(input)
        .project(columns.iter().cloned().chain([starts.alias(WINDOW_START)]))?;
    ended(unnested(listed, WINDOW_START)?, columns, size)
}

fn cumulate(
    input: LogicalPlan,
    time: Expr,
    step: Width,
    size: Width,
    offset: Option<Width>,
    of: &DataType,
) -> Result<LogicalPlan> {
    let columns = others(&input);
    let start = binned(&time, size, offset, of)?.alias(WINDOW_START);
    let widths = [Some(step), Some(size), offset];
    let arguments = std::iter::once(time).chain(widths.into_iter().flatten().map(literal));
    let ends = cumulate_windows().call(arguments.collect()).alias(WINDOW_END);
    let listed =
        LogicalPlanBuilder::from(input).project(columns.into_iter().chain([start, ends]))?;
    Ok(unnested(listed, WINDOW_END)?.build()?)
}

fn session(input: LogicalPlan, time: Expr, gap: Width, keys: Vec<Expr>) -> Result<LogicalPlan> {
    let columns = others(&input);
    let input = with_time(input, &time)?;
    let over = |function: Expr| {
        function.partition_by(keys.clone()).order_by(vec![time.clone().sort(true, false)]).build()
    };
    let arguments = vec![time.clone(), literal(gap)];
    let start = over(session_start().call(arguments.clone()))?;
    let end = over(session_end().call(arguments))?;
    let named = |expr: &Expr, name: &str| {
        Expr::Column(Column::from_name(expr.schema_name().to_string())).alias(name)
    };
    let added = [named(&start, WINDOW_START), named(&end, WINDOW_END)];
    let windowed = LogicalPlanBuilder::from(input).window([start, end])?;
    Ok(windowed.project(columns.into_iter().chain(added))?.build()?)
}

/// All columns but those of an earlier window, which the new one hides.
fn others(input: &LogicalPlan) -> Vec<Expr> {
    let columns = input.schema().columns().into_iter();
    let kept = columns.filter(|column| ![WINDOW_START, WINDOW_END].contains(&column.name.as_str()));
    kept.map(Expr::Column).collect()
}

/// Only the rows that have a time: others are in no window.
fn with_time(input: LogicalPlan, time: &Expr) -> Result<LogicalPlan> {
    if !time.nullable(input.schema())? {
        return Ok(input);
    }
    Ok(LogicalPlanBuilder::from(input).filter(time.clone().is_not_null())?.build()?)
}

/// `date_bin(size, time[, offset])`
fn binned(time: &Expr, size: Width, offset: Option<Width>, of: &DataType) -> Result<Expr> {
    let mut arguments = vec![literal(size), time.clone()];
    if let (Some(offset), DataType::Timestamp(_, zone)) = (offset, of) {
        // Which origin it is counted from makes no difference but for whole sizes.
        let nanos = i64::try_from(offset.nanos() % size.nanos());
        let nanos = nanos.map_err(|_| Error::refused(format!("{offset} is too long")))?;
        arguments.push(lit(ScalarValue::TimestampNanosecond(Some(nanos), zone.clone())));
    }
    Ok(date_bin().call(arguments))
}

/// Adds `window_end` behind `window_start`.
fn ended(started: LogicalPlanBuilder, columns: Vec<Expr>, size: Width) -> Result<LogicalPlan> {
    let start = Expr::Column(Column::from_name(WINDOW_START));
    let end = (start.clone() + literal(size)).alias(WINDOW_END);
    Ok(started.project(columns.into_iter().chain([start, end]))?.build()?)
}

/// A row for each window of the list; none for a row without windows.
fn unnested(listed: LogicalPlanBuilder, column: &str) -> Result<LogicalPlanBuilder> {
    let options = UnnestOptions { null_handling: NullHandling::Drop, ..Default::default() };
    Ok(listed.unnest_columns_with_options(vec![Column::from_name(column)], options)?)
}

fn literal(width: Width) -> Expr {
    lit(width.scalar())
}

impl Call {
    /// The width called `name`, if it is given.
    fn width(
        &self,
        name: &str,
        of: &DataType,
        schema: &DFSchema,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Option<Width>> {
        let Some(written) = self.argument(name) else { return Ok(None) };
        let place = Location::of(written.span()).or(self.place(name));
        let expr = context.sql_to_expr(written.clone(), schema)?;
        let (value, negated) = match expr {
            Expr::Negative(inner) => (*inner, true),
            other => (other, false),
        };
        let Expr::Literal(value, _) = value else {
            return Err(Error::refused(format!(
                "the widths of {} are constants",
                self.kind.name()
            ))
            .at(place)
            .with_hint("write it as INTERVAL '10' MINUTE"));
        };
        let width = Width::of(&value).and_then(|width| {
            let width = if negated { width.negated() } else { width };
            // A width that the times can't tell apart is refused here, with its place.
            width.units(of).map(|_| width)
        });
        width.map(Some).map_err(|error| Error::from(error).or_at(place))
    }
}

/// What must be given.
trait Required<T> {
    fn required(self, name: &str, call: &Call) -> Result<T>;
}

impl Required<Width> for Option<Width> {
    fn required(self, name: &str, call: &Call) -> Result<Width> {
        self.ok_or_else(|| call.misspelled(&format!("{name} is missing")))
    }
}
