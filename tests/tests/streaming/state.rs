//! What a query keeps does not grow with what it has read, where a watermark frees it; what
//! has no room fails alone.

use tidemill_tests::driver::Driver;
use tidemill_tests::oracle;
use tidemill_tests::values::texts;
use tidemill_tests::way::Way;
use tidemill_tests::world::World;

const SETUP: [&str; 3] = [
    "CREATE SOURCE clicks (who BIGINT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '5' SECOND) \
     WITH (connector = 'memory')",
    "CREATE MATERIALIZED VIEW visits AS SELECT who, window_start, window_end, count(*) AS n \
     FROM TABLE(SESSION(TABLE clicks PARTITION BY who, DESCRIPTOR(at), INTERVAL '1' MINUTE)) \
     GROUP BY who, window_start, window_end",
    "CREATE MATERIALIZED VIEW marked AS \
     SELECT who, window_start FROM SESSION(clicks, at, INTERVAL '20' SECOND)",
];

/// More than it takes to read 100,000 rows.
const EPOCHS: usize = 5;

/// Rows that each query keeps.
fn state_rows(driver: &Driver) -> Vec<u64> {
    let session = driver.session().expect("an open session");
    session.database().queries().iter().map(|query| query.state_rows).collect()
}

#[tokio::test]
async fn closed_sessions_free_their_rows() {
    let mut driver = Driver::new(World::default(), Way::AsWritten);
    for statement in SETUP {
        driver.execute(statement).await.expect(statement);
    }
    for minute in 0..30 {
        // Each minute another visitor clicks four times within twelve seconds.
        for second in [0, 4, 8, 12] {
            let at = format!("2024-01-01T00:{minute:02}:{second:02}");
            let click = format!("PRODUCE clicks {{\"who\": {}, \"at\": \"{at}\"}}", minute % 7);
            driver.execute(&click).await.expect("a click");
        }
        driver.execute("STEP").await.expect("an epoch");
        let rows = state_rows(&driver);
        assert!(rows.iter().all(|rows| *rows <= 20), "after minute {minute}: {rows:?}");
        if minute == 15 {
            driver.restart().await.expect("a restart");
        }
    }
    let session = driver.session().expect("an open session");
    oracle::check(session, &[]).await.expect("the results stay");
}

#[tokio::test]
async fn a_query_whose_state_has_no_room_fails_alone() {
    let mut world = World::default();
    world.config.memory_limit = 8 << 20;
    let mut driver = Driver::new(world, Way::AsWritten);
    let keys =
        "SELECT order_id, count(*) AS n, max(repeat('x', 60)) AS x FROM orders GROUP BY order_id";
    for statement in [
        "CREATE SOURCE orders WITH (connector = 'generator', template = 'orders', \
         number_of_rows = 100000)",
        "CREATE MATERIALIZED VIEW few AS SELECT count(*) AS n FROM orders",
        &format!("CREATE MATERIALIZED VIEW many AS {keys}"),
        &format!("CREATE MATERIALIZED VIEW spilt WITH (state_memory_limit = 1) AS {keys}"),
    ] {
        driver.execute(statement).await.expect(statement);
    }
    let mut full = None;
    for _ in 0..EPOCHS {
        full = full.or(driver.execute("STEP many").await.err());
        for query in ["few", "spilt"] {
            driver.execute(&format!("STEP {query}")).await.expect(query);
        }
    }
    let told = full.expect("100,000 keys are more than 8 MiB").to_string();
    assert!(
        told.contains("has no room in memory") && told.contains("state of operators"),
        "{told}"
    );
    let session = driver.session().expect("an open session");
    let held = "SELECT (SELECT n FROM few), count(*), sum(n) FROM spilt";
    let (_, rows) = oracle::query(session, held).await.expect(held);
    assert_eq!(texts(&rows).expect("text"), [["100000", "100000", "100000"]]);
}
