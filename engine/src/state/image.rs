//! Images: what a table holds at one moment, and a table made of one again.

use std::sync::Arc;

use arrow::array::RecordBatch;
use uuid::Uuid;

use super::keys::Keys;
use super::segment::{Dead, Segment};
use super::table::Table;
use super::{Place, TableSpec, ipc};
use crate::error::{Error, Result};

/// The segments of a table at one moment, shared with it.
#[derive(Debug, Clone)]
pub struct TableImage {
    /// Oldest first.
    pub(super) segments: Vec<SegmentImage>,
}

#[derive(Debug, Clone)]
pub(super) struct SegmentImage {
    pub id: Uuid,
    pub batch: RecordBatch,
    pub dead: Arc<Dead>,
    pub mapped: bool,
}

impl TableImage {
    /// Live rows.
    pub fn len(&self) -> usize {
        self.segments.iter().map(|one| one.batch.num_rows() - one.dead.count).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Table {
    /// What the table holds now. Closes the open segment, else it costs nothing.
    pub fn image(&mut self) -> Result<TableImage> {
        self.log.seal()?;
        let segments = self.log.segments().filter(|(_, segment)| segment.live() > 0);
        let segments = segments.filter_map(|(_, segment)| {
            let (batch, dead) = (segment.batch()?.clone(), Arc::clone(segment.dead()));
            Some(SegmentImage { id: segment.id, batch, dead, mapped: segment.mapped })
        });
        Ok(TableImage { segments: segments.collect() })
    }

    /// The table that an image was made of. Reads the keys of all rows.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the image is of other columns.
    pub fn restore(spec: TableSpec, image: TableImage) -> Result<Self> {
        let mut table = Table::new(spec)?;
        table.index.reserve(image.len());
        for segment in image.segments {
            table.adopt(segment)?;
        }
        Ok(table)
    }

    fn adopt(&mut self, image: SegmentImage) -> Result<()> {
        let schema = Arc::clone(self.schema());
        let Some(batch) = ipc::under(&schema, &image.batch) else {
            let found = image.batch.schema();
            return Err(Error::Corrupt {
                path: format!("state segment {}", image.id),
                message: format!("it holds {found:?}, the query wants {schema:?}"),
            });
        };
        let key: Vec<_> = self.key().iter().map(|at| batch.column(*at).clone()).collect();
        let keys = Keys::new(&key, batch.num_rows())?;
        let mut segment = Segment::sealed(image.id, batch, image.dead, self.key())?;
        segment.mapped = image.mapped;
        let live: Vec<usize> = segment.live_rows().collect();
        let slot = self.log.adopt(segment)?;
        for row in live {
            self.index.push(keys.hashes()[row], Place::new(slot, row));
        }
        Ok(())
    }
}
