//! One continuous query: recover, then one epoch after the other.
//!
//! ```text
//!            Intake                                  Outlet
//!  plan ─► record ─► read+decode ── EpochRows ──► execute ─► stage ─► commit
//!  (offsets, time)   (sources)      (channel)     (DataFusion) (sink)  (one Delta commit)
//! ```
//!
//! [`Query::step`] walks one epoch from end to end. [`Query::run`] overlaps
//! them: while epoch N is executed and committed, N+1 is planned, recorded and
//! read. Commits stay in order, and a crash anywhere leaves recorded plans that
//! are run again exactly as they are.

pub mod intake;
pub mod isolate;
pub mod outlet;
pub mod watermarks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::dead_letter::DeadLetters;
use crate::epoch::Ranges;
use crate::error::{Error, Result};
use crate::lease::Lease;
use crate::metrics::QueryMetrics;
use crate::plan::{ContinuousPlan, PlanOptions};
use crate::progress::Progress;
use crate::query::intake::{EpochRows, IdleTimer, Intake};
use crate::query::outlet::{Extra, Outlet};
use crate::query::watermarks::Marks;
use crate::sink::Sink;
use crate::state::{Snapshot, Snapshots};

/// Settings of one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryOptions {
    /// How often it looks for new rows once it has caught up.
    pub trigger_interval: Duration,
    /// Most rows that an epoch takes from one source.
    pub max_rows_per_epoch: u64,
    /// Payload bytes that an epoch of a backlog aims at.
    pub epoch_bytes: u64,
    /// How often the state of its operators is saved.
    pub snapshot_interval: Duration,
    /// How it is planned.
    pub plan: PlanOptions,
}

/// A continuous query as the catalog defines it.
pub struct QuerySpec {
    /// Stays the same for the query's life: `appId` of its commits, folder of its progress.
    pub id: String,
    pub name: String,
    /// As SQL planning left it, not optimized.
    pub plan: LogicalPlan,
    pub state: SessionState,
    pub sink: Arc<dyn Sink>,
    /// Where rows go that came too late, if they are kept.
    pub late: Option<Arc<dyn Sink>>,
    pub options: QueryOptions,
}

/// What a query needs of the engine that runs it.
#[derive(Clone)]
pub struct Surroundings {
    pub clock: Clock,
    pub progress: Progress,
    pub snapshots: Arc<Snapshots>,
    pub lease: Option<Arc<Lease>>,
    pub metrics: Arc<QueryMetrics>,
    /// Per source with `on_error = 'dead_letter'`.
    pub dead_letters: BTreeMap<String, Arc<DeadLetters>>,
}

/// How far a run goes: per source the ranges that were available when it began.
pub type Target = BTreeMap<String, Ranges>;

/// Why a run came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop.
    Stopped,
    /// Every source was read to its end (or to the target).
    Finished,
}

/// A query that has recovered and is ready for its next epoch.
pub struct Query {
    intake: Intake,
    outlet: Outlet,
    trigger: Duration,
}

impl Query {
    /// Finds out from the sink what was committed last, from the snapshots what the
    /// operators knew at or before that epoch, and from the progress log what was
    /// planned since: epochs that are committed are read again into the state alone,
    /// the others are yet to come.
    pub async fn recover(spec: &QuerySpec, with: Surroundings) -> Result<Self> {
        let committed = spec.sink.committed().await?.unwrap_or(0);
        let mut options = spec.options.plan.clone();
        let stateful = ContinuousPlan::new(spec.plan.clone(), spec.state.clone(), &options)?;
        let (plan, from, marks) = match stateful.states() {
            None => (stateful, committed, Marks::default()),
            Some(_) => {
                let found = with.snapshots.load(committed).boxed().await?;
                let extra = found.as_ref().map(|found| extra(spec, found)).transpose()?;
                let extra = extra.unwrap_or_default();
                options.shards = extra.shards;
                let plan = match extra.shards {
                    0 => stateful,
                    _ => ContinuousPlan::new(spec.plan.clone(), spec.state.clone(), &options)?,
                };
                let from = found.as_ref().map_or(0, |found| found.epoch);
                restore(spec, &plan, found)?;
                (plan, from, extra.marks)
            }
        };
        with.metrics.snapshot.store(from, Relaxed);
        let idle = Arc::new(IdleTimer::default());
        let mut intake = Intake::recover(&plan, spec, &with, from, Arc::clone(&idle)).await?;
        let mut outlet = Outlet::new(plan, spec, with, committed, (marks, idle))?;
        while let Some(epoch) = intake.next_recorded().filter(|epoch| *epoch <= committed) {
            let Some(plan) = intake.plan(None).await? else { break };
            tracing::debug!(query = spec.name, epoch, "rebuilding state");
            outlet.replay(intake.read(plan).await?).await?;
        }
        Ok(Self { intake, outlet, trigger: spec.options.trigger_interval })
    }

