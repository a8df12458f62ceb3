//! Files of lines: read in blocks that end with a record, blocks decoded in parallel.
//!
//! A line break ends a record, also within the quotes of a CSV field: such records
//! are rejected ("a quoted field does not end"), not misread. With `csv.multiline` it
//! does not, at a price: to cut a range, all of it has to be looked at.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, BooleanArray, Int64Array};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::filter;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use parking_lot::Mutex;

use crate::decode::csv::{CsvDecoder, header_names};
use crate::decode::{Decoder, Format, RawBatch, cut as excerpt, decoder, is_payload};
use crate::epoch::{OffsetRange, Ranges};
use crate::error::{Error, Result};
use crate::source::files::log::{FileEntry, Segment};
use crate::source::files::records::Ending;
use crate::source::files::{PARTITION, Shared};
use crate::source::{Chunk, Reader, Rejected, Rows};

/// Bytes read and decoded at a time: they stay in a core's cache while they are scanned and
/// then read column by column.
const BLOCK: u64 = 1 << 20;
/// Bytes looked at to guess the length of a row, or to find the end of one.
const SAMPLE: u64 = 16 << 10;
/// A line that is longer is no line.
const MAX_LINE: u64 = 1 << 30;

/// Where a range of about `max_rows` lines ends: behind a line break, or at the end of a file.
pub(super) async fn cut(shared: &Shared, range: OffsetRange, max_rows: u64) -> Result<i64> {
    let segments = shared.segments(range).await?;
    let Some(first) = segments.first() else { return Ok(range.end) };
    let row_size = match shared.row_size() {
        Some(size) => size,
        None => sampled_row_size(shared, first).await?,
    };
    let wanted = max_rows.saturating_mul(row_size).max(1);
    if wanted >= range.len() {
        return Ok(range.end);
    }
    let target = range.start + i64::try_from(wanted).unwrap_or(i64::MAX);
    let Some(segment) = segments.iter().find(|s| target <= s.file.end) else {
        return Ok(range.end);
    };
    let file = &segment.file;
    let local = u64::try_from(target - file.start).unwrap_or(0).max(1);
    let length = record_end(shared, file, segment.range.start, local).await?;
    Ok(file.start + length as i64)
}

async fn sampled_row_size(shared: &Shared, segment: &Segment) -> Result<u64> {
    let Range { start, end } = segment.range;
    let sample = shared.fetch(&segment.file, start..end.min(start + SAMPLE)).await?;
    Ok((sample.len() as u64 / shared.ending.count(&sample)).max(1))
}

/// Where the first record ends that reaches `target`, counted from the record that starts
/// at `start`.
async fn record_end(shared: &Shared, file: &FileEntry, start: u64, target: u64) -> Result<u64> {
    if shared.ending == Ending::LineBreak {
        return line_end(shared, file, target - 1).await;
    }
    let mut at = start;
    while at < target {
        let block = whole_records(shared, file, at..file.size).await?;
        let mut rest: &[u8] = &block;
        while at < target && !rest.is_empty() {
            at += shared.ending.skip(&mut rest) as u64;
        }
    }
    Ok(at)
}

/// Where the line that goes on at `from` ends, line break included.
async fn line_end(shared: &Shared, file: &FileEntry, from: u64) -> Result<u64> {
    let mut start = from;
    while start < file.size {
        let block = shared.fetch(file, start..file.size.min(start + SAMPLE)).await?;
        let length = Ending::LineBreak.skip(&mut block.as_ref());
        start += length as u64;
        if length > 0 && block.get(length - 1) == Some(&b'\n') {
            return Ok(start);
        }
    }
    Ok(file.size)
}

/// The names in the first line of a CSV file that has them.
type Header = Option<Arc<[String]>>;

/// Decoders that wait for work, by the header of the file that they are for.
struct Pool {
    schema: SchemaRef,
    projection: Vec<usize>,
    format: Format,
    idle: Mutex<HashMap<Header, Vec<Box<dyn Decoder>>>>,
}

impl Pool {
    fn make(&self, header: Option<&[String]>) -> Result<Box<dyn Decoder>> {
        match (&self.format, header) {
            (Format::Csv { delimiter, timestamp_unit, .. }, Some(_)) => {
                Ok(Box::new(CsvDecoder::new(
                    &self.schema,
                    &self.projection,
                    *delimiter,
                    header,
                    *timestamp_unit,
                )?))
            }
            _ => decoder(&self.format, &self.schema, &self.projection),
        }
    }

    fn decode(&self, block: Block, bytes: Bytes) -> Result<(Chunk, Vec<Rejected>)> {
        let idle = self.idle.lock().get_mut(&block.header).and_then(Vec::pop);
        let mut decoder = match idle {
            Some(decoder) => decoder,
            None => self.make(block.header.as_deref())?,
        };
        let header = block.header.clone();
        let mut records = block.records(bytes, self.format == Format::Raw)?;
        if matches!(self.format, Format::Json { .. }) {
            records = without_blanks(records)?;
        }
        let (chunk, mut rejected) = decoder.decode(records)?;
        self.idle.lock().entry(header).or_default().push(decoder);
        for record in &mut rejected {
            record.payload = record.payload.take().map(without_line_break);
        }
        Ok((chunk, rejected))
    }
}

