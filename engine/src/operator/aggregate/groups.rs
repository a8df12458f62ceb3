//! The groups of an epoch: which rows are in which, and what was known of them.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::FieldRef;

use crate::error::Result;
use crate::state::{Address, Keys, Table};

/// The rows of an epoch by group.
pub struct Grouped {
    /// Per batch: per row its group, and the rows.
    pub rows: Vec<(Vec<usize>, RecordBatch)>,
    /// One row a group.
    pub columns: Vec<ArrayRef>,
    pub groups: usize,
    /// What the table of groups has them under.
    pub keys: Keys,
    pub late: u64,
}

impl Grouped {
    /// Whether the first rows that an accumulator gets are of all groups.
    pub fn at_once(&self, old: &Old) -> bool {
        match old.groups.len() {
            0 => self.rows.len() == 1,
            _ => old.at.iter().all(|at| !at.is_none()),
        }
    }
}

/// What was known of the epoch's groups. A group that is a session may have had several
/// rows, which are one now; any other has had at most one.
pub struct Old {
    /// By group of the epoch its first row; NONE for a new group.
    pub at: Vec<Address>,
    /// All rows.
    pub rows: Vec<Address>,
    /// Of each of them the group.
    pub groups: Vec<usize>,
    /// Their group columns.
    pub columns: Vec<ArrayRef>,
    /// Their states, by call.
    pub states: Vec<Vec<ArrayRef>>,
}

impl Old {
    /// Of `n` groups; `groups` says whose the rows are.
    pub fn read(
        table: &Table,
        n: usize,
        (rows, groups): (Vec<Address>, Vec<usize>),
        columns: Vec<ArrayRef>,
        calls: &[Vec<FieldRef>],
    ) -> Result<Self> {
        let mut at = vec![Address::NONE; n];
        for (row, group) in rows.iter().zip(&groups).rev() {
            at[*group] = *row;
        }
        let mut column = columns.len();
        let mut states = Vec::with_capacity(calls.len());
        for call in calls {
            let of: Vec<usize> = (column..column + call.len()).collect();
            column += call.len();
            states.push(table.gather(&rows, Some(&of))?);
        }
        Ok(Self { at, rows, groups, columns, states })
    }

    /// In how many rows each group was.
    pub fn counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.at.len()];
        self.groups.iter().for_each(|group| counts[*group] += 1);
        counts
    }
}
