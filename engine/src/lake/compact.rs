//! Rewriting files: small ones into larger ones, and those with many deleted rows
//! without them.
//!
//! ```text
//! tier 0 (to 64 KiB)   ▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯▯  16 of them become one of the next tier
//! tier 1 (to 1 MiB)    ▯▯▯
//! tier 2 (to 16 MiB)   ▯▯▯▯▯
//! ```
//!
//! So a row is rewritten once a tier at most, and a partition has no more than some
//! fifty small files however many commits made it. The rewriting goes on beside the
//! commits; rows that are deleted meanwhile are deleted in the new file when it takes
//! the old ones' place, which is one commit that changes no rows. Readers of older
//! versions keep the old files until they are vacuumed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use deltalake::kernel::{Add, Remove};
use futures::TryStreamExt;
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::lake::LakeTable;
use crate::lake::commit::{Change, Pending, STALE};
use crate::lake::files::DataFile;
use crate::lake::layout::Layout;
use crate::lake::mask::{self, Masks};
use crate::lake::read::{self, Part};
use crate::lake::snapshot::Snapshot;
use crate::lake::vector;
use crate::lake::write::{FILE_BYTES, InOrder, check_writable};

/// Files of a tier that become one; also, how often is looked for them, in commits.
const FANOUT: usize = 16;
/// Files of the lowest tier have no more bytes.
const SMALL: u64 = 64 << 10;
/// Files that are this large are no longer merged.
const LARGE: u64 = FILE_BYTES / 2;
/// Deleted rows of a tier that make it worth rewriting, if they are a third of all.
const GARBAGE: u64 = 16 << 10;
/// Groups that are rewritten for one commit.
const GROUPS: usize = 64;

/// A file that takes the place of others.
#[derive(Debug)]
pub(crate) struct Rewritten {
    /// None if no row was left.
    pub add: Option<Add>,
    /// The old files, with the position of the first row of each in the new one.
    pub parts: Vec<(Part, u32)>,
}

/// Where the rows of a rewritten file are now.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    pub from: String,
    pub to: String,
    /// Position there of the first row that went.
    pub start: u32,
    /// Rows that were left out.
    pub dropped: Arc<RoaringBitmap>,
}

impl Rewritten {
    pub fn moves(&self) -> Vec<Move> {
        let Some(add) = &self.add else { return Vec::new() };
        let each = self.parts.iter().map(|(part, start)| Move {
            from: part.file.path.clone(),
            to: add.path.clone(),
            start: *start,
            dropped: Arc::clone(&part.without),
        });
        each.collect()
    }

    /// What the log says of the old files then.
    pub fn removes(&self) -> Vec<Remove> {
        let now = chrono::Utc::now().timestamp_millis();
        self.parts.iter().map(|(part, _)| part.file.to_remove(now, true)).collect()
    }
}

/// Files that should be rewritten, each group as one.
fn due(snapshot: &Snapshot) -> Vec<Vec<Arc<DataFile>>> {
    let layout = &snapshot.layout;
    if !snapshot.reads_plain() || layout.read_only.is_some() || !layout.managed {
        return Vec::new();
    }
    let mut tiers: HashMap<(Vec<Option<&str>>, usize), Tier> = HashMap::new();
    for (number, file) in snapshot.files.iter().enumerate() {
        let Some(bytes) = live_bytes(file) else { continue };
        let values = layout.partition_columns.iter();
        let partition = values.map(|name| file.partition_values.get(name)?.as_deref()).collect();
        // A large file is a tier of its own.
        let tier = if bytes < LARGE { tier(bytes) } else { FANOUT + number };
        let tier = tiers.entry((partition, tier)).or_default();
        tier.rows += file.rows.unwrap_or(0);
        tier.deleted += file.deleted();
        tier.files.push((Arc::clone(file), bytes));
    }
    let mut left = FILE_BYTES;
    let due = tiers.into_values().filter(Tier::is_due).map(|tier| tier.cut(FILE_BYTES));
    let fits = |(_, bytes): &(Vec<_>, u64)| {
        let first = left == FILE_BYTES;
        left = left.saturating_sub(*bytes);
        first || left > 0
    };
    due.take_while(fits).take(GROUPS).map(|(files, _)| files).collect()
}

#[derive(Default)]
struct Tier {
    /// With the bytes of their live rows.
    files: Vec<(Arc<DataFile>, u64)>,
    rows: u64,
    deleted: u64,
}

