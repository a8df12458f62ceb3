//! The writing half of a query: execute, stage, commit; and what its operators
//! remember from epoch to epoch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::epoch::EpochPlan;
use crate::error::{Error, Result};
use crate::operator::complete::complete;
use crate::plan::{ContinuousPlan, Input};
use crate::query::intake::{EpochRows, IdleTimer};
use crate::query::isolate;
use crate::query::watermarks::{Marks, Watermarks};
use crate::query::{QuerySpec, Surroundings};
use crate::sink::{Sink, Staged};
use crate::source::{Chunk, OnError, Rejected, Rows};
use crate::state::TableImage;

/// Snapshots that are kept: the newest, and one before it.
const SNAPSHOTS: usize = 2;

/// An epoch that is staged and waits for its commit.
pub struct Processed {
    pub epoch: u64,
    staged: Staged,
    /// Rows that came too late, where they are kept.
    late: Option<Staged>,
    /// The state as of this epoch, if a snapshot of it is due.
    snapshot: Option<Image>,
    rows_read: u64,
    rows_rejected: u64,
}

/// State that is to be saved once its epoch is committed.
struct Image {
    tables: BTreeMap<String, TableImage>,
    extra: Extra,
}

/// What a snapshot keeps beside the operators' tables.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Extra {
    pub shards: usize,
    pub marks: Marks,
}

/// Executes epochs over one plan.
pub struct Outlet {
    plan: ContinuousPlan,
    context: Arc<TaskContext>,
    sink: Arc<dyn Sink>,
    late: Option<Arc<dyn Sink>>,
    name: String,
    with: Surroundings,
    watermarks: Watermarks,
    idle: Arc<IdleTimer>,
    /// How often the state is saved.
    snapshot_interval: Duration,
    saved_at: Instant,
    fingerprint: Arc<str>,
    saving: Saving,
}

/// The snapshot that is being written, if one is: beside the epochs that follow.
type Saving = Arc<tokio::sync::Mutex<JoinSet<Result<()>>>>;

/// Commits epochs in their order.
pub struct Committer {
    sink: Arc<dyn Sink>,
    late: Option<Arc<dyn Sink>>,
    with: Surroundings,
    /// Of the plan, where it keeps state.
    fingerprint: Option<Arc<str>>,
    saving: Saving,
}

impl Outlet {
    pub(super) fn new(
        plan: ContinuousPlan,
        spec: &QuerySpec,
        with: Surroundings,
        committed: u64,
        (marks, idle): (Marks, Arc<IdleTimer>),
    ) -> Result<Self> {
        with.metrics.epoch.store(committed, Relaxed);
        let context = Arc::new(TaskContext::from(&spec.state));
        let watermarks = Watermarks::new(plan.inputs(), &spec.state, marks)?;
        idle.set(watermarks.moves_at(plan.inputs()));
        Ok(Self {
            watermarks,
            idle,
            fingerprint: plan.fingerprint().into(),
            plan,
            context,
            sink: Arc::clone(&spec.sink),
            late: spec.late.clone(),
            name: spec.name.clone(),
            with,
            snapshot_interval: spec.options.snapshot_interval,
            saved_at: Instant::now(),
            saving: Saving::default(),
        })
    }

    pub(super) fn committer(&self) -> Committer {
        Committer {
            sink: Arc::clone(&self.sink),
            late: self.late.clone(),
            with: self.with.clone(),
            fingerprint: self.plan.states().map(|_| Arc::clone(&self.fingerprint)),
            saving: Arc::clone(&self.saving),
        }
    }

    /// Brings the state up to an epoch that was committed already.
    pub(super) async fn replay(&mut self, input: EpochRows) -> Result<()> {
        let EpochRows { plan, mut rows } = input;
        take_rejected(&mut rows);
        self.set_moment(&plan, &rows)?;
        match self.drain(&plan, &rows).await {
            Err(error) if isolate::is_data_error(&error) => {
                self.isolate(&plan, &mut rows).await?;
                self.drain(&plan, &rows).await
            }
            other => other,
        }?;
        self.settle_state().await
    }

    /// Executes the plan and throws the result away.
    async fn drain(&mut self, plan: &EpochPlan, rows: &BTreeMap<String, Rows>) -> Result<()> {
        let mut stream = self.start(plan, rows).await?;
        while stream.try_next().await?.is_some() {}
        self.clear();
        Ok(())
    }

    fn set_moment(&mut self, plan: &EpochPlan, rows: &BTreeMap<String, Rows>) -> Result<()> {
        let Some(states) = self.plan.states() else { return Ok(()) };
        let moment = self.watermarks.advance(plan, self.plan.inputs(), rows)?;
        self.idle.set(self.watermarks.moves_at(self.plan.inputs()));
        let least = moment.watermarks.values().map(|mark| mark.after).min();
        self.with.metrics.watermark_us.store(least.unwrap_or(i64::MIN), Relaxed);
        states.set_moment(moment);
        Ok(())
    }

