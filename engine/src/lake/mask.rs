//! Deleting rows of files that stay as they are: what the log says of them then.
//!
//! A file whose rows are deleted is removed and added again under the same path
//! with its grown deletion vector; a file without a row left is only removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use deltalake::DeltaTableError;
use deltalake::kernel::transaction::{CommitConflictError, TransactionError};
use deltalake::kernel::{Add, Remove};
use roaring::RoaringBitmap;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::lake::files::DataFile;
use crate::lake::snapshot::Snapshot;
use crate::lake::vector;

/// Rows to be deleted: their positions by the path of their file.
pub type Masks = BTreeMap<String, RoaringBitmap>;

/// What becomes of the files whose rows are deleted.
#[derive(Debug, Default)]
pub(super) struct Masked {
    pub removes: Vec<Remove>,
    pub adds: Vec<(Add, Arc<RoaringBitmap>)>,
}

/// Grows the deletion vectors of `snapshot` by `masks`, and stores them.
pub(super) async fn apply(snapshot: &Snapshot, masks: &Masks) -> Result<Masked> {
    if masks.is_empty() {
        return Ok(Masked::default());
    }
    let place = &snapshot.layout.place;
    let now = chrono::Utc::now().timestamp_millis();
    let mut masked = Masked::default();
    let (mut files, mut vectors) = (Vec::new(), Vec::new());
    for (file, mask) in find(snapshot, masks)? {
        masked.removes.push(file.to_remove(now, true));
        let deleted = match &file.vector {
            None => mask.clone(),
            Some(vector) => grow(&place.name, file, &*vector.load(place).await?, mask)?,
        };
        if file.rows != Some(deleted.len()) {
            files.push(file);
            vectors.push(Arc::new(deleted));
        }
    }
    let descriptors = vector::store(place, &vectors).await?;
    for ((file, rows), descriptor) in files.into_iter().zip(vectors).zip(descriptors) {
        let add = Add {
            deletion_vector: Some(descriptor),
            stats: file.stats.as_deref().map(loose_bounds),
            ..file.to_add()
        };
        masked.adds.push((add, rows));
    }
    Ok(masked)
}

/// The files of the masks, which must all be there.
pub(super) fn find<'a>(
    snapshot: &'a Snapshot,
    masks: &'a Masks,
) -> Result<Vec<(&'a Arc<DataFile>, &'a RoaringBitmap)>> {
    let masked = |file: &'a Arc<DataFile>| Some((file, masks.get(&file.path)?));
    let found: Vec<_> = snapshot.files.iter().filter_map(masked).collect();
    if found.len() != masks.len() {
        return Err(conflict());
    }
    for (file, mask) in &found {
        let rows = file.rows.ok_or_else(|| {
            Error::invalid_hint(
                format!("{} has no row count in the log of \"{}\"", file.path, snapshot.name()),
                "rewrite the table with the engine that made it, with statistics",
            )
        })?;
        if mask.max().is_some_and(|last| u64::from(last) >= rows) {
            return Err(Error::internal(format!(
                "row {:?} of {} of \"{}\", which has {rows}",
                mask.max(),
                file.path,
                snapshot.name()
            )));
        }
    }
    Ok(found)
}

fn grow(
    table: &str,
    file: &DataFile,
    deleted: &RoaringBitmap,
    mask: &RoaringBitmap,
) -> Result<RoaringBitmap> {
    if !deleted.is_disjoint(mask) {
        let rows = deleted.intersection_len(mask);
        let path = &file.path;
        return Err(Error::internal(format!(
            "{rows} rows of {path} of \"{table}\" were to be deleted a second time"
        )));
    }
    Ok(deleted | mask)
}

/// Someone else rewrote files whose rows were to be deleted: where they are now is
/// to be found out again.
pub(crate) fn conflict() -> Error {
    let conflict = CommitConflictError::ConcurrentDeleteDelete;
    Error::Delta(DeltaTableError::from(TransactionError::CommitConflict(conflict)))
}

pub(super) fn is_conflict(error: &Error) -> bool {
    let Error::Delta(DeltaTableError::Transaction { source }) = error else { return false };
    matches!(source, TransactionError::CommitConflict(_))
}

/// Fails if a file that is to be removed is not there as it was.
pub(super) fn check_removes(snapshot: &Snapshot, removes: &[Remove]) -> Result<()> {
    let there = |remove: &Remove| {
        snapshot.files.iter().any(|file| {
            let vector = file.vector.as_ref().map(|vector| &vector.descriptor);
            file.path == remove.path && vector == remove.deletion_vector.as_ref()
        })
    };
    if removes.iter().all(there) { Ok(()) } else { Err(conflict()) }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tightness {
    tight_bounds: Option<bool>,
}

/// Statistics that say that bounds and counts are those of all rows, deleted ones
/// too, as the protocol asks for beside a deletion vector. The text is kept: its
/// numbers may have more digits than a float.
pub(super) fn loose_bounds(stats: &str) -> String {
    let tightness = serde_json::from_str::<Tightness>(stats);
    let said = tightness.is_ok_and(|stats| stats.tight_bounds == Some(false));
    match stats.trim_start().strip_prefix('{').map(str::trim_start) {
        Some(rest) if !said => {
            let rest =
                rest.replace("\"tightBounds\":true,", "").replace("\"tightBounds\":null,", "");
            let comma = if rest.starts_with('}') { "" } else { "," };
            format!("{{\"tightBounds\":false{comma}{rest}")
        }
        _ => stats.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_say_that_bounds_are_loose() {
        let stats = r#"{"numRecords":3,"maxValues":{"d":12345678901234567890.12}}"#;
        let loose = loose_bounds(stats);
        let expected =
            r#"{"tightBounds":false,"numRecords":3,"maxValues":{"d":12345678901234567890.12}}"#;
        assert_eq!(loose, expected);
        assert_eq!(loose_bounds(&loose), expected);
        assert_eq!(loose_bounds("{}"), r#"{"tightBounds":false}"#);
        let tight = r#"{"tightBounds":true,"numRecords":3}"#;
        assert_eq!(loose_bounds(tight), r#"{"tightBounds":false,"numRecords":3}"#);
    }
}