impl Tier {
    fn is_due(&self) -> bool {
        self.files.len() >= FANOUT || (self.deleted >= GARBAGE && self.deleted * 3 >= self.rows)
    }

    /// The first files that have no more than `limit` bytes together, but one at least.
    fn cut(self, limit: u64) -> (Vec<Arc<DataFile>>, u64) {
        let (mut files, mut sum) = (Vec::new(), 0);
        for (file, bytes) in self.files {
            if !files.is_empty() && sum + bytes > limit {
                break;
            }
            sum += bytes;
            files.push(file);
        }
        (files, sum)
    }
}

fn tier(bytes: u64) -> usize {
    let mut tier = 0;
    let mut limit = SMALL;
    while bytes > limit {
        limit *= FANOUT as u64;
        tier += 1;
    }
    tier
}

/// What a file would weigh without its deleted rows; `None` if that is unknown.
fn live_bytes(file: &DataFile) -> Option<u64> {
    let rows = file.rows?.max(1);
    let live = u128::from(file.size) * u128::from(file.live_rows()?) / u128::from(rows);
    u64::try_from(live).ok()
}

/// Writes the rows of `parts`, which are of one partition, into a new file.
async fn rewrite(layout: &Layout, parts: Vec<Part>) -> Result<Rewritten> {
    let streams = read::files(layout, &parts, None)?;
    let mut new = InOrder::new(layout);
    let mut moved = Vec::with_capacity(parts.len());
    for (part, mut stream) in parts.into_iter().zip(streams) {
        let start = new.rows();
        while let Some(batch) = stream.try_next().await? {
            new.write(&batch).await?;
        }
        let live = part.file.rows.map(|rows| rows.saturating_sub(part.without.len()));
        if live != Some(new.rows() - start) {
            return Err(Error::Corrupt {
                path: format!("{}{}", layout.place.url, part.file.path),
                message: format!("{} rows instead of {live:?}", new.rows() - start),
            });
        }
        let start = u32::try_from(start).map_err(|_| Error::internal("a file of 2³² rows"))?;
        moved.push((part, start));
    }
    Ok(Rewritten { add: new.close().await?, parts: moved })
}

/// Writes the files that hold the rows of `masks` again without them.
pub(crate) async fn copy_without(snapshot: &Snapshot, masks: &Masks) -> Result<Vec<Rewritten>> {
    let layout = &snapshot.layout;
    let mut partitions: BTreeMap<Vec<Option<&String>>, Vec<Part>> = BTreeMap::new();
    for (file, mask) in mask::find(snapshot, masks)? {
        let deleted = deleted(layout, file).await?;
        let values = layout.partition_columns.iter();
        let values = values.map(|name| file.partition_values.get(name)?.as_ref()).collect();
        let part = Part { file: Arc::clone(file), without: Arc::new(&*deleted | mask) };
        partitions.entry(values).or_default().push(part);
    }
    let mut rewritten = Vec::new();
    for parts in partitions.into_values() {
        let (mut together, mut bytes) = (Vec::new(), 0);
        for part in parts {
            if bytes + part.file.size > FILE_BYTES && !together.is_empty() {
                rewritten.push(rewrite(layout, std::mem::take(&mut together)).await?);
                bytes = 0;
            }
            bytes += part.file.size;
            together.push(part);
        }
        rewritten.push(rewrite(layout, together).await?);
    }
    Ok(rewritten)
}

async fn deleted(layout: &Layout, file: &DataFile) -> Result<Arc<RoaringBitmap>> {
    match &file.vector {
        Some(vector) => vector.load(&layout.place).await,
        None => Ok(Arc::default()),
    }
}

impl LakeTable {
    async fn compact(&self, groups: Vec<Vec<Arc<DataFile>>>) -> Result<Vec<Rewritten>> {
        let layout = self.current().layout.clone();
        check_writable(&layout)?;
        let mut rewritten = Vec::with_capacity(groups.len());
        for files in groups {
            let mut parts = Vec::with_capacity(files.len());
            for file in files {
                parts.push(Part { without: deleted(&layout, &file).await?, file });
            }
            rewritten.push(rewrite(&layout, parts).await?);
        }
        Ok(rewritten)
    }

