//! The reading half of a query: what the next epoch reads, and reading it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::future::try_join_all;
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::epoch::{EpochPlan, OffsetRange, Offsets, PartitionId, Ranges};
use crate::error::{Error, Result};
use crate::lake::LakeTable;
use crate::metrics::QueryMetrics;
use crate::plan::{ContinuousPlan, Input};
use crate::progress::Progress;
use crate::query::{QueryOptions, QuerySpec, Surroundings, Target};
use crate::source::{Reader, Rows};

/// Rows of a first epoch, while the size of a row is not known.
const FIRST_ROWS: u64 = 10_000;
/// An epoch of a backlog never shrinks below this, however wide the rows.
const FEWEST_ROWS: u64 = 100;

/// How often, and after what pause, a source that seems to have shrunk is asked again.
const SECOND_LOOKS: usize = 5;
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// The rows of one epoch, read and decoded.
pub struct EpochRows {
    pub plan: EpochPlan,
    pub rows: BTreeMap<String, Rows>,
}

/// Plans, records and reads epochs.
pub struct Intake {
    inputs: Vec<Feed>,
    tables: BTreeMap<String, Arc<LakeTable>>,
    positions: BTreeMap<String, Offsets>,
    next_epoch: u64,
    last_timestamp_us: i64,
    /// Plans that a crash left uncommitted: run again as they are.
    recorded: VecDeque<EpochPlan>,
    options: QueryOptions,
    progress: Progress,
    clock: Clock,
    metrics: Arc<QueryMetrics>,
    behind: bool,
    exhausted: bool,
    /// The result has a row though there is no input: the first epoch comes all the same.
    from_nothing: bool,
    /// When a watermark moves next though no row comes; the outlet knows.
    idle: Arc<IdleTimer>,
    /// The last such time that an epoch was made for.
    woken_us: i64,
}

/// When a watermark moves next without rows, microseconds since 1970.
#[derive(Debug)]
pub struct IdleTimer(AtomicI64);

impl Default for IdleTimer {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MAX))
    }
}

impl IdleTimer {
    pub(super) fn set(&self, at_us: Option<i64>) {
        self.0.store(at_us.unwrap_or(i64::MAX), Relaxed);
    }
}

/// One source with its reader, kept from epoch to epoch.
struct Feed {
    name: String,
    input: Input,
    /// Never locked: only what makes a reader, used by one at a time, `Sync`.
    reader: Mutex<Option<Box<dyn Reader>>>,
    /// Measured payload bytes a row.
    row_bytes: Option<u64>,
}

impl Intake {
    pub(super) async fn recover(
        plan: &ContinuousPlan,
        spec: &QuerySpec,
        with: &Surroundings,
        committed: u64,
        idle: Arc<IdleTimer>,
    ) -> Result<Self> {
        let inputs = plan.inputs().iter().map(|(name, input)| Feed::new(name, input)).collect();
        let mut intake = Self {
            inputs,
            tables: plan.tables().clone(),
            positions: BTreeMap::new(),
            next_epoch: committed + 1,
            last_timestamp_us: 0,
            recorded: VecDeque::new(),
            options: spec.options.clone(),
            progress: with.progress.clone(),
            clock: with.clock.clone(),
            metrics: Arc::clone(&with.metrics),
            behind: false,
            exhausted: false,
            from_nothing: plan.from_nothing(),
            idle,
            woken_us: i64::MIN,
        };
        let last = match with.progress.load(committed).await? {
            Some(plan) => plan,
            None if committed == 0 => intake.begin().await?,
            None => return Err(lost_plan(spec, committed)),
        };
        intake.positions = last.positions();
        intake.last_timestamp_us = last.timestamp_us;
        intake.load_recorded(committed).await?;
        Ok(intake)
    }

    /// Records where the query starts, so that a start at "latest" stays what
    /// it was when the query was created.
    async fn begin(&self) -> Result<EpochPlan> {
        let mut sources = BTreeMap::new();
        for feed in &self.inputs {
            let source = &feed.input.declared.source;
            let available = source.available().await?;
            let start = source.start(&available).await?;
            let at = start.iter().map(|(p, o)| (*p, OffsetRange::new(*o, *o))).collect();
            sources.insert(feed.name.clone(), at);
        }
        let plan = EpochPlan {
            epoch: 0,
            timestamp_us: self.clock.now_us(),
            sources,
            ..EpochPlan::default()
        };
        self.progress.record(&plan).await?;
        Ok(plan)
    }

    async fn load_recorded(&mut self, committed: u64) -> Result<()> {
        let mut epoch = committed + 1;
        while let Some(plan) = self.progress.load(epoch).await? {
            self.recorded.push_back(plan);
            epoch += 1;
        }
        Ok(())
    }

