//! Helpers on changelogs that several operators share.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, Scalar,
    UInt32Array,
};
use arrow::compute::kernels::cmp;
use arrow::compute::{cast, concat_batches, filter_record_batch, not, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::physical_plan::PhysicalExpr;

use crate::changelog::{has_weight, join, split};
use crate::error::{Error, Result};
use crate::operator::states::Moment;

/// Rows are dealt out by a hash of their own: a snapshot depends on it.
const SHARD_SEED: u64 = 0x7469_6465_6d69_6c6c;

/// A changelog in one batch with a weight of its own for every row.
pub struct Changes {
    pub rows: RecordBatch,
    pub weights: Int64Array,
}

impl Changes {
    /// The rows of `batches`, in their order.
    pub fn concat(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Self> {
        let all = match batches {
            [one] => one.clone(),
            many => concat_batches(schema, many)?,
        };
        let (rows, weights) = split(&all)?;
        Ok(Self { rows, weights })
    }

    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows that are put in, each as often as its weight says.
    pub fn inserted(&self) -> Result<RecordBatch> {
        self.repeated(|weight| weight)
    }

    /// Rows that are taken away, each as often as its weight says.
    pub fn removed(&self) -> Result<RecordBatch> {
        self.repeated(|weight| -weight)
    }

    fn repeated(&self, sign: impl Fn(i64) -> i64) -> Result<RecordBatch> {
        if self.weights.values().iter().all(|weight| sign(*weight) == 1) {
            return Ok(self.rows.clone());
        }
        let rows = self.weights.values().iter().enumerate().flat_map(|(row, weight)| {
            std::iter::repeat_n(row as u32, usize::try_from(sign(*weight)).unwrap_or(0))
        });
        take_rows(&self.rows, &rows.collect::<Vec<_>>())
    }

    /// The rows that `keep` selects.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self> {
        Ok(Self {
            rows: filter_record_batch(&self.rows, keep)?,
            weights: arrow::compute::filter(&self.weights, keep)?
                .as_primitive::<Int64Type>()
                .clone(),
        })
    }
}

/// A changelog in which every row stands as often as its weight says, with weight 1 or −1.
pub fn units(changes: RecordBatch) -> Result<RecordBatch> {
    if !has_weight(changes.schema_ref()) {
        return Ok(changes);
    }
    let (rows, weights) = split(&changes)?;
    if weights.values().iter().all(|weight| weight.abs() == 1) {
        return Ok(changes);
    }
    let times = |weight: i64| usize::try_from(weight.unsigned_abs()).unwrap_or(0);
    let each = weights.values().iter().enumerate();
    let at = each.flat_map(|(row, weight)| std::iter::repeat_n(row as u32, times(*weight)));
    let at: Vec<u32> = at.collect();
    let signs = weights.values().iter();
    let signs = signs.flat_map(|weight| std::iter::repeat_n(weight.signum(), times(*weight)));
    join(&take_rows(&rows, &at)?, signs.collect::<Vec<_>>().into())
}

/// Rows by index, also of a batch without columns.
pub fn take_rows(batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch> {
    if batch.num_columns() == 0 {
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        return Ok(RecordBatch::try_new_with_options(batch.schema(), Vec::new(), &options)?);
    }
    Ok(take_record_batch(batch, &UInt32Array::from(rows.to_vec()))?)
}

/// A batch of `columns`; `rows` says how many there are if there are no columns.
pub fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    // What an expression yields may be marked otherwise than what the plan declares.
    let columns = columns.into_iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() {
            Ok(column)
        } else {
            cast(&column, field.data_type())
        }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// Values of `exprs` over `rows`, one array each.
pub fn evaluate(exprs: &[Arc<dyn PhysicalExpr>], rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let each = exprs.iter().map(|expr| Ok(expr.evaluate(rows)?.into_array(rows.num_rows())?));
    each.collect()
}

/// Which rows pass `filter`: NULL does not.
pub fn passing(filter: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<BooleanArray> {
    let values = filter.evaluate(rows)?.into_array(rows.num_rows())?;
    let values =
        values.as_boolean_opt().ok_or_else(|| Error::internal("a filter is not boolean"))?;
    Ok(without_nulls(values.clone()))
}

/// Deals rows out over `n` shards by the hash of `keys`, keeping their order.
pub(super) fn deal(
    batches: Vec<RecordBatch>,
    keys: &[Arc<dyn PhysicalExpr>],
    n: usize,
) -> Result<Vec<Vec<RecordBatch>>> {
    let mut shards = vec![Vec::new(); n];
    for batch in batches {
        if batch.num_rows() == 0 {
            continue;
        }
        if n == 1 {
            shards[0].push(batch);
            continue;
        }
        let values = normalized(evaluate(keys, &batch)?)?;
        let mut hashes = vec![0; batch.num_rows()];
        create_hashes(&values, &RandomState::with_seed(SHARD_SEED), &mut hashes)?;
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); n];
        for (row, hash) in hashes.iter().enumerate() {
            // The high bits: the low ones find the place in the shard's own table.
            rows[((hash >> 32) as usize) % n].push(row as u32);
        }
        for (shard, rows) in shards.iter_mut().zip(rows) {
            if !rows.is_empty() {
                shard.push(take_rows(&batch, &rows)?);
            }
        }
    }
    Ok(shards)
}

/// Floats so that those that compare as equal have equal bits: one zero, one NaN.
pub fn normalized(columns: Vec<ArrayRef>) -> Result<Vec<ArrayRef>> {
    use arrow::datatypes::{Float32Type, Float64Type};
    let one = |column: ArrayRef| -> ArrayRef {
        match column.data_type() {
            DataType::Float64 => {
                let values = column.as_primitive::<Float64Type>();
                let fix = |v: f64| if v.is_nan() { f64::NAN } else { v + 0.0 };
                Arc::new(values.unary::<_, Float64Type>(fix))
            }
            DataType::Float32 => {
                let values = column.as_primitive::<Float32Type>();
                let fix = |v: f32| if v.is_nan() { f32::NAN } else { v + 0.0 };
                Arc::new(values.unary::<_, Float32Type>(fix))
            }
            _ => column,
        }
    };
    Ok(columns.into_iter().map(one).collect())
}

/// A column whose rows come to an end: no row with value `v` is to come once the
/// watermark of the sources has reached `v + lag_us`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd)]
pub struct Closing {
    /// Index of the column, a timestamp or a date.
    pub column: usize,
    /// Microseconds.
    pub lag_us: i64,
    /// The watermark is the least of these sources'.
    pub sources: Vec<String>,
}

impl Closing {
    fn bound(&self, ty: &DataType, watermark_us: Option<i64>) -> Option<i64> {
        let last = watermark_us.filter(|at| *at > i64::MIN)?.saturating_sub(self.lag_us);
        Some(match ty {
            DataType::Timestamp(TimeUnit::Second, _) => last.div_euclid(1_000_000) + 1,
            DataType::Timestamp(TimeUnit::Millisecond, _) | DataType::Date64 => {
                last.div_euclid(1_000) + 1
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => last.saturating_add(1),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                last.saturating_mul(1_000).saturating_add(1)
            }
            DataType::Date32 => last.div_euclid(86_400_000_000) + 1,
            _ => return None,
        })
    }

    /// Values below this, in the column's unit, were closed before the epoch.
    pub fn late(&self, ty: &DataType, moment: &Moment) -> Option<i64> {
        let mark = |s: &String| moment.watermarks.get(s).map_or(i64::MIN, |mark| mark.before);
        self.bound(ty, self.sources.iter().map(mark).min())
    }

    /// Values below this were closed by an epoch that is over.
    pub fn over(&self, ty: &DataType, moment: &Moment) -> Option<i64> {
        let mark = |s: &String| moment.watermarks.get(s).map_or(i64::MIN, |mark| mark.reached);
        self.bound(ty, self.sources.iter().map(mark).min())
    }

    /// Values below this are closed once the epoch is over.
    pub fn closed(&self, ty: &DataType, moment: &Moment) -> Option<i64> {
        let mark = |s: &String| moment.watermarks.get(s).map_or(i64::MIN, |mark| mark.after);
        self.bound(ty, self.sources.iter().map(mark).min())
    }
}

/// Which values of a timestamp or date column are below `bound`; NULL is not.
pub fn below(column: &ArrayRef, bound: i64) -> Result<BooleanArray> {
    let values = cast(column, &DataType::Int64)?;
    let mask = cmp::lt(&values, &Scalar::new(Int64Array::from(vec![bound])))?;
    Ok(without_nulls(mask))
}

/// A mask in which NULL is false.
fn without_nulls(mask: BooleanArray) -> BooleanArray {
    match mask.null_count() {
        0 => mask,
        _ => arrow::compute::prep_null_mask_filter(&mask),
    }
}

/// Drops the rows whose window was closed before the epoch; answers how many.
pub fn drop_late(
    changes: Changes,
    closing: Option<&Closing>,
    values: impl Fn(&RecordBatch, &Closing) -> Result<ArrayRef>,
    moment: &Moment,
) -> Result<(Changes, u64)> {
    let Some(closing) = closing else { return Ok((changes, 0)) };
    let column = values(&changes.rows, closing)?;
    let Some(bound) = closing.late(column.data_type(), moment) else { return Ok((changes, 0)) };
    let late = below(&column, bound)?;
    match late.true_count() as u64 {
        0 => Ok((changes, 0)),
        count => Ok((changes.filter(&not(&late)?)?, count)),
    }
}
