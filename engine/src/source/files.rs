//! JSON lines, CSV and Parquet files as a source.
//!
//! The files of a path are one log: partition 0, in which each file follows the one
//! that was discovered before it. An offset is a position in it: bytes for JSON and CSV
//! (always where a record starts), rows for Parquet. Which file lies where is kept in
//! an append-only [`log`], so that an offset means the same after a restart, whatever
//! else has come into the folder.
//!
//! ```text
//! files    a.json          b.json     c.json (discovered later)
//! offsets  0 ........ 8120 8120 .. 9900 9900 ...
//! ```
//!
//! A file must not change once it is discovered; new files are taken up with
//! `watch = 'true'`. Put them there by a rename: hidden files, and names that start with
//! `_` or end with `.tmp`, are passed over.

mod infer;
mod listing;
mod log;
mod parquet;
mod records;
mod text;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, ObjectMeta, ObjectStore};
use tokio::sync::Mutex;

use crate::decode::{Format, bad_option, decoder, flag};
use crate::epoch::{OffsetRange, Offsets, PartitionId, Ranges, clamp};
use crate::error::{Error, Result};
use crate::source::files::listing::Place;
use crate::source::files::log::{FileEntry, FileLog, Segment};
use crate::source::files::records::Ending;
use crate::source::{Reader, Source};

const PARTITION: PartitionId = 0;
/// Object stores are asked for new files no more often than this.
const BETWEEN_LISTINGS: Duration = Duration::from_secs(1);
/// How long a file has looked the same at least that is taken when the engine starts.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Footers read at a time.
const CONCURRENT_FOOTERS: usize = 16;

/// What the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum FileFormat {
    /// Lines: JSON, CSV or raw.
    Text(Format),
    Parquet,
}

impl FileFormat {
    /// Where records end, in files of text.
    fn ending(&self) -> Ending {
        match self {
            Self::Text(format) => Ending::of(format),
            Self::Parquet => Ending::LineBreak,
        }
    }

    /// The option `format`; without it the extension of the path says.
    fn from_options(options: &BTreeMap<String, String>) -> Result<Self> {
        let path = options.get("path").map(String::as_str).unwrap_or_default();
        let extension = extension(path);
        let guess = known_format(&extension).unwrap_or("json");
        let name = options.get("format").map_or(guess, String::as_str);
        if name == "parquet" {
            return Ok(Self::Parquet);
        }
        if !["json", "csv", "raw"].contains(&name) {
            return Err(bad_option("format", name, "'json', 'csv', 'parquet' or 'raw'"));
        }
        let mut options = options.clone();
        options.insert("format".into(), name.into());
        if extension == "tsv" {
            options.entry("csv.delimiter".into()).or_insert("\\t".into());
        }
        Ok(Self::Text(Format::from_options(&options)?))
    }
}

fn extension(path: &str) -> String {
    path.rsplit('.').next().unwrap_or_default().to_ascii_lowercase()
}

/// What files with this extension are in.
fn known_format(extension: &str) -> Option<&'static str> {
    match extension {
        "parquet" => Some("parquet"),
        "csv" | "tsv" => Some("csv"),
        _ => None,
    }
}

/// Whether nothing says that the files are JSON: a folder may well hold others.
fn is_guess(options: &BTreeMap<String, String>) -> bool {
    let path = options.get("path").map(String::as_str).unwrap_or_default();
    !options.contains_key("format") && !matches!(&*extension(path), "json" | "jsonl" | "ndjson")
}

fn is_json(format: &FileFormat) -> bool {
    matches!(format, FileFormat::Text(Format::Json { .. }))
}

/// Why a file is not taken for JSON without anybody having said that it is.
fn no_json(place: &Place, file: &ObjectMeta) -> Option<String> {
    let extension = extension(file.location.as_ref());
    let format = known_format(&extension)?;
    let tabs = if extension == "tsv" { ", csv.delimiter = '\\t'" } else { "" };
    let name = place.display(&file.location);
    Some(format!("{name} is no JSON by its name: add format = '{format}'{tabs}, or mend the path"))
}

