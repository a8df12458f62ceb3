//! Upserting a changing result into a Delta table at the cost of the rows that changed.
//!
//! ```text
//! changelog ─► − rows ─► index ─► (file, position) ─► masks ──┐
//!              + rows ─► new file ─► index                    ├─► one commit
//!                        └─► add ─────────────────────────────┘
//! ```
//!
//! The index moves on when an epoch is *staged*, for the next one is staged while this
//! one's commit is under way; commits keep their order. Whenever the two may have come
//! apart (an epoch that failed, one that the log held already) the index is forgotten
//! and read from the table's files again.

mod hash;
mod index;
mod rebuild;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::DataType;
use datafusion::execution::SendableRecordBatchStream;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use roaring::RoaringBitmap;

use crate::changelog;
use crate::error::{Error, Result};
use crate::lake::compact::{self, Compactor, Move, Rewritten};
use crate::lake::mask::{self, Masks};
use crate::lake::snapshot::Snapshot;
use crate::lake::types::cast_batch;
use crate::lake::write::{InOrder, check_writable};
use crate::lake::{LakeTable, Txn};
use crate::sink::delta::WriteMode;
use crate::sink::upsert::hash::{Hasher, KeyHash};
use crate::sink::upsert::index::{Address, RowIndex};
use crate::sink::{Committed, Staged};

/// Rows of a new file at most.
const FILE_ROWS: usize = 4 << 20;
/// Files that are written at a time.
const WRITERS: usize = 8;

/// Keeps a table at the sum of the changelogs given to it.
#[derive(Debug)]
pub(super) struct Upsert {
    table: Arc<LakeTable>,
    hasher: Arc<Hasher>,
    /// Tells rows apart by all that is stored of them.
    whole: Hasher,
    /// The key's columns tell any two rows apart.
    unique: bool,
    mode: WriteMode,
    state: Arc<Mutex<State>>,
    compactor: Compactor,
}

#[derive(Debug, Default)]
struct State {
    /// None until it is needed, and after anything failed.
    index: Option<RowIndex>,
    /// Epochs that are staged but not committed.
    under_way: usize,
}

impl State {
    fn follow(&mut self, moves: &[Move]) {
        let Some(index) = &mut self.index else { return };
        for Move { from, to, start, dropped } in moves {
            index.moved(from, to, *start, Arc::clone(dropped));
        }
    }
}

/// The changes of an epoch, as they are stored.
struct Changes {
    inserted: RecordBatch,
    deleted: RecordBatch,
}

/// A file that was written and what went into it.
struct Written {
    add: deltalake::kernel::Add,
    /// Per row in the file, which of the inserted ones it is.
    rows: UInt32Array,
}

impl Upsert {
    pub fn new(table: Arc<LakeTable>, key: Option<Vec<usize>>, mode: WriteMode) -> Self {
        let (schema, partitions) = (table.schema(), table.partition_columns());
        let unique = key.is_some();
        let key = key.unwrap_or_else(|| (0..schema.fields().len()).collect());
        let partitioning = |column: usize| partitions.contains(schema.field(column).name());
        let columns = key.into_iter().map(|column| (column, partitioning(column))).collect();
        let all = (0..schema.fields().len()).map(|column| (column, partitioning(column)));
        Self {
            table,
            hasher: Arc::new(Hasher::new(columns)),
            whole: Hasher::new(all.collect()),
            unique,
            mode,
            state: Arc::default(),
            compactor: Compactor::default(),
        }
    }

    /// Has the index read anew from the table when it is needed next.
    pub async fn forget(&self) {
        self.compactor.stop().await;
        *self.state.lock() = State::default();
    }

    #[cfg(test)]
    pub async fn settle(&self) {
        self.compactor.settle().await;
    }

    pub async fn stage(&self, rows: SendableRecordBatchStream) -> Result<Staged> {
        let layout = self.table.current().layout.clone();
        check_writable(&layout)?;
        if self.mode == WriteMode::DeletionVectors && !layout.deletion_vectors {
            return Err(Error::invalid_hint(
                format!("rows of \"{}\" change, but it has no deletion vectors", self.table.name()),
                "let it be made anew, or choose write_mode = 'copy_on_write'",
            ));
        }
        let Changes { inserted, deleted } = cancel(self.collect(rows).await?, &self.whole)?;
        let gone = self.hasher.rows(&deleted)?;
        let come = self.hasher.rows(&inserted)?;
        self.ensure_index().await?;
        let written = write(&self.table.current(), &inserted).await?;
        let masks = self.move_on(&gone, &come, &written)?;
        Ok(Staged {
            rows: come.len() as u64,
            adds: written.into_iter().map(|file| file.add).collect(),
            masks,
            ..Staged::default()
        })
    }

