//! Rows below a bound, for what a watermark frees.
//!
//! Per chunk and column a *floor* is kept: no live row of the chunk is below it. It
//! is found by the first scan and stays true, for rows go and never come. Chunks
//! whose floor is not below the bound aren't looked at.

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Int8Type, Int16Type,
    Int32Type, Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
    Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::segment::{Chunk, Segment};
use crate::error::{Error, Result};

/// Column and floor; i64::MAX where no live row has a value.
#[derive(Debug, Clone, Default)]
pub(crate) struct Floors(Vec<(usize, i64)>);

impl Floors {
    fn get(&self, column: usize) -> i64 {
        self.0.iter().find(|(known, _)| *known == column).map_or(i64::MIN, |(_, floor)| *floor)
    }

    fn set(&mut self, column: usize, floor: i64) {
        match self.0.iter_mut().find(|(known, _)| *known == column) {
            Some((_, known)) => *known = floor,
            None => self.0.push((column, floor)),
        }
    }
}

/// Calls `found` with the rows of a segment that are live and below `bound`.
pub(crate) fn below(
    segment: &Segment,
    column: usize,
    bound: i64,
    mut found: impl FnMut(usize),
) -> Result<()> {
    for chunk in &segment.chunks {
        let known = chunk.floors.lock().get(column);
        if known >= bound {
            continue;
        }
        let floor = scan(segment, chunk, column, bound, &mut found)?;
        chunk.floors.lock().set(column, floor);
    }
    Ok(())
}

/// Looks at all rows of a chunk; answers the floor.
fn scan(
    segment: &Segment,
    chunk: &Chunk,
    column: usize,
    bound: i64,
    found: &mut impl FnMut(usize),
) -> Result<i64> {
    let array = chunk.batch.column(column);
    let mut floor = i64::MAX;
    each_value(array, |row, value| {
        if value < floor || value < bound {
            let row = chunk.start + row;
            if segment.is_live(row) {
                floor = floor.min(value);
                if value < bound {
                    found(row);
                }
            }
        }
    })?;
    Ok(floor)
}

/// Calls `see` with each value that is not NULL, as an integer in the column's own unit.
fn each_value(array: &ArrayRef, see: impl FnMut(usize, i64)) -> Result<()> {
    match array.data_type() {
        DataType::Int8 => each::<Int8Type>(array, i64::from, see),
        DataType::Int16 => each::<Int16Type>(array, i64::from, see),
        DataType::Int32 => each::<Int32Type>(array, i64::from, see),
        DataType::Int64 => each::<Int64Type>(array, |value| value, see),
        DataType::UInt8 => each::<UInt8Type>(array, i64::from, see),
        DataType::UInt16 => each::<UInt16Type>(array, i64::from, see),
        DataType::UInt32 => each::<UInt32Type>(array, i64::from, see),
        DataType::UInt64 => {
            each::<UInt64Type>(array, |value| i64::try_from(value).unwrap_or(i64::MAX), see);
        }
        DataType::Date32 => each::<Date32Type>(array, i64::from, see),
        DataType::Date64 => each::<Date64Type>(array, |value| value, see),
        DataType::Time32(TimeUnit::Second) => each::<Time32SecondType>(array, i64::from, see),
        DataType::Time32(_) => each::<Time32MillisecondType>(array, i64::from, see),
        DataType::Time64(TimeUnit::Nanosecond) => {
            each::<Time64NanosecondType>(array, |value| value, see);
        }
        DataType::Time64(_) => each::<Time64MicrosecondType>(array, |value| value, see),
        DataType::Timestamp(unit, _) => match unit {
            TimeUnit::Second => each::<TimestampSecondType>(array, |value| value, see),
            TimeUnit::Millisecond => each::<TimestampMillisecondType>(array, |value| value, see),
            TimeUnit::Microsecond => each::<TimestampMicrosecondType>(array, |value| value, see),
            TimeUnit::Nanosecond => each::<TimestampNanosecondType>(array, |value| value, see),
        },
        DataType::Duration(unit) => match unit {
            TimeUnit::Second => each::<DurationSecondType>(array, |value| value, see),
            TimeUnit::Millisecond => each::<DurationMillisecondType>(array, |value| value, see),
            TimeUnit::Microsecond => each::<DurationMicrosecondType>(array, |value| value, see),
            TimeUnit::Nanosecond => each::<DurationNanosecondType>(array, |value| value, see),
        },
        other => {
            return Err(Error::internal(format!("state can't be freed by a column of {other}")));
        }
    }
    Ok(())
}

fn each<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    number: impl Fn(T::Native) -> i64,
    mut see: impl FnMut(usize, i64),
) {
    let array: &PrimitiveArray<T> = array.as_primitive();
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => {
            array.values().iter().enumerate().for_each(|(row, value)| see(row, number(*value)));
        }
        Some(nulls) => {
            nulls.valid_indices().for_each(|row| see(row, number(array.value(row))));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{RecordBatch, StringArray, TimestampMillisecondArray};

    use super::*;

    #[test]
    fn a_chunk_is_scanned_only_when_its_floor_is_below() {
        let times = TimestampMillisecondArray::from(vec![Some(30), None, Some(10), Some(20)]);
        let batch = RecordBatch::try_from_iter([("t", Arc::new(times) as ArrayRef)]).unwrap();
        let mut segment = Segment::open();
        segment.append(batch, &[]).unwrap();
        let rows = |segment: &Segment, bound| {
            let mut rows = Vec::new();
            below(segment, 0, bound, |row| rows.push(row)).unwrap();
            rows
        };
        assert_eq!(rows(&segment, 25), [2, 3]);
        assert!(segment.kill(2));
        assert_eq!(rows(&segment, 15), Vec::<usize>::new());
        assert_eq!(segment.chunks[0].floors.lock().get(0), 20);
        assert_eq!(rows(&segment, 31), [0, 3]);
    }

    #[test]
    fn texts_have_no_bound() {
        let texts = Arc::new(StringArray::from(vec!["a"])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("t", texts)]).unwrap();
        let mut segment = Segment::open();
        segment.append(batch, &[]).unwrap();
        assert!(below(&segment, 0, 1, |_| {}).is_err());
    }
}
