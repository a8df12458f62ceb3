//! Random queries over random records, cut into epochs at random.
//!
//! A case becomes a script, runs like one, and is compared twice: with the batch
//! answer of the same engine, and with a DataFusion of its own over a table that
//! arrow-json read. `TIDEMILL_CASES` says how many, `TIDEMILL_SEED` which; a case
//! that fails is made smaller, printed and stored as a script.

mod case;
mod expression;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Int32Array, RecordBatch, StringArray};
use arrow::datatypes::Schema;
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use tidemill_sql::Session;
use tidemill_tests::error::{Error, Result};
use tidemill_tests::oracle;
use tidemill_tests::script::Script;
use tidemill_tests::values::{cast_to, sorted_lines};
use tidemill_tests::way::Way;
use tidemill_tests::world::World;

use case::{Case, Poisoned};

const CASES: u32 = 32;
/// Cases that are tried while a failing one is made smaller.
const SHRINKING: u32 = 1000;

pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn runner() -> TestRunner {
    let seed = number("TIDEMILL_SEED", 1);
    println!("TIDEMILL_SEED={seed}");
    TestRunner::new(Config {
        cases: u32::try_from(number("TIDEMILL_CASES", CASES.into())).unwrap_or(u32::MAX),
        max_shrink_iters: SHRINKING,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    })
}

/// Runs `check` on cases of `strategy`; a failing one ends as a script.
fn for_cases<S: Strategy>(
    name: &str,
    strategy: S,
    script: fn(&S::Value) -> String,
    check: impl AsyncFn(&S::Value) -> Result<()>,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let outcome = runner().run(&strategy, |case| {
        let checked = runtime.block_on(check(&case));
        checked.map_err(|error| TestCaseError::fail(error.to_string()))
    });
    if let Err(error) = outcome {
        let TestError::Fail(reason, case) = error else { panic!("{error:?}") };
        let text = script(&case);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.slt"));
        std::fs::write(&path, &text).expect("a place for the script");
        panic!("{reason}\n\n{text}\nstored as {}", path.display());
    }
}

/// Runs a script and hands its session to `then`.
async fn played(
    text: &str,
    way: Way,
    then: impl AsyncFnOnce(&Session) -> Result<()>,
) -> Result<()> {
    let driver = Script::parse(text, "case")?.run_in(World::default(), way).await?;
    let driver = driver.lock().await;
    then(driver.session().ok_or_else(|| Error::wrong("no session"))?).await
}

#[test]
fn views_hold_what_datafusion_answers() {
    for_cases("views", case::case(), Case::script, async |case: &Case| {
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
    for_cases("casts", case::poisoned(), Poisoned::script, async |case: &Poisoned| {
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
