//! The file log: which files were discovered, in which order, and where each lies.
//!
//! Append-only. Each append is one object of its own number, made only if nobody made
//! it before; its content is a JSON array of entries:
//!
//! ```text
//! <prefix>/00000000000000000001.json   [{"path":"data/a.json","size":8120,…,"start":0,"end":8120}]
//! <prefix>/00000000000000000002.json   …
//! ```

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};

use crate::epoch::OffsetRange;
use crate::error::{Error, Result};

/// A discovered file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileEntry {
    /// In the object store.
    pub path: String,
    /// Bytes.
    pub size: u64,
    pub modified_us: i64,
    /// Its offsets: bytes, or rows of a Parquet file.
    pub start: i64,
    pub end: i64,
}

impl FileEntry {
    pub fn location(&self) -> Path {
        // It was a valid path when it was listed.
        Path::parse(&self.path).unwrap_or_else(|_| Path::from(self.path.as_str()))
    }

    pub fn modified_ms(&self) -> i64 {
        self.modified_us.div_euclid(1000)
    }
}

/// A part of a file.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub file: Arc<FileEntry>,
    /// Within the file: bytes, or rows.
    pub range: Range<u64>,
}

#[derive(Debug)]
pub(super) struct FileLog {
    durable: Option<(Arc<dyn ObjectStore>, Path)>,
    /// Number of the newest object that was read or written.
    newest: u64,
    entries: Vec<Arc<FileEntry>>,
    places: HashMap<Path, usize>,
}

impl FileLog {
    /// A log under a prefix of a store, or one that is forgotten.
    pub fn new(durable: Option<(Arc<dyn ObjectStore>, Path)>) -> Self {
        Self { durable, newest: 0, entries: Vec::new(), places: HashMap::new() }
    }

    pub fn is_durable(&self) -> bool {
        self.durable.is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn end(&self) -> i64 {
        self.entries.last().map_or(0, |entry| entry.end)
    }

    pub fn find(&self, location: &Path) -> Option<&FileEntry> {
        self.places.get(location).map(|at| &*self.entries[*at])
    }

    /// The files that `range` lies in, in order.
    pub fn segments(&self, range: OffsetRange) -> Vec<Segment> {
        let first = self.entries.partition_point(|entry| entry.end <= range.start);
        let within = self.entries[first..].iter().take_while(|entry| entry.start < range.end);
        let part = |entry: &Arc<FileEntry>| {
            let local = |offset: i64| u64::try_from(offset - entry.start).unwrap_or(0);
            let range = local(range.start)..local(range.end.min(entry.end));
            Segment { file: Arc::clone(entry), range }
        };
        within.map(part).filter(|segment| !segment.range.is_empty()).collect()
    }

    /// Reads what was appended since the last look: all, the first time.
    pub async fn load(&mut self) -> Result<()> {
        let Some((store, prefix)) = self.durable.clone() else { return Ok(()) };
        if self.newest > 0 {
            return Ok(());
        }
        let mut objects: Vec<ObjectMeta> = store.list(Some(&prefix)).try_collect().await?;
        objects.sort_by(|a, b| a.location.cmp(&b.location));
        for object in objects {
            let Some(number) = number(&object.location) else { continue };
            let bytes = store.get(&object.location).await?.bytes().await?;
            let corrupt = |message| Error::Corrupt { path: object.location.to_string(), message };
            let entries: Vec<FileEntry> =
                serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
            for entry in entries {
                if entry.start != self.end() || entry.end < entry.start {
                    return Err(corrupt(format!(
                        "{} does not follow the file before it",
                        entry.path
                    )));
                }
                self.push(entry);
            }
            self.newest = number;
        }
        Ok(())
    }

    fn push(&mut self, entry: FileEntry) {
        self.places.insert(entry.location(), self.entries.len());
        self.entries.push(Arc::new(entry));
    }

    /// Appends files with their lengths in offsets; durable when it returns.
    pub async fn append(&mut self, files: Vec<(ObjectMeta, u64)>) -> Result<()> {
        let mut end = self.end();
        let mut entries = Vec::with_capacity(files.len());
        for (file, length) in files {
            let start = end;
            end += i64::try_from(length).map_err(|_| Error::internal("a file has no length"))?;
            entries.push(FileEntry {
                path: file.location.to_string(),
                size: file.size,
                modified_us: file.last_modified.timestamp_micros(),
                start,
                end,
            });
        }
        if let Some((store, prefix)) = &self.durable {
            let number = self.newest + 1;
            let json =
                serde_json::to_vec(&entries).map_err(|error| Error::internal(error.to_string()))?;
            let path = prefix.clone().join(format!("{number:020}.json"));
            match store.put_opts(&path, json.into(), PutMode::Create.into()).await {
                Ok(_) => self.newest = number,
                Err(error) => {
                    // Somebody else appended, or we did and did not hear of it: look again.
                    *self = Self::new(self.durable.take());
                    return Err(error.into());
                }
            }
        }
        for entry in entries {
            self.push(entry);
        }
        Ok(())
    }
}

fn number(location: &Path) -> Option<u64> {
    location.filename()?.strip_suffix(".json")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    fn file(path: &str, size: u64) -> (ObjectMeta, u64) {
        let location = Path::from(path);
        let last_modified = chrono::DateTime::from_timestamp_micros(size as i64).unwrap();
        (ObjectMeta { location, last_modified, size, e_tag: None, version: None }, size)
    }

    #[tokio::test]
    async fn offsets_mean_the_same_after_a_restart() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let durable = Some((Arc::clone(&store), Path::from("log")));
        let mut log = FileLog::new(durable.clone());
        log.load().await.unwrap();
        log.append(vec![file("a", 10), file("empty", 0), file("b", 5)]).await.unwrap();
        log.append(vec![file("c", 7)]).await.unwrap();
        let mut again = FileLog::new(durable.clone());
        again.load().await.unwrap();
        assert_eq!((again.end(), &again.entries), (22, &log.entries));
        let parts: Vec<_> = again
            .segments(OffsetRange::new(4, 16))
            .into_iter()
            .map(|segment| (segment.file.path.clone(), segment.range))
            .collect();
        assert_eq!(parts, [("a".into(), 4..10), ("b".into(), 0..5), ("c".into(), 0..1)]);
        assert!(again.segments(OffsetRange::new(22, 22)).is_empty());

        // Somebody else appended: nothing is overwritten.
        again.append(vec![file("d", 1)]).await.unwrap();
        let error = log.append(vec![file("e", 1)]).await.unwrap_err();
        assert!(error.retryable());
        log.load().await.unwrap();
        assert_eq!(log.entries, again.entries);

        store.put(&Path::from("log/00000000000000000004.json"), "[".into()).await.unwrap();
        let mut broken = FileLog::new(durable);
        assert!(matches!(broken.load().await, Err(Error::Corrupt { .. })));
    }
}