    /// Makes the changes of the epoch that was executed.
    async fn settle_state(&self) -> Result<()> {
        let Some(states) = self.plan.states() else { return Ok(()) };
        states.apply().await?;
        let size = states.size().await;
        let metrics = &self.with.metrics;
        metrics.state_rows.store(size.rows, Relaxed);
        metrics.state_bytes.store(size.bytes, Relaxed);
        metrics.rows_late.store(size.late, Relaxed);
        Ok(())
    }

    /// The state to be saved with this epoch, if it is time and the one before is saved.
    async fn snapshot(&mut self) -> Result<Option<Image>> {
        let Some(states) = self.plan.states() else { return Ok(None) };
        if self.saved_at.elapsed() < self.snapshot_interval || self.is_saving().await? {
            return Ok(None);
        }
        self.saved_at = Instant::now();
        let extra = Extra { shards: states.shards(), marks: self.watermarks.marks().clone() };
        Ok(Some(Image { tables: states.images().await?, extra }))
    }

    /// Whether a snapshot is being written. One that failed fails the query.
    async fn is_saving(&self) -> Result<bool> {
        let mut saving = self.saving.lock().await;
        while let Some(ended) = saving.try_join_next() {
            ended.map_err(|error| lost(&error))??;
        }
        Ok(!saving.is_empty())
    }

    /// Waits for the snapshot that is being written.
    pub(super) async fn saved(&self) -> Result<()> {
        while let Some(ended) = self.saving.lock().await.join_next().await {
            ended.map_err(|error| lost(&error))??;
        }
        Ok(())
    }

    /// Executes the plan over the rows and stages the result. Bad records are
    /// put where `on_error` says, durably, before the epoch can be committed.
    pub(super) async fn process(&mut self, input: EpochRows) -> Result<Processed> {
        let EpochRows { plan, mut rows } = input;
        let mut rejected = take_rejected(&mut rows);
        self.set_moment(&plan, &rows)?;
        let staged = match self.stage(&plan, &rows).await {
            Err(error) if isolate::is_data_error(&error) => {
                tracing::debug!(query = self.name, %error, "looking for the rows that fail");
                for (source, found) in self.isolate(&plan, &mut rows).await? {
                    rejected.entry(source).or_default().extend(found);
                }
                self.stage(&plan, &rows).await?
            }
            other => other?,
        };
        let late = self.stage_late(&plan, &rows).await?;
        let rows_rejected = rejected.values().map(|list| list.len() as u64).sum();
        self.settle_rejected(&plan, rejected).await?;
        self.settle_state().await?;
        Ok(Processed {
            epoch: plan.epoch,
            staged,
            late,
            snapshot: self.snapshot().await?,
            rows_read: rows.values().map(|rows| rows.len() as u64).sum(),
            rows_rejected,
        })
    }

    async fn stage(&mut self, plan: &EpochPlan, rows: &BTreeMap<String, Rows>) -> Result<Staged> {
        let stream = self.start(plan, rows).await?;
        let staged = self.sink.stage(stream).await;
        self.clear();
        staged
    }

    /// Stages the rows that the operators left out, if they are kept.
    async fn stage_late(
        &self,
        plan: &EpochPlan,
        rows: &BTreeMap<String, Rows>,
    ) -> Result<Option<Staged>> {
        let (Some(states), Some(sink)) = (self.plan.states(), &self.late) else { return Ok(None) };
        if !states.left_out().await {
            return Ok(None);
        }
        let moment = states.moment();
        let late = self.plan.late_rows(plan, rows, &moment, &self.context).boxed().await?;
        let Some(first) = late.first() else { return Ok(None) };
        let schema = first.schema();
        let rows = futures::stream::iter(late.into_iter().map(Ok));
        sink.stage(Box::pin(RecordBatchStreamAdapter::new(schema, rows))).await.map(Some)
    }

    /// Fills the slots and starts the plan.
    async fn start(
        &mut self,
        plan: &EpochPlan,
        rows: &BTreeMap<String, Rows>,
    ) -> Result<SendableRecordBatchStream> {
        for (name, input) in self.plan.inputs() {
            let chunks = rows.get(name).map_or(&[][..], |rows| &rows.chunks);
            fill(input, chunks);
        }
        let physical = self.plan.physical(plan).await?;
        let rows = execute_stream(Arc::clone(&physical), Arc::clone(&self.context))?;
        if self.plan.states().is_none() {
            return Ok(rows);
        }
        let context = Arc::clone(&self.context);
        let rest = stream::once(async move { complete(physical, context).await })
            .filter_map(|ended| async move { ended.err().map(|error| Err(error.into())) });
        Ok(Box::pin(RecordBatchStreamAdapter::new(rows.schema(), rows.chain(rest))))
    }

    fn clear(&self) {
        self.plan.inputs().values().for_each(|input| input.slot.clear());
    }

