//! Queries of every stateful operator, over sources that append and one that upserts.
//!
//! What the engine refuses by name, and what DataFusion itself can't plan, is left out
//! of a case; the test fails when that is more than a small share.

mod case;
mod choices;
mod query;
mod relation;
mod scalar;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tidemill_engine::Error as EngineError;
use tidemill_sql::error::Cause;
use tidemill_sql::{Answer, Session};
use tidemill_tests::error::{Error, Result};
use tidemill_tests::values::collect;
use tidemill_tests::world::World;

use super::harness::{cases, for_cases, played};
use case::Case;

const CASES: u32 = 200;
/// Most of a hundred queries that may be refused, and that DataFusion may not plan.
const REFUSED: usize = 15;
const UNPLANNABLE: usize = 5;

/// What became of the queries that were made.
#[derive(Debug, Default)]
struct Tally {
    made: AtomicUsize,
    refused: AtomicUsize,
    unplannable: AtomicUsize,
}

#[test]
fn views_hold_what_their_batch_queries_answer() {
    let tally = Tally::default();
    let script = |case: &Case| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let kept = runtime.block_on(kept(case, &Tally::default()));
        case.script(&kept.unwrap_or_else(|_| case.queries()))
    };
    for_cases("stateful", cases(CASES), case::case, script, async |case: &Case| {
        let kept = kept(case, &tally).await?;
        if kept.is_empty() {
            return Ok(());
        }
        let outcome = played(&case.script(&kept), case.way(), async |_| Ok(())).await;
        match outcome {
            Err(_) if survey() => report(case, &kept).await,
            other => other,
        }
    });
    let [made, refused, unplannable] =
        [&tally.made, &tally.refused, &tally.unplannable].map(|count| count.load(Relaxed));
    println!("{made} views, {refused} refused, {unplannable} that DataFusion can't plan");
    assert!(refused * 100 <= made * REFUSED, "{refused} of {made} queries are refused");
    assert!(unplannable * 100 <= made * UNPLANNABLE, "{unplannable} of {made} can't be planned");
}

/// Whether failing cases are only told, and the others go on.
fn survey() -> bool {
    std::env::var_os("TIDEMILL_SURVEY").is_some()
}

/// Tells which views of a case fail by themselves.
async fn report(case: &Case, kept: &[String]) -> Result<()> {
    let mut alone = 0;
    for query in kept {
        let script = case.script(std::slice::from_ref(query));
        if let Err(error) = played(&script, case.way(), async |_| Ok(())).await {
            alone += 1;
            println!("FAILED {error}\n--- {query}\n=== {script}");
        }
    }
    if alone == 0 {
        println!("FAILED together only\n=== {}", case.script(kept));
    }
    Ok(())
}

/// The queries of a case that the engine takes.
async fn kept(case: &Case, tally: &Tally) -> Result<Vec<String>> {
    let world = World::default();
    case::SOURCES.iter().for_each(|source| world.broker.create_topic(source, 1));
    let session = world.open().await?.session();
    for statement in case.setup() {
        execute(&session, &statement).await?;
    }
    let mut kept = Vec::new();
    for query in case.queries() {
        tally.made.fetch_add(1, Relaxed);
        match execute(&session, &format!("CREATE MATERIALIZED VIEW probe AS {query}")).await {
            Ok(()) => {
                execute(&session, "DROP MATERIALIZED VIEW probe").await?;
                kept.push(query);
            }
            Err(error) if refused(&error) => count(&tally.refused, &query, &error),
            Err(error) => match execute(&session, &query).await {
                Err(_) => count(&tally.unplannable, &query, &error),
                Ok(()) => return Err(Error::wrong(format!("not planned: {error}\n{query}"))),
            },
        }
    }
    Ok(kept)
}

fn count(of: &AtomicUsize, query: &str, error: &Error) {
    of.fetch_add(1, Relaxed);
    if std::env::var_os("TIDEMILL_SHOW").is_some() {
        println!("{error}\n    {query}\n");
    }
}

/// Whether the engine says by name that it does not keep such a query.
fn refused(error: &Error) -> bool {
    let Error::Sql(error) = error else { return false };
    matches!(error.cause(), Cause::Engine(EngineError::Unsupported { .. }))
}

async fn execute(session: &Session, sql: &str) -> Result<()> {
    if let Answer::Rows(rows) = session.execute(sql).await? {
        collect(rows).await?;
    }
    Ok(())
}
