//! Records that a batch query leaves out since they can't be decoded.
//!
//! A continuous query has dead letters for them. A batch query goes on without, and says so:
//! its scans find a [`LeftOut`] among the extensions of their session, where there is one.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use roaring::RoaringTreemap;

use crate::epoch::PartitionId;
use crate::source::Rejected;

/// Counts each record once, however often the statement reads it.
#[derive(Debug, Default)]
pub struct LeftOut {
    offsets: Mutex<BTreeMap<(String, PartitionId), RoaringTreemap>>,
}

impl LeftOut {
    pub(crate) fn add(&self, source: &str, records: &[Rejected]) {
        let mut offsets = self.offsets.lock();
        for record in records {
            let partition = (source.to_owned(), record.partition);
            offsets.entry(partition).or_default().insert(record.offset.cast_unsigned());
        }
    }

    /// What to tell who asked; `None` if nothing was left out.
    pub fn notice(&self) -> Option<String> {
        let mut sources: BTreeMap<String, u64> = BTreeMap::new();
        for ((source, _), offsets) in self.offsets.lock().iter() {
            *sources.entry(source.clone()).or_default() += offsets.len();
        }
        let told = sources.into_iter().map(|(source, count)| match count {
            1 => format!("1 record of \"{source}\" could not be decoded and is left out"),
            _ => format!("{count} records of \"{source}\" could not be decoded and are left out"),
        });
        let told = told.collect::<Vec<_>>().join("; ");
        (!told.is_empty()).then_some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(partition: PartitionId, offset: i64) -> Rejected {
        let error = "expected a number".into();
        Rejected { partition, offset, timestamp_ms: None, payload: None, error }
    }

    #[test]
    fn a_record_that_is_read_twice_counts_once() {
        let left_out = LeftOut::default();
        assert_eq!(left_out.notice(), None);
        left_out.add("clicks", &[record(0, 7)]);
        assert_eq!(
            left_out.notice().unwrap(),
            "1 record of \"clicks\" could not be decoded and is left out"
        );
        left_out.add("clicks", &[record(0, 7), record(1, 7), record(1, 8)]);
        assert!(left_out.notice().unwrap().starts_with("3 records of"));
    }
}
