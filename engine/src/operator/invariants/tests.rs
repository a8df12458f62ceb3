//! Operators that break an invariant each.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use async_trait::async_trait;
use datafusion::execution::memory_pool::{MemoryPool, UnboundedMemoryPool};
use datafusion::physical_plan::collect;
use datafusion::physical_plan::empty::EmptyExec;

use super::*;
use crate::changelog::{join, with_weight};
use crate::operator::states::Watermark;
use crate::operator::{Epoch, Operator, OperatorExec, Step};

/// Puts out what it is told to.
#[derive(Debug)]
struct Told(RecordBatch);

#[async_trait]
impl Operator for Told {
    fn tables(&self) -> Vec<TableSpec> {
        Vec::new()
    }

    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    async fn step(&self, _: Epoch<'_>) -> Result<Step> {
        Ok(Step { output: vec![self.0.clone()], ..Step::default() })
    }
}

/// Rows by their time, with a weight each.
fn changes(rows: &[(i64, i64)]) -> RecordBatch {
    let times: TimestampMicrosecondArray = rows.iter().map(|(time, _)| Some(*time)).collect();
    let weights: Vec<i64> = rows.iter().map(|(_, weight)| *weight).collect();
    let times = RecordBatch::try_from_iter([("at", Arc::new(times) as ArrayRef)]).unwrap();
    join(&times, weights.into()).unwrap()
}

struct Run {
    states: Arc<States>,
    appends: bool,
}

impl Run {
    fn new(appends: bool) -> Self {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        Self { states: Arc::new(States::new(1, None, &pool)), appends }
    }

    /// One epoch in which the operator puts `rows` out, between these watermarks.
    async fn epoch(&self, rows: &[(i64, i64)], watermark: (i64, i64)) -> Result<(), String> {
        let (before, after) = watermark;
        let watermarks =
            BTreeMap::from([("s".to_owned(), Watermark { reached: before, before, after })]);
        self.states.set_moment(Moment { timestamp_us: 0, watermarks });
        let told = Arc::new(Told(changes(rows)));
        let input = Arc::new(EmptyExec::new(Arc::new(Schema::empty())));
        let exec =
            OperatorExec::new(1, told, vec![input], vec![Vec::new()], Arc::clone(&self.states));
        let closing = Closing { column: 0, lag_us: 0, sources: vec!["s".into()] };
        let states = Arc::clone(&self.states);
        let edge = Edge::new(1, "told".into(), self.appends, vec![closing], states);
        let plan = CheckedExec::new(Arc::new(edge.unwrap()), Arc::new(exec.unwrap()));
        let done = collect(Arc::new(plan), Arc::new(TaskContext::default())).await;
        match done {
            Ok(_) => self.states.apply().await.map_err(|error| error.to_string()),
            Err(error) => {
                self.states.discard().await;
                Err(error.to_string())
            }
        }
    }
}

const OPEN: (i64, i64) = (i64::MIN, i64::MIN);

#[tokio::test]
async fn a_row_that_is_not_there_is_not_taken_away() {
    let run = Run::new(false);
    run.epoch(&[(1, 2), (2, 1)], OPEN).await.unwrap();
    run.epoch(&[(1, -1), (2, -1), (2, 1)], OPEN).await.unwrap();
    run.epoch(&[(1, -1)], OPEN).await.unwrap();
    let error = run.epoch(&[(1, -1)], OPEN).await.unwrap_err();
    assert!(error.contains("of told takes a row away that is not there"), "{error}");
    // An epoch that fails leaves no trace.
    run.epoch(&[(2, -1)], OPEN).await.unwrap();
}

#[tokio::test]
async fn a_row_comes_before_it_goes_also_after_a_restart() {
    let run = Run::new(false);
    run.epoch(&[(1, 1)], OPEN).await.unwrap();
    let images = run.states.images().await.unwrap();
    let again = Run::new(false);
    again.states.restore(images);
    again.epoch(&[(1, -1)], OPEN).await.unwrap();
    assert!(again.epoch(&[(1, -1)], OPEN).await.is_err());
}

#[tokio::test]
async fn what_only_appends_takes_nothing_away() {
    let run = Run::new(true);
    run.epoch(&[(1, 1)], OPEN).await.unwrap();
    let error = run.epoch(&[(1, -1)], OPEN).await.unwrap_err();
    assert!(error.contains("may only append"), "{error}");
}

#[tokio::test]
async fn watermarks_do_not_go_back() {
    let run = Run::new(false);
    run.epoch(&[], (5, 9)).await.unwrap();
    assert!(run.epoch(&[], (9, 8)).await.unwrap_err().contains("goes back"));
    let run = Run::new(false);
    run.epoch(&[], (5, 9)).await.unwrap();
    let error = run.epoch(&[], (4, 10)).await.unwrap_err();
    assert!(error.contains("the watermark of s goes back"), "{error}");
}

#[tokio::test]
async fn nothing_comes_for_a_window_that_was_closed() {
    let run = Run::new(false);
    run.epoch(&[(10, 1)], (0, 10)).await.unwrap();
    run.epoch(&[(11, 1)], (10, 10)).await.unwrap();
    let error = run.epoch(&[(10, 1)], (10, 10)).await.unwrap_err();
    assert!(error.contains("for a window that was closed"), "{error}");
}

#[test]
fn rows_without_columns_are_counted() {
    let schema = with_weight(&Schema::empty());
    let weights = Arc::new(Int64Array::from(vec![2])) as ArrayRef;
    let batch = RecordBatch::try_new(schema, vec![weights]).unwrap();
    let (rows, _) = split(&batch).unwrap();
    assert_eq!(texts(&rows).unwrap().len(), 1);
}
