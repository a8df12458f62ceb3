//! Groups that are sessions: a key's rows, cut where a pause is longer than the gap.
//!
//! What is stored is one row a session. The rows of an epoch lengthen sessions, make two of
//! them one, or begin new ones:
//!
//! ```text
//! stored      ├────────┤       ├─────┤               ├────┤
//! rows              •      •  •           •
//!                   └── each lasts from its time until the gap is over
//! then        ├──────────────────────┤    ├──┤       ├────┤ as it was
//! ```
//!
//! An epoch costs what its rows and the stored sessions of their keys cost.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::physical_plan::PhysicalExpr;

use super::Aggregate;
use super::groups::{Grouped, Old};
use crate::error::{Error, Result};
use crate::operator::numbers::Numbers;
use crate::operator::rows::{evaluate, normalized};
use crate::operator::states::Moment;
use crate::state::{Address, Keys, Table};

/// How rows are cut into sessions.
#[derive(Debug, Clone)]
pub struct Session {
    pub time: Arc<dyn PhysicalExpr>,
    /// In the unit of the time.
    pub gap: i64,
}

/// What stands for NULL: rows without a time are one session, before all others.
const NO_TIME: i64 = i64::MIN;

/// From a start to an end; a row ends as the gap after it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    start: i64,
    end: i64,
}

impl Session {
    /// One stretch a row.
    fn stretches(&self, times: &ArrayRef) -> Result<Vec<Stretch>> {
        let raw = raw(times)?;
        let stretch = |row| {
            if raw.is_null(row) {
                return Ok(Stretch { start: NO_TIME, end: NO_TIME });
            }
            let start = raw.value(row);
            let end = start.checked_add(self.gap).filter(|_| start > NO_TIME);
            let far = || Error::invalid(format!("a time ({start}) too far away for windows"));
            Ok(Stretch { start, end: end.ok_or_else(far)? })
        };
        (0..raw.len()).map(stretch).collect()
    }
}

