//! The live data files of a table at one version, shared between versions.
//!
//! ```text
//! FileSet(v7)  [chunk A][chunk B][chunk C: f513 f514]
//! FileSet(v8)  [chunk A][chunk B][chunk C': f513 f514 f515]   A and B are the same memory
//! ```
//!
//! A commit costs what it adds and one pointer per chunk, so that a long life
//! of small commits does not make the next one slower, and a snapshot is a clone.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use arrow::array::StructArray;
use deltalake::kernel::{Add, LogicalFileView, Remove};
use object_store::path::Path;
use roaring::RoaringBitmap;
use serde::Deserialize;

use crate::lake::vector::Vector;

/// Files a chunk holds; the last one may hold fewer.
const CHUNK: usize = 256;

/// One live data file.
#[derive(Debug)]
pub(crate) struct DataFile {
    /// As the log names it, relative to the table.
    pub path: String,
    pub size: u64,
    /// Milliseconds since 1970.
    pub modified_ms: i64,
    /// As the log writes them; a missing value is NULL.
    pub partition_values: HashMap<String, Option<String>>,
    /// The log's statistics, as JSON.
    pub stats: Option<String>,
    /// Rows by the statistics, deleted ones included.
    pub rows: Option<u64>,
    /// Which of them are deleted.
    pub vector: Option<Vector>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RowCount {
    num_records: Option<u64>,
}

fn row_count(stats: Option<&str>) -> Option<u64> {
    serde_json::from_str::<RowCount>(stats?).ok()?.num_records
}

impl DataFile {
    /// Lies elsewhere than below the table (a shallow clone's file).
    pub fn is_foreign(&self) -> bool {
        self.path.contains("://")
    }

    /// Only delta-rs knows how to read it.
    pub fn is_special(&self) -> bool {
        let masked = self.vector.as_ref();
        self.is_foreign() || masked.is_some_and(|v| !v.is_near() || self.rows.is_none())
    }

    /// Deleted rows.
    pub fn deleted(&self) -> u64 {
        self.vector.as_ref().map_or(0, Vector::deleted)
    }

    /// Rows by the statistics, without the deleted ones.
    pub fn live_rows(&self) -> Option<u64> {
        Some(self.rows?.saturating_sub(self.deleted()))
    }

    /// The file that `add` adds, with the rows of its deletion vector at hand.
    pub fn with_vector(mut add: Add, rows: Option<Arc<RoaringBitmap>>) -> Self {
        let descriptor = add.deletion_vector.take();
        let vector = descriptor.map(|descriptor| match rows {
            Some(rows) => Vector::known(descriptor, rows),
            None => Vector::stored(descriptor),
        });
        Self { vector, ..add.into() }
    }

    /// The log's entry for the file as it is.
    pub fn to_add(&self) -> Add {
        Add {
            path: self.path.clone(),
            partition_values: self.partition_values.clone(),
            size: i64::try_from(self.size).unwrap_or(i64::MAX),
            modification_time: self.modified_ms,
            data_change: true,
            stats: self.stats.clone(),
            deletion_vector: self.vector.as_ref().map(|vector| vector.descriptor.clone()),
            ..Add::default()
        }
    }

    /// The log's entry that takes the file as it is away.
    pub fn to_remove(&self, now_ms: i64, data_change: bool) -> Remove {
        Remove {
            path: self.path.clone(),
            data_change,
            deletion_timestamp: Some(now_ms),
            extended_file_metadata: Some(true),
            partition_values: Some(self.partition_values.clone()),
            size: Some(i64::try_from(self.size).unwrap_or(i64::MAX)),
            deletion_vector: self.vector.as_ref().map(|vector| vector.descriptor.clone()),
            ..Remove::default()
        }
    }

    /// Where the file lies in the store of a table at `table`.
    pub fn location(&self, table: &Path) -> Path {
        let below = Path::parse(&self.path).unwrap_or_else(|_| Path::from(self.path.as_str()));
        Path::from_iter(table.parts().chain(below.parts()))
    }
}

impl From<Add> for DataFile {
    fn from(add: Add) -> Self {
        Self {
            rows: row_count(add.stats.as_deref()),
            path: add.path,
            size: u64::try_from(add.size).unwrap_or(0),
            modified_ms: add.modification_time,
            partition_values: add.partition_values,
            stats: add.stats,
            vector: add.deletion_vector.map(Vector::stored),
        }
    }
}

impl From<LogicalFileView> for DataFile {
    fn from(file: LogicalFileView) -> Self {
        let stats = file.stats();
        Self {
            path: file.path().into_owned(),
            size: u64::try_from(file.size()).unwrap_or(0),
            modified_ms: file.modification_time(),
            partition_values: file.partition_values_map(),
            rows: row_count(stats.as_deref()),
            stats,
            vector: file.deletion_vector_descriptor().map(Vector::stored),
        }
    }
}

/// Up to [`CHUNK`] files, with what was derived from them.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub files: Vec<Arc<DataFile>>,
    /// Parsed statistics, one row a file; made when first asked for.
    pub bounds: OnceLock<Option<StructArray>>,
}

