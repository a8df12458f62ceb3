//! Grouped and global aggregates: accumulator state per group.
//!
//! ```text
//! rows ─► groups of the epoch ─► look up ─► old state ─┬─► old row   (taken away)
//!                                            + rows    ├─► new row   (put in)
//!                                                      └─► new state (kept)
//! ```
//!
//! Any aggregate of DataFusion works whose state can be merged. Rows are only ever
//! added to a state: over an input that retracts, the planner asks for each
//! aggregate twice, over the rows put in and over those taken away, and
//! [`Aggregate::finish`] subtracts the one from the other; the first two aggregates
//! then count both kinds of rows, and a group whose counts are equal is gone.
//!
//! Groups may be sessions, which rows make longer or join ([`session`]).
//!
//! `DISTINCT` aggregates see a value of a group only when it first comes: a table
//! of its own remembers them.

mod groups;
mod once;
pub mod session;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array, UInt64Array,
    new_empty_array,
};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::GroupsAccumulatorAdapter;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::PhysicalExpr;

use crate::changelog::{join, with_weight};
use crate::error::Result;
use crate::operator::aggregate::groups::{Grouped, Old};
use crate::operator::aggregate::session::Session;
use crate::operator::numbers::Numbers;
use crate::operator::rows::{Closing, batch, below, evaluate, normalized, passing, units};
use crate::operator::states::{Change, Moment};
use crate::operator::{Epoch, Operator, Step};
use crate::state::{Address, Table, TableSpec};

/// Aggregates whose state, if it is one column, is their value.
const STATE_IS_VALUE: [&str; 6] = ["sum", "min", "max", "count", "bool_and", "bool_or"];

/// One aggregate call.
#[derive(Debug, Clone)]
pub struct Call {
    pub function: Arc<AggregateFunctionExpr>,
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// `DISTINCT`, with the type of the argument: a value counts once a group however
    /// often it comes. `function` is then the form without `DISTINCT`.
    pub once: Option<DataType>,
    /// One accumulator serves all groups.
    together: bool,
}

impl Call {
    pub fn new(
        function: Arc<AggregateFunctionExpr>,
        filter: Option<Arc<dyn PhysicalExpr>>,
        once: Option<DataType>,
    ) -> Result<Self> {
        let mut together = function.groups_accumulator_supported();
        if together {
            // One that forgets DISTINCT keeps another state than it declares (DataFusion's
            // bit_xor): single accumulators don't.
            let kept = function.create_groups_accumulator()?.state(EmitTo::All)?;
            let declared = function.state_fields()?;
            together = kept.iter().zip(&declared).all(|(k, d)| k.data_type() == d.data_type());
        }
        Ok(Self { function, filter, once, together })
    }

    fn accumulator(&self) -> Result<Box<dyn GroupsAccumulator>> {
        if self.together {
            return Ok(self.function.create_groups_accumulator()?);
        }
        let function = Arc::clone(&self.function);
        Ok(Box::new(GroupsAccumulatorAdapter::new(move || function.create_accumulator())))
    }

    fn state_is_value(&self, states: &[FieldRef]) -> bool {
        states.len() == 1
            && states[0].data_type() == self.function.field().data_type()
            && STATE_IS_VALUE.contains(&self.function.fun().name())
    }
}

/// What the planner says of an aggregate.
pub struct AggregateSpec {
    pub group: Vec<Arc<dyn PhysicalExpr>>,
    pub group_types: Vec<DataType>,
    /// Groups are the sessions of a key: `group`, then their start and end, of which the
    /// types are the last two.
    pub session: Option<Session>,
    pub calls: Vec<Call>,
    /// Columns of the result over group columns and aggregate values, if they are
    /// not just these.
    pub finish: Option<Vec<Arc<dyn PhysicalExpr>>>,
    /// The first two calls count rows put in and taken away.
    pub counted: bool,
    /// Which group column closes, and when.
    pub closing: Option<Closing>,
    /// Columns of the epoch's rows, with their weight if they have one.
    pub input: SchemaRef,
    /// Columns of the result, without weight.
    pub output: SchemaRef,
}

