//! A segment: rows in the order in which they came, and which of them are gone.
//!
//! The open segment grows by chunks. A chunk that is not much longer than the ones
//! after it is merged with them, so that there are few whatever the size of the
//! batches; rows keep their numbers. Sealing makes one chunk of all, for good.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, SchemaRef};
use parking_lot::Mutex;
use uuid::Uuid;

use super::MAX_ROWS;
use super::compare::Cells;
use super::floor::Floors;
use crate::error::{Error, Result};

/// Some consecutive rows of a segment.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The number of its first row.
    pub start: usize,
    pub batch: RecordBatch,
    /// The key columns, if all can be compared value by value.
    pub key: Option<Vec<Cells>>,
    pub floors: Mutex<Floors>,
    pub bytes: usize,
}

impl Chunk {
    fn new(start: usize, batch: RecordBatch, key: &[usize]) -> Self {
        let cells = key.iter().map(|column| Cells::new(batch.column(*column))).collect();
        let bytes = bytes(&batch);
        Self { start, batch, key: cells, floors: Mutex::default(), bytes }
    }

    fn end(&self) -> usize {
        self.start + self.batch.num_rows()
    }
}

#[derive(Debug)]
pub(crate) struct Segment {
    /// What its file in a snapshot is named by; a new one where the rows are others.
    pub id: Uuid,
    pub chunks: Vec<Chunk>,
    pub sealed: bool,
    /// Its rows lie in a mapped file, not in memory.
    pub mapped: bool,
    rows: usize,
    dead: Arc<Dead>,
}

/// Which rows are gone: a bit each, as far as there is one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Dead {
    words: Vec<u64>,
    pub count: usize,
}

impl Dead {
    #[inline]
    pub fn contains(&self, row: usize) -> bool {
        self.words.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    /// False if it was gone already.
    pub fn insert(&mut self, row: usize) -> bool {
        if self.words.len() <= row / 64 {
            self.words.resize(row / 64 + 1, 0);
        }
        let (word, bit) = (&mut self.words[row / 64], 1 << (row % 64));
        let new = *word & bit == 0;
        *word |= bit;
        self.count += usize::from(new);
        new
    }

    pub fn rows(&self) -> impl Iterator<Item = usize> {
        let bits = |(at, word): (usize, &u64)| {
            let word = *word;
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit)
        };
        self.words.iter().enumerate().filter(|(_, word)| **word != 0).flat_map(bits)
    }
}

impl Segment {
    pub fn open() -> Self {
        Self {
            id: Uuid::new_v4(),
            chunks: Vec::new(),
            sealed: false,
            mapped: false,
            rows: 0,
            dead: Arc::default(),
        }
    }

    /// A segment that is complete.
    ///
    /// # Errors
    /// If it is of more rows than can be numbered, or dead rows are none of its own.
    pub fn sealed(id: Uuid, batch: RecordBatch, dead: Arc<Dead>, key: &[usize]) -> Result<Self> {
        let (rows, mapped) = (batch.num_rows(), false);
        if rows > MAX_ROWS || dead.rows().any(|row| row >= rows) {
            return Err(Error::Corrupt {
                path: format!("state segment {id}"),
                message: format!("{rows} rows don't fit what is said of them"),
            });
        }
        Ok(Self { id, chunks: vec![Chunk::new(0, batch, key)], sealed: true, mapped, rows, dead })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn live(&self) -> usize {
        self.rows - self.dead.count
    }

    pub fn dead(&self) -> &Arc<Dead> {
        &self.dead
    }

    pub fn is_live(&self, row: usize) -> bool {
        row < self.rows && !self.dead.contains(row)
    }

    pub fn live_rows(&self) -> impl Iterator<Item = usize> {
        (0..self.rows).filter(|row| !self.dead.contains(*row))
    }

    /// Marks a row as gone; false if it was, or never was.
    pub fn kill(&mut self, row: usize) -> bool {
        row < self.rows && Arc::make_mut(&mut self.dead).insert(row)
    }

    /// Where row `row` lies: chunk and row within it.
    #[inline]
    pub fn locate(&self, row: usize) -> (usize, usize) {
        if self.chunks.len() == 1 {
            return (0, row);
        }
        let chunk = self.chunks.partition_point(|chunk| chunk.end() <= row);
        (chunk, row - self.chunks[chunk].start)
    }

    /// Appends rows; columns must be those of the table.
    pub fn append(&mut self, batch: RecordBatch, key: &[usize]) -> Result<()> {
        let schema = batch.schema();
        let mut rows = batch.num_rows();
        self.rows += rows;
        let mut merged = vec![compact_views(&batch)?];
        while let Some(last) = self.chunks.pop_if(|last| last.batch.num_rows() <= 2 * rows) {
            rows += last.batch.num_rows();
            merged.push(last.batch);
        }
        merged.reverse();
        let batch = match merged.len() {
            1 => merged.remove(0),
            _ => concat_batches(&schema, &merged)?,
        };
        self.chunks.push(Chunk::new(self.rows - rows, batch, key));
        Ok(())
    }

    /// Makes one chunk of all; nothing can be appended any more.
    pub fn seal(&mut self, schema: &SchemaRef, key: &[usize]) -> Result<()> {
        let batch = match self.chunks.as_slice() {
            [chunk] => own(&chunk.batch)?,
            chunks => concat_batches(schema, chunks.iter().map(|chunk| &chunk.batch))?,
        };
        self.chunks = vec![Chunk::new(0, compact_views(&batch)?, key)];
        self.sealed = true;
        Ok(())
    }

    /// The rows of a sealed segment.
    pub fn batch(&self) -> Option<&RecordBatch> {
        self.chunks.first().filter(|_| self.sealed).map(|chunk| &chunk.batch)
    }

    /// Lets the same rows lie in a mapped file.
    pub fn set_mapped(&mut self, batch: RecordBatch, key: &[usize]) {
        let floors = self.chunks.first().map(|chunk| chunk.floors.lock().clone());
        let chunk = Chunk::new(0, batch, key);
        *chunk.floors.lock() = floors.unwrap_or_default();
        self.chunks = vec![chunk];
        self.mapped = true;
    }

    /// Bytes of its rows, wherever they lie.
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes).sum()
    }

    pub fn memory(&self) -> usize {
        let rows = if self.mapped { 0 } else { self.bytes() };
        rows + self.dead.words.capacity() * 8 + size_of::<Self>()
    }
}

