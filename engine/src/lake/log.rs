//! The Delta log of one table: loading it once, then following it commit by commit.
//!
//! Neither a commit nor a refresh lists the log's folder or reads a checkpoint
//! again: the next commit has a known name, so it is written, or looked for, by
//! that name alone.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use deltalake::DeltaTable;
use deltalake::kernel::Action;
use deltalake::logstore::{LogStoreRef, commit_uri_from_version, get_actions};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::runtime::Handle;

use crate::error::{Error, Result};
use crate::lake::files::{DataFile, FileSet};
use crate::lake::layout::{Layout, Place};
use crate::lake::vacuum::{self, Unneeded};

/// What one commit did.
#[derive(Debug, Default)]
pub(super) struct Commit {
    pub version: u64,
    pub added: Vec<DataFile>,
    pub removed: HashSet<String>,
    /// `txn` versions by application.
    pub txns: HashMap<String, i64>,
    /// It altered columns, properties or protocol.
    pub altered: bool,
}

impl Commit {
    fn new(version: u64, actions: Vec<Action>) -> Self {
        let mut commit = Commit { version, ..Commit::default() };
        for action in actions {
            match action {
                Action::Add(add) => commit.added.push(add.into()),
                Action::Remove(remove) => {
                    commit.removed.insert(remove.path);
                }
                Action::Txn(txn) => {
                    commit.txns.insert(txn.app_id, txn.version);
                }
                Action::Metadata(_) | Action::Protocol(_) => commit.altered = true,
                _ => {}
            }
        }
        commit
    }

    pub fn apply(self, files: &FileSet) -> FileSet {
        files.after(&self.removed, self.added)
    }
}

/// The commits after `version`, in order, up to the newest.
pub(super) async fn commits_after(log: &LogStoreRef, version: u64) -> Result<Vec<Commit>> {
    let mut commits = Vec::new();
    let mut next = version + 1;
    while let Some(bytes) = log.read_commit_entry(next).await? {
        commits.push(Commit::new(next, get_actions(next, &bytes)?));
        next += 1;
    }
    Ok(commits)
}

/// Loads the table's state from its log, as of `version` or the newest.
pub(super) async fn load(place: &Place, version: Option<u64>) -> Result<DeltaTable> {
    let mut table = DeltaTable::new(place.log.clone());
    let loaded = match version {
        Some(version) => table.load_version(version).await,
        None => table.load().await,
    };
    match loaded {
        Ok(()) => Ok(table),
        Err(deltalake::DeltaTableError::NotATable(_)) => Err(Error::invalid_hint(
            format!("there is no Delta table at {}", place.url),
            "check the location, or name columns to create the table",
        )),
        Err(error) => Err(error.into()),
    }
}

/// Layout and files of a loaded state.
pub(super) fn contents(place: &Place, table: &DeltaTable) -> Result<(Layout, FileSet)> {
    let state = table.snapshot()?;
    let files = state.log_data().iter().map(DataFile::from).collect();
    Ok((Layout::new(place.clone(), state), files))
}

/// Whether a table lies at the place; looks for its two likeliest files before it lists.
pub(super) async fn is_table(place: &Place) -> Result<bool> {
    let store = place.log.object_store(None);
    let likely = [Path::from("_delta_log/_last_checkpoint"), commit_uri_from_version(Some(0))];
    for path in likely {
        match store.head(&path).await {
            Ok(_) => return Ok(true),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(place.log.is_delta_table_location().await?)
}

/// Starts a checkpoint of `version` in the background; `running` is cleared when it ends.
///
/// It runs on a thread of its own for all tables: delta_kernel blocks while it
/// works, and its executor panics if the runtime that it borrowed shuts down.
pub(super) fn start_checkpoint(
    place: Place,
    version: u64,
    cleanup: Option<Arc<Unneeded>>,
    running: Arc<AtomicBool>,
) {
    static MAINTENANCE: OnceLock<Option<Handle>> = OnceLock::new();
    let Some(maintenance) = MAINTENANCE.get_or_init(maintenance_thread) else {
        return;
    };
    maintenance.spawn(async move {
        if let Err(error) = checkpoint(&place, version, cleanup.as_deref()).await {
            tracing::warn!(table = place.name, version, %error, "no checkpoint of the log");
        }
        running.store(false, Ordering::Release);
    });
}

fn maintenance_thread() -> Option<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let started = runtime.and_then(|runtime| {
        let handle = runtime.handle().clone();
        let forever = move || runtime.block_on(std::future::pending::<()>());
        std::thread::Builder::new().name("lake-maintenance".into()).spawn(forever)?;
        Ok(handle)
    });
    started.inspect_err(|error| tracing::warn!(%error, "logs get no checkpoints")).ok()
}

/// Writes a checkpoint of `version`, so that opening the table stays cheap, and,
/// if asked, deletes commits and files that the table's retention has let go.
async fn checkpoint(place: &Place, version: u64, cleanup: Option<&Unneeded>) -> Result<()> {
    let table = load(place, Some(version)).await?;
    deltalake::checkpoints::create_checkpoint(&table, None).await?;
    let Some(unneeded) = cleanup else { return Ok(()) };
    if table.snapshot()?.table_config().enable_expired_log_cleanup.unwrap_or(true) {
        deltalake::checkpoints::cleanup_metadata(&table, None).await?;
    }
    if !Layout::new(place.clone(), table.snapshot()?).managed {
        return Ok(());
    }
    // Files of commits since this version are too young.
    let retention = vacuum::retention(&table)?;
    let deleted = vacuum::run(place, &table, unneeded, retention).await?;
    tracing::debug!(table = place.name, deleted, "vacuumed");
    Ok(())
}
