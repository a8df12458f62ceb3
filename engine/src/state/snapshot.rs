//! Snapshots: images of all tables of a query in the warehouse, each segment once.
//!
//! ```text
//! _tidemill/queries/<id>/state/
//!   <epoch>.json               manifests: what a snapshot consists of, written last
//!   files/<uuid>.arrow         segments, immutable
//!   files/<uuid>.deleted       deleted rows of many segments, as of one snapshot
//! ```
//!
//! A snapshot costs what changed since the last: new segments, and the deleted rows
//! of those segments of which more are deleted. What a crash leaves without a
//! manifest is removed by a later [`Snapshots::prune`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path as LocalPath, PathBuf};
use std::sync::Arc;

use arrow::buffer::Buffer;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::image::{SegmentImage, TableImage};
use super::ipc;
use super::manifest::{
    DeletedEntry, FORMAT, FileEntry, Manifest, SegmentEntry, corrupt, pack_deleted, segment_id,
    segment_name, unpack_deleted,
};
use super::segment::Dead;
use crate::error::{Error, Result};
use crate::storage::Warehouse;

/// How many files are written or read at a time.
const PARALLEL: usize = 4;
/// Beyond so many files of deleted rows in use they are written anew, as one.
const DELETED_FILES: usize = 8;

/// The snapshots of one query.
#[derive(Debug)]
pub struct Snapshots {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    spill: Option<PathBuf>,
    /// What lies in the warehouse already. Held while a snapshot is written or pruned.
    written: Mutex<Written>,
}

/// By the id of their segment.
#[derive(Debug, Default)]
struct Written {
    segments: HashMap<Uuid, FileEntry>,
    deleted: HashMap<Uuid, DeletedEntry>,
}

/// The state of a query as of an epoch.
#[derive(Debug)]
pub struct Snapshot {
    pub epoch: u64,
    /// Fingerprint of the plan that the state belongs to.
    pub version: String,
    pub extra: serde_json::Value,
    pub tables: BTreeMap<String, TableImage>,
}

impl Snapshots {
    pub fn new(warehouse: &Warehouse, query: &str) -> Self {
        Self {
            store: Arc::clone(warehouse.store()),
            folder: Warehouse::internal(&["queries", query, "state"]),
            spill: None,
            written: Mutex::default(),
        }
    }

    /// Lets what is loaded lie in mapped files in a local folder instead of memory.
    pub fn spill_to(mut self, folder: &LocalPath) -> Self {
        self.spill = Some(folder.to_owned());
        self
    }

    /// Writes a snapshot: first what isn't there yet of its segments, then the manifest.
    /// To be called once the epoch is committed; may run while later epochs do.
    ///
    /// # Errors
    /// [`Error::Fenced`] if there is a snapshot of this epoch by another plan.
    pub async fn save(
        &self,
        epoch: u64,
        version: &str,
        tables: BTreeMap<String, TableImage>,
        extra: serde_json::Value,
    ) -> Result<()> {
        let mut written = self.written.lock().await;
        self.write_segments(&mut written, &tables).await?;
        self.write_deleted(&mut written, &tables).await?;
        let entries = tables.iter().map(|(name, image)| {
            let segments = image.segments.iter().map(|segment| entry(&written, segment));
            Ok((name.clone(), segments.collect::<Result<Vec<_>>>()?))
        });
        let tables = entries.collect::<Result<BTreeMap<_, _>>>()?;
        let version = version.to_owned();
        self.write_manifest(&Manifest { format: FORMAT, epoch, version, extra, tables }).await
    }

    /// The newest snapshot of an epoch not after `at_most`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it can't be read.
    pub async fn load(&self, at_most: u64) -> Result<Option<Snapshot>> {
        let mut written = self.written.lock().await;
        let epochs = self.epochs().await?;
        let Some(epoch) = epochs.range(..=at_most).next_back() else { return Ok(None) };
        let manifest = self.manifest(*epoch).await?;
        *written = Written::default();
        let deleted = self.read_deleted(&manifest).await?;
        let mut tables = BTreeMap::new();
        for (name, segments) in &manifest.tables {
            // Collected: the compiler can't tell that a stream over the closure may be sent.
            let reads = segments.iter().map(|entry| self.read_segment(entry, &deleted).boxed());
            let reads: Vec<_> = reads.collect();
            let segments = stream::iter(reads).buffered(PARALLEL).try_collect().await?;
            tables.insert(name.clone(), TableImage { segments });
        }
        for entry in manifest.tables.values().flatten() {
            let id = segment_id(entry)?;
            written.segments.insert(id, entry.file.clone());
            if let Some(deleted) = &entry.deleted {
                written.deleted.insert(id, deleted.clone());
            }
        }
        let Manifest { epoch, version, extra, .. } = manifest;
        Ok(Some(Snapshot { epoch, version, extra, tables }))
    }