    /// What every source holds now.
    pub(super) async fn available(&self) -> Result<Target> {
        let each = self.inputs.iter().map(|feed| async move {
            Ok::<_, Error>((feed.name.clone(), feed.input.declared.source.available().await?))
        });
        Ok(try_join_all(each).await?.into_iter().collect())
    }

    pub(super) fn waiting(&self, target: &Target) -> u64 {
        let none = Offsets::new();
        let each = target.iter().flat_map(|(name, ranges)| {
            let from = self.positions.get(name).unwrap_or(&none);
            ranges.iter().map(|(p, r)| {
                OffsetRange::new(from.get(p).copied().unwrap_or(r.start), r.end).len()
            })
        });
        each.sum()
    }

    /// Whether the last plan left rows behind: the next epoch starts at once.
    pub(super) fn behind(&self) -> bool {
        self.behind
    }

    /// Whether all sources are bounded and read to their end.
    pub(super) fn exhausted(&self) -> bool {
        self.exhausted
    }

    /// Plans the next epoch and records it; `None` when there is nothing to read.
    pub(super) async fn plan(&mut self, target: Option<&Target>) -> Result<Option<EpochPlan>> {
        if let Some(plan) = self.recorded.pop_front() {
            self.behind = true;
            self.advance(&plan);
            return Ok(Some(plan));
        }
        let available = match target {
            Some(target) => target.clone(),
            None => self.settled().await?,
        };
        let sources = self.next_ranges(&available).await?;
        let waiting = self.waiting(&available);
        self.metrics.backlog.store(waiting, Relaxed);
        let nothing = sources.values().flat_map(Ranges::values).all(OffsetRange::is_empty);
        if nothing {
            self.behind = false;
            self.exhausted = self.inputs.iter().all(|f| f.input.declared.source.bounded());
            if !self.is_due() {
                return Ok(None);
            }
        }
        let plan = EpochPlan {
            epoch: self.next_epoch,
            timestamp_us: self.clock.now_us().max(self.last_timestamp_us),
            sources,
            tables: self.table_versions().await?,
            ..EpochPlan::default()
        };
        let (ended, unread) = (self.ended(&plan, &available), unread(&plan, &available));
        let plan = EpochPlan { ended, unread, ..plan };
        self.behind = waiting > plan.len();
        self.progress.record(&plan).await?;
        self.advance(&plan);
        Ok(Some(plan))
    }

    /// Whether there is something to say though no row came.
    fn is_due(&mut self) -> bool {
        if self.next_epoch == 1 && self.from_nothing {
            return true;
        }
        let at_us = self.idle.0.load(Relaxed);
        // The outlet may not have run the epoch yet that was made for this time.
        if at_us == self.woken_us || at_us > self.clock.now_us() {
            return false;
        }
        self.woken_us = at_us;
        true
    }

    /// The next epoch, if its plan was recorded by an earlier run.
    pub(super) fn next_recorded(&self) -> Option<u64> {
        self.recorded.front().map(|plan| plan.epoch)
    }

    /// Bounded sources that `plan` reads to their end.
    fn ended(&self, plan: &EpochPlan, available: &Target) -> BTreeSet<String> {
        let at_end = |name: &String| {
            let (Some(read), Some(all)) = (plan.sources.get(name), available.get(name)) else {
                return false;
            };
            all.iter().all(|(p, range)| read.get(p).is_some_and(|read| read.end >= range.end))
        };
        let bounded = self.inputs.iter().filter(|feed| feed.input.declared.source.bounded());
        bounded.map(|feed| feed.name.clone()).filter(at_end).collect()
    }

    /// What every source holds now. A broker that has just come back may say for a
    /// moment that it holds less than it does: it is asked again before that counts.
    async fn settled(&self) -> Result<Target> {
        let mut available = self.available().await?;
        for _ in 0..SECOND_LOOKS {
            if !self.is_beyond(&available) {
                break;
            }
            tokio::time::sleep(SECOND_LOOK).await;
            available = self.available().await?;
        }
        Ok(available)
    }

    /// Whether some position lies behind the end of its partition.
    fn is_beyond(&self, available: &Target) -> bool {
        self.positions.iter().any(|(name, offsets)| {
            let ends = available.get(name);
            let beyond = |(p, at): (&i32, &i64)| ends?.get(p).map(|range| *at > range.end);
            offsets.iter().any(|position| beyond(position) == Some(true))
        })
    }

    fn advance(&mut self, plan: &EpochPlan) {
        self.next_epoch = plan.epoch + 1;
        self.last_timestamp_us = plan.timestamp_us;
        for (name, offsets) in plan.positions() {
            self.positions.entry(name).or_default().extend(offsets);
        }
    }

