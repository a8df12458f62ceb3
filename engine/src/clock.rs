//! Where the time of an epoch comes from: the system, or a test that advances it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Microseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    #[default]
    System,
    /// Stands still until a test moves it.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    pub fn manual(start_us: i64) -> Self {
        Clock::Manual(Arc::new(AtomicI64::new(start_us)))
    }

    pub fn now_us(&self) -> i64 {
        match self {
            Clock::System => chrono::Utc::now().timestamp_micros(),
            Clock::Manual(time) => time.load(Ordering::SeqCst),
        }
    }

    /// Moves a manual clock; the system's goes by itself.
    pub fn advance_us(&self, by: i64) {
        if let Clock::Manual(time) = self {
            time.fetch_add(by, Ordering::SeqCst);
        }
    }
}
