//! Parquet files: offsets are rows, row groups are decoded in parallel.
//!
//! Columns are found by name and cast to their declared types; one that a file
//! does not have is NULL, and a row with a value that can't be cast is rejected.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, Int64Array, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options, concat};
use arrow::datatypes::{DataType, Field};
use arrow::util::display::FormatOptions;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use crate::decode::{Excluded, Layout, RawBatch, type_name};
use crate::epoch::Ranges;
use crate::error::{Error, Result};
use crate::source::files::log::{FileEntry, Segment};
use crate::source::files::{PARTITION, Shared};
use crate::source::{Chunk, Reader, Rejected, Rows};

const BATCH_ROWS: usize = 8192;
/// A value that can't be cast is an error, not NULL.
const STRICT: CastOptions<'static> =
    CastOptions { safe: false, format_options: FormatOptions::new() };

/// A Parquet file in an object store.
#[derive(Clone)]
pub(super) struct StoredFile {
    pub store: Arc<dyn ObjectStore>,
    pub location: object_store::path::Path,
    pub size: u64,
}

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for StoredFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move { self.store.get_range(&self.location, range).await.map_err(external) }.boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move { self.store.get_ranges(&self.location, &ranges).await.map_err(external) }
            .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            let metadata = ParquetMetaDataReader::new().load_and_finish(self, size).await?;
            Ok(Arc::new(metadata))
        }
        .boxed()
    }
}

/// Reads the footer of a file.
pub(super) async fn footer(shared: &Shared, file: &mut StoredFile) -> Result<ArrowReaderMetadata> {
    let fault = |error: ParquetError| {
        let name = shared.place.display(&file.location);
        shared.fault(format!("{name} can't be read as Parquet: {error}"))
    };
    let mut reader = file.clone();
    ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::new()).await.map_err(fault)
}

pub(super) async fn count_rows(shared: &Shared, file: &ObjectMeta) -> Result<u64> {
    let store = Arc::clone(shared.place.store());
    let mut file = StoredFile { store, location: file.location.clone(), size: file.size };
    let rows = footer(shared, &mut file).await?.metadata().file_metadata().num_rows();
    u64::try_from(rows).map_err(|_| shared.fault("a Parquet file has less than no rows"))
}

pub(super) struct ParquetReader {
    shared: Arc<Shared>,
    layout: Arc<Layout>,
    footers: HashMap<String, ArrowReaderMetadata>,
}

impl ParquetReader {
    pub fn new(shared: Arc<Shared>, projection: Vec<usize>) -> Result<Self> {
        let layout = Arc::new(Layout::new(&shared.schema, &projection)?);
        Ok(Self { shared, layout, footers: HashMap::new() })
    }

    /// One job for each row group that the segment touches.
    async fn jobs(&mut self, segment: Segment) -> Result<Vec<Job>> {
        let location = segment.file.location();
        let store = Arc::clone(self.shared.place.store());
        let now = store.head(&location).await;
        let now = now.map_err(|error| self.shared.storage_fault(&location, error))?;
        self.shared.check_unchanged(&segment.file, &now)?;
        let mut file = StoredFile { store, location, size: segment.file.size };
        let metadata = match self.footers.get(&segment.file.path) {
            Some(metadata) => metadata.clone(),
            None => {
                let metadata = footer(&self.shared, &mut file).await?;
                self.footers.clear();
                self.footers.insert(segment.file.path.clone(), metadata.clone());
                metadata
            }
        };
        let mut jobs = Vec::new();
        let mut first = 0;
        for (group, rows) in metadata.metadata().row_groups().iter().enumerate() {
            let end = first + u64::try_from(rows.num_rows()).unwrap_or(0);
            let wanted = segment.range.start.max(first)..segment.range.end.min(end);
            if !wanted.is_empty() {
                jobs.push(Job {
                    shared: Arc::clone(&self.shared),
                    layout: Arc::clone(&self.layout),
                    file: file.clone(),
                    entry: Arc::clone(&segment.file),
                    metadata: metadata.clone(),
                    group,
                    skip: wanted.start - first,
                    wanted,
                });
            }
            first = end;
        }
        Ok(jobs)
    }
}

/// Rows of one row group.
struct Job {
    shared: Arc<Shared>,
    layout: Arc<Layout>,
    file: StoredFile,
    entry: Arc<FileEntry>,
    metadata: ArrowReaderMetadata,
    group: usize,
    /// Rows of the group before those that are wanted.
    skip: u64,
    /// Within the file.
    wanted: Range<u64>,
}

