//! Nexmark as batch queries: each of `queries/nexmark` plans, and answers what it must.

use std::fmt::Write as _;

use tidemill_sql::statement::Statement;
use tidemill_sql::{Session, parse};
use tidemill_tests::nexmark::{QUERIES, query_of, read, run};
use tidemill_tests::oracle;
use tidemill_tests::values::texts;
use tidemill_tests::world::World;

/// Two seconds of events.
const EVENTS: &str = "20000";

/// A session with the three streams and the side input.
async fn auction_site() -> Session {
    let session = World::default().open().await.unwrap().session();
    let sources = read("sources-generator.sql").unwrap().replace("10000000", EVENTS);
    run(&session, &sources).await.unwrap();
    run(&session, &read("side_input.sql").unwrap()).await.unwrap();
    session
}

async fn rows(session: &Session, sql: &str) -> Vec<Vec<String>> {
    let (_, batches) = oracle::query(session, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    texts(&batches).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_answers_as_a_batch() {
    let session = auction_site().await;
    let mut answers = String::new();
    for number in QUERIES {
        let sql = query_of(&format!("q{number}.sql")).unwrap();
        let found = rows(&session, &sql).await;
        assert!(!found.is_empty(), "q{number} answers nothing");
        writeln!(answers, "q{number} {}", found.len()).unwrap();
    }
    insta::assert_snapshot!(answers);
}

/// Incrementally, in epochs of a few thousand rows: what the views hold in the end is
/// what the batch answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_is_kept_up_to_date() {
    let session = World::default().open().await.unwrap().session();
    let sources = read("sources-generator.sql").unwrap().replace("10000000", EVENTS);
    let small = "connector = 'generator', max_rows_per_epoch = 3000";
    run(&session, &sources.replace("connector = 'generator'", small)).await.unwrap();
    run(&session, &read("side_input.sql").unwrap()).await.unwrap();
    let mut failures = String::new();
    for number in QUERIES {
        run(&session, &read(&format!("q{number}.sql")).unwrap()).await.unwrap();
        let kept = session.database().run_once(&|_| {}).await;
        let held = match kept {
            Ok(()) => oracle::check(&session, &[]).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = held {
            writeln!(failures, "q{number}: {}", &error[..error.len().min(1500)]).unwrap();
        }
        run(&session, &format!("DROP MATERIALIZED VIEW q{number}")).await.unwrap();
    }
    assert!(failures.is_empty(), "{failures}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_windows_hold_every_bid() {
    let session = auction_site().await;
    let counted = async |sql: &str| rows(&session, sql).await[0][0].clone();
    let bids = counted("SELECT count(*) FROM bid").await;
    assert_eq!(bids, "18400");
    let windows = format!("SELECT sum(bid_count) FROM ({})", query_of("q11.sql").unwrap());
    assert_eq!(counted(&windows).await, bids);
    let windows = format!("SELECT sum(bid_count) FROM ({})", query_of("q12.sql").unwrap());
    assert_eq!(counted(&windows).await, bids);
    // Every bid is in five of the windows of q5.
    let hop =
        "SELECT count(*) / 5 FROM HOP(bid, date_time, INTERVAL '2' SECOND, INTERVAL '10' SECOND)";
    assert_eq!(counted(hop).await, bids);
}

/// The three ways to declare the streams differ in where they come from and in nothing else.
#[test]
fn every_declaration_parses() {
    for name in ["sources-generator.sql", "sources-files.sql", "sources-kafka.sql"] {
        let text = read(name).unwrap();
        let created: Vec<String> = parse(&text)
            .unwrap()
            .into_iter()
            .map(|statement| match statement.node {
                Statement::CreateSource(create) => {
                    format!("{} {}", create.name, create.columns.columns.len())
                }
                other => panic!("{name}: {}", other.tag()),
            })
            .collect();
        assert_eq!(created, ["bid 8", "auction 10", "person 8"], "{name}");
    }
}
