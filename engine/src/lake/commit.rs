//! Writing commits and following those of others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use deltalake::DeltaTable;
use deltalake::kernel::transaction::{CommitData, TransactionError};
use deltalake::kernel::{Action, Add, Remove, Transaction};
use deltalake::logstore::{CommitOrBytes, commit_uri_from_version};
use deltalake::protocol::{DeltaOperation, OutputMode, SaveMode};
use object_store::ObjectStoreExt;
use roaring::RoaringBitmap;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::lake::files::DataFile;
use crate::lake::log::{self, Commit};
use crate::lake::mask;
use crate::lake::snapshot::Snapshot;
use crate::lake::{LakeTable, Txn};

/// Others may be faster this often before a commit gives up.
const ATTEMPTS: usize = 50;
/// Snapshots of late versions that stay at hand.
const RECENT: usize = 64;
/// After so long without a look at the log, its newest known commit is checked to be there still.
pub(super) const STALE: Duration = Duration::from_secs(60);
/// Checkpoints between two clean-ups of the log and the files: a clean-up lists them.
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
    pub(super) async fn write_commit(&self, head: &mut Head, pending: Pending) -> Result<Landed> {
        for _ in 0..ATTEMPTS {
            let version = self.version() + 1;
            let entry = CommitOrBytes::LogBytes(pending.bytes.clone());
            let written = self.place.log.write_commit_entry(version, entry, Uuid::new_v4()).await;
            let Err(error) = written else {
                self.advance(head, vec![pending.into_commit(version)]);
                self.checkpoint_if_due(version);
                return Ok(Landed { version, ours: true });
            };
            // Someone else's commit, or an answer that was lost: the log knows.
            let commits = log::commits_after(&self.place.log, version - 1).await?;
            let own = commits.iter().find_map(|commit| pending.landed(commit));
            let altered = commits.iter().any(|commit| commit.altered);
            let overtaken = commits.iter().any(|commit| pending.overtaken_by(commit));
            self.catch_up(head, commits).await?;
            if let Some(landed) = own {
                return Ok(landed);
            }
            match error {
                _ if altered => return Err(self.altered()),
                _ if overtaken => return Err(mask::conflict()),
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
        let running = self.checkpointing.clone();
        let cleanup = cleanup.then(|| self.unneeded.clone());
        log::start_checkpoint(self.place.clone(), version, cleanup, running);
    }
}

/// Where a commit came to lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Landed {
    pub version: u64,
    /// It is this very commit, not an earlier one of the same epoch.
    pub ours: bool,
}

/// What a commit does to a table's files.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// New files first.
    pub adds: Vec<(Add, Option<Arc<RoaringBitmap>>)>,
    pub removes: Vec<Remove>,
    /// The rows stay the same.
    pub rearranges: bool,
}

impl Change {
    pub fn is_empty(&self) -> bool {
        self.adds.is_empty() && self.removes.is_empty()
    }

    fn operation(&self, txn: Option<(&str, i64)>) -> DeltaOperation {
        match txn {
            _ if self.rearranges => DeltaOperation::Optimize { predicate: None, target_size: 0 },
            Some((query_id, epoch_id)) if !self.removes.is_empty() => {
                DeltaOperation::StreamingUpdate {
                    output_mode: OutputMode::Update,
                    query_id: query_id.into(),
                    epoch_id,
                }
            }
            _ => DeltaOperation::Write {
                mode: SaveMode::Append,
                partition_by: None,
                predicate: None,
            },
        }
    }
}

/// A commit that has no version yet.
pub(super) struct Pending {
    bytes: Bytes,
    added: Vec<DataFile>,
    removed: HashSet<String>,
    /// A file that no other commit adds.
    own_path: Option<String>,
    txn: Option<(String, i64)>,
}

impl Pending {
    pub fn new(change: Change, txn: Option<Txn>) -> Result<Self> {
        let txn = match txn {
            Some(Txn { app_id, version }) => {
                let version = i64::try_from(version)
                    .map_err(|_| Error::internal("an epoch past the largest number"))?;
                Some((app_id, version))
            }
            None => None,
        };
        let operation = change.operation(txn.as_ref().map(|(id, epoch)| (id.as_str(), *epoch)));
        let now = chrono::Utc::now().timestamp_millis();
        let transaction = txn
            .iter()
            .map(|(id, epoch)| Transaction::new_with_last_update(id, *epoch, Some(now)))
            .collect();
        let removed = change.removes.iter().map(|remove| remove.path.clone()).collect();
        let own_path = change.adds.first().map(|(add, _)| add.path.clone());
        let removes = change.removes.into_iter().map(Action::Remove);
        let adds = change.adds.iter().map(|(add, _)| Action::Add(add.clone()));
        let actions = removes.chain(adds).collect();
        let data = CommitData::new(actions, operation, HashMap::new(), transaction);
        let bytes = data.get_bytes().map_err(deltalake::DeltaTableError::from)?;
        let files = change.adds.into_iter();
        let added = files.map(|(add, rows)| DataFile::with_vector(add, rows)).collect();
        let own_path = own_path.filter(|path| !HashSet::contains(&removed, path));
        Ok(Self { bytes, added, removed, own_path, txn })
    }

    /// Where this commit lies, if `commit` is it: it holds our `txn` (or a later one),
    /// or our files.
    fn landed(&self, commit: &Commit) -> Option<Landed> {
        let held =
            |(id, epoch): &(String, i64)| commit.txns.get(id).is_some_and(|held| held >= epoch);
        let own = self.own_path.as_ref();
        let ours = own.is_some_and(|own| commit.added.iter().any(|added| added.path == *own));
        let version = commit.version;
        (ours || self.txn.as_ref().is_some_and(held)).then_some(Landed { version, ours })
    }

    /// Whether `commit` did something to the files that this one builds on.
    fn overtaken_by(&self, commit: &Commit) -> bool {
        !self.removed.is_disjoint(&commit.removed)
    }

    fn into_commit(self, version: u64) -> Commit {
        let txns = self.txn.into_iter().collect();
        Commit { version, added: self.added, removed: self.removed, txns, altered: false }
    }
}