    pub async fn commit(&self, mut staged: Staged, txn: Txn) -> Result<Committed> {
        let _order = self.compactor.order.lock().await;
        let rows = staged.rows;
        if let Some(index) = &self.state.lock().index {
            staged.masks = index.translate(std::mem::take(&mut staged.masks));
        }
        let moves = match self.mode {
            WriteMode::CopyOnWrite => self.copy(&mut staged).await?,
            WriteMode::DeletionVectors => Vec::new(),
        };
        let landed = self.table.land(staged, Some(txn)).await?;
        let mut state = self.state.lock();
        state.under_way = state.under_way.saturating_sub(1);
        if landed.ours {
            state.follow(&moves);
            let state = Arc::clone(&self.state);
            let on_move = Arc::new(move |moves: &[Move]| state.lock().follow(moves));
            self.compactor.committed(&self.table, on_move);
        } else {
            state.index = None;
        }
        Ok(Committed { version: landed.version, rows })
    }

    /// Has the files of deleted rows written again without them.
    async fn copy(&self, staged: &mut Staged) -> Result<Vec<Move>> {
        let masks = std::mem::take(&mut staged.masks);
        let copies = compact::copy_without(&self.table.current(), &masks).await?;
        let moves = copies.iter().flat_map(Rewritten::moves).collect();
        staged.removes.extend(copies.iter().flat_map(Rewritten::removes));
        staged.adds.extend(copies.into_iter().filter_map(|copy| copy.add));
        Ok(moves)
    }

    /// The epoch's changes: equal rows are one, those that came and went are none.
    async fn collect(&self, mut rows: SendableRecordBatchStream) -> Result<Changes> {
        let stored = self.table.schema();
        let schema = changelog::with_weight(&stored);
        let partitions = self.table.partition_columns();
        let (mut batches, mut retracts) = (Vec::new(), false);
        while let Some(batch) = rows.try_next().await? {
            let (rows, weights) = changelog::split(&batch)?;
            retracts |= weights.values().iter().any(|weight| *weight != 1);
            let rows = cast_batch(&rows, &stored)?;
            batches.push(changelog::join(&rows, weights)?);
        }
        let all = match retracts {
            true => changelog::consolidate(&schema, &batches)?,
            false => arrow::compute::concat_batches(&schema, &batches)?,
        };
        let (rows, weights) = changelog::split(&all)?;
        let pick = |sign: i64| take(&rows, &weights, sign);
        let (inserted, deleted) = (pick(1)?, pick(-1)?);
        self.table.check(&inserted)?;
        Ok(Changes { inserted, deleted: null_partitions(&deleted, &partitions)? })
    }

    async fn ensure_index(&self) -> Result<()> {
        match &*self.state.lock() {
            State { index: Some(_), .. } => return Ok(()),
            State { under_way: 0, .. } => {}
            // The table lacks what is under way: only a recovery knows what becomes of it.
            _ => return Err(mask::conflict()),
        }
        let started = std::time::Instant::now();
        let snapshot = self.table.current();
        let index = rebuild::rebuild(&snapshot, &self.hasher, self.unique).await?;
        let (rows, table) = (index.len(), self.table.name());
        tracing::debug!(table, rows, elapsed = ?started.elapsed(), "indexed the table's rows");
        self.state.lock().index = Some(index);
        Ok(())
    }

    /// Takes the deleted rows out of the index and puts the inserted ones in; answers
    /// where the deleted ones lie.
    fn move_on(
        &self,
        deleted: &[KeyHash],
        inserted: &[KeyHash],
        written: &[Written],
    ) -> Result<Masks> {
        let mut state = self.state.lock();
        // It stays away if this fails half-way.
        let mut index = state.index.take().ok_or_else(|| self.disagree("has lost its index"))?;
        index.tick();
        let masks = self.delete(&mut index, deleted)?;
        for file in written {
            let number = index.file(&file.add.path);
            for (row, nth) in file.rows.values().iter().enumerate() {
                let at = Address { file: number, row: row as u32 };
                if !index.insert(inserted[*nth as usize], at) && self.unique {
                    return Err(not_unique(self.table.name()));
                }
            }
        }
        state.index = Some(index);
        state.under_way += 1;
        Ok(masks)
    }

    fn delete(&self, index: &mut RowIndex, deleted: &[KeyHash]) -> Result<Masks> {
        let mut by_file: HashMap<u32, Vec<u32>> = HashMap::new();
        for key in deleted {
            let at =
                index.remove(*key).ok_or_else(|| self.disagree("lacks a row to be deleted"))?;
            by_file.entry(at.file).or_default().push(at.row);
        }
        let mask = |(file, mut rows): (u32, Vec<u32>)| {
            rows.sort_unstable();
            let path = index.path(file).ok_or_else(|| self.disagree("has lost a file"))?;
            Ok((path.to_string(), rows.into_iter().collect::<RoaringBitmap>()))
        };
        by_file.into_iter().map(mask).collect()
    }