/// The lines that say something: to the JSON decoder a record without payload is a tombstone,
/// and a file has none.
fn without_blanks(mut raw: RawBatch) -> Result<RawBatch> {
    let Some(nulls) = raw.payloads.nulls() else { return Ok(raw) };
    let kept = BooleanArray::new(nulls.inner().clone(), None);
    raw.offsets = filter(&raw.offsets, &kept)?.as_primitive().clone();
    raw.payloads = filter(&raw.payloads, &kept)?.as_binary().clone();
    raw.timestamps = raw.timestamps.map(|times| times.slice(0, raw.offsets.len()));
    Ok(raw)
}

fn without_line_break(line: Bytes) -> Bytes {
    line.slice(..line_content(&line).len())
}

/// A line without its line break.
fn line_content(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whole records of one file.
struct Block {
    file: Arc<FileEntry>,
    name: Arc<str>,
    /// Within the file.
    range: Range<u64>,
    /// If they had to be read to find out where the records end.
    bytes: Option<Bytes>,
    /// Of the file, where it has one; then the first line of the file is no record.
    header: Header,
    ending: Ending,
}

impl Block {
    /// The records in place; a `bare` one is a copy without its line break. Blank lines
    /// and the header are NULL: no records.
    fn records(self, bytes: Bytes, bare: bool) -> Result<RawBatch> {
        let too_long = || Error::internal("a block of lines is longer than 2 GiB");
        let mut rest: &[u8] = &bytes;
        let (mut bounds, mut valid) = (Vec::new(), Vec::new());
        let start = self.range.start;
        let mut at = match start == 0 && rest.starts_with(b"\xEF\xBB\xBF") {
            true => 3,
            false => 0,
        };
        rest = rest.get(at..).unwrap_or_default();
        bounds.push(i32::try_from(at).map_err(|_| too_long())?);
        loop {
            let line = rest;
            let length = self.ending.skip(&mut rest);
            if length == 0 {
                break;
            }
            let blank = line[..length].trim_ascii().is_empty();
            let heading = start == 0 && valid.is_empty() && self.header.is_some();
            valid.push(!blank && !heading);
            at += length;
            bounds.push(i32::try_from(at).map_err(|_| too_long())?);
        }
        let rows = valid.len();
        let first = self.file.start + start as i64;
        let offsets = bounds.iter().take(rows).map(|bound| first + i64::from(*bound));
        let offsets = Int64Array::from_iter_values(offsets);
        let nulls = Some(NullBuffer::from(valid)).filter(|nulls| nulls.null_count() > 0);
        let bounds = OffsetBuffer::new(ScalarBuffer::from(bounds));
        let mut payloads = BinaryArray::try_new(bounds, Buffer::from(bytes), nulls)?;
        if bare {
            payloads = payloads.iter().map(|line| line.map(line_content)).collect();
        }
        Ok(RawBatch {
            origin: self.name,
            partition: PARTITION,
            offsets,
            timestamps: Some(Int64Array::from_value(self.file.modified_ms(), rows)),
            payloads,
            keys: None,
            headers: None,
        })
    }
}

pub(super) struct TextReader {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    /// Header of the file that was read last.
    header: Option<(Arc<FileEntry>, Arc<[String]>)>,
}

impl TextReader {
    pub fn new(shared: Arc<Shared>, format: Format, projection: Vec<usize>) -> Result<Self> {
        let schema = Arc::clone(&shared.schema);
        let pool = Arc::new(Pool { schema, projection, format, idle: Mutex::default() });
        pool.make(None)?;
        Ok(Self { shared, pool, header: None })
    }

    async fn header(&mut self, file: &Arc<FileEntry>) -> Result<Header> {
        let Format::Csv { delimiter, header: true, .. } = self.pool.format else { return Ok(None) };
        if let Some((of, names)) = &self.header
            && of == file
        {
            return Ok(Some(Arc::clone(names)));
        }
        let end = record_end(&self.shared, file, 0, 1).await?;
        let line = self.shared.fetch(file, 0..end).await?;
        let fault = |what: &str| {
            let file = self.shared.place.display(&file.location());
            self.shared.fault(format!("the header of {file}: {what}"))
        };
        let line = std::str::from_utf8(&line).map_err(|_| fault("it is not valid UTF-8"))?;
        let names = header_names(line, delimiter).map_err(|what| fault(&what))?;
        check_header(&self.shared.schema, &names, line).map_err(|what| fault(&what))?;
        self.header = Some((Arc::clone(file), Arc::clone(&names)));
        Ok(Some(names))
    }

    fn blocks(&mut self, segments: Vec<Segment>) -> impl Stream<Item = Result<Block>> {
        async_stream::try_stream! {
            for segment in segments {
                let header = self.header(&segment.file).await?;
                let name: Arc<str> = self.shared.place.display(&segment.file.location()).into();
                let Range { mut start, end } = segment.range;
                while start < end {
                    let (range, bytes) = self.next_block(&segment.file, start..end).await?;
                    start = range.end;
                    let (file, name) = (Arc::clone(&segment.file), Arc::clone(&name));
                    let (header, ending) = (header.clone(), self.shared.ending);
                    yield Block { file, name, range, bytes, header, ending };
                }
            }
        }
    }

    /// The records at the start of `range`. Where a line break ends one wherever it stands,
    /// only the end is looked for, so that blocks are read side by side.
    async fn next_block(
        &self,
        file: &FileEntry,
        range: Range<u64>,
    ) -> Result<(Range<u64>, Option<Bytes>)> {
        if self.shared.ending != Ending::LineBreak {
            let bytes = whole_records(&self.shared, file, range.clone()).await?;
            return Ok((range.start..range.start + bytes.len() as u64, Some(bytes)));
        }
        let target = range.start + BLOCK;
        if target >= range.end {
            return Ok((range, None));
        }
        let end = line_end(&self.shared, file, target - 1).await?.min(range.end);
        match end - range.start > MAX_LINE {
            true => Err(no_text(&self.shared, file)),
            false => Ok((range.start..end, None)),
        }
    }
}

/// Refuses a first line that is no header: without this a row would be lost silently, and
/// columns that the header calls otherwise would be NULL.
fn check_header(schema: &SchemaRef, names: &[String], line: &str) -> Result<(), String> {
    let declared: Vec<_> = schema.fields().iter().filter(|field| is_payload(field)).collect();
    if declared.is_empty() || line.trim().is_empty() {
        return Ok(());
    }
    if !declared.iter().any(|field| names.contains(field.name())) {
        let columns: Vec<&str> = declared.iter().map(|field| field.name().as_str()).collect();
        return Err(format!(
            "it names none of the declared columns ({}), it says \"{}\"; \
             csv.header = 'false' is for files without a header line",
            columns.join(", "),
            excerpt(line.trim())
        ));
    }
    match declared.iter().find(|field| !field.is_nullable() && !names.contains(field.name())) {
        Some(field) => Err(format!("it lacks the column \"{}\", which is NOT NULL", field.name())),
        None => Ok(()),
    }
}

/// As many whole records of `range` as fit into a block, but at least one.
async fn whole_records(shared: &Shared, file: &FileEntry, range: Range<u64>) -> Result<Bytes> {
    let mut size = BLOCK;
    loop {
        let end = range.end.min(range.start + size);
        let bytes = shared.fetch(file, range.start..end).await?;
        if bytes.is_empty() {
            return Err(
                shared.fault(format!("{} ends too early", shared.place.display(&file.location())))
            );
        }
        if end == range.end {
            return Ok(bytes);
        }
        let whole = shared.ending.whole(&bytes);
        if whole > 0 {
            return Ok(bytes.slice(..whole));
        }
        size *= 2;
        if size > MAX_LINE {
            return Err(no_text(shared, file));
        }
    }
}

fn no_text(shared: &Shared, file: &FileEntry) -> Error {
    let file = shared.place.display(&file.location());
    shared.fault(format!("{file} has a record of more than 1 GiB: is it text?"))
}

#[async_trait]
impl Reader for TextReader {
    async fn read(&mut self, ranges: &Ranges) -> Result<Rows> {
        let Some(range) = ranges.get(&PARTITION) else { return Ok(Rows::default()) };
        let segments = self.shared.segments(*range).await?;
        let (pool, shared) = (Arc::clone(&self.pool), Arc::clone(&self.shared));
        let decode = |block: Block| {
            let (pool, shared) = (Arc::clone(&pool), Arc::clone(&shared));
            async move {
                let bytes = match &block.bytes {
                    Some(bytes) => bytes.clone(),
                    None => shared.fetch(&block.file, block.range.clone()).await?,
                };
                tokio::task::spawn_blocking(move || pool.decode(block, bytes))
                    .await
                    .map_err(|error| Error::internal(error.to_string()))?
            }
        };
        // One more than there are cores is on its way, so that none waits for the disk.
        let parallel = std::thread::available_parallelism().map_or(2, usize::from) + 1;
        let decoded = self.blocks(segments).map_ok(decode).try_buffered(parallel);
        let mut decoded = std::pin::pin!(decoded);
        let mut rows = Rows { bytes: range.len(), ..Rows::default() };
        while let Some(block) = decoded.next().await {
            rows.push(block?);
        }
        let count = rows.len() + rows.rejected.len();
        shared.note_read(rows.bytes, count as u64);
        Ok(rows)
    }
}
