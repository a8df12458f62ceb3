//! Writing commits and following those of others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use deltalake::DeltaTable;
use deltalake::kernel::transaction::{CommitData, TransactionError};
use deltalake::kernel::{Action, Transaction};
use deltalake::logstore::{CommitOrBytes, commit_uri_from_version};
use deltalake::protocol::{DeltaOperation, SaveMode};
use object_store::ObjectStoreExt;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::lake::files::DataFile;
use crate::lake::log::{self, Commit};
use crate::lake::snapshot::Snapshot;
use crate::lake::{LakeTable, Txn};
use crate::sink::Staged;

/// Others may be faster this often before a commit gives up.
const ATTEMPTS: usize = 50;
/// Snapshots of late versions that stay at hand.
const RECENT: usize = 64;
/// After so long without a look at the log, its newest known commit is checked to be there still.
pub(super) const STALE: Duration = Duration::from_secs(60);
/// Checkpoints between two clean-ups of the log: a clean-up lists its folder.
const CLEANUP_EVERY: u64 = 10;

/// What is known of the log beside the files.
#[derive(Debug)]
pub(super) struct Head {
    /// Last `txn` version by application; `None`: the log holds none.
    pub txns: HashMap<String, Option<i64>>,
    /// The last time that the log was seen.
    pub seen: Instant,
    /// The state that was loaded, as long as it is the current one.
    pub loaded: Option<DeltaTable>,
}

impl LakeTable {
    /// Writes the commit under the next free version.
    pub(super) async fn write_commit(&self, head: &mut Head, pending: Pending) -> Result<u64> {
        for _ in 0..ATTEMPTS {
            let version = self.version() + 1;
            let entry = CommitOrBytes::LogBytes(pending.bytes.clone());
            let written = self.place.log.write_commit_entry(version, entry, Uuid::new_v4()).await;
            let Err(error) = written else {
                self.advance(head, vec![pending.into_commit(version)]);
                self.checkpoint_if_due(version);
                return Ok(version);
            };
            // Someone else's commit, or an answer that was lost: the log knows.
            let commits = log::commits_after(&self.place.log, version - 1).await?;
            let own = commits.iter().find(|commit| pending.is(commit)).map(|own| own.version);
            let altered = commits.iter().any(|commit| commit.altered);
            self.catch_up(head, commits).await?;
            match error {
                _ if own.is_some() => return Ok(own.unwrap_or(version)),
                _ if altered => return Err(self.altered()),
                TransactionError::VersionAlreadyExists(_) => {}
                other => return Err(deltalake::DeltaTableError::from(other).into()),
            }
        }
        Err(Error::Delta(TransactionError::MaxCommitAttempts(ATTEMPTS as i32).into()))
    }

    fn altered(&self) -> Error {
        Error::invalid_hint(
            format!("the table \"{}\" was altered while rows were written to it", self.name()),
            "run the statement again",
        )
    }

    /// Applies the commits that the log has beyond what is known.
    pub(super) async fn follow(&self, head: &mut Head) -> Result<()> {
        let version = self.version();
        if head.seen.elapsed() > STALE {
            // A log cleaned up past us would look as if nothing had happened.
            let newest = commit_uri_from_version(Some(version));
            match self.place.log.object_store(None).head(&newest).await {
                Err(object_store::Error::NotFound { .. }) => return self.reload(head).await,
                other => other?,
            };
        }
        let commits = log::commits_after(&self.place.log, version).await?;
        self.catch_up(head, commits).await
    }

    async fn catch_up(&self, head: &mut Head, commits: Vec<Commit>) -> Result<()> {
        if commits.iter().any(|commit| commit.altered) {
            return self.reload(head).await;
        }
        self.advance(head, commits);
        Ok(())
    }

    async fn reload(&self, head: &mut Head) -> Result<()> {
        let loaded = log::load(&self.place, None).await?;
        let (layout, files) = log::contents(&self.place, &loaded)?;
        let version = loaded.snapshot()?.version();
        head.txns.clear();
        head.seen = Instant::now();
        head.loaded = Some(loaded);
        self.publish(Snapshot::new(version, Arc::new(layout), files));
        Ok(())
    }

    fn advance(&self, head: &mut Head, commits: Vec<Commit>) {
        head.seen = Instant::now();
        for commit in commits {
            let current = self.current();
            let version = commit.version;
            for (app_id, txn) in &commit.txns {
                head.txns.insert(app_id.clone(), Some(*txn));
            }
            head.loaded = None;
            self.publish(current.next(version, commit.apply(&current.files)));
        }
    }

    fn publish(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        let mut recent = self.recent.lock();
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(snapshot.clone());
        let version = snapshot.version;
        *self.current.write() = snapshot;
        self.version.send_replace(version);
    }

    pub(super) async fn txn(&self, head: &mut Head, app_id: &str) -> Result<Option<u64>> {
        let known = match head.txns.get(app_id) {
            Some(known) => *known,
            None => {
                let loaded = match head.loaded.take() {
                    Some(loaded) => loaded,
                    None => log::load(&self.place, Some(self.version())).await?,
                };
                let log = self.place.log.as_ref();
                let found = loaded.snapshot()?.transaction_version(log, app_id).await?;
                head.loaded = Some(loaded);
                head.txns.insert(app_id.into(), found);
                found
            }
        };
        Ok(known.and_then(|version| u64::try_from(version).ok()))
    }

    /// Checkpoints the log in the background, so that nobody waits for it.
    fn checkpoint_if_due(&self, version: u64) {
        let interval = self.current().layout.checkpoint_interval;
        if !version.is_multiple_of(interval) || self.checkpointing.swap(true, Ordering::AcqRel) {
            return;
        }
        let cleanup = version.is_multiple_of(interval.saturating_mul(CLEANUP_EVERY));
        let (place, running) = (self.place.clone(), self.checkpointing.clone());
        log::start_checkpoint(place, version, cleanup, running);
    }
}

/// A commit that has no version yet.
pub(super) struct Pending {
    bytes: Bytes,
    added: Vec<DataFile>,
    txn: Option<Txn>,
}

impl Pending {
    pub fn new(staged: Staged, txn: Option<Txn>) -> Result<Self> {
        let added = staged.adds.iter().cloned().map(DataFile::from).collect();
        let actions = staged.adds.into_iter().map(Action::Add).collect();
        let transactions = match &txn {
            Some(txn) => {
                let version = i64::try_from(txn.version)
                    .map_err(|_| Error::internal("an epoch past the largest number"))?;
                let now = chrono::Utc::now().timestamp_millis();
                vec![Transaction::new_with_last_update(&txn.app_id, version, Some(now))]
            }
            None => Vec::new(),
        };
        let operation =
            DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
        let data = CommitData::new(actions, operation, HashMap::new(), transactions);
        let bytes = data.get_bytes().map_err(deltalake::DeltaTableError::from)?;
        Ok(Self { bytes, added, txn })
    }

    /// Whether `commit` is this one: it holds our `txn` (or a later one), or our files.
    fn is(&self, commit: &Commit) -> bool {
        let txn = self.txn.as_ref().is_some_and(|txn| {
            commit.txns.get(&txn.app_id).is_some_and(|held| i128::from(*held) >= txn.version.into())
        });
        let files = self
            .added
            .first()
            .is_some_and(|own| commit.added.iter().any(|added| added.path == own.path));
        txn || files
    }

    fn into_commit(self, version: u64) -> Commit {
        let txns = self.txn.into_iter().map(|txn| (txn.app_id, txn.version as i64)).collect();
        Commit { version, added: self.added, removed: HashSet::new(), txns, altered: false }
    }
}
