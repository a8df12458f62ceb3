//! Examples: what statements parse to, and how refusals read.

use super::*;
use crate::options::OptionValue;
use crate::statement::*;

fn one(sql: &str) -> Statement {
    match parse_one(sql) {
        Ok(parsed) => parsed.node,
        Err(error) => panic!("{}", error.render(sql)),
    }
}

/// What it prints as.
fn shown(sql: &str) -> String {
    one(sql).to_string()
}

fn refusal(sql: &str) -> String {
    match parse(sql) {
        Ok(statements) => panic!("parsed: {statements:?}"),
        Err(error) => error.render(sql),
    }
}

#[test]
fn the_example_of_the_language() {
    let sql = "
        CREATE SOURCE orders (
          order_id BIGINT NOT NULL, user_id BIGINT, amount DECIMAL(12,2), ordered_at TIMESTAMP,
          partition INT METADATA, \"offset\" BIGINT METADATA,      -- topic, partition, offset
          day DATE AS (CAST(ordered_at AS DATE)),
          PRIMARY KEY (order_id),
          WATERMARK FOR ordered_at AS ordered_at - INTERVAL '5' SECOND
        ) WITH (connector = 'kafka', topic = 'orders', 'bootstrap.servers' = 'localhost:9092',
                'scan.startup.mode' = 'earliest', format = 'json', on_error = 'dead_letter');";
    insta::assert_snapshot!(format!("{:#}", one(sql)), @r#"
    CREATE SOURCE orders (
      order_id BIGINT NOT NULL,
      user_id BIGINT,
      amount DECIMAL(12,2),
      ordered_at TIMESTAMP,
      partition INT METADATA,
      "offset" BIGINT METADATA,
      day DATE AS (CAST(ordered_at AS DATE)),
      PRIMARY KEY (order_id),
      WATERMARK FOR ordered_at AS ordered_at - INTERVAL '5' SECOND
    )
    WITH (
      connector = 'kafka',
      topic = 'orders',
      'bootstrap.servers' = 'localhost:9092',
      'scan.startup.mode' = 'earliest',
      format = 'json',
      on_error = 'dead_letter'
    )
    "#);
    let sql = "CREATE MATERIALIZED VIEW sales_per_minute
      PARTITIONED BY (day)
      WITH (trigger_interval = '1 second', retention = '30 days')
    AS SELECT window_start, product_id, count(*) AS orders, sum(amount) AS revenue
       FROM TUMBLE(orders, ordered_at, INTERVAL '1' MINUTE)
       GROUP BY window_start, product_id
    EMIT ON WINDOW CLOSE;";
    insta::assert_snapshot!(format!("{:#}", one(sql)), @"
    CREATE MATERIALIZED VIEW sales_per_minute
    PARTITIONED BY (day)
    WITH (
      trigger_interval = '1 second',
      retention = '30 days'
    )
    AS SELECT
      window_start,
      product_id,
      count(*) AS orders,
      sum(amount) AS revenue
    FROM
      TUMBLE(orders, ordered_at, INTERVAL '1' MINUTE)
    GROUP BY
      window_start, product_id
    EMIT ON WINDOW CLOSE
    ");
}

#[test]
fn other_spellings_mean_the_same() {
    let same = |a: &str, b: &str| assert_eq!(one(a), one(b), "{a}\n{b}");
    same(
        "SELECT * FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(at), INTERVAL '1' MINUTE))",
        "SELECT * FROM TABLE(TUMBLE(orders, DESCRIPTOR(at), INTERVAL '1' MINUTE))",
    );
    same(
        "SELECT * FROM TABLE(HOP(DATA => TABLE s.orders, TIMECOL => DESCRIPTOR(at)))",
        "SELECT * FROM TABLE(HOP(DATA => s.orders, TIMECOL => DESCRIPTOR(at)))",
    );
    same(
        "SELECT * FROM TUMBLE(TABLE (SELECT * FROM t), at, INTERVAL '1' MINUTE)",
        "SELECT * FROM TUMBLE((SELECT * FROM t), at, INTERVAL '1' MINUTE)",
    );
    let session =
        "SELECT * FROM SESSION(t, PARTITION_BY => (a, b), DESCRIPTOR(at), INTERVAL '1' DAY)";
    same(
        "SELECT * FROM SESSION(TABLE t PARTITION BY a, b, DESCRIPTOR(at), INTERVAL '1' DAY)",
        session,
    );
    same("SELECT * FROM SESSION(t PARTITION BY (a, b), DESCRIPTOR(at), INTERVAL '1' DAY)", session);
    same(
        "SELECT * FROM SESSION(t PARTITION BY f(a, b), at, INTERVAL '1' DAY)",
        "SELECT * FROM SESSION(t, PARTITION_BY => (f(a, b)), at, INTERVAL '1' DAY)",
    );
    same(
        "SELECT * FROM SESSION(t PARTITION BY a, b, at, INTERVAL '1' DAY)",
        "SELECT * FROM SESSION(t, PARTITION_BY => (a, b), at, INTERVAL '1' DAY)",
    );
    same(
        "SELECT * FROM SESSION(t, at PARTITION BY a, b, INTERVAL '1' DAY)",
        "SELECT * FROM SESSION(t, at, PARTITION_BY => (a, b), INTERVAL '1' DAY)",
    );
    same(
        "SELECT * FROM SESSION(t, at, INTERVAL '1' DAY PARTITION BY a, b)",
        "SELECT * FROM SESSION(t, at, INTERVAL '1' DAY, PARTITION_BY => (a, b))",
    );
    same(
        "SELECT * FROM o JOIN s.t FOR SYSTEM_TIME AS OF now() AS x ON x.a = o.a",
        "SELECT * FROM o JOIN SYSTEM_TIME_AS_OF(s.t) AS x ON x.a = o.a",
    );
    same(
        "SELECT * FROM o JOIN t x FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP ON x.a = o.a",
        "SELECT * FROM o JOIN SYSTEM_TIME_AS_OF(t) x ON x.a = o.a",
    );
    same("TABLE orders", "SELECT * FROM orders");
    same("(TABLE \"a b\") UNION ALL TABLE b", "(SELECT * FROM \"a b\") UNION ALL SELECT * FROM b");
    same("CREATE VIEW v AS TABLE t", "CREATE VIEW v AS SELECT * FROM t");
    same("INSERT INTO t (a) TABLE u", "INSERT INTO t (a) SELECT * FROM u");
    same("EXPLAIN TABLE t", "EXPLAIN SELECT * FROM t");
    same(
        "CREATE SINK s FROM mv WITH (connector = 'blackhole')",
        "CREATE SINK s WITH (connector = 'blackhole') AS SELECT * FROM mv",
    );
    same(
        "CREATE SINK s AS SELECT f(a) FROM t EMIT CHANGES WITH (connector = 'blackhole', 'a.b' = 1)",
        "CREATE SINK s WITH (connector = blackhole, a.b = 1) AS SELECT f(a) FROM t",
    );
    same(
        "CREATE SOURCE s (id INT PRIMARY KEY) WITH (connector = 'memory')",
        "create source s (id INT, CONSTRAINT k PRIMARY KEY (id) NOT ENFORCED) with (CONNECTOR = memory)",
    );
    same(
        "CREATE TABLE t (a INT, b INT GENERATED ALWAYS AS (a + 1) STORED)",
        "CREATE TABLE t (a INT NULL, b INT AS a + 1)",
    );
    same("DESC TABLE t", "DESCRIBE t");
    same("SUBSCRIBE MATERIALIZED VIEW v", "SUBSCRIBE TO v");
    same("SUBSCRIBE TO (SELECT 1)", "SUBSCRIBE SELECT 1");
    same("EXPLAIN (ANALYZE, VERBOSE) SELECT 1", "EXPLAIN ANALYZE VERBOSE SELECT 1");
    same("EXPLAIN FORMAT tree SELECT 1", "EXPLAIN (FORMAT 'tree') SELECT 1");
    same("SET TIME ZONE 'UTC'", "SET timezone TO 'UTC'");
    same("SET NAMES utf8", "SET LOCAL client_encoding = 'utf8'");
    same("SET a.b TO DEFAULT", "RESET a.b");
    same("BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY", "BEGIN");
    same("END", "COMMIT WORK AND NO CHAIN");
    same("ABORT", "ROLLBACK");
    same("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET TRANSACTION READ WRITE");
    for sql in ["DEALLOCATE ALL", "CLOSE ALL", "UNLISTEN *", "DISCARD PLANS"] {
        assert_eq!(one(sql), Statement::Discard);
    }
}

#[test]
fn words_of_ours_stay_names_elsewhere() {
    for sql in [
        "SELECT source, sink, emit, changes, metadata FROM watermark",
        "SELECT 1 AS table FROM t",
        "SELECT a emit FROM changes",
        "SELECT * FROM subscribe AS source WHERE watermark > 1",
        "CREATE SOURCE source (watermark INT, metadata INT, comment VARCHAR, check INT, constraint INT) WITH (connector = 'memory')",
        "CREATE TABLE t (key INT METADATA FROM 'key')",
        "SHOW \"sources\"",
        "SHOW search_path",
        "DROP TABLE \"if exists\"",
    ] {
        assert_eq!(one(&shown(sql)), one(sql), "{sql}");
    }
    assert!(matches!(one("DESCRIBE table"), Statement::Describe(_)));
    assert!(matches!(one("SUBSCRIBE TO source AS OF 3"), Statement::Subscribe(_)));
    assert!(matches!(
        one("CREATE SINK s WITH (connector = 'x') AS WITH c AS (SELECT 1) SELECT * FROM c"),
        Statement::CreateSink(_)
    ));
}

#[test]
fn small_statements_print_as_expected() {
    for sql in [
        "SHOW MATERIALIZED VIEWS FROM public LIKE 'a%'",
        "SHOW COLUMNS FROM a.b",
        "SHOW CREATE MATERIALIZED VIEW v",
        "SHOW timezone",
        "SHOW ALL",
        "ALTER MATERIALIZED VIEW IF EXISTS v PAUSE",
        "ALTER QUERY \"insert 1\" RESUME",
        "DROP SOURCE IF EXISTS a, b CASCADE",
        "SUBSCRIBE TO v AS OF 17",
        "SUBSCRIBE TO v AS OF '2026-01-01 00:00:00'",
        "EXPLAIN INCREMENTAL SELECT 1",
        "DESCRIBE (SELECT 1)",
        "RESET ALL",
        "SET datafusion.execution.batch_size = 100",
        "SET search_path = 'a', 'b'",
        "INSERT INTO notes (id, note) VALUES (1, 'it''s')",
        "INSERT INTO lake WITH (trigger_interval = '1 second') SELECT * FROM orders EMIT ON WINDOW CLOSE",
        "CREATE OR REPLACE TABLE t (id BIGINT COMMENT 'the key') PARTITIONED BY (id)",
        "CREATE TABLE IF NOT EXISTS t WITH (connector = 'delta', location = 's3://lake/t')",
        "CREATE TABLE t AS SELECT 1 AS x",
        "SELECT * FROM SESSION(t PARTITION BY (a, b), DESCRIPTOR(at), INTERVAL '1' DAY) AS w",
        "SELECT 'ü', PARTITION_BY FROM o JOIN s.t FOR SYSTEM_TIME AS OF now() AS x ON x.a = o.a",
    ] {
        assert_eq!(shown(sql), sql);
    }
}

#[test]
fn string_literals_survive_printing() {
    // sqlparser alone takes two quotes in a row for escaped ones.
    let sql = r"CREATE VIEW v AS SELECT 'a''''b', '\''', '''', E'\'', 'x' LIKE '''%' ESCAPE '''', '$q''''$'";
    assert_eq!(one(&shown(sql)), one(sql));
    assert_eq!(
        shown(sql),
        r"CREATE VIEW v AS SELECT $q$a''b$q$, $q$\'$q$, '''', E'\'', 'x' LIKE '''%' ESCAPE '''', $qq$$q''$$qq$"
    );
}

#[test]
fn places_count_from_the_start_of_the_whole_text() {
    let sql = "SELECT 'ü;';\n  -- comment ;\n  SELECT \"é\" -- end\n;";
    let statements = parse(sql).unwrap();
    assert_eq!(statements[0].text(sql), "SELECT 'ü;'");
    assert_eq!(statements[1].text(sql), "SELECT \"é\"");
    assert_eq!(statements[1].start, Location { line: 3, column: 3, width: 6 });
    assert!(parse(" ; ;; -- nothing\n").unwrap().is_empty());
}

#[test]
fn when_a_prompt_may_send() {
    for sql in [
        "",
        " \n",
        "-- only a comment",
        "SELECT 1;",
        "SELECT ';';  -- done",
        "$$a;$$;",
        "SELECT 1;\n/* x */ ",
    ] {
        assert!(is_complete(sql), "{sql}");
    }
    for sql in [
        "SELECT 1",
        "SELECT ';",
        "SELECT \"a;",
        "SELECT 1; /* ;",
        "SELECT $$;",
        "SELECT $t$;$$;",
        "SELECT 1; SELECT",
        "SELECT 'it''s;",
        "SELECT 1 -- ;",
    ] {
        assert!(!is_complete(sql), "{sql}");
    }
}

#[test]
fn options_keep_order_type_and_place() {
    let sql = "CREATE SOURCE s WITH (Topic = x,\n 'B.c' = -1.5, d.E = TRUE)";
    let Statement::CreateSource(create) = one(sql) else { panic!() };
    let found: Vec<_> = create.options.iter().map(|o| (o.name.as_str(), &o.value)).collect();
    assert_eq!(
        found,
        [
            ("topic", &OptionValue::String("x".into())),
            ("B.c", &OptionValue::Number("-1.5".into())),
            ("d.e", &OptionValue::Boolean(true)),
        ]
    );
    let third = create.options.get("d.e").unwrap();
    assert_eq!(third.name_location(), Some(Location { line: 2, column: 16, width: 3 }));
    let second = create.options.get("B.c").unwrap();
    assert_eq!(second.value_location(), Some(Location { line: 2, column: 10, width: 4 }));
}

#[test]
fn deep_nesting_is_refused_not_overflown() {
    let deep = format!("SELECT {}1{}", "(".repeat(2000), ")".repeat(2000));
    assert!(refusal(&deep).contains("nested too deeply"));
    let explains = "EXPLAIN ".repeat(5000) + "SELECT 1";
    assert!(refusal(&explains).contains("EXPLAIN can't explain itself"));
}

#[test]
fn names_that_sqlparser_prints_wrongly_are_refused_where_they_are_kept() {
    let sql = r#"CREATE VIEW v AS SELECT "a""""b" FROM t"#;
    insta::assert_snapshot!(refusal(sql), @r#"
    error: this statement can't be written to the catalog and read back
      --> line 1, column 1
       |
     1 | CREATE VIEW v AS SELECT "a""""b" FROM t
       | ^^^^^^
       hint: names that hold two quotes in a row, or a quote after a backslash, can't be used inside its query
    "#);
    one(r#"SELECT "a""""b" FROM t"#);
    one(r#"CREATE VIEW "a""""b" AS SELECT "a""b" FROM t"#);
}

/// Mistakes deep inside take long with some of these unless they are limited.
#[test]
fn long_chains_are_refused_before_they_overflow_a_stack() {
    for (start, link, middle, close) in [
        ("", "1 + ", "1", ""),
        ("x", " OR a = 'b'", "", ""),
        ("1", " UNION ALL SELECT 1", "", ""),
        ("x", " IS NULL", "", ""),
        ("x", "::INT", "", ""),
        ("", "- ", "1", ""),
        ("", "NOT ", "x", ""),
        ("x", "[1]", "", ""),
        ("x", ".y", "", ""),
        ("* FROM t", " JOIN u ON a = b", "", ""),
        ("", "CASE WHEN a THEN ", "1", " END"),
        ("x", " COLLATE c", "", ""),
        ("x", " AT TIME ZONE 'UTC'", "", ""),
        ("x", " -> 'a'", "", ""),
        ("x FROM t", " |> WHERE a", "", ""),
        ("", "(", "1", ")"),
        ("", "f(", "1", ")"),
        ("", "(SELECT ", "1", ")"),
        ("* FROM ", "(SELECT * FROM ", "t", ") AS a"),
        ("* FROM ", "(", "t", " CROSS JOIN u)"),
        ("x WHERE ", "x IN (SELECT x FROM t WHERE ", "TRUE", ")"),
        ("1 UNION ", "(SELECT 1 UNION ", "SELECT 1", ")"),
        ("", "ARRAY[", "1", "]"),
        ("", "ARRAY[", "1 +", "]"),
        ("", "CAST(", "1 +", " AS INT)"),
        ("", "SUBSTRING(", "1 +", ")"),
        ("", "NOT (", "1 +", ")"),
        ("", "x IN ((SELECT ", "1 +", "))"),
        ("", "EXISTS (SELECT ", "1 +", ")"),
        ("", "EXTRACT(YEAR FROM ", "1 +", ")"),
        ("", "coalesce(1, ", "1 +", ")"),
        ("", "STRUCT(", "1 +", ")"),
        ("", "MAP {'a': ", "1 +", "}"),
        ("", "INTERVAL ", "1 +", ""),
        ("", "(1, ", "1 +", ")"),
        ("", "CASE ", "1 +", ""),
        ("* FROM ", "((SELECT * FROM ", "t +", "))"),
        ("* FROM t JOIN ", "(t JOIN ", "t +", ")"),
        ("", "x -> ", "1 +", ""),
        ("", "f(x => ", "1 +", ")"),
        ("x", " FROM (SELECT x WHERE a OR a OR a OR a", "", ")"),
    ] {
        for count in [10, 20, 40, 49, 60, 190, 5_000] {
            let (links, closes) = (link.repeat(count), close.repeat(count));
            let sql = format!("CREATE VIEW v AS SELECT {start}{links}{middle}{closes}");
            match parse(&sql) {
                // To copy a tree takes the most stack.
                Ok(parsed) => assert_eq!(parsed.clone(), parsed),
                Err(error) => assert!(error.location().is_some(), "{link}"),
            }
        }
    }
}
