//! Joins of two streams: both sides kept, by join key.
//!
//! With `T` what a side held before the epoch and `d` what the epoch brings,
//!
//! ```text
//! pairs   = dA ⋈ TB  +  TA ⋈ dB  +  dA ⋈ dB          weights multiplied
//! ```
//!
//! Rows without a partner (outer, semi, anti and mark joins) follow from the *keys*
//! that the other side gains or loses in the epoch: the rows stored under such a key
//! change, all others stay as they are. That holds for joins on equal keys alone;
//! an outer join with a further condition is evaluated anew for the keys that the
//! epoch touches ([`super::recompute`]).

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array, new_null_array,
};
use arrow::compute::{filter_record_batch, is_not_null, not, take};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::physical_plan::PhysicalExpr;

use crate::changelog::{has_weight, join as with_weights, without_weight};
use crate::error::{Error, Result};
use crate::operator::rows::{batch, passing, take_rows};
use crate::operator::side::{Arrived, Keyed, Side};
use crate::operator::{Epoch, Operator, Step};
use crate::state::{Keys, Table, TableSpec};

/// What comes out of a join beside, or instead of, pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Pairs; with `left` or `right` also that side's rows without a partner.
    Pairs { left: bool, right: bool },
    /// Left rows that have a partner.
    Semi,
    /// Left rows that have none.
    Anti,
    /// Every left row, and whether it has a partner.
    Mark,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Pairs { left: false, right: false } => "inner",
            Kind::Pairs { left: true, right: false } => "left outer",
            Kind::Pairs { left: false, right: true } => "right outer",
            Kind::Pairs { left: true, right: true } => "full outer",
            Kind::Semi => "semi",
            Kind::Anti => "anti",
            Kind::Mark => "mark",
        })
    }
}

/// Joins two inputs on equal keys.
#[derive(Debug)]
pub struct Join {
    pub left: Side,
    pub right: Side,
    pub kind: Kind,
    /// A further condition over left and right columns; only for pairs of an inner join.
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// NULL keys are equal (`INTERSECT`, `EXCEPT`).
    pub null_equal: bool,
    /// Left columns, then right ones: what `filter` sees.
    pub pairs: SchemaRef,
    /// With a weight column where the result may retract.
    pub output: SchemaRef,
}

/// Rows of the result, gathered part by part.
struct Out<'a> {
    join: &'a Join,
    batches: Vec<RecordBatch>,
}