/// Keeps one row a group.
#[derive(Debug)]
pub struct Aggregate {
    /// What the rows of groups are kept under; without sessions, the group.
    group: Vec<Arc<dyn PhysicalExpr>>,
    session: Option<Session>,
    calls: Vec<Call>,
    finish: Option<Vec<Arc<dyn PhysicalExpr>>>,
    counted: bool,
    closing: Option<Closing>,
    input: SchemaRef,
    group_schema: SchemaRef,
    /// Group columns, then the states of every call, then the group's number if it has one.
    state_schema: SchemaRef,
    states: Vec<Vec<FieldRef>>,
    /// Group columns and values, before `finish`.
    value_schema: SchemaRef,
    /// Columns of the result, without weight.
    rows: SchemaRef,
    output: SchemaRef,
    /// Only groups, and nothing is ever taken away: a group is put out once.
    distinct: bool,
}

impl Aggregate {
    pub fn new(spec: AggregateSpec) -> Result<Self> {
        let states = spec.calls.iter().map(|call| Ok(call.function.state_fields()?));
        let states: Vec<Vec<FieldRef>> = states.collect::<Result<_>>()?;
        let values = spec.calls.iter().map(|call| call.function.field().data_type().clone());
        let kept = states.iter().flatten().map(|field| field.data_type().clone());
        let once = spec.calls.iter().any(|call| call.once.is_some());
        let number = once.then_some(DataType::UInt64);
        let with_groups = |types: Vec<DataType>| {
            let keys = named("k", spec.group_types.iter().cloned());
            Arc::new(Schema::new(keys.chain(named("v", types)).collect::<Vec<_>>()))
        };
        let distinct = spec.calls.is_empty() && !spec.counted && spec.session.is_none();
        Ok(Self {
            group_schema: with_groups(Vec::new()),
            state_schema: with_groups(kept.chain(number).collect()),
            value_schema: with_groups(values.collect()),
            output: if distinct { spec.output.clone() } else { with_weight(&spec.output) },
            rows: spec.output,
            group: spec.group,
            session: spec.session,
            calls: spec.calls,
            finish: spec.finish,
            counted: spec.counted,
            closing: spec.closing,
            input: spec.input,
            states,
            distinct,
        })
    }

    /// Finds the groups of the epoch's rows, and what is known of them.
    fn group(
        &self,
        table: &Table,
        batches: Vec<RecordBatch>,
        moment: &Moment,
    ) -> Result<(Grouped, Old)> {
        if let Some(session) = &self.session {
            return self.group_by_session(session, table, batches, moment);
        }
        let types = self.group_schema.fields().iter().map(|key| key.data_type().clone());
        let mut numbers = Numbers::new(types)?;
        let (mut rows, mut late) = (Vec::with_capacity(batches.len()), 0);
        for batch in batches {
            let columns = normalized(evaluate(&self.group, &batch)?)?;
            let (batch, columns, dropped) = self.in_time(batch, columns, moment)?;
            late += dropped;
            rows.push((numbers.of(&columns, batch.num_rows())?, batch));
        }
        let (columns, groups) = numbers.all()?;
        let keys = table.keys(&columns, groups)?;
        let at = table.get(&keys)?;
        let there = at.iter().enumerate().filter(|(_, at)| !at.is_none());
        let (of, held): (Vec<usize>, Vec<Address>) = there.map(|(g, a)| (g, *a)).unzip();
        let known = UInt32Array::from_iter_values(of.iter().map(|group| *group as u32));
        let known = columns.iter().map(|column| take(column, &known, None));
        let known = known.collect::<Result<_, _>>()?;
        let old = Old::read(table, groups, (held, of), known, &self.states)?;
        Ok((Grouped { rows, columns, groups, keys, late }, old))
    }

