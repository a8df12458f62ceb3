//! Rows of sessions that are over: what nothing that comes can reach any more.
//!
//! A session goes on as long as no pause is longer than the gap. Rows behind the
//! watermark are late, so the next row is at the watermark at the earliest: a session
//! whose last row lies more than the gap before it is closed. Its result stays; its rows
//! are needed no more, since sessions of a key don't depend on each other.
//!
//! ```text
//! a key's rows   •••  •      ••          •••      │
//!                └─ closed ─┘└ closed ┘    open     watermark
//!                                        ◄── gap ──►
//! ```

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::{cast, concat, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};

use crate::error::Result;
use crate::operator::numbers::Numbers;
use crate::operator::rows::{Closing, below};
use crate::operator::side::{Arrived, Side};
use crate::operator::states::{Change, Moment};
use crate::state::{Address, Keys, Table};

/// When the rows of a session close. Both are over the rows' time column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sessions {
    pub gap_us: i64,
    /// When a row comes too late.
    pub late: Closing,
}

/// Rows under the keys that may have a closed session: stored ones, then those of the epoch.
struct Held {
    stored: Vec<Address>,
    /// Which key each row has.
    keys: Vec<usize>,
    /// In the unit of the column; NULL counts as open.
    times: Vec<i64>,
}

impl Sessions {
    /// Takes the rows of sessions that are over after the epoch out of `change`, which is
    /// what becomes of the side's table: the stored ones go, the epoch's don't come.
    pub fn free(
        &self,
        side: &Side,
        table: &Table,
        arrived: &Arrived,
        moment: &Moment,
        change: &mut Change,
    ) -> Result<()> {
        let rows = &arrived.changes.rows;
        let ty = rows.column(self.late.column).data_type();
        // Of a session's last row.
        let last =
            Closing { lag_us: self.late.lag_us.saturating_add(self.gap_us), ..self.late.clone() };
        let Some(bound) = last.closed(ty, moment) else { return Ok(()) };
        if last.late(ty, moment) == Some(bound) {
            // What is new is not behind a watermark that stays where it is.
            return Ok(());
        }
        let Some(held) = self.held(table, arrived, bound)? else { return Ok(()) };
        let over = held.over(in_units(ty, self.gap_us), bound);
        let (stored, new) = over.split_at(held.stored.len());
        let gone = held.stored.iter().zip(stored).filter(|(_, over)| **over);
        change.remove.extend(gone.map(|(at, _)| *at));
        if let (Some((_, rows)), true) = (&change.insert, new.contains(&true)) {
            let open: BooleanArray = new.iter().map(|over| Some(!over)).collect();
            let rows = filter_record_batch(rows, &open)?;
            change.insert = Some((side.stored_keys(&rows)?, rows));
        }
        Ok(())
    }

    /// Nothing where no session can be over.
    fn held(&self, table: &Table, arrived: &Arrived, bound: i64) -> Result<Option<Held>> {
        let time = self.late.column;
        let old = table.below(time, bound)?;
        let new = &arrived.changes.rows;
        let any_new = below(new.column(time), bound)?.true_count() > 0;
        if old.is_empty() && !any_new {
            return Ok(None);
        }
        let types = || table.key().iter().map(|key| table.schema().field(*key).data_type().clone());
        let mut keys = Numbers::new(types())?;
        keys.of(&table.gather(&old, Some(table.key()))?, old.len())?;
        if any_new {
            keys.of(&arrived.key, new.num_rows())?;
        }
        let (columns, count) = keys.all()?;
        let matches = table.get_all(&Keys::new(&columns, count)?)?;
        // In the same order, so with the same numbers.
        let mut keys = Numbers::new(types())?;
        keys.of(&columns, count)?;
        let mut of: Vec<usize> = matches.key.iter().map(|key| *key as usize).collect();
        of.extend(keys.of(&arrived.key, new.num_rows())?);
        let stored = table.gather(&matches.rows, Some(&[time]))?;
        let times = concat(&[stored[0].as_ref(), new.column(time).as_ref()])?;
        let times = cast(&times, &DataType::Int64)?;
        let times = times.as_primitive::<Int64Type>();
        let value = |row| if times.is_valid(row) { times.value(row) } else { i64::MAX };
        let times = (0..times.len()).map(value).collect();
        Ok(Some(Held { stored: matches.rows, keys: of, times }))
    }
}

impl Held {
    /// Which rows are of a session whose last row is before `bound`.
    fn over(&self, gap: i64, bound: i64) -> Vec<bool> {
        let mut order: Vec<usize> = (0..self.times.len()).collect();
        order.sort_unstable_by_key(|row| (self.keys[*row], self.times[*row]));
        let mut over = vec![false; order.len()];
        let mut start = 0;
        for at in 0..order.len() {
            let (row, next) = (order[at], order.get(at + 1));
            let goes_on = next.is_some_and(|next| {
                self.keys[*next] == self.keys[row]
                    && self.times[*next].saturating_sub(self.times[row]) <= gap
            });
            if goes_on {
                continue;
            }
            if self.times[row] < bound {
                order[start..=at].iter().for_each(|row| over[*row] = true);
            }
            start = at + 1;
        }
        over
    }
}

/// Microseconds in the unit of a time column, rounded up: a session rather stays open.
fn in_units(ty: &DataType, us: i64) -> i64 {
    match ty {
        DataType::Timestamp(TimeUnit::Second, _) => us.div_euclid(1_000_000) + 1,
        DataType::Timestamp(TimeUnit::Millisecond, _) => us.div_euclid(1_000) + 1,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => us.saturating_mul(1_000),
        _ => us,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_over_as_a_whole_or_not_at_all() {
        // Key 0: 1 2 │ 10 12, key 1: 3 5 7 9 11; the gap is 2, and all before 10 is over.
        let rows = [(1, 9), (0, 2), (0, 12), (1, 3), (0, 1), (1, 11), (0, 10), (1, 5), (1, 7)];
        let held = Held {
            stored: Vec::new(),
            keys: rows.iter().map(|(key, _)| *key).collect(),
            times: rows.iter().map(|(_, time)| *time).collect(),
        };
        let over = held.over(2, 10);
        let gone: Vec<_> = rows.iter().zip(over).filter(|(_, over)| *over).collect();
        assert_eq!(gone.iter().map(|(row, _)| **row).collect::<Vec<_>>(), [(0, 2), (0, 1)]);
        // Nothing of key 1 goes before its last row is over.
        assert_eq!(held.over(2, 12).iter().filter(|over| **over).count(), 7);
    }
}