/// `connector = 'files'`.
#[derive(Debug, Clone)]
pub struct FilesSource {
    shared: Arc<Shared>,
}

/// What the source and its readers have in common.
#[derive(Debug)]
struct Shared {
    name: String,
    schema: SchemaRef,
    format: FileFormat,
    ending: Ending,
    /// The format is JSON for want of anything that says so.
    guessed: bool,
    place: Place,
    watch: bool,
    discovery: Mutex<Discovery>,
    /// Bytes and rows read so far: how long a row is.
    bytes_read: AtomicU64,
    rows_read: AtomicU64,
}

#[derive(Debug)]
struct Discovery {
    log: FileLog,
    /// Whether the files were listed at least once, now or before a restart.
    listed: bool,
    /// When they were listed last.
    looked: Option<Instant>,
    /// New files that were there at the last look, with size and time: they may still be growing.
    growing: HashMap<Path, (u64, i64)>,
}

impl FilesSource {
    /// Options:
    ///
    /// | option | meaning |
    /// |---|---|
    /// | `path` | a file, a folder (with all below it) or a glob; local or a URL |
    /// | `format` | `json` (one object a line), `csv`, `parquet`, `raw`; default after the path's extension, else `json` |
    /// | `watch` | `true` takes up files that come later; default `false`, bounded |
    /// | `csv.header`, `csv.delimiter`, `csv.multiline`, `json.timestamp_unit` | see [`Format::from_options`] |
    /// | `storage.*` | options of the object store behind a URL |
    ///
    /// `log` says where the list of discovered files is kept. Without it the
    /// files are listed now and sorted by name: for a batch query.
    pub fn new(
        name: &str,
        schema: SchemaRef,
        options: &BTreeMap<String, String>,
        log: Option<(Arc<dyn ObjectStore>, Path)>,
    ) -> Result<Self> {
        let format = FileFormat::from_options(options)?;
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        match &format {
            FileFormat::Text(format) => drop(decoder(format, &schema, &all)?),
            FileFormat::Parquet => drop(crate::decode::Layout::new(&schema, &all)?),
        }
        let discovery = Discovery {
            log: FileLog::new(log),
            listed: false,
            looked: None,
            growing: HashMap::new(),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                name: name.to_string(),
                schema,
                ending: format.ending(),
                guessed: is_json(&format) && is_guess(options),
                format,
                place: Place::from_options(options)?,
                watch: flag(options, "watch", false)?,
                discovery: Mutex::new(discovery),
                bytes_read: AtomicU64::new(0),
                rows_read: AtomicU64::new(0),
            }),
        })
    }

    /// The columns of the first file that `options` name: of Parquet as it says, of CSV and
    /// JSON guessed from the first lines.
    pub async fn infer_schema(options: &BTreeMap<String, String>) -> Result<SchemaRef> {
        let place = Place::from_options(options)?;
        let mut files = place.list().await?;
        files.sort_by(|a, b| a.location.cmp(&b.location));
        let first = files.into_iter().find(|file| file.size > 0).ok_or_else(|| {
            Error::invalid_hint(
                format!("{} holds no file to read columns from", place.shown()),
                "declare the columns, or mend the path",
            )
        })?;
        let format = FileFormat::from_options(options)?;
        match no_json(&place, &first).filter(|_| is_json(&format) && is_guess(options)) {
            Some(why) => Err(Error::invalid(why)),
            None => infer::schema(&place, &first, &format).await,
        }
    }
}

impl Shared {
    /// A lasting fault of the source.
    fn fault(&self, message: impl Into<String>) -> Error {
        Error::Source { name: self.name.clone(), message: message.into(), retryable: false }
    }

