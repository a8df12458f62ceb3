//! The log: a table's segments, oldest first, and the rows in them by their place.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_empty_array, new_null_array,
};
use arrow::compute::{cast, interleave, take};

use super::segment::Segment;
use super::{MAX_SLOTS, Place, Sizes, TableSpec};
use crate::error::{Error, Result};

#[derive(Debug)]
pub(crate) struct Log {
    pub spec: TableSpec,
    pub sizes: Sizes,
    slots: Vec<Option<Segment>>,
    free: Vec<usize>,
    /// The slots in use, oldest first.
    order: Vec<usize>,
    /// The slot that is appended to.
    open: Option<usize>,
    live: usize,
}

/// Where consecutive rows went: slot, first row, how many.
pub(crate) type Spans = Vec<(usize, usize, usize)>;

/// The places of rows that were appended, in their order.
pub(crate) fn places(spans: &Spans) -> impl Iterator<Item = Place> {
    spans
        .iter()
        .flat_map(|(slot, start, rows)| (*start..start + rows).map(|row| Place::new(*slot, row)))
}

impl Log {
    pub fn new(spec: TableSpec, sizes: Sizes) -> Self {
        let (slots, free, order) = (Vec::new(), Vec::new(), Vec::new());
        Self { spec, sizes, slots, free, order, open: None, live: 0 }
    }

    pub fn live(&self) -> usize {
        self.live
    }

    pub fn order(&self) -> &[usize] {
        &self.order
    }

    pub fn segment(&self, slot: usize) -> Option<&Segment> {
        self.slots.get(slot)?.as_ref()
    }

    pub fn segment_mut(&mut self, slot: usize) -> Option<&mut Segment> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// The segments, oldest first, with their slots.
    pub fn segments(&self) -> impl Iterator<Item = (usize, &Segment)> {
        self.order.iter().filter_map(|slot| Some((*slot, self.segment(*slot)?)))
    }

    /// Marks a row as gone; false if it was.
    pub fn kill(&mut self, at: Place) -> bool {
        let killed = !at.is_none()
            && self.segment_mut(at.slot()).is_some_and(|segment| segment.kill(at.row()));
        self.live -= usize::from(killed);
        killed
    }

    /// Appends rows to the open segment, and to new ones as each is full.
    pub fn append(&mut self, batch: &RecordBatch) -> Result<Spans> {
        let batch = self.conform(batch)?;
        let (mut spans, mut done) = (Spans::new(), 0);
        while done < batch.num_rows() {
            let slot = self.open_slot()?;
            let (sizes, schema) = (self.sizes, Arc::clone(&self.spec.schema));
            let Some(segment) = self.slots[slot].as_mut() else { continue };
            let start = segment.rows();
            let rows = (sizes.rows - start).min(batch.num_rows() - done);
            segment.append(batch.slice(done, rows), &self.spec.key)?;
            if segment.rows() >= sizes.rows || segment.bytes() >= sizes.bytes {
                segment.seal(&schema, &self.spec.key)?;
                self.open = None;
            }
            spans.push((slot, start, rows));
            self.live += rows;
            done += rows;
        }
        Ok(spans)
    }