    async fn table_versions(&self) -> Result<BTreeMap<String, u64>> {
        let mut versions = BTreeMap::new();
        for (name, table) in &self.tables {
            versions.insert(name.clone(), table.refresh().await?);
        }
        Ok(versions)
    }

    async fn next_ranges(&self, available: &Target) -> Result<BTreeMap<String, Ranges>> {
        let mut sources = BTreeMap::new();
        for feed in &self.inputs {
            let none = Offsets::new();
            let from = self.positions.get(&feed.name).unwrap_or(&none);
            let Some(available) = available.get(&feed.name) else { continue };
            feed.refuse_gaps(from, available)?;
            let source = &feed.input.declared.source;
            let mut ranges = source.clamp(from, available, feed.budget(&self.options)).await?;
            // A partition that is away for a moment keeps its position.
            for (partition, at) in from {
                ranges.entry(*partition).or_insert(OffsetRange::new(*at, *at));
            }
            sources.insert(feed.name.clone(), ranges);
        }
        Ok(sources)
    }

    /// Reads what `plan` says, all sources at once.
    pub(super) async fn read(&mut self, plan: EpochPlan) -> Result<EpochRows> {
        let each = self.inputs.iter_mut().map(|feed| {
            let ranges = plan.sources.get(&feed.name).cloned().unwrap_or_default();
            async move { Ok::<_, Error>((feed.name.clone(), feed.read(&ranges).await?)) }
        });
        let rows: BTreeMap<_, _> = try_join_all(each).await?.into_iter().collect();
        let bytes = rows.values().map(|rows| rows.bytes).sum();
        self.metrics.bytes_read.fetch_add(bytes, Relaxed);
        Ok(EpochRows { plan, rows })
    }
}

impl Feed {
    fn new(name: &str, input: &Input) -> Self {
        Self {
            name: name.to_owned(),
            input: input.clone(),
            reader: Mutex::default(),
            row_bytes: None,
        }
    }

    /// Rows that fit the aim of an epoch, by the size that rows have had so far.
    fn budget(&self, options: &QueryOptions) -> u64 {
        let most =
            self.input.declared.max_rows_per_epoch.unwrap_or(options.max_rows_per_epoch).max(1);
        let fitting = match self.row_bytes {
            Some(bytes) => (options.epoch_bytes / bytes.max(1)).max(FEWEST_ROWS),
            None => FIRST_ROWS,
        };
        fitting.min(most)
    }

    /// Refuses to jump over records that are gone, or to wait for ones that
    /// will never come.
    fn refuse_gaps(&self, from: &Offsets, available: &Ranges) -> Result<()> {
        for (partition, range) in available {
            let Some(&at) = from.get(partition) else { continue };
            if at < range.start {
                return Err(Error::Expired {
                    name: self.name.clone(),
                    partition: *partition,
                    wanted: at,
                    oldest: range.start,
                });
            }
            if at > range.end {
                let message = format!(
                    "partition {partition} ends at offset {}, but {at} was read already; it was \
                     deleted and made again, or lost records: create the view again to read \
                     what is there now",
                    range.end
                );
                return Err(Error::Source { name: self.name.clone(), message, retryable: false });
            }
        }
        Ok(())
    }

    async fn read(&mut self, ranges: &Ranges) -> Result<Rows> {
        if ranges.values().all(OffsetRange::is_empty) {
            return Ok(Rows::default());
        }
        let kept = self.reader.get_mut();
        let reader = match kept {
            Some(reader) => reader,
            None => kept.insert(self.input.declared.source.open(self.input.projection.clone())?),
        };
        let rows = reader.read(ranges).await?;
        let count = (rows.len() + rows.rejected.len()) as u64;
        if count > 0 {
            self.row_bytes = Some(rows.bytes.div_ceil(count).max(1));
        }
        Ok(rows)
    }
}

/// Partitions that hold more than `plan` reads.
fn unread(plan: &EpochPlan, available: &Target) -> BTreeMap<String, BTreeSet<PartitionId>> {
    let of = |(name, ranges): (&String, &Ranges)| {
        let all = available.get(name)?;
        let more = ranges.iter().filter(|(p, read)| all.get(p).is_some_and(|r| r.end > read.end));
        let more: BTreeSet<PartitionId> = more.map(|(p, _)| *p).collect();
        (!more.is_empty()).then(|| (name.clone(), more))
    };
    plan.sources.iter().filter_map(of).collect()
}

fn lost_plan(spec: &QuerySpec, committed: u64) -> Error {
    Error::Corrupt {
        path: format!("_tidemill/queries/{}/epochs", spec.id),
        message: format!(
            "the plan of epoch {committed} of \"{}\" is missing, although the result holds that \
             epoch; restore the folder, or drop the query and create it again",
            spec.name
        ),
    }
}