impl Out<'_> {
    /// Puts pairs out that pass the filter.
    fn pairs(
        &mut self,
        left: Vec<ArrayRef>,
        right: Vec<ArrayRef>,
        weights: Vec<i64>,
    ) -> Result<()> {
        if weights.is_empty() {
            return Ok(());
        }
        let columns = left.into_iter().chain(right).collect();
        let mut rows = batch(&self.join.pairs, columns, weights.len())?;
        let mut weights = Int64Array::from(weights);
        if let Some(filter) = &self.join.filter {
            let keep = passing(filter, &rows)?;
            rows = filter_record_batch(&rows, &keep)?;
            weights = arrow::compute::filter(&weights, &keep)?.as_primitive::<Int64Type>().clone();
        }
        self.push(rows.columns().to_vec(), weights)
    }

    fn push(&mut self, columns: Vec<ArrayRef>, weights: Int64Array) -> Result<()> {
        let n = weights.len();
        if n == 0 {
            return Ok(());
        }
        let rows = without_weight(&self.join.output);
        let rows = batch(&rows, columns, n)?;
        self.batches.push(match has_weight(&self.join.output) {
            true => with_weights(&rows, weights)?,
            false if weights.values().iter().all(|w| *w == 1) => rows,
            false => return Err(Error::internal("an append-only join takes rows away")),
        });
        Ok(())
    }

    /// Puts rows of one side out that have, or no longer have, a partner.
    fn single(&mut self, of: Of, rows: &[ArrayRef], found: bool, weights: Vec<i64>) -> Result<()> {
        let n = weights.len();
        let (kind, join) = (self.join.kind, self.join);
        match (kind, of) {
            (Kind::Pairs { left: true, .. }, Of::Left) if !found => {
                let nulls =
                    join.right.rows.fields().iter().map(|f| new_null_array(f.data_type(), n));
                self.push(rows.iter().cloned().chain(nulls).collect(), weights.into())
            }
            (Kind::Pairs { right: true, .. }, Of::Right) if !found => {
                let nulls =
                    join.left.rows.fields().iter().map(|f| new_null_array(f.data_type(), n));
                self.push(nulls.chain(rows.iter().cloned()).collect(), weights.into())
            }
            (Kind::Semi, Of::Left) if found => self.push(rows.to_vec(), weights.into()),
            (Kind::Anti, Of::Left) if !found => self.push(rows.to_vec(), weights.into()),
            (Kind::Mark, Of::Left) => {
                let mark = Arc::new(BooleanArray::from(vec![found; n])) as ArrayRef;
                self.push(rows.iter().cloned().chain([mark]).collect(), weights.into())
            }
            _ => Ok(()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Left,
    Right,
}

/// The keys of one side's changes, and whether the side has them before and after.
struct Presence {
    /// Distinct keys of the changes.
    columns: Vec<ArrayRef>,
    before: Vec<bool>,
    after: Vec<bool>,
    /// Per row of the other side's changes whether its key is there after the epoch.
    other: Vec<bool>,
}

impl Join {
    fn needs_presence(&self, of: Of) -> bool {
        match (self.kind, of) {
            (Kind::Pairs { left, .. }, Of::Left) => left,
            (Kind::Pairs { right, .. }, Of::Right) => right,
            (_, of) => of == Of::Left,
        }
    }

    /// What happens to the keys of `changed`, as rows of `other` see it.
    fn presence(&self, changed: &Arrived, table: &Table, other: &Arrived) -> Result<Presence> {
        let keyed = Keyed::of(&[changed, other])?;
        let all = keyed.keys()?;
        let count = keyed.counts[0];
        let mut present = table.contains(&all)?;
        let before = present[..count].to_vec();
        let (mut put, mut taken) = (vec![0i64; count], vec![0i64; count]);
        for (id, weight) in keyed.ids[0].iter().zip(changed.changes.weights.values()) {
            match *weight > 0 {
                true => put[*id] += weight,
                false => taken[*id] -= weight,
            }
        }
        let columns: Vec<ArrayRef> = keyed.columns.iter().map(|c| c.slice(0, count)).collect();
        let stored = counts(table, &columns, &taken)?;
        for id in 0..count {
            present[id] = match taken[id] {
                0 => before[id] || put[id] > 0,
                taken => stored[id] + put[id] > taken,
            };
        }
        let other = keyed.ids[1].iter().map(|id| present[*id]).collect();
        present.truncate(count);
        Ok(Presence { columns, before, after: present, other })
    }

    /// Rows of one side whose having a partner changes, and new ones.
    fn singles(
        &self,
        of: Of,
        own: (&Side, &Arrived, &Table),
        other: (&Arrived, &Table),
        out: &mut Out<'_>,
    ) -> Result<()> {
        let (side, arrived, table) = own;
        let presence = self.presence(other.0, other.1, arrived)?;
        for (appeared, from, to) in [(true, false, true), (false, true, false)] {
            let moved = (0..presence.before.len() as u32).filter(|id| {
                let id = *id as usize;
                presence.before[id] != appeared && presence.after[id] == appeared
            });
            let moved: UInt32Array = moved.collect();
            if moved.is_empty() {
                continue;
            }
            let keys: Vec<ArrayRef> =
                presence.columns.iter().map(|c| take(c, &moved, None)).collect::<Result<_, _>>()?;
            let found = table.get_all(&Keys::new(&keys, moved.len())?)?;
            let rows = table.gather(&found.rows, Some(&side.row_columns()))?;
            let n = found.rows.len();
            out.single(of, &rows, from, vec![-1; n])?;
            out.single(of, &rows, to, vec![1; n])?;
        }
        for found in [true, false] {
            let rows = (0..arrived.changes.len() as u32)
                .filter(|row| presence.other[*row as usize] == found)
                .collect::<Vec<_>>();
            let picked = take_rows(&arrived.changes.rows, &rows)?;
            let weights = rows.iter().map(|row| arrived.changes.weights.value(*row as usize));
            out.single(of, picked.columns(), found, weights.collect())?;
        }
        Ok(())
    }

    /// Rows that can have no partner since their key holds a NULL.
    fn unmatchable(&self, of: Of, arrived: Arrived, out: &mut Out<'_>) -> Result<Arrived> {
        if self.null_equal || arrived.key.iter().all(|key| key.null_count() == 0) {
            return Ok(arrived);
        }
        let mut valid = is_not_null(&arrived.key[0])?;
        for key in &arrived.key[1..] {
            valid = arrow::compute::and(&valid, &is_not_null(key)?)?;
        }
        let alone = arrived.changes.filter(&not(&valid)?)?;
        out.single(of, alone.rows.columns(), false, alone.weights.values().to_vec())?;
        arrived.filter(&valid)
    }

    /// Pairs of the epoch's rows with each other.
    fn among(&self, left: &Arrived, right: &Arrived, out: &mut Out<'_>) -> Result<()> {
        if left.changes.is_empty() || right.changes.is_empty() {
            return Ok(());
        }
        let mut fields: Vec<_> = key_schema(&right.key).fields().iter().cloned().collect();
        let width = fields.len();
        fields.push(Arc::new(Field::new("row", DataType::Int64, false)));
        let spec = TableSpec { schema: Arc::new(Schema::new(fields)), key: (0..width).collect() };
        let mut table = Table::new(spec)?;
        let n = right.changes.len();
        let ids = Arc::new(Int64Array::from_iter_values(0..n as i64)) as ArrayRef;
        let columns = right.key.iter().cloned().chain([ids]).collect();
        let rows = batch(table.schema(), columns, n)?;
        table.insert(&right.keys()?, &rows)?;
        let found = table.get_all(&left.keys()?)?;
        let ids = table.gather(&found.rows, Some(&[width]))?;
        let ids = ids[0].as_primitive::<Int64Type>().values();
        let (lw, rw) = (&left.changes.weights, &right.changes.weights);
        let weights =
            found.key.iter().zip(ids).map(|(l, r)| lw.value(*l as usize) * rw.value(*r as usize));
        let weights: Vec<i64> = weights.collect();
        let right_rows: Vec<u32> = ids.iter().map(|row| *row as u32).collect();
        out.pairs(
            take_rows(&left.changes.rows, &found.key)?.columns().to_vec(),
            take_rows(&right.changes.rows, &right_rows)?.columns().to_vec(),
            weights,
        )
    }
}

fn key_schema(columns: &[ArrayRef]) -> SchemaRef {
    let field =
        |(i, c): (usize, &ArrayRef)| Field::new(format!("k{i}"), c.data_type().clone(), true);
    Arc::new(Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>()))
}

/// How many rows each key has stored; looked up only where some are taken away.
fn counts(table: &Table, columns: &[ArrayRef], taken: &[i64]) -> Result<Vec<i64>> {
    let mut counts = vec![0; taken.len()];
    let asked: UInt32Array = (0..taken.len() as u32).filter(|id| taken[*id as usize] > 0).collect();
    if asked.is_empty() {
        return Ok(counts);
    }
    let columns: Vec<ArrayRef> =
        columns.iter().map(|c| take(c, &asked, None)).collect::<Result<_, _>>()?;
    let found = table.get_all(&Keys::new(&columns, asked.len())?)?;
    for key in found.key {
        counts[asked.value(key as usize) as usize] += 1;
    }
    Ok(counts)
}

#[async_trait]
impl Operator for Join {
    fn tables(&self) -> Vec<TableSpec> {
        vec![self.left.table(), self.right.table()]
    }

    fn schema(&self) -> SchemaRef {
        self.output.clone()
    }

    async fn step(&self, epoch: Epoch<'_>) -> Result<Step> {
        let Epoch { tables, inputs, moment, .. } = epoch;
        let [left_table, right_table] = tables else {
            return Err(Error::internal("a join has two tables"));
        };
        let mut out = Out { join: self, batches: Vec::new() };
        let (left, late_left) = self.left.arrive(&inputs[0], moment)?;
        let (right, late_right) = self.right.arrive(&inputs[1], moment)?;
        let left = self.unmatchable(Of::Left, left, &mut out)?;
        let right = self.unmatchable(Of::Right, right, &mut out)?;
        if matches!(self.kind, Kind::Pairs { .. }) {
            let found = right_table.get_all(&left.keys()?)?;
            out.pairs(
                take_rows(&left.changes.rows, &found.key)?.columns().to_vec(),
                right_table.gather(&found.rows, Some(&self.right.row_columns()))?,
                found.key.iter().map(|row| left.changes.weights.value(*row as usize)).collect(),
            )?;
            let found = left_table.get_all(&right.keys()?)?;
            out.pairs(
                left_table.gather(&found.rows, Some(&self.left.row_columns()))?,
                take_rows(&right.changes.rows, &found.key)?.columns().to_vec(),
                found.key.iter().map(|row| right.changes.weights.value(*row as usize)).collect(),
            )?;
            self.among(&left, &right, &mut out)?;
        }
        if self.needs_presence(Of::Left) {
            let own = (&self.left, &left, left_table);
            self.singles(Of::Left, own, (&right, right_table), &mut out)?;
        }
        if self.needs_presence(Of::Right) {
            let own = (&self.right, &right, right_table);
            self.singles(Of::Right, own, (&left, left_table), &mut out)?;
        }
        let mut changes = Vec::new();
        for (index, (side, arrived)) in
            [(&self.left, &left), (&self.right, &right)].iter().enumerate()
        {
            changes.extend(side.keep(index, &tables[index], arrived, moment)?);
        }
        Ok(Step { output: out.batches, changes, late: late_left + late_right })
    }
}
