//! Queries without state, compared twice: with the batch answer of the same engine, and
//! with a DataFusion of its own over a table that arrow-json read.

mod case;
mod expression;

use std::sync::Arc;

use arrow::array::{Int32Array, RecordBatch, StringArray};
use arrow::datatypes::Schema;
use datafusion::prelude::{SessionConfig, SessionContext};
use tidemill_sql::Session;
use tidemill_tests::error::{Error, Result};
use tidemill_tests::oracle;
use tidemill_tests::values::{cast_to, sorted_lines};
use tidemill_tests::way::Way;

use super::harness::{cases, for_cases, played};
use case::{Case, Poisoned};
pub use case::{cents, words};

const CASES: u32 = 32;

#[test]
fn views_hold_what_datafusion_answers() {
    for_cases("views", cases(CASES), case::case, Case::script, async |case: &Case| {
        played(&case.script(), case.way, async |session| check_views(case, session).await).await
    });
}

async fn check_views(case: &Case, session: &Session) -> Result<()> {
    for (view, query) in case.views() {
        let (schema, held) = oracle::query(session, &format!("SELECT * FROM {view}")).await?;
        let wanted = cast_to(&plain_answer(case, query).await?, &schema)?;
        oracle::compare(query, &sorted_lines(&wanted)?, &sorted_lines(&held)?)?;
    }
    check_dead_letters(session, case.broken()).await
}

#[test]
fn rows_that_fail_a_cast_become_dead_letters_and_no_others() {
    for_cases("casts", cases(CASES), case::poisoned, Poisoned::script, async |case: &Poisoned| {
        let check = async |session: &Session| check_casts(case, session).await;
        played(&case.script(), Way::AsWritten, check).await
    });
}

async fn check_casts(case: &Poisoned, session: &Session) -> Result<()> {
    let (_, held) = oracle::query(session, "SELECT * FROM v").await?;
    let (_, wanted) = oracle::query(session, &case.expected_query()).await?;
    oracle::compare("v", &sorted_lines(&wanted)?, &sorted_lines(&held)?)?;
    let (_, bad) = oracle::query(session, &case.rejected_query()).await?;
    check_dead_letters(session, sorted_lines(&bad)?.len()).await
}

/// Each bad record is kept once. The table is there once there is one.
async fn check_dead_letters(session: &Session, bad: usize) -> Result<()> {
    let letters = match oracle::query(session, "SELECT error FROM src__dead_letters").await {
        Err(_) if bad == 0 => 0,
        rows => rows?.1.iter().map(RecordBatch::num_rows).sum(),
    };
    match letters == bad {
        true => Ok(()),
        false => Err(Error::wrong(format!("{letters} dead letters of {bad} bad records"))),
    }
}

/// What a DataFusion that knows nothing of Tidemill answers.
async fn plain_answer(case: &Case, query: &str) -> Result<Vec<RecordBatch>> {
    let config = SessionConfig::new()
        .with_target_partitions(1)
        .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false);
    let context = SessionContext::new_with_config(config);
    context.register_batch("src", json(&case.good_records(), case::schema())?)?;
    let (keys, names): (Vec<_>, Vec<_>) = case.dimension().iter().cloned().unzip();
    let dimension = RecordBatch::try_from_iter_with_nullable([
        ("k", Arc::new(Int32Array::from(keys)) as _, true),
        ("name", Arc::new(StringArray::from(names)) as _, true),
    ])?;
    context.register_batch("dim", dimension)?;
    Ok(context.sql(query).await?.collect().await?)
}

fn json(records: &str, schema: Schema) -> Result<RecordBatch> {
    let schema = Arc::new(schema);
    let mut reader = arrow::json::ReaderBuilder::new(Arc::clone(&schema))
        .with_batch_size(1 << 20)
        .build(records.as_bytes())?;
    Ok(reader.next().transpose()?.unwrap_or_else(|| RecordBatch::new_empty(schema)))
}
