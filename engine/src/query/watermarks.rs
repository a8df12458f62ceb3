//! Watermarks of a query's sources.
//!
//! A partition's watermark is the greatest value that `WATERMARK FOR … AS value` had
//! for any of its rows; a source's is the least of its partitions'. It follows from the
//! rows alone (and, for partitions that fall idle, from the epochs' recorded times), so
//! that a run after a crash sees the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::{cast, max};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
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
    ended: std::collections::BTreeSet<String>,
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
    values: BTreeMap<String, Arc<dyn PhysicalExpr>>,
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
            let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
            let value = datafusion::logical_expr::cast(watermark.value.clone(), micros);
            // A plan without state reads no more columns than it needs.
            if let Ok(value) = state.create_physical_expr(value, &schema) {
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
        let before: BTreeMap<String, i64> =
            self.values.keys().map(|name| (name.clone(), self.of(name, inputs, plan))).collect();
        for (name, value) in &self.values {
            let partitions = self.marks.sources.entry(name.clone()).or_default();
            for chunk in rows.get(name).map_or(&[][..], |rows| &rows.chunks) {
                let values = value.evaluate(&chunk.batch)?.into_array(chunk.batch.num_rows())?;
                let Some(latest) = latest(&values)? else { continue };
                let new = Mark { watermark_us: latest, seen_us: plan.timestamp_us };
                let mark = partitions.entry(chunk.partition).or_insert(new);
                mark.watermark_us = mark.watermark_us.max(latest);
                mark.seen_us = plan.timestamp_us;
            }
        }
        self.marks.ended.extend(plan.ended.iter().cloned());
        let watermarks = before.into_iter().map(|(name, before)| {
            // Never back: a partition that wakes up again may be behind the others.
            let after = self.of(&name, inputs, plan).max(before);
            (name, Watermark { before, after })
        });
        let watermarks = watermarks.collect();
        Ok(Moment { timestamp_us: plan.timestamp_us, watermarks })
    }

    /// The watermark of a source, microseconds since 1970.
    fn of(&self, name: &str, inputs: &BTreeMap<String, Input>, plan: &EpochPlan) -> i64 {
        if self.marks.ended.contains(name) {
            return i64::MAX;
        }
        let Some(partitions) = self.marks.sources.get(name) else { return i64::MIN };
        let watermark = inputs.get(name).and_then(|input| input.declared.watermark.as_ref());
        let timeout = watermark.and_then(|watermark| watermark.idle_timeout);
        let timeout = timeout.and_then(|timeout| i64::try_from(timeout.as_micros()).ok());
        let awake = |mark: &&Mark| {
            timeout.is_none_or(|timeout| plan.timestamp_us.saturating_sub(mark.seen_us) < timeout)
        };
        let marks = || partitions.values();
        let least = marks().filter(awake).map(|mark| mark.watermark_us).min();
        // All asleep: what has been seen goes for all of them.
        least.or_else(|| marks().map(|mark| mark.watermark_us).max()).unwrap_or(i64::MIN)
    }

    pub fn marks(&self) -> &Marks {
        &self.marks
    }
}

fn latest(values: &ArrayRef) -> Result<Option<i64>> {
    let values = cast(values, &DataType::Int64)?;
    Ok(max(values.as_primitive::<Int64Type>()))
}
