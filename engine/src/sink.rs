//! Where results go: the contract of a sink, with its one commit point.

pub mod delta;
pub mod memory;
mod upsert;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;

use crate::error::Result;
use crate::lake::mask::Masks;

/// Takes the output of a continuous query, epoch by epoch.
#[async_trait]
pub trait Sink: std::fmt::Debug + Send + Sync {
    /// The name of the table that it writes, if it is one.
    fn table(&self) -> Option<&str> {
        None
    }

    /// The last epoch that this query committed; `None` before the first.
    ///
    /// Read from the durable log, not from memory: it also settles a commit
    /// whose outcome is unknown.
    async fn committed(&self) -> Result<Option<u64>>;

    /// Writes rows under fresh names. Nothing is visible yet; what is staged
    /// and never committed is an orphan for vacuum.
    async fn stage(&self, rows: SendableRecordBatchStream) -> Result<Staged>;

    /// Refuses rows that [`Sink::stage`] would refuse for a value in them, so that those at
    /// fault can be found.
    fn check(&self, _rows: &RecordBatch) -> Result<()> {
        Ok(())
    }

    /// Makes what was staged visible, together with the epoch's number, in one
    /// atomic commit. Does nothing if the sink holds `epoch` already.
    async fn commit(&self, epoch: u64, staged: Staged) -> Result<Committed>;
}

/// What [`Sink::stage`] wrote.
#[derive(Debug, Default)]
pub struct Staged {
    /// Rows written.
    pub rows: u64,
    /// Delta `add` actions of the new files.
    pub adds: Vec<deltalake::kernel::Add>,
    /// Rows of older files to be deleted.
    pub masks: Masks,
    /// Delta `remove` actions of files that new ones take the place of.
    pub removes: Vec<deltalake::kernel::Remove>,
    /// Rows of a sink that keeps them in memory.
    pub batches: Vec<RecordBatch>,
}

/// Where a commit can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Version of the result table.
    pub version: u64,
    pub rows: u64,
}