    fn disagree(&self, what: &str) -> Error {
        Error::internal(format!(
            "the table \"{}\" {what}: the query's state and its table disagree",
            self.table.name()
        ))
    }
}

fn not_unique(table: &str) -> Error {
    Error::internal(format!(
        "two rows of \"{table}\" have the same key, as it is stored (timestamps have microseconds)"
    ))
}

/// An empty text that partitions the table is NULL, so the protocol reads it. None is written
/// any more.
fn null_partitions(rows: &RecordBatch, partitions: &[String]) -> Result<RecordBatch> {
    let schema = rows.schema();
    let mut columns = rows.columns().to_vec();
    for (column, field) in columns.iter_mut().zip(schema.fields()) {
        let text = *field.data_type() == DataType::Utf8 && field.is_nullable();
        if text && partitions.contains(field.name()) {
            *column = hash::null_if_empty(column)?;
        }
    }
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// Takes out rows that are inserted and deleted at once: what tells them apart, such as
/// digits below the microsecond or the sign of a zero, is not stored.
fn cancel(changes: Changes, hasher: &Hasher) -> Result<Changes> {
    let Changes { inserted, deleted } = &changes;
    if inserted.num_rows() == 0 || deleted.num_rows() == 0 {
        return Ok(changes);
    }
    let (come, gone) = (hasher.rows(inserted)?, hasher.rows(deleted)?);
    let mut both: HashMap<KeyHash, usize> = HashMap::new();
    gone.iter().for_each(|key| *both.entry(*key).or_default() += 1);
    let mut take = |key: &KeyHash| match both.get_mut(key) {
        Some(left @ 1..) => {
            *left -= 1;
            false
        }
        _ => true,
    };
    let stays: Vec<bool> = come.iter().map(&mut take).collect();
    if stays.iter().all(|stays| *stays) {
        return Ok(changes);
    }
    // What is left of each was deleted in earnest.
    let goes: Vec<bool> = gone.iter().map(|key| !take(key)).collect();
    Ok(Changes {
        inserted: filter_record_batch(inserted, &BooleanArray::from(stays))?,
        deleted: filter_record_batch(deleted, &BooleanArray::from(goes))?,
    })
}

/// The rows whose weight has the sign, each as often as it says.
fn take(rows: &RecordBatch, weights: &Int64Array, sign: i64) -> Result<RecordBatch> {
    if sign > 0 && weights.values().iter().all(|weight| *weight == 1) {
        return Ok(rows.clone());
    }
    let times = |weight: &i64| (weight.signum() == sign).then_some(weight.unsigned_abs() as usize);
    let each = weights.values().iter().enumerate();
    let picked =
        each.flat_map(|(row, weight)| std::iter::repeat_n(row as u32, times(weight).unwrap_or(0)));
    Ok(take_record_batch(rows, &UInt32Array::from_iter_values(picked))?)
}

/// Writes rows to new files, none holding rows of two partitions.
async fn write(snapshot: &Snapshot, rows: &RecordBatch) -> Result<Vec<Written>> {
    let layout = &snapshot.layout;
    let one = async |group: UInt32Array| {
        let whole = group.len() == rows.num_rows();
        let batch = if whole { rows.clone() } else { take_record_batch(rows, &group)? };
        let mut file = InOrder::new(layout);
        file.write(&batch).await?;
        let add = file.close().await?.ok_or_else(|| Error::internal("a file without rows"))?;
        crate::Result::Ok(Written { add, rows: group })
    };
    let groups = partitions(snapshot, rows)?;
    futures::stream::iter(groups).map(one).buffered(WRITERS).try_collect().await
}

/// The rows of each file to be written.
fn partitions(snapshot: &Snapshot, rows: &RecordBatch) -> Result<Vec<UInt32Array>> {
    if rows.num_rows() == 0 {
        return Ok(Vec::new());
    }
    let layout = &snapshot.layout;
    let columns = layout.partition_columns.iter().filter_map(|name| rows.column_by_name(name));
    let columns: Vec<_> = columns.cloned().collect();
    let mut groups: Vec<Vec<u32>> = Vec::new();
    if columns.is_empty() {
        groups.push((0..rows.num_rows() as u32).collect());
    } else {
        let encoded = changelog::encode(&columns)?;
        let mut known = HashMap::new();
        for (row, value) in encoded.iter().enumerate() {
            let group = *known.entry(value).or_insert(groups.len());
            if group == groups.len() {
                groups.push(Vec::new());
            }
            groups[group].push(row as u32);
        }
    }
    let files = groups.iter().flat_map(|rows| rows.chunks(FILE_ROWS));
    Ok(files.map(|rows| UInt32Array::from(rows.to_vec())).collect())
}