    /// Finds the rows on which the plan fails and takes them out of `rows`.
    async fn isolate(
        &mut self,
        plan: &EpochPlan,
        rows: &mut BTreeMap<String, Rows>,
    ) -> Result<BTreeMap<String, Vec<Rejected>>> {
        self.clear();
        if let Some(states) = self.plan.states() {
            states.discard().await;
        }
        let mut found: BTreeMap<String, Vec<Rejected>> = BTreeMap::new();
        for (name, rows) in rows.iter_mut() {
            let Some(input) = self.plan.inputs().get(name).cloned() else { continue };
            for physical in isolate::stateless(self.plan.physical(plan).await?) {
                let sink = self.plan.states().is_none().then_some(&*self.sink);
                let trial =
                    isolate::Trial { input: &input, physical, sink, context: &self.context };
                let bad = trial.split(&mut rows.chunks).await?;
                input.slot.clear();
                if !bad.is_empty() {
                    found.entry(name.clone()).or_default().extend(bad);
                }
            }
        }
        Ok(found)
    }

    async fn settle_rejected(
        &self,
        plan: &EpochPlan,
        rejected: BTreeMap<String, Vec<Rejected>>,
    ) -> Result<()> {
        for (name, list) in rejected {
            let Some(first) = list.first() else { continue };
            let on_error = self.plan.inputs().get(&name).map(|i| i.declared.on_error);
            match (on_error.unwrap_or_default(), self.with.dead_letters.get(&name)) {
                (OnError::Fail, _) => return Err(bad_record(&name, first)),
                (OnError::DeadLetter, Some(letters)) => {
                    letters.record(list, plan.timestamp_us).await?;
                }
                (OnError::DeadLetter | OnError::Skip, _) => {
                    tracing::warn!(
                        query = self.name,
                        source = name,
                        records = list.len(),
                        first = first.error,
                        "skipped bad records"
                    );
                }
            }
        }
        Ok(())
    }
}

impl Committer {
    /// The one commit point of an epoch.
    pub async fn commit(&self, processed: Processed) -> Result<()> {
        if let Some(lease) = &self.with.lease {
            lease.check().await?;
        }
        let Processed { epoch, staged, late, snapshot, rows_read, rows_rejected } = processed;
        // Before the epoch, as dead letters are: a run after a crash finds that they are there.
        if let (Some(sink), Some(late)) = (&self.late, late) {
            sink.commit(epoch, late).await?;
        }
        let committed = self.sink.commit(epoch, staged).await?;
        let kept = self.save(epoch, snapshot).await?;
        let metrics = &self.with.metrics;
        metrics.rows_rejected.fetch_add(rows_rejected, Relaxed);
        metrics.committed(epoch, rows_read, committed.rows, self.with.clock.now_us());
        // The epoch is committed: a plan that can't be forgotten now is forgotten later.
        if let Err(error) = self.with.progress.prune(kept).await {
            tracing::warn!(%error, "could not remove old epoch plans");
        }
        Ok(())
    }

    /// Begins to save the state; answers from which epoch on plans are needed to rebuild it.
    async fn save(&self, epoch: u64, image: Option<Image>) -> Result<u64> {
        let Some(fingerprint) = &self.fingerprint else { return Ok(epoch) };
        if let Some(image) = image {
            let (with, fingerprint) = (self.with.clone(), Arc::clone(fingerprint));
            let save = async move { save(&with, epoch, &fingerprint, image).boxed().await };
            self.saving.lock().await.spawn(save);
        }
        Ok(self.with.metrics.snapshot.load(Relaxed))
    }
}

async fn save(with: &Surroundings, epoch: u64, fingerprint: &str, image: Image) -> Result<()> {
    let extra = serde_json::to_value(image.extra)
        .map_err(|error| Error::internal(format!("marks are no JSON: {error}")))?;
    with.snapshots.save(epoch, fingerprint, image.tables, extra).await?;
    with.snapshots.prune(SNAPSHOTS).await?;
    with.metrics.snapshot.store(epoch, Relaxed);
    Ok(())
}

fn lost(error: &tokio::task::JoinError) -> Error {
    Error::internal(format!("the writer of a snapshot died: {error}"))
}

/// Puts the rows of `chunks` where the plan's scans find them.
pub(super) fn fill(input: &Input, chunks: &[Chunk]) {
    let batches: Vec<RecordBatch> = chunks.iter().map(|chunk| chunk.batch.clone()).collect();
    input.slot.fill(input.projection.clone(), batches);
}

fn take_rejected(rows: &mut BTreeMap<String, Rows>) -> BTreeMap<String, Vec<Rejected>> {
    let each = rows.iter_mut().filter(|(_, rows)| !rows.rejected.is_empty());
    each.map(|(name, rows)| (name.clone(), std::mem::take(&mut rows.rejected))).collect()
}

fn bad_record(source: &str, record: &Rejected) -> Error {
    Error::BadRecord {
        name: source.to_owned(),
        partition: record.partition,
        offset: record.offset,
        message: record.error.clone(),
    }
}
