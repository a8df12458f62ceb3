//! Upkeep of a table, a little an epoch: dead segments go, segments that are mostly
//! garbage and runs of small ones are rewritten, and what is too much for memory
//! moves to files.
//!
//! Every changed row buys the rewriting of two, and what is left over is saved for a
//! while: an epoch rewrites twice what it changed, or one run of segments. A segment is
//! rewritten once half of it is dead, so every rewritten row is paid for by one that
//! died. Segments are merged in runs of [`FAN_IN`] or more of at most the same size
//! class, as a log-structured merge tree does; only neighbours are, so that rows keep
//! their order.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use uuid::Uuid;

use super::keys::{Keys, hash};
use super::segment::Segment;
use super::table::Table;
use super::{Place, ipc};
use crate::error::Result;

/// How many small neighbours are merged at a time, at least.
const FAN_IN: usize = 4;

impl Table {
    /// Called once an epoch. Ends the validity of addresses.
    pub fn maintain(&mut self) -> Result<()> {
        let sizes = self.log.sizes;
        let mut left = 2 * std::mem::take(&mut self.changed) + sizes.budget;
        self.saved = (self.saved + left).min(2 * sizes.rows);
        self.drop_dead();
        let mut first = true;
        while let Some(run) = self.garbage().or_else(|| self.small_run()) {
            let cost = self.live_in(&run);
            if cost > self.saved || (cost > left && !first) {
                break;
            }
            self.saved -= cost;
            left = left.saturating_sub(cost);
            first = false;
            self.rewrite(run)?;
        }
        self.index.shrink();
        self.spill()
    }

    /// Frees the segments without live rows.
    fn drop_dead(&mut self) {
        let dead = self.log.segments().filter(|(_, segment)| segment.live() == 0);
        let dead: Vec<usize> = dead.map(|(slot, _)| slot).collect();
        self.free(&dead);
    }

    fn free(&mut self, slots: &[usize]) {
        for slot in slots {
            self.index.drop_slot(*slot);
            if let Some(rows) = self.rows.get_mut() {
                rows.drop_slot(*slot);
            }
        }
        self.log.free(slots);
    }

    /// The position of a sealed segment more than half of which is dead.
    fn garbage(&self) -> Option<Range<usize>> {
        let mut segments = self.log.segments();
        let is_garbage = |segment: &Segment| segment.sealed && segment.live() * 2 < segment.rows();
        let at = segments.position(|(_, segment)| is_garbage(segment))?;
        Some(at..at + 1)
    }

    /// A run of small neighbours whose rows fit in one segment.
    fn small_run(&self) -> Option<Range<usize>> {
        (0..3).find_map(|class| self.run_of(class))
    }

    fn run_of(&self, class: u32) -> Option<Range<usize>> {
        let (mut start, mut live, mut bytes) = (0, 0, 0);
        for (at, (_, segment)) in self.log.segments().enumerate() {
            let fits = live + segment.live() <= self.log.sizes.rows
                && bytes + segment.bytes() <= self.log.sizes.bytes;
            if segment.sealed && fits && self.class(segment) <= class {
                live += segment.live();
                bytes += segment.bytes();
                continue;
            }
            if at - start >= FAN_IN {
                return Some(start..at);
            }
            start = at + 1;
            (live, bytes) = (0, 0);
        }
        let end = self.log.order().len();
        (end - start >= FAN_IN).then_some(start..end)
    }

    /// 0 to 2: up to a 32th, an eighth, half of a full segment; 3: more.
    fn class(&self, segment: &Segment) -> u32 {
        let sizes = self.log.sizes;
        let under = |part: usize| {
            segment.live() < sizes.rows.div_ceil(part)
                && segment.bytes() < sizes.bytes.div_ceil(part)
        };
        [32, 8, 2].into_iter().position(under).unwrap_or(3) as u32
    }

    fn live_in(&self, run: &Range<usize>) -> usize {
        let slots = &self.log.order()[run.clone()];
        slots.iter().filter_map(|slot| self.log.segment(*slot)).map(Segment::live).sum()
    }

    /// Copies the live rows of neighbouring segments into a new one in their place.
    fn rewrite(&mut self, run: Range<usize>) -> Result<()> {
        let slots = self.log.order()[run.clone()].to_vec();
        let mut old = Vec::with_capacity(self.live_in(&run));
        for slot in &slots {
            if let Some(segment) = self.log.segment(*slot) {
                old.extend(segment.live_rows().map(|row| Place::new(*slot, row)));
            }
        }
        let columns = self.log.gather(&old, None)?;
        let schema = Arc::clone(self.schema());
        let options = RecordBatchOptions::new().with_row_count(Some(old.len()));
        let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let key: Vec<_> = self.key().iter().map(|at| batch.column(*at).clone()).collect();
        let segment =
            Segment::sealed(Uuid::new_v4(), batch.clone(), Arc::default(), &self.log.spec.key)?;
        let new = self.log.replace(run, segment)?;
        let keys = Keys::new(&key, old.len())?;
        for (row, (hash, old)) in keys.hashes().iter().zip(&old).enumerate() {
            self.index.replace(*hash, *old, Place::new(new, row));
        }
        if let Some(rows) = self.rows.get_mut() {
            let hashes = hash(batch.columns(), batch.num_rows())?;
            for (row, (hash, old)) in hashes.iter().zip(&old).enumerate() {
                rows.replace(*hash, *old, Place::new(new, row));
            }
        }
        self.free(&slots);
        Ok(())
    }

    /// Moves segments to files, oldest first, until memory is within its limit. One that is
    /// too small to be worth a file stays.
    fn spill(&mut self) -> Result<()> {
        let (Some(folder), Some(limit)) = (self.spill.folder.clone(), self.spill.limit) else {
            return Ok(());
        };
        let mut used = self.memory();
        for slot in self.log.order().to_vec() {
            if used <= limit {
                break;
            }
            let smallest = self.log.sizes.spill_bytes;
            let Some(segment) = self.log.segment_mut(slot) else { continue };
            if segment.mapped || segment.bytes() < smallest {
                continue;
            }
            if !segment.sealed {
                // The open one: it is the last.
                self.log.seal()?;
            }
            let Some(segment) = self.log.segment(slot) else { continue };
            let Some(batch) = segment.batch() else { continue };
            let mapped = ipc::map(&folder, batch)?;
            used = used.saturating_sub(segment.bytes());
            let key = self.log.spec.key.clone();
            if let Some(segment) = self.log.segment_mut(slot) {
                segment.set_mapped(mapped, &key);
            }
        }
        Ok(())
    }
}