fn raw(times: &ArrayRef) -> Result<Int64Array> {
    Ok(cast(times, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

fn times(raw: impl Iterator<Item = i64>, of: &DataType) -> Result<ArrayRef> {
    let raw: Int64Array = raw.map(|time| (time != NO_TIME).then_some(time)).collect();
    Ok(cast(&raw, of)?)
}

/// The rows of an epoch as they come: which key each has, and how far it reaches.
#[derive(Default)]
struct Arriving {
    batches: Vec<RecordBatch>,
    keys: Vec<usize>,
    stretches: Vec<Stretch>,
    late: u64,
}

impl Aggregate {
    pub(super) fn group_by_session(
        &self,
        session: &Session,
        table: &Table,
        batches: Vec<RecordBatch>,
        moment: &Moment,
    ) -> Result<(Grouped, Old)> {
        let keyed = self.group.len();
        let types = self.group_schema.fields()[..keyed].iter().map(|key| key.data_type().clone());
        let mut numbers = Numbers::new(types)?;
        let arriving = self.arriving(session, batches, moment, &mut numbers)?;
        let (columns, count) = numbers.all()?;
        let stored = table.get_all(&Keys::new(&columns, count)?)?;
        let bounds = table.gather(&stored.rows, Some(&[keyed, keyed + 1]))?;
        let Arriving { batches, mut keys, mut stretches, late } = arriving;
        keys.extend(stored.key.iter().map(|key| *key as usize));
        let (starts, ends) = (raw(&bounds[0])?, raw(&bounds[1])?);
        let held = starts.iter().zip(&ends);
        stretches.extend(held.map(|(start, end)| Stretch {
            start: start.unwrap_or(NO_TIME),
            end: end.unwrap_or(NO_TIME),
        }));
        let merged = merge(&keys, &stretches, keys.len() - stored.rows.len(), count);

        let n = merged.sessions.len();
        let keys_of = |keys: Vec<u32>| -> Result<Vec<ArrayRef>> {
            let keys = UInt32Array::from(keys);
            Ok(columns.iter().map(|c| take(c, &keys, None)).collect::<Result<_, _>>()?)
        };
        let time = self.group_schema.field(keyed).data_type();
        let mut grouped = keys_of(merged.sessions.iter().map(|(key, _)| *key).collect())?;
        let keys = Keys::new(&grouped, n)?;
        grouped.push(times(merged.sessions.iter().map(|(_, s)| s.start), time)?);
        grouped.push(times(merged.sessions.iter().map(|(_, s)| s.end), time)?);

        let (new, held) = merged.of.split_at(merged.of.len() - stored.rows.len());
        let touched = |row: &usize| held[*row] != UNTOUCHED;
        let touched: Vec<usize> = (0..held.len()).filter(touched).collect();
        let at = UInt32Array::from_iter_values(touched.iter().map(|row| *row as u32));
        let mut old = keys_of(touched.iter().map(|row| stored.key[*row]).collect())?;
        for bound in &bounds {
            old.push(take(bound, &at, None)?);
        }
        let rows: Vec<Address> = touched.iter().map(|row| stored.rows[*row]).collect();
        let groups = touched.iter().map(|row| held[*row]).collect();
        let old = Old::read(table, n, (rows, groups), old, &self.states)?;

        let mut rest = new;
        let mut rows = Vec::with_capacity(batches.len());
        for batch in batches {
            let (own, others) = rest.split_at(batch.num_rows());
            rows.push((own.to_vec(), batch));
            rest = others;
        }
        Ok((Grouped { rows, columns: grouped, groups: n, keys, late }, old))
    }

    fn arriving(
        &self,
        session: &Session,
        batches: Vec<RecordBatch>,
        moment: &Moment,
        numbers: &mut Numbers,
    ) -> Result<Arriving> {
        let keyed = self.group.len();
        let mut arriving = Arriving::default();
        for rows in batches {
            let time = session.time.evaluate(&rows)?.into_array(rows.num_rows())?;
            let mut columns = normalized(evaluate(&self.group, &rows)?)?;
            // Its start and, but for the gap, its end.
            columns.extend([Arc::clone(&time), time]);
            let (rows, columns, late) = self.in_time(rows, columns, moment)?;
            arriving.late += late;
            arriving.keys.extend(numbers.of(&columns[..keyed], rows.num_rows())?);
            arriving.stretches.extend(session.stretches(&columns[keyed])?);
            arriving.batches.push(rows);
        }
        Ok(arriving)
    }
}

/// The session of a stretch that no row of the epoch reaches.
const UNTOUCHED: usize = usize::MAX;

/// The sessions that an epoch's rows are in.
struct Merged {
    /// Of each stretch the session.
    of: Vec<usize>,
    /// The key of each session, and how long it is.
    sessions: Vec<(u32, Stretch)>,
}

/// Makes one of the stretches of a key that touch. The first `new` stretches are of rows,
/// the others of stored sessions.
fn merge(keys: &[usize], stretches: &[Stretch], new: usize, count: usize) -> Merged {
    let (mut order, ends) = by_key(keys, count);
    let mut of = vec![UNTOUCHED; keys.len()];
    let mut sessions: Vec<(u32, Stretch)> = Vec::new();
    let mut begin = 0;
    for (key, end) in ends.into_iter().enumerate() {
        let own = &mut order[begin..end];
        begin = end;
        let start = |at: &u32| stretches[*at as usize].start;
        if !own.is_sorted_by_key(start) {
            own.sort_by_key(start);
        }
        let mut first = 0;
        while first < own.len() {
            let mut whole = stretches[own[first] as usize];
            let mut next = first + 1;
            while next < own.len() && start(&own[next]) <= whole.end {
                whole.end = whole.end.max(stretches[own[next] as usize].end);
                next += 1;
            }
            if own[first..next].iter().any(|at| (*at as usize) < new) {
                own[first..next].iter().for_each(|at| of[*at as usize] = sessions.len());
                sessions.push((key as u32, whole));
            }
            first = next;
        }
    }
    Merged { of, sessions }
}

/// Places in the order of their keys, and by key where its places end. The places of a key
/// stay in their order.
fn by_key(keys: &[usize], count: usize) -> (Vec<u32>, Vec<usize>) {
    let mut next = vec![0; count + 1];
    keys.iter().for_each(|key| next[key + 1] += 1);
    for key in 0..count {
        next[key + 1] += next[key];
    }
    let mut order = vec![0; keys.len()];
    for (at, key) in keys.iter().enumerate() {
        order[next[*key]] = at as u32;
        next[*key] += 1;
    }
    next.pop();
    (order, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(start: i64, end: i64) -> Stretch {
        Stretch { start, end }
    }

    #[test]
    fn rows_lengthen_sessions_join_two_and_leave_others_alone() {
        // A gap of 2. Key 0: rows at 4, 6, 20; stored 1–4, 8–11, 30–32. Key 1: a row at 4.
        let rows = [(0, 6), (1, 4), (0, 20), (0, 4)];
        let stored = [(0, 30, 32), (0, 1, 4), (0, 8, 11)];
        let mut keys: Vec<usize> = rows.iter().map(|(key, _)| *key).collect();
        keys.extend(stored.iter().map(|(key, _, _)| *key));
        let mut all: Vec<Stretch> = rows.iter().map(|(_, at)| stretch(*at, at + 2)).collect();
        all.extend(stored.iter().map(|(_, start, end)| stretch(*start, *end)));
        let merged = merge(&keys, &all, rows.len(), 2);
        let expected = [(0, stretch(1, 11)), (0, stretch(20, 22)), (1, stretch(4, 6))];
        assert_eq!(merged.sessions, expected);
        assert_eq!(merged.of, [0, 2, 1, 0, UNTOUCHED, 0, 0]);
    }

    #[test]
    fn rows_without_a_time_are_a_session_of_their_own() {
        let none = stretch(NO_TIME, NO_TIME);
        let merged = merge(&[0, 0, 0], &[none, stretch(0, 5), none], 2, 1);
        assert_eq!(merged.sessions, [(0, none), (0, stretch(0, 5))]);
        assert_eq!(merged.of, [0, 1, 0]);
    }
}