    /// Rows and their group columns without what came too late, and how many rows did.
    fn in_time(
        &self,
        rows: RecordBatch,
        columns: Vec<ArrayRef>,
        moment: &Moment,
    ) -> Result<(RecordBatch, Vec<ArrayRef>, u64)> {
        let Some(closing) = &self.closing else { return Ok((rows, columns, 0)) };
        let column = &columns[closing.column];
        let Some(bound) = closing.late(column.data_type(), moment) else {
            return Ok((rows, columns, 0));
        };
        let late = below(column, bound)?;
        let count = late.true_count() as u64;
        if count == 0 {
            return Ok((rows, columns, 0));
        }
        let keep = arrow::compute::not(&late)?;
        let rows = arrow::compute::filter_record_batch(&rows, &keep)?;
        let kept = columns.iter().map(|column| arrow::compute::filter(column, &keep));
        Ok((rows, kept.collect::<Result<_, _>>()?, count))
    }

    /// The states after the epoch, by call.
    fn advance(
        &self,
        tables: &[Table],
        grouped: &Grouped,
        numbers: Option<&UInt64Array>,
        old: &Old,
        changes: &mut Vec<Change>,
    ) -> Result<Vec<Vec<ArrayRef>>> {
        let once: Vec<_> = self.once_calls().collect();
        let mut states = Vec::with_capacity(self.calls.len());
        for (index, call) in self.calls.iter().enumerate() {
            let mut accumulator = call.accumulator()?;
            let table = once.iter().find(|(call, _)| *call == index).map(|(_, table)| *table);
            if table.is_some() || !grouped.at_once(old) {
                self.announce(call, grouped.groups, accumulator.as_mut())?;
            }
            if !old.groups.is_empty() {
                let held = &old.states[index];
                accumulator.merge_batch(held, &old.groups, grouped.groups)?;
            }
            match (table, numbers) {
                (Some(table), Some(numbers)) => {
                    let of = (grouped, numbers);
                    let accumulator = accumulator.as_mut();
                    changes.push(self.add_once(call, table, &tables[table], of, accumulator)?);
                }
                _ => {
                    for (groups, rows) in &grouped.rows {
                        let args = evaluate(&call.function.expressions(), rows)?;
                        let filter = call.filter.as_ref().map(|f| passing(f, rows)).transpose()?;
                        accumulator.update_batch(&args, groups, filter.as_ref(), grouped.groups)?;
                    }
                }
            }
            states.push(accumulator.state(EmitTo::All)?);
        }
        Ok(states)
    }

    /// Tells an accumulator of `n` groups that may have had no row yet. Told of them with
    /// rows, it takes it that all have had one (a sum of nothing would be 0, not NULL).
    fn announce(&self, call: &Call, n: usize, to: &mut dyn GroupsAccumulator) -> Result<()> {
        let nothing = RecordBatch::new_empty(self.input.clone());
        let args = evaluate(&call.function.expressions(), &nothing)?;
        let none = BooleanArray::from(Vec::<bool>::new());
        Ok(to.update_batch(&args, &[], Some(&none), n)?)
    }

    /// The values that `states` stand for, `n` of each.
    fn values(&self, states: &[Vec<ArrayRef>], n: usize) -> Result<Vec<ArrayRef>> {
        let all: Vec<usize> = (0..n).collect();
        let each = self.calls.iter().zip(states).zip(&self.states);
        let value = |((call, states), fields): ((&Call, &Vec<ArrayRef>), &Vec<FieldRef>)| {
            if call.state_is_value(fields) {
                return Ok(Arc::clone(&states[0]));
            }
            if n == 0 {
                // The values of single accumulators tell the type of a column, which is then unknown.
                return Ok(new_empty_array(call.function.field().data_type()));
            }
            let mut accumulator = call.accumulator()?;
            accumulator.merge_batch(states, &all, n)?;
            Ok(accumulator.evaluate(EmitTo::All)?)
        };
        each.map(value).collect()
    }

