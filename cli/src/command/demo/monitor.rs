//! Looks at the result tables as any client would: by SQL, on a session of its own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::VIEWS;
use super::feed::Tally;
use crate::target::{Reply, Target, collect};

/// Newest rows that are shown of a table.
const LATEST: usize = 30;

/// A result table that the demo shows.
pub struct View {
    pub name: &'static str,
    /// Event time: the newest says how fresh the table is.
    pub time: &'static str,
    /// What fits on the screen.
    pub columns: &'static str,
    /// Rows that it must hold once everything was read.
    pub expected: fn(&Tally) -> u64,
}

/// What a table looked like at one moment.
#[derive(Debug, Default, Clone)]
pub struct ViewSample {
    pub name: String,
    pub rows: u64,
    /// Of the newest row, since its event was produced.
    pub age: Option<Duration>,
    pub header: Vec<String>,
    pub latest: Vec<Vec<String>>,
}

/// Counts every view, with the age of its newest row; with `latest`, its newest rows too.
pub async fn look(target: &Target, latest: bool) -> Result<Vec<ViewSample>> {
    let mut samples = Vec::with_capacity(VIEWS.len());
    for view in VIEWS {
        let mut sample = count(target, view).await?;
        if latest {
            let (columns, name, time) = (view.columns, view.name, view.time);
            let sql = format!("SELECT {columns} FROM {name} ORDER BY {time} DESC LIMIT {LATEST}");
            let batches = rows(target, &sql).await?;
            (sample.header, sample.latest) = texts(&batches)?;
        }
        samples.push(sample);
    }
    Ok(samples)
}

async fn count(target: &Target, view: &View) -> Result<ViewSample> {
    let sql = format!("SELECT count(*), max({}) FROM {}", view.time, view.name);
    let batches = rows(target, &sql).await?;
    let batch = batches.first().ok_or_else(|| anyhow!("{sql}: no row"))?;
    let count = batch.column(0).as_primitive::<Int64Type>().value(0);
    let newest = cast(batch.column(1), &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    let newest = newest.as_primitive::<TimestampMicrosecondType>();
    let age = newest.is_valid(0).then(|| age(newest.value(0)));
    Ok(ViewSample {
        name: view.name.into(),
        rows: u64::try_from(count)?,
        age,
        ..ViewSample::default()
    })
}

/// Of a time in microseconds since 1970.
fn age(time: i64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_micros(u64::try_from(time).unwrap_or(0)))
}

/// One number.
pub async fn number(target: &Target, sql: &str) -> Result<u64> {
    let batches = rows(target, sql).await?;
    let batch = batches.first().ok_or_else(|| anyhow!("{sql}: no row"))?;
    let number = cast(batch.column(0), &DataType::Int64)?;
    Ok(u64::try_from(number.as_primitive::<Int64Type>().value(0))?)
}

pub async fn rows(target: &Target, sql: &str) -> Result<Vec<RecordBatch>> {
    match target.execute(sql).await? {
        Reply::Rows(rows) => Ok(collect(rows).await?),
        Reply::Done(done) => Err(anyhow!("{sql}: {} instead of rows", done.tag)),
    }
}

fn texts(batches: &[RecordBatch]) -> Result<(Vec<String>, Vec<Vec<String>>)> {
    let options = FormatOptions::new().with_null("–");
    let mut header = Vec::new();
    let mut rows = Vec::new();
    for batch in batches {
        header = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        let columns = batch.columns().iter();
        let columns: Vec<_> = columns
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|column| column.value(row).to_string()).collect());
        }
    }
    Ok((header, rows))
}
