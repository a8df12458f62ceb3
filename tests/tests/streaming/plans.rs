//! Golden plans: how typical queries are kept up to date.

use tidemill_tests::driver::Driver;
use tidemill_tests::oracle;
use tidemill_tests::values::texts;
use tidemill_tests::way::Way;
use tidemill_tests::world::World;

const SETUP: [&str; 6] = [
    "CREATE SOURCE orders (id BIGINT, user_id BIGINT, product INT, amount DECIMAL(12,2), \
     tags VARCHAR[], ordered_at TIMESTAMP, day DATE AS (CAST(ordered_at AS DATE)), \
     \"offset\" BIGINT METADATA) WITH (connector = 'memory')",
    "CREATE SOURCE refunds (id BIGINT, amount DECIMAL(12,2)) WITH (connector = 'memory')",
    "CREATE TABLE products (product INT, name VARCHAR, price DECIMAL(12,2))",
    "CREATE SOURCE accounts (id BIGINT, owner VARCHAR, balance BIGINT, PRIMARY KEY (id)) \
     WITH (connector = 'memory')",
    "CREATE SOURCE clicks (who BIGINT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '5' SECOND) \
     WITH (connector = 'memory')",
    "CREATE VIEW paid AS SELECT * FROM orders WHERE amount > 0",
];

/// Name of the snapshot, and the statement that is explained.
const QUERIES: &[(&str, &str)] = &[
    ("projection_and_filter", "SELECT id, amount * 2 AS twice FROM orders WHERE amount > 10"),
    ("computed_and_metadata_columns", "SELECT id, day, \"offset\" FROM orders"),
    ("through_a_view", "SELECT id FROM paid WHERE user_id = 7"),
    ("unnest", "SELECT id, unnest(tags) AS tag FROM orders"),
    ("union_all", "SELECT id, amount FROM orders UNION ALL SELECT id, -amount FROM refunds"),
    (
        "inner_join_with_a_table",
        "SELECT o.id, p.name FROM orders o JOIN products p ON o.product = p.product",
    ),
    (
        "left_join_with_a_table",
        "SELECT o.id, p.name FROM orders o LEFT JOIN products p ON o.product = p.product",
    ),
    (
        "semi_join_with_an_aggregated_table",
        "SELECT id FROM orders WHERE product IN \
         (SELECT product FROM products GROUP BY product HAVING max(price) > 5)",
    ),
    (
        "anti_join_with_a_table",
        "SELECT id FROM orders o WHERE NOT EXISTS \
         (SELECT 1 FROM products p WHERE p.product = o.product)",
    ),
    (
        "lookup",
        "SELECT a.owner, p.name FROM accounts a LEFT JOIN products p ON a.balance = p.product",
    ),
    (
        "lookup_without_key",
        "SELECT t.n, p.name FROM (SELECT count(*) AS n FROM orders GROUP BY user_id) t \
         JOIN products p ON t.n = p.product",
    ),
    (
        "union_with_a_table",
        "SELECT product, amount FROM orders UNION ALL SELECT product, price FROM products \
         WHERE name <> 'none' UNION ALL VALUES (0, 0), (-1, 1)",
    ),
    (
        "table_left_join",
        "SELECT p.name, o.id FROM products p LEFT JOIN orders o ON o.product = p.product",
    ),
    ("over_a_table", "SELECT product, max(price) AS dearest FROM products GROUP BY product"),
    (
        "subqueries",
        "SELECT EXISTS (SELECT 1 FROM refunds r WHERE r.id = o.id) AS refunded, \
         count(*) FILTER (WHERE amount > (SELECT avg(price) FROM products)) AS dear FROM orders o GROUP BY 1",
    ),
    ("time_of_the_epoch", "SELECT id, now() AS seen FROM orders"),
    ("aggregate", "SELECT user_id, count(*), sum(amount) FROM orders GROUP BY user_id"),
    (
        "distinct_calls",
        "SELECT user_id, count(*), count(DISTINCT product) FROM orders GROUP BY user_id",
    ),
    ("ordered_aggregate", "SELECT user_id, array_agg(id ORDER BY id) FROM orders GROUP BY user_id"),
    (
        "aggregate_of_an_aggregate",
        "SELECT n, count(*) FROM (SELECT user_id, count(*) AS n FROM orders GROUP BY user_id) GROUP BY n",
    ),
    (
        "largest_of_an_aggregate",
        "SELECT max(n) FROM (SELECT user_id, count(*) AS n FROM orders GROUP BY user_id)",
    ),
    ("distinct", "SELECT DISTINCT product FROM orders"),
    ("join", "SELECT o.id, r.amount FROM orders o JOIN refunds r ON o.id = r.id"),
    (
        "left_join_with_a_condition",
        "SELECT o.id, r.amount FROM orders o LEFT JOIN refunds r ON o.id = r.id AND r.amount < o.amount",
    ),
    (
        "interval_join",
        "SELECT a.who FROM clicks a JOIN clicks b ON a.who = b.who \
         AND b.at BETWEEN a.at AND a.at + INTERVAL '1' MINUTE",
    ),
    ("top_n", "SELECT id, amount FROM orders ORDER BY amount DESC LIMIT 10"),
    (
        "first_of_each",
        "SELECT id FROM (SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY amount) AS n \
         FROM orders) WHERE n = 1",
    ),
    ("over", "SELECT id, sum(amount) OVER (PARTITION BY user_id ORDER BY id) FROM orders"),
    ("primary_key", "SELECT owner, sum(balance) FROM accounts GROUP BY owner"),
    (
        "tumble",
        "SELECT window_start, count(*) FROM TUMBLE(clicks, at, INTERVAL '1' MINUTE) GROUP BY window_start",
    ),
    (
        "session",
        "SELECT who, window_end, count(*) FROM SESSION(clicks PARTITION BY who, at, INTERVAL '1' MINUTE) \
         GROUP BY who, window_end",
    ),
    (
        "session_rows",
        "SELECT who, at, window_start, window_end \
         FROM SESSION(clicks PARTITION BY who, at, INTERVAL '1' MINUTE)",
    ),
    (
        "materialized_view",
        "CREATE MATERIALIZED VIEW v PARTITIONED BY (day) AS SELECT id, day FROM orders",
    ),
];

async fn explained(driver: &Driver, query: &str) -> String {
    let session = driver.session().expect("an open session");
    let rows = oracle::query(session, &format!("EXPLAIN INCREMENTAL {query}")).await;
    let (_, rows) = rows.unwrap_or_else(|error| panic!("{query}: {error}"));
    let lines = texts(&rows).expect("text");
    lines.into_iter().map(|mut row| row.remove(0)).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn explain_incremental() {
    let mut driver = Driver::new(World::default(), Way::AsWritten);
    for statement in SETUP {
        driver.execute(statement).await.expect(statement);
    }
    for (name, query) in QUERIES.iter().copied() {
        let drawn = explained(&driver, query).await;
        insta::with_settings!({ description => query, omit_expression => true }, {
            insta::assert_snapshot!(name, drawn);
        });
    }
}
