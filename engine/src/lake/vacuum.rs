//! Deleting what no version in reach needs any more: data files and deletion vectors
//! that the log no longer names, and those that it never named.
//!
//! When a data file was taken away, its tombstone in the log tells. A vector has none:
//! its time runs from when a vacuum first found it unneeded, so one that a reader still
//! holds on to stays as long as the others.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use deltalake::DeltaTable;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use parking_lot::Mutex;

use crate::error::Result;
use crate::lake::files::DataFile;
use crate::lake::layout::Place;
use crate::lake::{LakeTable, log, vector};

/// How long files are kept that are no longer needed, if the table's properties don't say.
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Vectors that were found unneeded, and when.
pub(super) type Unneeded = Mutex<HashMap<Path, DateTime<Utc>>>;

impl LakeTable {
    /// Deletes files that have been unneeded for longer than `older_than`, and those
    /// of that age that were never committed. Answers how many.
    ///
    /// A reader must not hold on to an older version for longer, nor a writer stage for
    /// longer before it commits.
    pub async fn vacuum(&self, older_than: Duration) -> Result<usize> {
        let loaded = log::load(&self.place, None).await?;
        run(&self.place, &loaded, &self.unneeded, older_than).await
    }
}

/// How long the table keeps files that it no longer needs.
pub(super) fn retention(table: &DeltaTable) -> Result<Duration> {
    let config = table.snapshot()?.table_config();
    Ok(config.deleted_file_retention_duration.unwrap_or(RETENTION))
}

pub(super) async fn run(
    place: &Place,
    loaded: &DeltaTable,
    unneeded: &Unneeded,
    older_than: Duration,
) -> Result<usize> {
    let now = Utc::now();
    let limit = now - TimeDelta::from_std(older_than).unwrap_or(TimeDelta::MAX);
    let needed = needed(place, loaded, limit).await?;
    let store = place.log.object_store(None);
    let mut old = Vec::new();
    let mut found = store.list(None);
    while let Some(object) = found.try_next().await? {
        if is_data(&object.location) && !needed.contains(&object.location) && older(&object, limit)
        {
            old.push(object.location);
        }
    }
    let expired = expired(unneeded, old, now, limit);
    let deleting = futures::stream::iter(expired).map(Ok).boxed();
    let deleted = store.delete_stream(deleting);
    // Somebody else may have been faster.
    let gone = |result: &object_store::Result<Path>| {
        !matches!(result, Err(object_store::Error::NotFound { .. }))
    };
    let deleted: Vec<Path> =
        deleted.filter(|result| futures::future::ready(gone(result))).try_collect().await?;
    Ok(deleted.len())
}

fn older(object: &ObjectMeta, limit: DateTime<Utc>) -> bool {
    object.last_modified <= limit
}

/// What the log names, or has named until not long ago.
async fn needed(place: &Place, loaded: &DeltaTable, limit: DateTime<Utc>) -> Result<HashSet<Path>> {
    let state = loaded.snapshot()?;
    let mut needed = HashSet::new();
    for file in state.log_data().iter().map(DataFile::from) {
        let vector = file.vector.as_ref();
        needed.extend(vector.and_then(|vector| vector::file_of(&vector.descriptor)));
        needed.insert(file.location(&Path::default()));
    }
    let mut tombstones = state.all_tombstones(place.log.as_ref());
    while let Some(tombstone) = tombstones.try_next().await? {
        let removed = tombstone.deletion_timestamp().and_then(DateTime::from_timestamp_millis);
        if removed.is_none_or(|removed| removed > limit) {
            let path = tombstone.path();
            needed.insert(Path::parse(path.as_ref()).unwrap_or_else(|_| Path::from(path.as_ref())));
        }
    }
    Ok(needed)
}

/// Whether the object is a data file or vector, by its name; folders that begin with an
/// underscore or a dot are not the table's data, unless they are partitions.
fn is_data(path: &Path) -> bool {
    let hidden = |part: &str| part.starts_with(['_', '.']) && !part.contains('=');
    let parts: Vec<_> = path.parts().collect();
    if parts.iter().any(|part| hidden(part.as_ref())) {
        return false;
    }
    path.filename().is_some_and(|name| name.ends_with(".parquet") || is_vector(name))
}

fn is_vector(name: &str) -> bool {
    name.starts_with("deletion_vector_") && name.ends_with(".bin")
}

/// Of `old`, what has been unneeded for long enough; the rest is remembered.
fn expired(
    unneeded: &Unneeded,
    old: Vec<Path>,
    now: DateTime<Utc>,
    limit: DateTime<Utc>,
) -> Vec<Path> {
    let mut known = unneeded.lock();
    let mut still = HashMap::new();
    let mut expired = Vec::new();
    for path in old {
        if !path.filename().is_some_and(is_vector) {
            expired.push(path);
            continue;
        }
        let since = known.get(&path).copied().unwrap_or(now);
        if since <= limit {
            expired.push(path);
        } else {
            still.insert(path, since);
        }
    }
    *known = still;
    expired
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_data_is_looked_at() {
        for data in ["part-1.parquet", "a=1/part-1.parquet", "_a=1/p.parquet"] {
            assert!(is_data(&Path::from(data)), "{data}");
        }
        assert!(is_data(&Path::from("deletion_vector_1.bin")));
        for other in ["_delta_log/1.checkpoint.parquet", "notes.txt", ".x/p.parquet"] {
            assert!(!is_data(&Path::from(other)), "{other}");
        }
    }

    #[test]
    fn a_vectors_time_runs_from_when_it_was_found() {
        let unneeded = Unneeded::default();
        let vector = || vec![Path::from("deletion_vector_1.bin"), Path::from("p.parquet")];
        let now = Utc::now();
        let hour = TimeDelta::hours(1);
        assert_eq!(expired(&unneeded, vector(), now, now - hour), [Path::from("p.parquet")]);
        assert_eq!(expired(&unneeded, vector(), now + hour, now).len(), 2);
        assert!(unneeded.lock().is_empty());
    }
}
