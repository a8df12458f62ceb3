//! What a query keeps does not grow with what it has read, where a watermark frees it.

use tidemill_tests::driver::Driver;
use tidemill_tests::oracle;
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