    /// Rows of the result.
    fn result(&self, groups: &[ArrayRef], values: Vec<ArrayRef>, n: usize) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = groups.iter().cloned().chain(values).collect();
        match &self.finish {
            None => batch(&self.rows, columns, n),
            Some(exprs) => {
                let values = batch(&self.value_schema, columns, n)?;
                batch(&self.rows, evaluate(exprs, &values)?, n)
            }
        }
    }

    /// One group of all rows, which is there before any.
    fn is_global(&self) -> bool {
        self.group.is_empty() && self.session.is_none()
    }

    /// Which groups have rows.
    fn alive(&self, states: &[ArrayRef], n: usize) -> Vec<bool> {
        if !self.counted || self.is_global() {
            return vec![true; n];
        }
        let put = states[0].as_primitive::<Int64Type>();
        let taken = states[1].as_primitive::<Int64Type>();
        (0..n).map(|group| put.value(group) > taken.value(group)).collect()
    }

    /// Rows to drop since their window is over.
    fn expired(&self, tables: &[Table], moment: &Moment) -> Result<Vec<Change>> {
        let Some(closing) = &self.closing else { return Ok(Vec::new()) };
        let ty = self.group_schema.field(closing.column).data_type();
        let Some(bound) = closing.closed(ty, moment) else { return Ok(Vec::new()) };
        let mut changes = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            let Some(column) = self.closes_by(index, closing) else { continue };
            let remove = table.below(column, bound)?;
            if !remove.is_empty() {
                changes.push(Change::remove(index, remove));
            }
        }
        Ok(changes)
    }

    /// Which groups of the epoch are still open once it is over.
    fn open(&self, groups: &[ArrayRef], n: usize, moment: &Moment) -> Result<Vec<bool>> {
        let Some(closing) = &self.closing else { return Ok(vec![true; n]) };
        let column = &groups[closing.column];
        let Some(bound) = closing.closed(column.data_type(), moment) else {
            return Ok(vec![true; n]);
        };
        Ok(below(column, bound)?.values().iter().map(|closed| !closed).collect())
    }
}

/// Fields `prefix0`, `prefix1`, ….
fn named(
    prefix: &'static str,
    types: impl IntoIterator<Item = DataType>,
) -> impl Iterator<Item = FieldRef> {
    let field = move |(i, ty)| Arc::new(Field::new(format!("{prefix}{i}"), ty, true));
    types.into_iter().enumerate().map(field)
}

#[async_trait]
impl Operator for Aggregate {
    fn tables(&self) -> Vec<TableSpec> {
        let groups: Vec<usize> = (0..self.group.len()).collect();
        let main = TableSpec { schema: self.state_schema.clone(), key: groups };
        std::iter::once(main).chain(self.once_tables()).collect()
    }

    fn schema(&self) -> SchemaRef {
        self.output.clone()
    }

    async fn step(&self, epoch: Epoch<'_>) -> Result<Step> {
        let Epoch { tables, mut inputs, moment, first, .. } = epoch;
        let rows = inputs.remove(0).into_iter().filter(|batch| batch.num_rows() > 0);
        let rows: Vec<_> = rows.map(units).collect::<Result<_>>()?;
        let mut changes = self.expired(tables, moment)?;
        if rows.is_empty() && !(first && self.is_global()) {
            return Ok(Step { changes, ..Step::default() });
        }
        let (grouped, old) = self.group(&tables[0], rows, moment)?;
        let late = grouped.late;
        if grouped.groups == 0 {
            return Ok(Step { changes, late, ..Step::default() });
        }
        if self.session.is_some() {
            // Sessions that go on are not over.
            let on: HashSet<Address> = old.rows.iter().copied().collect();
            changes.iter_mut().for_each(|change| change.remove.retain(|at| !on.contains(at)));
        }
        let numbers = self.number(tables, &old, &mut changes)?;
        let states = self.advance(tables, &grouped, numbers.as_ref(), &old, &mut changes)?;
        let output = self.output(&grouped, &old, &states)?;
        let kept = states.into_iter().flatten().chain(numbers.map(|n| Arc::new(n) as ArrayRef));
        changes.push(self.keep(grouped, &old, kept.collect(), moment)?);
        Ok(Step { output, changes, late })
    }
}

