//! Keyed state: what the operators of a continuous query remember between epochs.
//!
//! A [`Table`] holds the rows of one operator and one partition. It is
//! log-structured and Arrow all the way:
//!
//! ```text
//!   keys ──hash──► index ──address──► segments ──take/interleave──► arrays
//!                  9 bytes a slot      open: appended to, in memory
//!                  (hash, address)     sealed: immutable, in memory or mapped from disk
//! ```
//!
//! New rows are appended; rows that are taken away are marked in their segment's
//! bitmap. What is mostly garbage, or small, is rewritten a little at a time
//! ([`Table::maintain`]). Only the index must fit in memory: sealed segments move
//! to local files that are mapped back ([`Table::spill_to`]).
//!
//! An image of a table ([`Table::image`]) shares its segments. [`Snapshots`] writes
//! images to the warehouse, each segment once, and reads them back.

mod compaction;
mod compare;
mod floor;
mod image;
mod index;
mod ipc;
mod keys;
mod links;
mod log;
mod manifest;
mod segment;
mod snapshot;
mod table;

#[cfg(test)]
mod tests;

use arrow::datatypes::SchemaRef;

pub use image::TableImage;
pub use keys::Keys;
pub use snapshot::{Snapshot, Snapshots};
pub use table::{Matches, Table};

/// Where a row lies: segment in the high 32 bits, row in the low ones. Addresses hold
/// until the next [`Table::maintain`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Address(u64);

impl Address {
    /// Nowhere.
    pub const NONE: Address = Address(u64::MAX);

    pub fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// What a [`Table`] stores.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// All stored columns.
    pub schema: SchemaRef,
    /// Indices of the key columns; none: every row has the same key.
    pub key: Vec<usize>,
}

/// Bits of a [`Place`] that number the row within its segment.
const ROW_BITS: u32 = 17;
/// The most rows that a segment holds.
const MAX_ROWS: usize = 1 << ROW_BITS;
/// The most segments that a table holds at a time; the last number is kept for NONE.
const MAX_SLOTS: usize = (1 << (32 - ROW_BITS)) - 1;

/// An [`Address`] as the index keeps it: in 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Place(u32);

impl Place {
    pub const NONE: Place = Place(u32::MAX);

    pub fn new(slot: usize, row: usize) -> Self {
        debug_assert!(slot < MAX_SLOTS && row < MAX_ROWS);
        Place((slot << ROW_BITS | row) as u32)
    }

    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    pub fn slot(self) -> usize {
        (self.0 >> ROW_BITS) as usize
    }

    pub fn row(self) -> usize {
        self.0 as usize & (MAX_ROWS - 1)
    }
}

impl From<Place> for Address {
    fn from(place: Place) -> Self {
        if place.is_none() {
            return Address::NONE;
        }
        Address((place.slot() as u64) << 32 | place.row() as u64)
    }
}

impl Address {
    /// NONE too where no table can have such an address.
    fn place(self) -> Place {
        let (slot, row) = ((self.0 >> 32) as usize, self.0 as u32 as usize);
        if slot >= MAX_SLOTS || row >= MAX_ROWS {
            return Place::NONE;
        }
        Place::new(slot, row)
    }
}

/// The sizes that the store works with; tests make them tiny.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Rows of a full segment.
    pub rows: usize,
    /// Bytes of a full segment, where its rows are wide.
    pub bytes: usize,
    /// Smaller segments stay in memory: a file each would cost more than it frees.
    pub spill_bytes: usize,
    /// Rows that one `maintain` may rewrite whatever happened since the last.
    pub budget: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { rows: MAX_ROWS, bytes: 32 << 20, spill_bytes: 256 << 10, budget: 4096 }
    }
}