    /// A fault of the storage, with the file named.
    fn storage_fault(&self, location: &Path, error: object_store::Error) -> Error {
        let file = self.place.display(location);
        match error {
            object_store::Error::NotFound { .. } => {
                self.fault(format!("{file} was discovered and is gone now"))
            }
            other => {
                let message = format!("{file}: {other}");
                let retryable = Error::Storage(other).retryable();
                Error::Source { name: self.name.clone(), message, retryable }
            }
        }
    }

    /// Makes the list of files what it should be, and answers where it ends.
    async fn discover(&self) -> Result<i64> {
        let mut discovery = self.discovery.lock().await;
        let discovery = &mut *discovery;
        discovery.log.load().await?;
        discovery.listed |= !discovery.log.is_empty();
        let recent = discovery.looked.is_some_and(|looked| looked.elapsed() < BETWEEN_LISTINGS);
        if discovery.listed && (!self.watch || recent && !self.place.is_local()) {
            return Ok(discovery.log.end());
        }
        let first_look = discovery.looked.replace(Instant::now()).is_none();
        let mut new = self.unknown(&discovery.log).await?;
        if discovery.listed {
            // What comes while we watch may still be written: it must look the same twice. What
            // came before we did is looked at again at once.
            let stamp = |file: &ObjectMeta| (file.size, file.last_modified.timestamp_micros());
            let stamps = |files: &[ObjectMeta]| -> HashMap<_, _> {
                files.iter().map(|file| (file.location.clone(), stamp(file))).collect()
            };
            if first_look && !new.is_empty() {
                discovery.growing = stamps(&new);
                let newest = new.iter().map(|file| file.last_modified).max().unwrap_or_default();
                let age = (chrono::Utc::now() - newest).to_std().unwrap_or_default();
                tokio::time::sleep(SECOND_LOOK.saturating_sub(age)).await;
                new = self.unknown(&discovery.log).await?;
            }
            let seen = stamps(&new);
            new.retain(|file| discovery.growing.get(&file.location) == Some(&stamp(file)));
            discovery.growing = seen;
        }
        discovery.listed = true;
        if discovery.log.is_durable() {
            new.sort_by(|a, b| (a.last_modified, &a.location).cmp(&(b.last_modified, &b.location)));
        } else {
            new.sort_by(|a, b| a.location.cmp(&b.location));
        }
        if !new.is_empty() {
            let measured = self.measure(new).await?;
            discovery.log.append(measured).await?;
        }
        Ok(discovery.log.end())
    }

    /// The files that are there and not in the log.
    async fn unknown(&self, log: &FileLog) -> Result<Vec<ObjectMeta>> {
        let files = self.place.list().await?;
        if files.is_empty() && !self.watch {
            return Err(self.fault(format!("{} matches no file", self.place.shown())));
        }
        let mut new = Vec::new();
        for file in files {
            match log.find(&file.location) {
                Some(known) => self.check_unchanged(known, &file)?,
                None => new.push(file),
            }
        }
        Ok(new)
    }

    /// How far each file takes the log: its bytes, or its rows.
    async fn measure(&self, files: Vec<ObjectMeta>) -> Result<Vec<(ObjectMeta, u64)>> {
        if let Some(file) = files.iter().find(|file| is_compressed(&file.location)) {
            return Err(self.fault(format!(
                "{} is compressed, which is not supported: decompress it, or name the others by a glob",
                self.place.display(&file.location)
            )));
        }
        if let Some(why) =
            files.iter().filter(|_| self.guessed).find_map(|f| no_json(&self.place, f))
        {
            return Err(self.fault(why));
        }
        if self.format != FileFormat::Parquet {
            return Ok(files
                .into_iter()
                .map(|file| (file.size, file))
                .map(|(n, f)| (f, n))
                .collect());
        }
        let rows = |file: ObjectMeta| async move {
            let rows = parquet::count_rows(self, &file).await?;
            Ok((file, rows))
        };
        futures::stream::iter(files).map(rows).buffered(CONCURRENT_FOOTERS).try_collect().await
    }