impl Job {
    async fn run(self) -> Result<Vec<(Chunk, Vec<Rejected>)>> {
        let names: Vec<&str> = self.layout.payload_fields().map(|f| f.name().as_str()).collect();
        let schema = self.metadata.parquet_schema();
        let roots = self.metadata.schema().fields().iter().enumerate();
        let roots = roots.filter(|(_, field)| names.contains(&field.name().as_str()));
        let mask = ProjectionMask::roots(schema, roots.map(|(root, _)| root));
        let count = (self.wanted.end - self.wanted.start) as usize;
        let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(
            self.file.clone(),
            self.metadata.clone(),
        );
        let mut stream = builder
            .with_projection(mask)
            .with_row_groups(vec![self.group])
            .with_offset(self.skip as usize)
            .with_limit(count)
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(|error| self.fault(&error))?;
        let mut chunks = Vec::new();
        let mut first = self.wanted.start;
        while let Some(batch) = stream.try_next().await.map_err(|error| self.fault(&error))? {
            let rows = batch.num_rows() as u64;
            chunks.push(self.chunk(first, &batch)?);
            first += rows;
        }
        if first != self.wanted.end {
            return Err(self.fault(&"it has fewer rows than its footer says"));
        }
        Ok(chunks)
    }

    fn fault(&self, what: &dyn std::fmt::Display) -> Error {
        let name = self.shared.place.display(&self.file.location);
        self.shared.fault(format!("{name} can't be read as Parquet: {what}"))
    }

    fn chunk(&self, first: u64, batch: &RecordBatch) -> Result<(Chunk, Vec<Rejected>)> {
        let rows = batch.num_rows();
        let mut excluded = Excluded::default();
        let column = |field: &Field| {
            let array = match batch.column_by_name(field.name()) {
                Some(array) => self.cast(array, field, &mut excluded)?,
                None => new_null_array(field.data_type(), rows),
            };
            if !field.is_nullable() && array.null_count() > 0 {
                for row in (0..rows).filter(|row| array.is_null(*row)) {
                    excluded.reject(row, || {
                        format!("column \"{}\" is NOT NULL and got null", field.name())
                    });
                }
            }
            Ok(array)
        };
        let fields = self.layout.payload_fields();
        let payload = fields.map(|f| f.as_ref()).map(column).collect::<Result<Vec<ArrayRef>>>()?;
        let start = self.entry.start + first as i64;
        let raw = RawBatch {
            origin: self.shared.place.display(&self.file.location).into(),
            partition: PARTITION,
            offsets: Int64Array::from_iter_values(start..start + rows as i64),
            timestamps: Some(Int64Array::from_value(self.entry.modified_ms(), rows)),
            payloads: BinaryArray::new_null(rows),
            keys: None,
            headers: None,
        };
        let (mut chunk, rejected) = self.layout.assemble(raw, &payload, excluded)?;
        chunk.origin.payloads = None;
        Ok((chunk, rejected))
    }

    /// Casts to the declared type; rows whose value has no such form are excluded.
    fn cast(&self, array: &ArrayRef, field: &Field, excluded: &mut Excluded) -> Result<ArrayRef> {
        let wanted = field.data_type();
        match (array.data_type(), wanted) {
            (same, wanted) if same == wanted => return Ok(Arc::clone(array)),
            // An instant stays what it is, whatever its zone is called.
            (DataType::Timestamp(_, None), DataType::Timestamp(_, Some(_))) => {
                return crate::decode::as_instants(array, wanted);
            }
            (given, wanted) if !can_cast_types(given, wanted) => {
                let (given, wanted) = (type_name(given), type_name(wanted));
                let what = format!("column \"{}\" is {given}, not {wanted}", field.name());
                return Err(self.fault(&what));
            }
            _ => {}
        }
        match cast_with_options(array, wanted, &STRICT) {
            Ok(cast) => Ok(cast),
            Err(_) => self.cast_each(array, field, excluded),
        }
    }

    /// The slow way, row by row, to find those that can't be cast.
    fn cast_each(
        &self,
        array: &ArrayRef,
        field: &Field,
        excluded: &mut Excluded,
    ) -> Result<ArrayRef> {
        let wanted = field.data_type();
        let null = new_null_array(wanted, 1);
        let mut cells = Vec::with_capacity(array.len());
        for row in 0..array.len() {
            match cast_with_options(&array.slice(row, 1), wanted, &STRICT) {
                Ok(cell) => cells.push(cell),
                Err(error) => {
                    excluded.reject(row, || format!("column \"{}\": {error}", field.name()));
                    cells.push(Arc::clone(&null));
                }
            }
        }
        let cells: Vec<&dyn Array> = cells.iter().map(AsRef::as_ref).collect();
        Ok(concat(&cells)?)
    }
}

#[async_trait]
impl Reader for ParquetReader {
    async fn read(&mut self, ranges: &Ranges) -> Result<Rows> {
        let Some(range) = ranges.get(&PARTITION) else { return Ok(Rows::default()) };
        let mut jobs = Vec::new();
        for segment in self.shared.segments(*range).await? {
            jobs.extend(self.jobs(segment).await?);
        }
        let run = |job: Job| async move {
            tokio::spawn(job.run()).await.map_err(|error| Error::internal(error.to_string()))?
        };
        let parallel = std::thread::available_parallelism().map_or(2, usize::from);
        let mut decoded = futures::stream::iter(jobs).map(run).buffered(parallel);
        let mut rows = Rows::default();
        while let Some(chunks) = decoded.next().await {
            for (chunk, rejected) in chunks? {
                rows.bytes += chunk.batch.get_array_memory_size() as u64;
                rows.push((chunk, rejected));
            }
        }
        Ok(rows)
    }
}