    /// Deletes all but the newest `keep` snapshots, and files that none of them needs.
    pub async fn prune(&self, keep: usize) -> Result<()> {
        let mut written = self.written.lock().await;
        let epochs = self.epochs().await?;
        let mut needed = BTreeSet::new();
        for epoch in epochs.iter().rev().take(keep) {
            let manifest = self.manifest(*epoch).await?;
            needed.extend(manifest.files().map(str::to_owned));
        }
        for epoch in epochs.iter().rev().skip(keep) {
            self.delete_one(&self.path(*epoch)).await?;
        }
        written.segments.retain(|_, file| needed.contains(&file.name));
        written.deleted.retain(|_, deleted| needed.contains(&deleted.file.name));
        let files: Vec<_> = self.store.list(Some(&self.files())).try_collect().await?;
        for file in files {
            if file.location.filename().is_some_and(|name| !needed.contains(name)) {
                self.delete_one(&file.location).await?;
            }
        }
        Ok(())
    }

    /// Deletes everything, when the query is dropped.
    pub async fn delete(&self) -> Result<()> {
        let mut written = self.written.lock().await;
        *written = Written::default();
        let entries: Vec<_> = self.store.list(Some(&self.folder)).try_collect().await?;
        // Manifests first: one that is left must be whole.
        let (manifests, files): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .map(|entry| entry.location)
            .partition(|path| path.extension() == Some("json"));
        for path in manifests.iter().chain(&files) {
            self.delete_one(path).await?;
        }
        Ok(())
    }

    async fn write_segments(
        &self,
        written: &mut Written,
        tables: &BTreeMap<String, TableImage>,
    ) -> Result<()> {
        let segments = tables.values().flat_map(|table| &table.segments);
        let new = segments.filter(|segment| !written.segments.contains_key(&segment.id));
        let new: Vec<_> = new.map(|one| (one.id, one.batch.clone())).collect();
        let writes = new.into_iter().map(|(id, batch)| async move {
            let bytes = blocking(move || ipc::pack(&batch)).await?;
            Ok::<_, Error>((id, self.write_file(segment_name(id), bytes).await?))
        });
        let mut writes = stream::iter(writes).buffer_unordered(PARALLEL);
        while let Some((id, file)) = writes.try_next().await? {
            written.segments.insert(id, file);
        }
        Ok(())
    }

    /// Writes the deleted rows of segments of which more are deleted than were.
    async fn write_deleted(
        &self,
        written: &mut Written,
        tables: &BTreeMap<String, TableImage>,
    ) -> Result<()> {
        let segments = || tables.values().flat_map(|table| &table.segments);
        let changed = |segment: &&SegmentImage| {
            let known = written.deleted.get(&segment.id).map_or(0, |known| known.rows);
            segment.dead.count != known
        };
        let unchanged = segments().filter(|segment| !changed(segment));
        let files: BTreeSet<&str> = unchanged
            .filter_map(|segment| written.deleted.get(&segment.id))
            .map(|deleted| deleted.file.name.as_str())
            .collect();
        let all = files.len() >= DELETED_FILES;
        let to_write = segments()
            .filter(|segment| segment.dead.count > 0)
            .filter(|segment| all || changed(segment))
            .map(|segment| (segment.id, Arc::clone(&segment.dead)));
        let to_write: Vec<_> = to_write.collect();
        if to_write.is_empty() {
            return Ok(());
        }
        let (bytes, spans) = blocking(move || pack_all_deleted(&to_write)).await?;
        let file = self.write_file(format!("{}.deleted", Uuid::new_v4()), bytes).await?;
        for (id, offset, length, rows) in spans {
            let entry = DeletedEntry { file: file.clone(), offset, length, rows };
            written.deleted.insert(id, entry);
        }
        Ok(())
    }