    /// The parts of files that a range of the log covers.
    async fn segments(&self, range: OffsetRange) -> Result<Vec<Segment>> {
        self.ensure_listed().await?;
        let discovery = self.discovery.lock().await;
        if range.end > discovery.log.end() {
            return Err(self.fault(format!(
                "the files end at offset {}, before {}: some that were discovered are forgotten",
                discovery.log.end(),
                range.end
            )));
        }
        Ok(discovery.log.segments(range))
    }

    async fn ensure_listed(&self) -> Result<()> {
        let mut discovery = self.discovery.lock().await;
        discovery.log.load().await?;
        let listed = discovery.listed || !discovery.log.is_empty();
        drop(discovery);
        if listed { Ok(()) } else { self.discover().await.map(drop) }
    }

    fn check_unchanged(&self, known: &FileEntry, now: &ObjectMeta) -> Result<()> {
        if known.size == now.size && known.modified_us == now.last_modified.timestamp_micros() {
            return Ok(());
        }
        Err(self.fault(format!(
            "{} changed after it was discovered ({} bytes then, {} now); files may be added, not changed",
            self.place.display(&now.location),
            known.size,
            now.size
        )))
    }

    /// Bytes of a file; refused if it is not the file that was discovered.
    async fn fetch(&self, file: &FileEntry, range: std::ops::Range<u64>) -> Result<bytes::Bytes> {
        let location = file.location();
        let options = GetOptions::new().with_range(Some(range));
        let fault = |error| self.storage_fault(&location, error);
        let result = self.place.store().get_opts(&location, options).await.map_err(fault)?;
        self.check_unchanged(file, &result.meta)?;
        result.bytes().await.map_err(|error| self.storage_fault(&location, error))
    }

    fn note_read(&self, bytes: u64, rows: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        self.rows_read.fetch_add(rows, Ordering::Relaxed);
    }

    /// Bytes of a row as far as is known.
    fn row_size(&self) -> Option<u64> {
        let rows = self.rows_read.load(Ordering::Relaxed);
        (rows > 0).then(|| (self.bytes_read.load(Ordering::Relaxed) / rows).max(1))
    }
}

fn is_compressed(location: &Path) -> bool {
    let extension = location.extension().unwrap_or_default();
    ["gz", "gzip", "zst", "bz2", "xz", "zip", "lz4"].contains(&extension)
}

#[async_trait]
impl Source for FilesSource {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn connector(&self) -> &'static str {
        "files"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.shared.schema)
    }

    fn bounded(&self) -> bool {
        !self.shared.watch
    }

    async fn available(&self) -> Result<Ranges> {
        let end = self.shared.discover().await?;
        Ok(Ranges::from([(PARTITION, OffsetRange::new(0, end))]))
    }

    async fn start(&self, available: &Ranges) -> Result<Offsets> {
        Ok(available.iter().map(|(partition, range)| (*partition, range.start)).collect())
    }

    /// About `max_rows` rows: of text, as many bytes as they should take, up to the end of a line.
    async fn clamp(&self, from: &Offsets, available: &Ranges, max_rows: u64) -> Result<Ranges> {
        if self.shared.format == FileFormat::Parquet {
            return Ok(clamp(from, available, max_rows));
        }
        let end = available.get(&PARTITION).map_or(0, |range| range.end);
        let start = from.get(&PARTITION).copied().unwrap_or(0);
        let end =
            text::cut(&self.shared, OffsetRange::new(start, end.max(start)), max_rows).await?;
        Ok(Ranges::from([(PARTITION, OffsetRange::new(start, end))]))
    }

    fn open(&self, projection: Vec<usize>) -> Result<Box<dyn Reader>> {
        let shared = Arc::clone(&self.shared);
        Ok(match &self.shared.format {
            FileFormat::Text(format) => {
                let format = format.clone();
                Box::new(text::TextReader::new(shared, format, projection)?)
            }
            FileFormat::Parquet => Box::new(parquet::ParquetReader::new(shared, projection)?),
        })
    }
}

#[cfg(test)]
mod tests;