    /// Rows under the table's own schema. Nested fields may have other names.
    fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let schema = &self.spec.schema;
        if batch.schema_ref() == schema {
            return Ok(batch.clone());
        }
        let misfit = |error| Error::internal(format!("rows don't fit their state: {error}"));
        let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
            let (is, wanted) = (column.data_type(), field.data_type());
            if is != wanted && is.equals_datatype(wanted) {
                return cast(column, wanted);
            }
            Ok(Arc::clone(column))
        });
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(misfit)?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(misfit)
    }

    fn open_slot(&mut self) -> Result<usize> {
        if let Some(slot) = self.open {
            return Ok(slot);
        }
        let slot = self.add(Segment::open(), self.order.len())?;
        self.open = Some(slot);
        Ok(slot)
    }

    /// Puts a segment in a slot of its own, at `position` in the order. Its rows are
    /// not counted as live yet.
    fn add(&mut self, segment: Segment, position: usize) -> Result<usize> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < MAX_SLOTS => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => {
                let hint = "give the query more partitions";
                let message = "one partition's state has too many segments";
                return Err(Error::invalid_hint(message, hint));
            }
        };
        self.slots[slot] = Some(segment);
        self.order.insert(position, slot);
        Ok(slot)
    }

    /// Adds a complete segment as the newest.
    pub fn adopt(&mut self, segment: Segment) -> Result<usize> {
        self.seal()?;
        self.live += segment.live();
        self.add(segment, self.order.len())
    }

    /// Puts `segment` in the place of the segments at `positions` of the order, whose
    /// live rows it holds. They stay readable by their slots until [`Log::free`].
    pub fn replace(
        &mut self,
        positions: std::ops::Range<usize>,
        segment: Segment,
    ) -> Result<usize> {
        let slot = self.add(segment, positions.end)?;
        self.order.drain(positions);
        Ok(slot)
    }

    /// Drops segments that have no live rows any more.
    pub fn free(&mut self, slots: &[usize]) {
        for slot in slots {
            if self.slots.get_mut(*slot).and_then(Option::take).is_some() {
                self.free.push(*slot);
            }
            if self.open == Some(*slot) {
                self.open = None;
            }
        }
        if !slots.is_empty() {
            self.order.retain(|slot| self.slots[*slot].is_some());
        }
    }

    /// Closes the open segment, if it has rows.
    pub fn seal(&mut self) -> Result<()> {
        let Some(slot) = self.open else { return Ok(()) };
        let schema = Arc::clone(&self.spec.schema);
        if let Some(segment) = self.slots[slot].as_mut().filter(|segment| segment.rows() > 0) {
            segment.seal(&schema, &self.spec.key)?;
            self.open = None;
        }
        Ok(())
    }

    /// The columns (all: None) of the rows at `rows`; NONE gives NULLs.
    pub fn gather(&self, rows: &[Place], columns: Option<&[usize]>) -> Result<Vec<ArrayRef>> {
        let fields = self.spec.schema.fields();
        let all: Vec<usize>;
        let columns = match columns {
            Some(columns) => columns,
            None => {
                all = (0..fields.len()).collect();
                &all
            }
        };
        if rows.is_empty() {
            let empty = |column: &usize| new_empty_array(fields[*column].data_type());
            return Ok(columns.iter().map(empty).collect());
        }
        let (batches, indices, nulls) = self.locate(rows)?;
        let picked = match batches.as_slice() {
            [_] if !nulls => {
                Some(indices.iter().map(|(_, row)| *row as u32).collect::<UInt32Array>())
            }
            _ => None,
        };
        let gather = |column: &usize| -> Result<ArrayRef> {
            if let Some(picked) = &picked {
                return Ok(take(batches[0].column(*column), picked, None)?);
            }
            let null = nulls.then(|| new_null_array(fields[*column].data_type(), 1));
            let arrays = batches.iter().map(|batch| batch.column(*column).as_ref());
            let arrays: Vec<_> = null.as_deref().into_iter().chain(arrays).collect();
            Ok(interleave(&arrays, &indices)?)
        };
        columns.iter().map(gather).collect()
    }

    /// The batches that hold `rows`, where in them, and whether some are NONE. If so,
    /// batch 0 is an array of one NULL and the batches follow it.
    #[allow(clippy::type_complexity)]
    fn locate(&self, rows: &[Place]) -> Result<(Vec<&RecordBatch>, Vec<(usize, usize)>, bool)> {
        let nulls = rows.contains(&Place::NONE);
        let mut first = vec![u32::MAX; self.slots.len()];
        let (mut batches, mut indices) = (Vec::new(), Vec::with_capacity(rows.len()));
        for at in rows {
            if at.is_none() {
                indices.push((0, 0));
                continue;
            }
            let segment = self.segment(at.slot()).filter(|segment| at.row() < segment.rows());
            let Some(segment) = segment else {
                return Err(Error::internal("an address of state has expired"));
            };
            if first[at.slot()] == u32::MAX {
                first[at.slot()] = batches.len() as u32;
                batches.extend(segment.chunks.iter().map(|chunk| &chunk.batch));
            }
            let (chunk, row) = segment.locate(at.row());
            let batch = first[at.slot()] as usize + chunk + usize::from(nulls);
            indices.push((batch, row));
        }
        Ok((batches, indices, nulls))
    }

    pub fn memory(&self) -> usize {
        let segments = self.slots.iter().flatten().map(Segment::memory).sum::<usize>();
        segments + self.slots.capacity() * size_of::<Option<Segment>>()
    }
}
