//! Watermarks of a query's sources.
//!
//! A partition's watermark is the greatest value that `WATERMARK FOR … AS value` had
//! for any of its rows; a source's is the least of its partitions'. Where `idle_timeout`
//! is set, a partition that has been silent for so long is left out, and a source all of
//! whose partitions are silent follows the other sources. A watermark never goes back.
//!
//! It follows from the rows alone (and, for what falls idle, from the epochs' recorded
//! times), so that a run after a crash sees the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::{cast, max};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::common::{Column, DFSchema};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::physical_plan::PhysicalExpr;
use serde::{Deserialize, Serialize};

use crate::epoch::{EpochPlan, PartitionId};
use crate::error::Result;
use crate::operator::states::{Moment, Watermark};
use crate::plan::Input;
use crate::source::Rows;

/// What a snapshot keeps of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    sources: BTreeMap<String, BTreeMap<PartitionId, Mark>>,
    /// Sources whose event time is over.
    ended: BTreeSet<String>,
    /// The watermark that each source has reached, microseconds since 1970.
    #[serde(default)]
    reached: BTreeMap<String, i64>,
    /// The time of the first epoch: sources without any row have been idle since.
    #[serde(default)]
    began_us: Option<i64>,
}

/// One partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// Microseconds since 1970.
    watermark_us: i64,
    /// When it last brought a row, by the epochs' times.
    seen_us: i64,
}

/// Follows the watermarks of a query's sources.
pub struct Watermarks {
    marks: Marks,
    values: BTreeMap<String, Value>,
}

/// `WATERMARK FOR … AS` this.
struct Value {
    expr: Arc<dyn PhysicalExpr>,
    /// The column whose greatest value has the greatest watermark, if there is one:
    /// `expr` is then over that column alone.
    rises_with: Option<usize>,
}

impl Value {
    fn new(value: &Expr, schema: &DFSchema, state: &SessionState) -> Result<Self, DataFusionError> {
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        let cast = datafusion::logical_expr::cast(value.clone(), micros);
        let (rises_with, schema) = match rising(value) {
            Some(column) => {
                let at = schema.index_of_column(column)?;
                let (table, field) = schema.qualified_field(at);
                let of = (table.cloned(), Arc::clone(field));
                let temporal = matches!(field.data_type(), DataType::Timestamp(_, _));
                match temporal {
                    true => (Some(at), DFSchema::new_with_metadata(vec![of], HashMap::new())?),
                    false => (None, schema.clone()),
                }
            }
            None => (None, schema.clone()),
        };
        Ok(Self { expr: state.create_physical_expr(cast, &schema)?, rises_with })
    }

    /// The greatest watermark of the rows, microseconds since 1970.
    fn latest(&self, rows: &RecordBatch) -> Result<Option<i64>> {
        let Some(at) = self.rises_with else {
            let values = self.expr.evaluate(rows)?.into_array(rows.num_rows())?;
            return latest(&values);
        };
        let column = rows.column(at);
        let Some(greatest) = latest(column)? else { return Ok(None) };
        let greatest = cast(&Int64Array::from(vec![greatest]), column.data_type())?;
        let schema = Arc::new(rows.schema().project(&[at])?);
        let row = RecordBatch::try_new(schema, vec![greatest])?;
        latest(&self.expr.evaluate(&row)?.into_array(1)?)
    }
}

/// The column that a value rises with: itself, or plus or minus a constant.
fn rising(value: &Expr) -> Option<&Column> {
    match value {
        Expr::Column(column) => Some(column),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus | Operator::Plus, right }) => {
            match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), Expr::Literal(_, _)) => Some(column),
                _ => None,
            }
        }
        _ => None,
    }
}

impl Watermarks {
    pub fn new(
        inputs: &BTreeMap<String, Input>,
        state: &SessionState,
        marks: Marks,
    ) -> Result<Self> {
        let mut values = BTreeMap::new();
        for (name, input) in inputs {
            let Some(watermark) = &input.declared.watermark else { continue };
            let schema = input.declared.source.schema().project(&input.projection)?;
            let schema = DFSchema::try_from_qualified_schema(name.as_str(), &schema)?;
            // A plan without state reads no more columns than it needs.
            if let Ok(value) = Value::new(&watermark.value, &schema, state) {
                values.insert(name.clone(), value);
            }
        }
        Ok(Self { marks, values })
    }

    /// Takes in an epoch's rows; answers what its operators are to know.
    pub fn advance(
        &mut self,
        plan: &EpochPlan,
        inputs: &BTreeMap<String, Input>,
        rows: &BTreeMap<String, Rows>,
    ) -> Result<Moment> {
        self.marks.began_us.get_or_insert(plan.timestamp_us);
        // What is read now for the first time may be behind what was read before.
        let before = self.at(inputs, plan.timestamp_us, &|name| self.holds(name, plan, true));
        for (name, value) in &self.values {
            let partitions = self.marks.sources.entry(name.clone()).or_default();
            for chunk in rows.get(name).map_or(&[][..], |rows| &rows.chunks) {
                let Some(latest) = value.latest(&chunk.batch)? else { continue };
                let new = Mark { watermark_us: latest, seen_us: plan.timestamp_us };
                let mark = partitions.entry(chunk.partition).or_insert(new);
                mark.watermark_us = mark.watermark_us.max(latest);
                mark.seen_us = plan.timestamp_us;
            }
        }
        self.marks.ended.extend(plan.ended.iter().cloned());
        let after = self.at(inputs, plan.timestamp_us, &|name| self.holds(name, plan, false));
        let mut watermarks = BTreeMap::new();
        for (name, before) in before {
            let after = after.get(&name).copied().unwrap_or(before).max(before);
            let reached = self.marks.reached.insert(name.clone(), after).unwrap_or(i64::MIN);
            watermarks.insert(name, Watermark { reached, before, after });
        }
        Ok(Moment { timestamp_us: plan.timestamp_us, watermarks })
    }

