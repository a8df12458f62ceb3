//! Recorded epoch plans: what each epoch reads, written before it is read.
//!
//! One small JSON object an epoch under `_tidemill/queries/<id>/epochs/`, made
//! by a conditional put: of two engines that believe they run the query, only
//! one can record an epoch. Entry 0 holds where the query starts; it reads
//! nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};

use crate::epoch::EpochPlan;
use crate::error::{Error, Result};
use crate::storage::Warehouse;

/// Version of the file format.
const FORMAT: u32 = 1;
/// How many committed plans are kept behind the newest, for people to look at.
const KEPT: u64 = 16;

#[derive(Debug, Serialize, Deserialize)]
struct Recorded {
    format: u32,
    plan: EpochPlan,
}

/// The log of one query's epoch plans.
#[derive(Debug, Clone)]
pub struct Progress {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    /// Epochs before this one are gone already; 0: not known.
    pruned: Arc<AtomicU64>,
}

impl Progress {
    pub fn new(warehouse: &Warehouse, query: &str) -> Self {
        Self {
            store: Arc::clone(warehouse.store()),
            folder: Warehouse::internal(&["queries", query, "epochs"]),
            pruned: Arc::default(),
        }
    }

    fn path(&self, epoch: u64) -> Path {
        self.folder.clone().join(format!("{epoch:020}.json"))
    }

    /// Records the plan of an epoch.
    ///
    /// # Errors
    /// [`Error::Fenced`] when the epoch is recorded already: another engine
    /// runs this query.
    pub async fn record(&self, plan: &EpochPlan) -> Result<()> {
        let recorded = Recorded { format: FORMAT, plan: plan.clone() };
        let bytes = serde_json::to_vec(&recorded)
            .map_err(|error| Error::internal(format!("an epoch plan is no JSON: {error}")))?;
        let create = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&self.path(plan.epoch), PutPayload::from(bytes), create).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => self.recorded_already(plan).await,
            Err(error) => Err(error.into()),
        }
    }

    /// A put whose answer was lost leaves our own plan; anything else is another engine's.
    async fn recorded_already(&self, plan: &EpochPlan) -> Result<()> {
        if self.load(plan.epoch).await?.as_ref() == Some(plan) {
            return Ok(());
        }
        Err(Error::Fenced { holder: "another engine".into(), token: plan.epoch })
    }

    /// The recorded plan of `epoch`, if there is one.
    pub async fn load(&self, epoch: u64) -> Result<Option<EpochPlan>> {
        let path = self.path(epoch);
        let bytes = match self.store.get(&path).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let corrupt = |message: String| Error::Corrupt { path: path.to_string(), message };
        let recorded: Recorded =
            serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
        if recorded.format != FORMAT {
            return Err(corrupt(format!(
                "format {} is not known to this version (it reads {FORMAT}); run the version \
                 that wrote it",
                recorded.format
            )));
        }
        Ok(Some(recorded.plan))
    }

    /// Forgets plans that recovery can't need any more, a batch of them at a time:
    /// those before epoch `needed`, of which a few are kept. That one's own plan stays:
    /// it holds the positions.
    pub async fn prune(&self, needed: u64) -> Result<()> {
        let end = needed.saturating_sub(KEPT);
        let known = self.pruned.load(Relaxed);
        if end < known.saturating_add(KEPT) {
            return Ok(());
        }
        let from = match known {
            0 => self.oldest().await?.unwrap_or(end),
            known => known,
        };
        for epoch in from..end {
            match self.store.delete(&self.path(epoch)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.pruned.store(end, Relaxed);
        Ok(())
    }

    /// The first epoch that is recorded. Looked for once a run: it lists the folder.
    async fn oldest(&self) -> Result<Option<u64>> {
        let mut entries = self.store.list(Some(&self.folder));
        let mut oldest: Option<u64> = None;
        while let Some(entry) = entries.try_next().await? {
            let name = entry.location.filename().and_then(|name| name.strip_suffix(".json"));
            if let Some(epoch) = name.and_then(|name| name.parse::<u64>().ok()) {
                oldest = Some(oldest.map_or(epoch, |oldest| oldest.min(epoch)));
            }
        }
        Ok(oldest)
    }

    /// Forgets everything, when the query is dropped.
    pub async fn delete(&self) -> Result<()> {
        let entries: Vec<_> = self.store.list(Some(&self.folder)).try_collect().await?;
        for entry in entries {
            self.store.delete(&entry.location).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use object_store::memory::InMemory;

    use super::*;
    use crate::epoch::OffsetRange;

    fn progress() -> Progress {
        let url = url::Url::parse("memory:///").unwrap();
        Progress::new(&Warehouse::with_store(url, Arc::new(InMemory::new())), "q")
    }

    fn plan(epoch: u64, end: i64) -> EpochPlan {
        let ranges = BTreeMap::from([(0, OffsetRange::new(0, end))]);
        EpochPlan {
            epoch,
            timestamp_us: 7,
            sources: BTreeMap::from([("s".to_owned(), ranges)]),
            ..EpochPlan::default()
        }
    }

    #[tokio::test]
    async fn a_plan_is_recorded_once() {
        let progress = progress();
        progress.record(&plan(1, 5)).await.unwrap();
        assert_eq!(progress.load(1).await.unwrap(), Some(plan(1, 5)));
        progress.record(&plan(1, 5)).await.unwrap();
        let other = progress.record(&plan(1, 6)).await.unwrap_err();
        assert!(matches!(other, Error::Fenced { .. }), "{other}");
        assert_eq!(progress.load(2).await.unwrap(), None);
    }

    #[tokio::test]
    async fn pruning_keeps_what_recovery_needs() {
        let progress = progress();
        for epoch in 0..=64 {
            progress.record(&plan(epoch, 5)).await.unwrap();
            progress.prune(epoch).await.unwrap();
        }
        assert_eq!(progress.load(47).await.unwrap(), None);
        for epoch in 48..=64 {
            assert!(progress.load(epoch).await.unwrap().is_some(), "epoch {epoch}");
        }
    }
}
