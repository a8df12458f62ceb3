//! An epoch: one micro-batch of one continuous query, and the ranges it reads.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub type PartitionId = i32;

/// Per partition the offset of the next record to read.
pub type Offsets = BTreeMap<PartitionId, i64>;

/// Per partition the half-open range `[start, end)` of offsets.
pub type Ranges = BTreeMap<PartitionId, OffsetRange>;

/// Offsets `start` (inclusive) to `end` (exclusive) of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetRange {
    pub start: i64,
    pub end: i64,
}

impl OffsetRange {
    pub fn new(start: i64, end: i64) -> Self {
        Self { start, end }
    }

    /// How many offsets lie in it; not all need hold a record (compaction, transactions).
    pub fn len(&self) -> u64 {
        u64::try_from(self.end - self.start).unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}

/// What an epoch reads and when it says it is: recorded before anything is
/// read, so that a run after a crash repeats exactly the same epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochPlan {
    /// Counts from 1; the `txn` version of its commit.
    pub epoch: u64,
    /// What `now()` answers, in microseconds since 1970-01-01 UTC.
    pub timestamp_us: i64,
    /// Source name → what to read of each partition. A partition with an empty
    /// range stands for "known, nothing new": its position carries on.
    pub sources: BTreeMap<String, Ranges>,
    /// Lake table name → version of the snapshot that a join sees.
    pub tables: BTreeMap<String, u64>,
    /// Bounded sources that are read to their end with this epoch: their event time is over.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ended: BTreeSet<String>,
    /// Source name → partitions that hold more than is read with this epoch: until one of
    /// their rows is read, nobody knows how far their event time is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unread: BTreeMap<String, BTreeSet<PartitionId>>,
}

impl EpochPlan {
    /// Positions after this epoch, per source.
    pub fn positions(&self) -> BTreeMap<String, Offsets> {
        self.sources.iter().map(|(name, ranges)| (name.clone(), ends(ranges))).collect()
    }

    /// How many offsets the epoch covers over all sources.
    pub fn len(&self) -> u64 {
        self.sources.values().flat_map(|ranges| ranges.values()).map(OffsetRange::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The offset after each range.
pub fn ends(ranges: &Ranges) -> Offsets {
    ranges.iter().map(|(partition, range)| (*partition, range.end)).collect()
}

/// Splits a row budget over partitions in proportion to what each has waiting,
/// so that all partitions catch up together. `from` holds the next offset per
/// partition; one that it does not hold starts at the partition's oldest.
///
/// The sum of the ranges is at most `budget` (and at least one row for some
/// partition if anything waits at all).
pub fn clamp(from: &Offsets, available: &Ranges, budget: u64) -> Ranges {
    let start = |p: &PartitionId, r: &OffsetRange| from.get(p).copied().unwrap_or(r.start);
    let waiting: u64 =
        available.iter().map(|(p, r)| OffsetRange::new(start(p, r), r.end).len()).sum();
    let mut left = budget.max(1);
    available
        .iter()
        .map(|(p, r)| {
            let start = start(p, r);
            let mine = OffsetRange::new(start, r.end.max(start)).len();
            let share = if waiting <= budget {
                mine
            } else {
                let part = u128::from(mine) * u128::from(budget) / u128::from(waiting);
                u64::try_from(part).unwrap_or(u64::MAX).max(1).min(mine)
            };
            let take = share.min(left);
            left -= take;
            (*p, OffsetRange::new(start, start + i64::try_from(take).unwrap_or(i64::MAX)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(list: &[(i32, i64, i64)]) -> Ranges {
        list.iter().map(|&(p, s, e)| (p, OffsetRange::new(s, e))).collect()
    }

    #[test]
    fn everything_fits() {
        let from = Offsets::from([(0, 5), (1, 0)]);
        let got = clamp(&from, &ranges(&[(0, 0, 10), (1, 0, 3)]), 100);
        assert_eq!(got, ranges(&[(0, 5, 10), (1, 0, 3)]));
    }

    #[test]
    fn a_backlog_is_shared_in_proportion() {
        let got = clamp(&Offsets::new(), &ranges(&[(0, 0, 900), (1, 0, 100)]), 100);
        assert_eq!(got, ranges(&[(0, 0, 90), (1, 0, 10)]));
    }

    #[test]
    fn a_tiny_budget_still_moves() {
        let got = clamp(&Offsets::new(), &ranges(&[(0, 0, 900), (1, 0, 900)]), 1);
        let total: u64 = got.values().map(OffsetRange::len).sum();
        assert_eq!(total, 1);
    }

    #[test]
    fn a_partition_that_is_new_starts_at_its_oldest() {
        let from = Offsets::from([(0, 5)]);
        let got = clamp(&from, &ranges(&[(0, 0, 5), (1, 7, 9)]), 100);
        assert_eq!(got, ranges(&[(0, 5, 5), (1, 7, 9)]));
    }
}