    /// Whether some partition has rows of which none was read before the epoch (with
    /// `these`: in it, or after it; else only after it). No event time of it is known.
    fn holds(&self, name: &str, plan: &EpochPlan, these: bool) -> bool {
        let marks = self.marks.sources.get(name);
        let unknown = |p: &PartitionId| marks.is_none_or(|marks| !marks.contains_key(p));
        let unread = plan.unread.get(name).is_some_and(|left| left.iter().any(unknown));
        let ranges = plan.sources.get(name).filter(|_| these);
        unread || ranges.is_some_and(|r| r.iter().any(|(p, r)| !r.is_empty() && unknown(p)))
    }

    /// The watermark of every source at a time, microseconds since 1970; one that is held
    /// back stays where it is. Never back: a partition that wakes up again may be behind
    /// the others.
    fn at(
        &self,
        inputs: &BTreeMap<String, Input>,
        now_us: i64,
        held: &dyn Fn(&str) -> bool,
    ) -> BTreeMap<String, i64> {
        let own = self.values.keys().map(|name| match held(name) {
            true => (name, Own { watermark_us: i64::MIN, awake: true }),
            false => (name, self.own(name, inputs, now_us)),
        });
        let own: Vec<(&String, Own)> = own.collect();
        let going = || own.iter().filter(|(name, _)| !self.marks.ended.contains(*name));
        let awake = going().filter(|(_, own)| own.awake).map(|(_, own)| own.watermark_us);
        // All asleep: what one has seen goes for all of them.
        let seen = || going().map(|(_, own)| own.watermark_us).max();
        let others = awake.min().or_else(seen).unwrap_or(i64::MIN);
        let each = own.iter().map(|(name, own)| {
            let at = if own.awake { own.watermark_us } else { own.watermark_us.max(others) };
            let reached = self.marks.reached.get(*name).copied().unwrap_or(i64::MIN);
            ((*name).clone(), at.max(reached))
        });
        each.collect()
    }

    /// What a source's own partitions say.
    fn own(&self, name: &str, inputs: &BTreeMap<String, Input>, now_us: i64) -> Own {
        if self.marks.ended.contains(name) {
            return Own { watermark_us: i64::MAX, awake: true };
        }
        let timeout_us = idle_timeout(inputs, name);
        let awake = |since_us: i64| {
            timeout_us.is_none_or(|timeout_us| now_us.saturating_sub(since_us) < timeout_us)
        };
        let marks: Vec<&Mark> =
            self.marks.sources.get(name).into_iter().flat_map(BTreeMap::values).collect();
        let least = marks.iter().filter(|mark| awake(mark.seen_us)).map(|mark| mark.watermark_us);
        match least.min() {
            Some(watermark_us) => Own { watermark_us, awake: true },
            // All asleep: what has been seen goes for all of them.
            None => Own {
                watermark_us: marks.iter().map(|m| m.watermark_us).max().unwrap_or(i64::MIN),
                awake: marks.is_empty() && self.marks.began_us.is_none_or(awake),
            },
        }
    }

    /// When a watermark moves next though no row comes, since something falls idle.
    pub fn moves_at(&self, inputs: &BTreeMap<String, Input>) -> Option<i64> {
        let mut times = BTreeSet::new();
        for name in self.values.keys() {
            let Some(timeout_us) = idle_timeout(inputs, name) else { continue };
            let marks = self.marks.sources.get(name).into_iter().flat_map(BTreeMap::values);
            let since = marks.map(|mark| mark.seen_us).chain(self.marks.began_us);
            times.extend(since.map(|since| since.saturating_add(timeout_us)));
        }
        let moved = |at: &i64| {
            let reached = |name: &String| self.marks.reached.get(name).copied();
            self.at(inputs, *at, &|_| false)
                .iter()
                .any(|(name, at)| reached(name).is_some_and(|r| r < *at))
        };
        times.into_iter().find(moved)
    }

    pub fn marks(&self) -> &Marks {
        &self.marks
    }
}

/// What the partitions of a source come to.
#[derive(Debug, Clone, Copy)]
struct Own {
    watermark_us: i64,
    /// Some of them brought rows lately.
    awake: bool,
}

/// Microseconds.
fn idle_timeout(inputs: &BTreeMap<String, Input>, name: &str) -> Option<i64> {
    let watermark = inputs.get(name)?.declared.watermark.as_ref()?;
    i64::try_from(watermark.idle_timeout?.as_micros()).ok()
}

fn latest(values: &ArrayRef) -> Result<Option<i64>> {
    let values = cast(values, &DataType::Int64)?;
    Ok(max(values.as_primitive::<Int64Type>()))
}