    async fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let bytes = serde_json::to_vec(manifest)
            .map_err(|error| Error::internal(format!("a manifest is no JSON: {error}")))?;
        let path = self.path(manifest.epoch);
        let create = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&path, PutPayload::from(bytes), create).await {
            Ok(_) => Ok(()),
            // Of a put whose answer was lost, or of an epoch that is run again: the same
            // plan makes the same state of it.
            Err(object_store::Error::AlreadyExists { .. }) => {
                if self.manifest(manifest.epoch).await?.version == manifest.version {
                    return Ok(());
                }
                Err(Error::Fenced { holder: "another engine".into(), token: manifest.epoch })
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn write_file(&self, name: String, bytes: Vec<u8>) -> Result<FileEntry> {
        let entry = FileEntry::new(name, &bytes);
        let path = self.files().join(entry.name.as_str());
        self.store.put(&path, PutPayload::from(bytes)).await?;
        Ok(entry)
    }

    async fn read_file(&self, entry: &FileEntry) -> Result<Bytes> {
        let path = self.files().join(entry.name.as_str());
        let bytes = match self.store.get(&path).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(corrupt(path.as_ref(), "a snapshot names this file, it is missing"));
            }
            Err(error) => return Err(error.into()),
        };
        entry.check(&bytes)?;
        Ok(bytes)
    }

    async fn read_segment(
        &self,
        entry: &SegmentEntry,
        deleted: &HashMap<String, Bytes>,
    ) -> Result<SegmentImage> {
        let id = segment_id(entry)?;
        let dead = match &entry.deleted {
            Some(one) => {
                let file = deleted.get(&one.file.name).map_or(&[][..], |bytes| &bytes[..]);
                unpack_deleted(one, file)?
            }
            None => Dead::default(),
        };
        let bytes = self.read_file(&entry.file).await?;
        let (name, spill) = (entry.file.name.clone(), self.spill.clone());
        let mapped = spill.is_some();
        let batch = blocking(move || {
            let batch = ipc::unpack(Buffer::from(bytes));
            let batch = batch.map_err(|error| corrupt(&name, &error.to_string()))?;
            spill.map_or(Ok(batch.clone()), |folder| ipc::map(&folder, &batch))
        });
        let batch = batch.await?;
        if batch.num_rows() != entry.rows {
            return Err(corrupt(&entry.file.name, "it holds another number of rows"));
        }
        Ok(SegmentImage { id, batch, dead: Arc::new(dead), mapped })
    }

    /// All files of deleted rows that the snapshot needs, by name.
    async fn read_deleted(&self, manifest: &Manifest) -> Result<HashMap<String, Bytes>> {
        let entries = manifest.tables.values().flatten().filter_map(|one| one.deleted.as_ref());
        let files: BTreeMap<&str, &FileEntry> =
            entries.map(|one| (one.file.name.as_str(), &one.file)).collect();
        let files: Vec<FileEntry> = files.into_values().cloned().collect();
        let mut read = HashMap::new();
        for part in files.chunks(PARALLEL) {
            let reads = part.iter().map(|file| self.read_file(file).boxed());
            for (file, bytes) in part.iter().zip(futures::future::try_join_all(reads).await?) {
                read.insert(file.name.clone(), bytes);
            }
        }
        Ok(read)
    }

    async fn manifest(&self, epoch: u64) -> Result<Manifest> {
        let path = self.path(epoch);
        let bytes = self.store.get(&path).await?.bytes().await?;
        let manifest = Manifest::parse(path.as_ref(), &bytes)?;
        if manifest.epoch != epoch {
            return Err(corrupt(path.as_ref(), "it is the manifest of another epoch"));
        }
        Ok(manifest)
    }

    /// The epochs of which there are snapshots.
    async fn epochs(&self) -> Result<BTreeSet<u64>> {
        let listed = self.store.list_with_delimiter(Some(&self.folder)).await?;
        let epoch = |path: &Path| path.filename()?.strip_suffix(".json")?.parse().ok();
        Ok(listed.objects.iter().filter_map(|object| epoch(&object.location)).collect())
    }

    async fn delete_one(&self, path: &Path) -> Result<()> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn path(&self, epoch: u64) -> Path {
        self.folder.clone().join(format!("{epoch:020}.json"))
    }

    fn files(&self) -> Path {
        self.folder.clone().join("files")
    }
}

/// What a manifest says of a segment, all of which is written.
fn entry(written: &Written, segment: &SegmentImage) -> Result<SegmentEntry> {
    let missing = || Error::internal("a snapshot's segment was not written");
    let file = written.segments.get(&segment.id).ok_or_else(missing)?.clone();
    let deleted = match segment.dead.count {
        0 => None,
        rows => {
            let known = written.deleted.get(&segment.id).filter(|known| known.rows == rows);
            Some(known.ok_or_else(missing)?.clone())
        }
    };
    Ok(SegmentEntry { file, rows: segment.batch.num_rows(), deleted })
}

/// Segment, offset, length and number of deleted rows.
type DeletedSpans = Vec<(Uuid, usize, usize, usize)>;

fn pack_all_deleted(segments: &[(Uuid, Arc<Dead>)]) -> Result<(Vec<u8>, DeletedSpans)> {
    let (mut bytes, mut spans) = (Vec::new(), DeletedSpans::new());
    for (id, dead) in segments {
        let packed = pack_deleted(dead)?;
        spans.push((*id, bytes.len(), packed.len(), dead.count));
        bytes.extend(packed);
    }
    Ok((bytes, spans))
}

/// Runs what takes the processor for long away from the threads that serve everybody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal(format!("work on a snapshot was cut off: {error}")))?
}

#[cfg(test)]
mod tests;
