//! `BEGIN`, `COMMIT`, `ROLLBACK`: what clients send around statements that commit by themselves.
//!
//! `BEGIN` and `COMMIT` pass. A `ROLLBACK` passes, too, where nothing was written since `BEGIN`:
//! drivers send one whenever they put a connection back. After something was written it is an
//! error, for that can't be taken back.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::{Error, Result};
use crate::statement::Transaction;

const NONE: u8 = 0;
const BEGUN: u8 = 1;
const WROTE: u8 = 2;

/// What was written since `BEGIN`, if anything.
#[derive(Debug, Default)]
pub(super) struct OpenTransaction(AtomicU8);

impl OpenTransaction {
    /// # Errors
    /// A `ROLLBACK` of what was written. The transaction is over all the same.
    pub fn control(&self, statement: Transaction) -> Result<()> {
        match statement {
            Transaction::Begin => self.0.store(BEGUN, Ordering::Relaxed),
            Transaction::Commit => self.0.store(NONE, Ordering::Relaxed),
            Transaction::Rollback => {
                if self.0.swap(NONE, Ordering::Relaxed) == WROTE {
                    return Err(Error::refused(
                        "what was written since BEGIN is committed and can't be rolled back",
                    )
                    .with_hint("every statement commits by itself; leave BEGIN and ROLLBACK out"));
                }
            }
            Transaction::Characteristics => {}
        }
        Ok(())
    }

    /// A statement that changes something has run.
    pub fn wrote(&self) {
        let _ = self.0.compare_exchange(BEGUN, WROTE, Ordering::Relaxed, Ordering::Relaxed);
    }
}