    /// What every source holds now: the target of a run that ends.
    pub async fn target(&self) -> Result<Target> {
        self.intake.available().await
    }

    /// Offsets between where the query stands and `target`.
    pub fn waiting(&self, target: &Target) -> u64 {
        self.intake.waiting(target)
    }

    /// Walks one epoch; `None` when there was nothing new.
    pub async fn step(&mut self) -> Result<Option<u64>> {
        let Some(plan) = self.intake.plan(None).await? else { return Ok(None) };
        let rows = self.intake.read(plan).await?;
        let processed = self.outlet.process(rows).await?;
        let epoch = processed.epoch;
        self.outlet.committer().commit(processed).await?;
        self.outlet.saved().await?;
        Ok(Some(epoch))
    }

    /// Walks epochs, overlapped, until stopped or until `target` was read.
    ///
    /// A stop lets the epochs in flight finish. After an error the query has to
    /// be recovered anew.
    pub async fn run(self, target: Option<Target>, stop: CancellationToken) -> Result<Ended> {
        let Query { intake, mut outlet, trigger } = self;
        let (sender, receiver) = mpsc::channel(1);
        // A JoinSet aborts its task when it is dropped: a run that fails leaves nothing behind.
        let mut reading = JoinSet::new();
        reading.spawn(feed(intake, trigger, target, stop, sender));
        drain(&mut outlet, receiver).await?;
        match reading.join_next().await {
            Some(ended) => ended.map_err(|error| died("reader", &error))?,
            None => Err(Error::internal("the reader is gone")),
        }
    }
}

fn extra(spec: &QuerySpec, found: &Snapshot) -> Result<Extra> {
    serde_json::from_value(found.extra.clone()).map_err(|error| Error::Corrupt {
        path: format!("_tidemill/queries/{}/state", spec.id),
        message: format!("the snapshot of epoch {} can't be read: {error}", found.epoch),
    })
}

/// Hands the operators what they knew.
fn restore(spec: &QuerySpec, plan: &ContinuousPlan, found: Option<Snapshot>) -> Result<()> {
    let (Some(states), Some(found)) = (plan.states(), found) else { return Ok(()) };
    if found.version != plan.fingerprint() {
        return Err(Error::Corrupt {
            path: format!("_tidemill/queries/{}/state", spec.id),
            message: format!(
                "the state of \"{}\" was written by another version of Tidemill, or for \
                 another plan ({}, not {}): run the version that wrote it, or create the view \
                 again",
                spec.name,
                found.version,
                plan.fingerprint()
            ),
        });
    }
    states.restore(found.tables);
    Ok(())
}

/// Plans, records and reads epochs ahead of their execution.
async fn feed(
    mut intake: Intake,
    trigger: Duration,
    target: Option<Target>,
    stop: CancellationToken,
    sender: mpsc::Sender<EpochRows>,
) -> Result<Ended> {
    loop {
        let started = Instant::now();
        if stop.is_cancelled() {
            return Ok(Ended::Stopped);
        }
        if let Some(plan) = intake.plan(target.as_ref()).await? {
            let rows = intake.read(plan).await?;
            if sender.send(rows).await.is_err() {
                // The other half failed and says why.
                return Ok(Ended::Stopped);
            }
        } else if target.is_some() || intake.exhausted() {
            return Ok(Ended::Finished);
        }
        // A run with a target does not wait for rows that may come.
        if !intake.behind() && target.is_none() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep_until(started + trigger) => {}
            }
        }
    }
}

/// Executes and stages epochs as they arrive, committing each while the next
/// one is executed.
async fn drain(outlet: &mut Outlet, mut receiver: mpsc::Receiver<EpochRows>) -> Result<()> {
    let mut committing = JoinSet::new();
    while let Some(rows) = receiver.recv().await {
        let processed = outlet.process(rows).await;
        settle(&mut committing).await?;
        let committer = outlet.committer();
        let processed = processed?;
        committing.spawn(async move { committer.commit(processed).await });
    }
    settle(&mut committing).await?;
    outlet.saved().await
}

/// Waits for the commit under way, if there is one.
async fn settle(committing: &mut JoinSet<Result<()>>) -> Result<()> {
    match committing.join_next().await {
        None => Ok(()),
        Some(ended) => ended.map_err(|error| died("commit", &error))?,
    }
}

fn died(who: &str, error: &tokio::task::JoinError) -> Error {
    Error::internal(format!("the {who} died: {error}"))
}
