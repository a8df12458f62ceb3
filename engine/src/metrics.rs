//! Counters of one query, read while it runs.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Over how long the rate is taken.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// What a query has done since this engine started it.
#[derive(Debug, Default)]
pub struct QueryMetrics {
    /// The last committed epoch.
    pub epoch: AtomicU64,
    /// Rows decoded, of committed epochs.
    pub rows_read: AtomicU64,
    /// Rows in the result, of committed epochs.
    pub rows_written: AtomicU64,
    /// Records that could not become rows.
    pub rows_rejected: AtomicU64,
    /// Payload bytes read.
    pub bytes_read: AtomicU64,
    /// Offsets that wait at the sources, when last looked at.
    pub backlog: AtomicU64,
    /// When the last commit was made, microseconds since 1970; 0 before the first.
    pub committed_at_us: AtomicI64,
    /// The epoch whose state was saved last; 0 for none.
    pub snapshot: AtomicU64,
    /// The least watermark of its sources, microseconds since 1970; `i64::MIN` for none.
    pub watermark_us: AtomicI64,
    /// Rows that its operators keep.
    pub state_rows: AtomicU64,
    /// Bytes of memory that these take.
    pub state_bytes: AtomicU64,
    /// Rows that came after their window was closed.
    pub rows_late: AtomicU64,
    /// Retries since the last commit.
    pub retries: AtomicU64,
    recent: Mutex<VecDeque<(Instant, u64)>>,
}

impl QueryMetrics {
    /// Counts a committed epoch.
    pub fn committed(&self, epoch: u64, read: u64, written: u64, now_us: i64) {
        self.epoch.store(epoch, Relaxed);
        self.rows_read.fetch_add(read, Relaxed);
        self.rows_written.fetch_add(written, Relaxed);
        self.committed_at_us.store(now_us, Relaxed);
        self.retries.store(0, Relaxed);
        let mut recent = self.recent.lock();
        recent.push_back((Instant::now(), read));
        while recent.front().is_some_and(|(at, _)| at.elapsed() > RATE_WINDOW) {
            recent.pop_front();
        }
    }

    /// Rows read a second over the last few seconds.
    pub fn rate(&self) -> f64 {
        let recent = self.recent.lock();
        let alive = recent.iter().filter(|(at, _)| at.elapsed() <= RATE_WINDOW);
        let rows: u64 = alive.map(|(_, rows)| rows).sum();
        rows as f64 / RATE_WINDOW.as_secs_f64()
    }
}
