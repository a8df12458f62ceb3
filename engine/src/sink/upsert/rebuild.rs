//! The index of a table's rows, from its files.
//!
//! Only the key's columns are decoded, several files at a time; rows that a deletion
//! vector names are passed over.

use std::sync::Arc;

use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use roaring::RoaringBitmap;
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::lake::files::DataFile;
use crate::lake::read::{self, Part};
use crate::lake::snapshot::Snapshot;
use crate::sink::upsert::hash::{Hasher, KeyHash};
use crate::sink::upsert::index::{Address, RowIndex};

/// Files that are decoded at a time.
const WORKERS: usize = 4;

/// The index of the rows of `snapshot`.
pub(super) async fn rebuild(
    snapshot: &Snapshot,
    hasher: &Arc<Hasher>,
    unique: bool,
) -> Result<RowIndex> {
    if !snapshot.reads_plain() {
        return Err(Error::invalid_hint(
            format!("the table \"{}\" has files that can't be changed", snapshot.name()),
            "write the result to a table of its own",
        ));
    }
    let files: Vec<Arc<DataFile>> = snapshot.files.iter().cloned().collect();
    let layout = &snapshot.layout;
    read::load_vectors(layout, files.iter()).await?;
    let columns = hasher.columns();
    // Deleted rows come too: the n-th row that comes is the n-th in its file.
    let whole = |file: &Arc<DataFile>| Part { file: Arc::clone(file), without: Arc::default() };
    let parts: Vec<Part> = files.iter().map(whole).collect();
    let streams = read::files(layout, &parts, Some(&columns))?;
    let mut index = RowIndex::default();
    let rows = files.iter().filter_map(|file| file.live_rows()).sum::<u64>();
    index.reserve(usize::try_from(rows).unwrap_or(0));
    let mut waiting = files.iter().cloned().zip(streams);
    let mut working = JoinSet::new();
    loop {
        while working.len() < WORKERS
            && let Some((file, stream)) = waiting.next()
        {
            working.spawn(keys(file, stream, Arc::clone(hasher)));
        }
        let Some(done) = working.join_next().await else { return Ok(index) };
        let (file, keys) = done.map_err(|error| Error::internal(error.to_string()))??;
        let number = index.file(&file.path);
        let deleted = file.vector.as_ref().and_then(|vector| vector.get());
        let deleted = deleted.cloned().unwrap_or_default();
        if !insert(&mut index, number, &keys, &deleted) && unique {
            return Err(super::not_unique(snapshot.name()));
        }
    }
}

async fn keys(
    file: Arc<DataFile>,
    mut stream: SendableRecordBatchStream,
    hasher: Arc<Hasher>,
) -> Result<(Arc<DataFile>, Vec<KeyHash>)> {
    let mut keys = Vec::with_capacity(file.rows.unwrap_or(0) as usize);
    while let Some(batch) = stream.try_next().await? {
        keys.extend(hasher.keys(&batch)?);
    }
    Ok((file, keys))
}

/// Answers whether no key was there twice.
fn insert(index: &mut RowIndex, file: u32, keys: &[KeyHash], deleted: &RoaringBitmap) -> bool {
    let mut unique = true;
    let mut gone = deleted.iter().peekable();
    for (row, key) in keys.iter().enumerate() {
        let row = row as u32;
        if gone.next_if_eq(&row).is_some() {
            continue;
        }
        unique &= index.insert(*key, Address { file, row });
    }
    unique
}