/// Bytes that the rows themselves take, not what they share with others.
fn bytes(batch: &RecordBatch) -> usize {
    let own = |column: &ArrayRef| match column.to_data().get_slice_memory_size() {
        Ok(bytes) => bytes + view_bytes(column),
        Err(_) => column.get_array_memory_size(),
    };
    batch.columns().iter().map(own).sum()
}

fn view_bytes(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::Utf8View => column.as_string_view().total_buffer_bytes_used(),
        DataType::BinaryView => column.as_binary_view().total_buffer_bytes_used(),
        _ => 0,
    }
}

/// A batch that shares no large buffers with others, of which it is a sliver.
fn own(batch: &RecordBatch) -> Result<RecordBatch> {
    let held = batch.get_array_memory_size();
    if held <= 2 * bytes(batch) + 4096 {
        return Ok(batch.clone());
    }
    let rows = UInt32Array::from_iter_values(0..batch.num_rows() as u32);
    let columns: Result<Vec<ArrayRef>, _> =
        batch.columns().iter().map(|column| take(column, &rows, None)).collect();
    rebuild(batch, columns?)
}

/// Views keep the whole buffers that they look into: copies what they see of them.
fn compact_views(batch: &RecordBatch) -> Result<RecordBatch> {
    let is_view =
        |data_type: &DataType| matches!(data_type, DataType::Utf8View | DataType::BinaryView);
    if !batch.schema_ref().fields().iter().any(|field| is_view(field.data_type())) {
        return Ok(batch.clone());
    }
    let compact = |column: &ArrayRef| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
            _ => Arc::clone(column),
        }
    };
    rebuild(batch, batch.columns().iter().map(compact).collect())
}

fn rebuild(batch: &RecordBatch, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    fn batch(values: std::ops::Range<i64>) -> RecordBatch {
        let values = Arc::new(Int64Array::from_iter_values(values)) as ArrayRef;
        RecordBatch::try_from_iter([("n", values)]).unwrap()
    }

    #[test]
    fn chunks_stay_few_and_rows_keep_their_numbers() {
        let mut segment = Segment::open();
        for at in 0..1000 {
            segment.append(batch(at * 3..at * 3 + 3), &[0]).unwrap();
        }
        assert!(segment.chunks.len() < 12, "{}", segment.chunks.len());
        for row in [0, 1, 1499, 2998, 2999] {
            let (chunk, within) = segment.locate(row);
            let values = segment.chunks[chunk].batch.column(0).clone();
            let values = values.as_primitive::<arrow::datatypes::Int64Type>();
            assert_eq!(values.value(within), row as i64);
        }
        segment.seal(&batch(0..0).schema(), &[0]).unwrap();
        assert_eq!(segment.batch().unwrap(), &batch(0..3000));
    }

    #[test]
    fn a_row_dies_once() {
        let mut segment = Segment::open();
        segment.append(batch(0..100), &[0]).unwrap();
        assert!(segment.kill(70) && !segment.kill(70) && !segment.kill(100));
        assert_eq!((segment.live(), segment.is_live(70)), (99, false));
        assert_eq!(segment.dead().rows().collect::<Vec<_>>(), [70]);
        assert_eq!(segment.live_rows().count(), 99);
    }
}