/// The live files at one version.
#[derive(Debug, Clone, Default)]
pub(crate) struct FileSet {
    chunks: Vec<Arc<Chunk>>,
    len: usize,
    /// Files that only delta-rs's reader finds: vectors or data in other places.
    special: usize,
}

impl FileSet {
    pub fn chunks(&self) -> &[Arc<Chunk>] {
        &self.chunks
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<DataFile>> + Clone {
        self.chunks.iter().flat_map(|chunk| &chunk.files)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Our own scan reads every file.
    pub fn is_plain(&self) -> bool {
        self.special == 0
    }

    /// The set after a commit that removed the files named and then added others.
    pub fn after(&self, removed: &HashSet<String>, added: Vec<DataFile>) -> Self {
        let mut next = if removed.is_empty() { self.clone() } else { self.without(removed) };
        next.extend(added);
        next
    }

    fn without(&self, removed: &HashSet<String>) -> Self {
        let mut next = FileSet::default();
        for chunk in &self.chunks {
            if chunk.files.iter().any(|file| removed.contains(&file.path)) {
                let kept = chunk.files.iter().filter(|file| !removed.contains(&file.path));
                next.push_chunk(kept.cloned().collect());
            } else {
                next.len += chunk.files.len();
                next.special += special(&chunk.files);
                next.chunks.push(chunk.clone());
            }
        }
        next
    }

    fn extend(&mut self, added: Vec<DataFile>) {
        if added.is_empty() {
            return;
        }
        let mut open = Vec::with_capacity(CHUNK.min(added.len()));
        if let Some(last) = self.chunks.pop_if(|last| last.files.len() < CHUNK) {
            self.len -= last.files.len();
            self.special -= special(&last.files);
            open.extend(last.files.iter().cloned());
        }
        for file in added {
            open.push(Arc::new(file));
            if open.len() == CHUNK {
                self.push_chunk(std::mem::take(&mut open));
            }
        }
        self.push_chunk(open);
    }

    fn push_chunk(&mut self, files: Vec<Arc<DataFile>>) {
        if files.is_empty() {
            return;
        }
        self.len += files.len();
        self.special += special(&files);
        self.chunks.push(Arc::new(Chunk { files, bounds: OnceLock::new() }));
    }
}

fn special(files: &[Arc<DataFile>]) -> usize {
    files.iter().filter(|file| file.is_special()).count()
}

impl FromIterator<DataFile> for FileSet {
    fn from_iter<I: IntoIterator<Item = DataFile>>(files: I) -> Self {
        FileSet::default().after(&HashSet::new(), files.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use deltalake::kernel::{DeletionVectorDescriptor, StorageType};

    use super::*;

    fn file(n: usize) -> DataFile {
        DataFile::from(Add {
            path: format!("part-{n}.parquet"),
            size: 10,
            stats: Some(r#"{"numRecords":3}"#.into()),
            ..Add::default()
        })
    }

    fn paths(set: &FileSet) -> Vec<String> {
        set.iter().map(|file| file.path.clone()).collect()
    }

    #[test]
    fn versions_share_their_full_chunks() {
        let first: FileSet = (0..CHUNK + 10).map(file).collect();
        let second = first.after(&HashSet::new(), vec![file(1000)]);
        assert_eq!(first.len(), CHUNK + 10);
        assert_eq!(second.len(), CHUNK + 11);
        assert!(Arc::ptr_eq(&first.chunks()[0], &second.chunks()[0]));
        assert_eq!(second.chunks().len(), 2);
        assert!(second.iter().all(|file| file.rows == Some(3)));
    }

    #[test]
    fn removed_files_go_and_the_order_stays() {
        let first: FileSet = (0..5).map(file).collect();
        let removed = HashSet::from(["part-1.parquet".to_string(), "part-9.parquet".to_string()]);
        let second = first.after(&removed, vec![file(5)]);
        assert_eq!(paths(&second), [0, 2, 3, 4, 5].map(|n| format!("part-{n}.parquet")).to_vec());
        assert_eq!(paths(&first).len(), 5);
    }

    #[test]
    fn a_file_removed_and_added_in_one_commit_is_there() {
        let first: FileSet = [file(1)].into_iter().collect();
        let vector = |storage_type| DeletionVectorDescriptor {
            storage_type,
            path_or_inline_dv: "file:///elsewhere".into(),
            offset: None,
            size_in_bytes: 34,
            cardinality: 2,
        };
        let near = vector(StorageType::UuidRelativePath);
        let add = Add { deletion_vector: Some(near), ..file(1).to_add() };
        let masked = DataFile::from(add);
        assert_eq!((masked.rows, masked.live_rows()), (Some(3), Some(1)));
        let second = first.after(&HashSet::from([masked.path.clone()]), vec![masked]);
        assert_eq!(second.len(), 1);
        assert!(second.is_plain() && first.is_plain());
        let elsewhere = vector(StorageType::AbsolutePath);
        let add = Add { deletion_vector: Some(elsewhere), ..file(1).to_add() };
        let third = first.after(&HashSet::from([add.path.clone()]), vec![add.into()]);
        assert!(!third.is_plain());
    }
}