    /// Puts rewritten files in the place of the old ones, in one commit. Answers where
    /// rows went; files that others did something to stay as they are.
    async fn install(&self, rewritten: &[Rewritten]) -> Result<Vec<Move>> {
        let mut head = self.head.lock().await;
        if head.seen.elapsed() > STALE {
            self.follow(&mut head).await?;
        }
        let current = self.current();
        let mut change = Change { rearranges: true, ..Change::default() };
        let mut moves = Vec::new();
        for file in rewritten {
            if let Some(part) = replace(&current, file).await? {
                change.adds.extend(part.adds);
                change.removes.extend(part.removes);
                moves.extend(file.moves());
            }
        }
        if change.is_empty() {
            return Ok(Vec::new());
        }
        match self.write_commit(&mut head, Pending::new(change, None)?).await {
            Ok(_) => Ok(moves),
            Err(error) if mask::is_conflict(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// The change that puts the new file in the old ones' place; rows deleted since it was
/// written are deleted in it. `None` if the old files are not what they were.
async fn replace(current: &Snapshot, rewritten: &Rewritten) -> Result<Option<Change>> {
    let layout = &current.layout;
    let known: HashMap<&str, &Arc<DataFile>> =
        current.files.iter().map(|file| (file.path.as_str(), file)).collect();
    let now = chrono::Utc::now().timestamp_millis();
    let mut change = Change::default();
    let mut late = RoaringBitmap::new();
    for (part, start) in &rewritten.parts {
        let Some(file) = known.get(part.file.path.as_str()) else { return Ok(None) };
        let deleted = deleted(layout, file).await?;
        if !part.without.is_subset(&deleted) {
            return Ok(None);
        }
        for row in &*deleted - &*part.without {
            late.insert(start + row - part.without.rank(row) as u32);
        }
        change.removes.push(file.to_remove(now, false));
    }
    let Some(add) = rewritten.add.clone() else { return Ok(Some(change)) };
    let mut add = Add { data_change: false, ..add };
    if late.is_empty() {
        change.adds.push((add, None));
    } else if DataFile::from(add.clone()).rows != Some(late.len()) {
        let late = Arc::new(late);
        add.deletion_vector = vector::store(&layout.place, &[Arc::clone(&late)]).await?.pop();
        add.stats = add.stats.as_deref().map(mask::loose_bounds);
        change.adds.push((add, Some(late)));
    }
    Ok(Some(change))
}

/// Is told where rows went.
pub(crate) type OnMove = Arc<dyn Fn(&[Move]) + Send + Sync>;

/// Compacts a table beside its commits.
#[derive(Debug, Default)]
pub(crate) struct Compactor {
    /// Held by whoever commits rows that depend on where others lie.
    pub order: Arc<tokio::sync::Mutex<()>>,
    working: Mutex<Working>,
}

#[derive(Debug, Default)]
struct Working {
    commits: usize,
    task: JoinSet<()>,
}

impl Compactor {
    /// After a commit: starts compacting if it is time to look and nothing is going on.
    pub fn committed(&self, table: &Arc<LakeTable>, on_move: OnMove) {
        let mut working = self.working.lock();
        working.commits += 1;
        while working.task.try_join_next().is_some() {}
        if !working.commits.is_multiple_of(FANOUT) || !working.task.is_empty() {
            return;
        }
        let (table, order) = (Arc::clone(table), Arc::clone(&self.order));
        working.task.spawn(async move {
            if let Err(error) = compact_all(&table, &order, &on_move).await {
                tracing::warn!(table = table.name(), %error, "could not compact");
            }
        });
    }

    /// Stops what is going on; it does nothing any more once this returns.
    pub async fn stop(&self) {
        let mut task = std::mem::take(&mut self.working.lock().task);
        task.shutdown().await;
    }

    #[cfg(test)]
    pub async fn settle(&self) {
        let mut task = std::mem::take(&mut self.working.lock().task);
        while let Some(done) = task.join_next().await {
            done.unwrap();
        }
    }
}

async fn compact_all(
    table: &LakeTable,
    order: &tokio::sync::Mutex<()>,
    on_move: &OnMove,
) -> Result<()> {
    loop {
        let groups = due(&table.current());
        if groups.is_empty() {
            return Ok(());
        }
        let rewritten = table.compact(groups).await?;
        let _order = order.lock().await;
        let moves = table.install(&rewritten).await?;
        if moves.is_empty() {
            return Ok(());
        }
        on_move(&moves);
    }
}
