//! Queries of every stateful operator, over sources that append and one that upserts.
//!
//! What the engine refuses by name, and what DataFusion itself can't plan, is left out
//! of a case; the test fails when that is more than a small share.

mod case;
mod choices;
mod query;
mod relation;
mod scalar;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures::FutureExt;
use tidemill_engine::Error as EngineError;
use tidemill_sql::error::Cause;
use tidemill_sql::{Answer, Session};
use tidemill_tests::error::{Error, Result};
use tidemill_tests::oracle::contents;
use tidemill_tests::values::collect;
use tidemill_tests::world::World;

use super::harness::{cases, for_cases, played};
use case::{Case, Kept, LAST_DAY, ON_CLOSE};

const CASES: u32 = 200;
/// Most of a hundred queries that may be refused, and that DataFusion may not plan.
const REFUSED: usize = 15;
const UNPLANNABLE: usize = 5;
/// Fewest of a hundred that can wait for windows.
const CLOSED: usize = 3;

/// What became of the queries that were made.
#[derive(Debug, Default)]
struct Tally {
    made: AtomicUsize,
    closed: AtomicUsize,
    refused: AtomicUsize,
    unplannable: AtomicUsize,
}

#[test]
fn views_hold_what_their_batch_queries_answer() {
    let tally = Tally::default();
    let script = |case: &Case| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let kept = runtime.block_on(kept(case, &Tally::default()));
        let all = || case.queries().into_iter().map(|query| Kept { query, closes: false });
        case.script(&kept.unwrap_or_else(|_| all().collect()))
    };
    for_cases("stateful", cases(CASES), case::case, script, async |case: &Case| {
        let kept = kept(case, &tally).await?;
        if kept.is_empty() {
            return Ok(());
        }
        let then = async |session: &Session| closed_as_kept(session, &kept).await;
        let outcome = played(&case.script(&kept), case.way(), then).await;
        match outcome {
            Err(_) if survey() => report(case, &kept).await,
            other => other,
        }
    });
    let [made, refused, unplannable, closed] =
        [&tally.made, &tally.refused, &tally.unplannable, &tally.closed]
            .map(|count| count.load(Relaxed));
    println!("{made} views, {refused} refused, {unplannable} that DataFusion can't plan");
    println!("{closed} that also wait for their windows to close");
    assert!(closed * 100 >= made * CLOSED, "only {closed} of {made} views can wait for windows");
    assert!(refused * 100 <= made * REFUSED, "{refused} of {made} queries are refused");
    assert!(unplannable * 100 <= made * UNPLANNABLE, "{unplannable} of {made} can't be planned");
}

/// Whether failing cases are only told, and the others go on.
fn survey() -> bool {
    std::env::var_os("TIDEMILL_SURVEY").is_some()
}

/// Tells which views of a case fail by themselves.
async fn report(case: &Case, kept: &[Kept]) -> Result<()> {
    let mut alone = 0;
    for query in kept {
        let alone_kept = std::slice::from_ref(query);
        let script = case.script(alone_kept);
        let then = async |session: &Session| closed_as_kept(session, alone_kept).await;
        if let Err(error) = played(&script, case.way(), then).await {
            alone += 1;
            println!("FAILED {error}\n--- {}\n=== {script}", query.query);
        }
    }
    if alone == 0 {
        println!("FAILED together only\n=== {}", case.script(kept));
    }
    Ok(())
}

/// A view that waits for its windows to close holds the rows of the one that does not, but
/// for those of windows that the last row, of another day, is in, or of none.
async fn closed_as_kept(session: &Session, kept: &[Kept]) -> Result<()> {
    for view in case::closed(kept) {
        let views = [format!("v{view}"), format!("c{view}")];
        let [all, closed]: [Vec<String>; 2] =
            contents(session, &views).await?.try_into().unwrap_or_default();
        let mut missing = closed.iter().peekable();
        let mut open = |row: &&String| missing.next_if(|held| held == row).is_none();
        let left: Vec<&String> = all.iter().filter(|row| open(row)).collect();
        let early = left.iter().find(|row| !row.contains(LAST_DAY) && !row.contains("NULL"));
        if let Some(row) = early {
            return Err(Error::wrong(format!("c{view} lacks a row that is closed: {row}")));
        }
        if let Some(row) = missing.next() {
            return Err(Error::wrong(format!("c{view} has a row that v{view} has not: {row}")));
        }
    }
    Ok(())
}

/// The queries of a case that the engine takes.
async fn kept(case: &Case, tally: &Tally) -> Result<Vec<Kept>> {
    let world = World::default();
    case::SOURCES.iter().for_each(|source| world.broker.create_topic(source, 1));
    let session = world.open().await?.session();
    for statement in case.setup() {
        execute(&session, &statement).await?;
    }
    let mut kept = Vec::new();
    for query in case.queries() {
        tally.made.fetch_add(1, Relaxed);
        // DataFusion's own planning fails, or even panics, now and then.
        let batch = AssertUnwindSafe(execute(&session, &query)).catch_unwind().await;
        let batch = batch.unwrap_or_else(|_| Err(Error::wrong("a panic")));
        if let Err(error) = batch {
            count(&tally.unplannable, &query, &error);
            continue;
        }
        match execute(&session, &format!("CREATE MATERIALIZED VIEW probe AS {query}")).await {
            Ok(()) => {
                execute(&session, "DROP MATERIALIZED VIEW probe").await?;
                let closing = format!("CREATE MATERIALIZED VIEW probe AS {query} {ON_CLOSE}");
                let closes = execute(&session, &closing).await.is_ok();
                if closes {
                    execute(&session, "DROP MATERIALIZED VIEW probe").await?;
                    tally.closed.fetch_add(1, Relaxed);
                }
                kept.push(Kept { query, closes });
            }
            Err(error) if refused(&error) => count(&tally.refused, &query, &error),
            Err(error) => return Err(Error::wrong(format!("not planned: {error}\n{query}"))),
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