impl Aggregate {
    /// What becomes of the groups' states.
    fn keep(
        &self,
        grouped: Grouped,
        old: &Old,
        kept: Vec<ArrayRef>,
        moment: &Moment,
    ) -> Result<Change> {
        let Grouped { columns, groups: n, keys, .. } = grouped;
        let alive = self.alive(&kept, n);
        let open = self.open(&columns, n, moment)?;
        let columns = columns.into_iter().chain(kept).collect();
        let all = batch(&self.state_schema, columns, n)?;
        let stays = |group: &u32| alive[*group as usize] && open[*group as usize];
        let kept: Vec<u32> = (0..n as u32).filter(stays).collect();
        // A row that stays takes the place of its group's first one.
        let replaced = |(row, group): &(&Address, &usize)| {
            stays(&(**group as u32)) && old.at[**group] == **row
        };
        let gone = old.rows.iter().zip(&old.groups).filter(|pair| !replaced(pair));
        let remove = gone.map(|(row, _)| *row).collect();
        let insert = match kept.len() == n {
            true => (keys, all),
            false => (keys.take(&kept)?, super::rows::take_rows(&all, &kept)?),
        };
        let replaced = kept.iter().map(|group| old.at[*group as usize]).collect();
        Ok(Change { table: 0, remove, insert: Some(insert), replaced })
    }

    /// Old rows taken away, new rows put in; nothing where they are the same.
    fn output(
        &self,
        grouped: &Grouped,
        old: &Old,
        states: &[Vec<ArrayRef>],
    ) -> Result<Vec<RecordBatch>> {
        let n = grouped.groups;
        let new_rows = self.result(&grouped.columns, self.values(states, n)?, n)?;
        if self.distinct {
            let fresh: Vec<u32> = (0..n as u32).filter(|g| old.at[*g as usize].is_none()).collect();
            return Ok(vec![super::rows::take_rows(&new_rows, &fresh)?]);
        }
        let counts: Vec<ArrayRef> = states.iter().flatten().take(2).cloned().collect();
        let alive = self.alive(&counts, n);
        let count = old.groups.len();
        let at: Vec<u32> = old.groups.iter().map(|group| *group as u32).collect();
        let old_rows = self.result(&old.columns, self.values(&old.states, count)?, count)?;
        let same = same_rows(&old_rows, &super::rows::take_rows(&new_rows, &at)?)?;
        let (rows, mut unchanged) = (old.counts(), vec![false; n]);
        for (row, group) in old.groups.iter().enumerate() {
            unchanged[*group] = same[row] && alive[*group] && rows[*group] == 1;
        }
        let taken: Vec<u32> =
            (0..count as u32).filter(|row| !unchanged[old.groups[*row as usize]]).collect();
        let put: Vec<u32> =
            (0..n as u32).filter(|g| alive[*g as usize] && !unchanged[*g as usize]).collect();
        let weights = [vec![-1; taken.len()], vec![1; put.len()]].concat();
        let rows =
            [super::rows::take_rows(&old_rows, &taken)?, super::rows::take_rows(&new_rows, &put)?];
        let rows = concat_batches(&self.rows, &rows)?;
        Ok(vec![join(&rows, Int64Array::from(weights))?])
    }
}

/// Which rows of two batches of one schema are the same; NULL is the same as NULL.
fn same_rows(a: &RecordBatch, b: &RecordBatch) -> Result<Vec<bool>> {
    let mut same = vec![true; a.num_rows()];
    for (left, right) in a.columns().iter().zip(b.columns()) {
        if left.data_type().is_nested() {
            let (left, right) = (
                crate::changelog::encode(std::slice::from_ref(left))?,
                crate::changelog::encode(std::slice::from_ref(right))?,
            );
            same.iter_mut().enumerate().for_each(|(i, same)| *same &= left.row(i) == right.row(i));
            continue;
        }
        let equal = arrow::compute::kernels::cmp::not_distinct(left, right)?;
        same.iter_mut().zip(equal.values()).for_each(|(same, equal)| *same &= equal);
    }
    Ok(same)
}
