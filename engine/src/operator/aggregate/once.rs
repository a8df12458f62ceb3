//! `count(DISTINCT x)` and its like over rows that only come: a value counts when its
//! group has it for the first time.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, UInt32Type, UInt64Type};
use datafusion::logical_expr::GroupsAccumulator;

use super::groups::{Grouped, Old};
use super::{Aggregate, Call};
use crate::error::Result;
use crate::operator::numbers::Numbers;
use crate::operator::rows::{Closing, batch, evaluate, normalized, passing};
use crate::operator::states::Change;
use crate::state::{Address, Keys, Table, TableSpec};

/// Where a value's row has the column by which its group closes.
const ONCE_CLOSES: usize = 2;

impl Aggregate {
    /// The calls with `DISTINCT`, each with its table.
    pub(super) fn once_calls(&self) -> impl Iterator<Item = (usize, usize)> {
        let once = self.calls.iter().enumerate().filter(|(_, call)| call.once.is_some());
        once.enumerate().map(|(n, (call, _))| (call, n + 1))
    }

    pub(super) fn keeps_once(&self) -> bool {
        self.calls.iter().any(|call| call.once.is_some())
    }

    /// The tables of the `DISTINCT` calls, and behind them the one of [`Self::number`].
    pub(super) fn once_tables(&self) -> Vec<TableSpec> {
        let values = self.calls.iter().filter_map(|call| call.once.as_ref());
        let mut tables: Vec<TableSpec> = values
            .map(|ty| {
                let mut fields = vec![Field::new("group", DataType::UInt64, false)];
                fields.push(Field::new("value", ty.clone(), true));
                if let Some(closing) = &self.closing {
                    fields.push(self.group_schema.field(closing.column).clone());
                }
                TableSpec { schema: Arc::new(Schema::new(fields)), key: vec![0, 1] }
            })
            .collect();
        if !tables.is_empty() {
            let next = Field::new("next", DataType::UInt64, false);
            tables.push(TableSpec { schema: Arc::new(Schema::new(vec![next])), key: Vec::new() });
        }
        tables
    }

    /// Of a table the column by which its rows close.
    pub(super) fn closes_by(&self, table: usize, closing: &Closing) -> Option<usize> {
        match table {
            0 => Some(closing.column),
            // The last one keeps the next number.
            table => (table <= self.once_calls().count()).then_some(ONCE_CLOSES),
        }
    }

    /// A number for each group of the epoch, its own for as long as the group is there:
    /// the values are kept under it, which is shorter than the group's columns.
    pub(super) fn number(
        &self,
        tables: &[Table],
        old: &Old,
        changes: &mut Vec<Change>,
    ) -> Result<Option<UInt64Array>> {
        if !self.keeps_once() {
            return Ok(None);
        }
        let index = tables.len() - 1;
        let (table, key) = (&tables[index], Keys::new(&[], 1)?);
        let held = table.get(&key)?;
        let known = table.gather(&held, Some(&[0]))?;
        let known = known[0].as_primitive::<UInt64Type>();
        let first = if held[0].is_none() { 0 } else { known.value(0) };
        let mut next = first;
        let mut numbers = vec![None; old.at.len()];
        let place = self.state_schema.fields().len() - 1;
        let there: Vec<Address> = old.groups.iter().map(|group| old.at[*group]).collect();
        let kept = tables[0].gather(&there, Some(&[place]))?;
        for (group, number) in old.groups.iter().zip(kept[0].as_primitive::<UInt64Type>().values())
        {
            numbers[*group] = Some(*number);
        }
        let numbers = numbers.into_iter().map(|number| {
            number.unwrap_or_else(|| {
                next += 1;
                next - 1
            })
        });
        let numbers = UInt64Array::from_iter_values(numbers);
        if next > first {
            let next: ArrayRef = Arc::new(UInt64Array::from(vec![next]));
            let rows = batch(table.schema(), vec![next], 1)?;
            let insert = Some((key, rows));
            changes.push(Change { table: index, remove: Vec::new(), insert, replaced: held });
        }
        Ok(Some(numbers))
    }

    /// Adds the values that their group has not had before.
    pub(super) fn add_once(
        &self,
        call: &Call,
        index: usize,
        table: &Table,
        (grouped, numbers): (&Grouped, &UInt64Array),
        accumulator: &mut dyn GroupsAccumulator,
    ) -> Result<Change> {
        let value = table.schema().field(1).data_type().clone();
        let mut seen = Numbers::new([DataType::UInt32, value])?;
        for (groups, rows) in &grouped.rows {
            let value = normalized(evaluate(&call.function.expressions(), rows)?)?;
            let counts = self.counts(call, &value[0], rows)?;
            let groups = UInt32Array::from_iter_values(groups.iter().map(|group| *group as u32));
            let columns: Vec<ArrayRef> = [&(Arc::new(groups) as ArrayRef), &value[0]]
                .into_iter()
                .map(|column| arrow::compute::filter(column, &counts))
                .collect::<Result<_, _>>()?;
            seen.of(&columns, columns[0].len())?;
        }
        let (pairs, count) = seen.all()?;
        let groups = pairs[0].as_primitive::<UInt32Type>();
        let mut columns = vec![take(numbers, groups, None)?, Arc::clone(&pairs[1])];
        let keys = Keys::new(&columns, count)?;
        if let Some(closing) = &self.closing {
            columns.push(take(&grouped.columns[closing.column], groups, None)?);
        }
        let known = table.get(&keys)?;
        let fresh: UInt32Array =
            (0..count as u32).filter(|row| known[*row as usize].is_none()).collect();
        let columns: Vec<ArrayRef> =
            columns.iter().map(|c| take(c, &fresh, None)).collect::<Result<_, _>>()?;
        let group_of = |row: &u32| groups.value(*row as usize) as usize;
        let groups: Vec<usize> = fresh.values().iter().map(group_of).collect();
        accumulator.update_batch(&columns[1..2], &groups, None, grouped.groups)?;
        let rows = batch(table.schema(), columns, groups.len())?;
        let keys = keys.take(fresh.values())?;
        Ok(Change::new(index, Vec::new(), (keys, rows)))
    }

    /// Which rows a `DISTINCT` call counts: those that pass its filter; NULL never does.
    fn counts(&self, call: &Call, value: &ArrayRef, rows: &RecordBatch) -> Result<BooleanArray> {
        let valid = arrow::compute::is_not_null(value)?;
        match &call.filter {
            Some(filter) => Ok(arrow::compute::and(&valid, &passing(filter, rows)?)?),
            None => Ok(valid),
        }
    }
}
