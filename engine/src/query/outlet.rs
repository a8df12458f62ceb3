//! The writing half of a query: execute, stage, commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::RecordBatch;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::execute_stream;

use crate::epoch::EpochPlan;
use crate::error::{Error, Result};
use crate::plan::{ContinuousPlan, Input};
use crate::query::intake::EpochRows;
use crate::query::isolate;
use crate::query::{QuerySpec, Surroundings};
use crate::sink::{Sink, Staged};
use crate::source::{Chunk, OnError, Rejected, Rows};

/// An epoch that is staged and waits for its commit.
pub struct Processed {
    pub epoch: u64,
    staged: Staged,
    rows_read: u64,
    rows_rejected: u64,
}

/// Executes epochs over one plan.
pub struct Outlet {
    plan: ContinuousPlan,
    context: Arc<TaskContext>,
    sink: Arc<dyn Sink>,
    name: String,
    with: Surroundings,
}

/// Commits epochs in their order.
pub struct Committer {
    sink: Arc<dyn Sink>,
    with: Surroundings,
}

impl Outlet {
    pub(super) fn new(
        plan: ContinuousPlan,
        spec: &QuerySpec,
        with: Surroundings,
        committed: u64,
    ) -> Self {
        with.metrics.epoch.store(committed, Relaxed);
        let context = Arc::new(TaskContext::from(&spec.state));
        Self { plan, context, sink: Arc::clone(&spec.sink), name: spec.name.clone(), with }
    }

    pub(super) fn committer(&self) -> Committer {
        Committer { sink: Arc::clone(&self.sink), with: self.with.clone() }
    }

    /// Executes the plan over the rows and stages the result. Bad records are
    /// put where `on_error` says, durably, before the epoch can be committed.
    pub(super) async fn process(&mut self, input: EpochRows) -> Result<Processed> {
        let EpochRows { plan, mut rows } = input;
        let mut rejected = take_rejected(&mut rows);
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
        let rows_rejected = rejected.values().map(|list| list.len() as u64).sum();
        self.settle_rejected(&plan, rejected).await?;
        Ok(Processed {
            epoch: plan.epoch,
            staged,
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
        Ok(execute_stream(physical, Arc::clone(&self.context))?)
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
        let mut found = BTreeMap::new();
        for (name, rows) in rows.iter_mut() {
            let Some(input) = self.plan.inputs().get(name).cloned() else { continue };
            let physical = self.plan.physical(plan).await?;
            let trial = isolate::Trial { input: &input, physical, context: &self.context };
            let bad = trial.split(&mut rows.chunks).await?;
            input.slot.clear();
            if !bad.is_empty() {
                found.insert(name.clone(), bad);
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
        let Processed { epoch, staged, rows_read, rows_rejected } = processed;
        let committed = self.sink.commit(epoch, staged).await?;
        let metrics = &self.with.metrics;
        metrics.rows_rejected.fetch_add(rows_rejected, Relaxed);
        metrics.committed(epoch, rows_read, committed.rows, self.with.clock.now_us());
        // The epoch is committed: a plan that can't be forgotten now is forgotten later.
        if let Err(error) = self.with.progress.prune(epoch).await {
            tracing::warn!(%error, "could not remove old epoch plans");
        }
        Ok(())
    }
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
