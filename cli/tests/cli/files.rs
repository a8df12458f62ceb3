//! `run` and `check`: SQL files, on files as sources.

use crate::program::Program;

/// Ten orders in a file, seven of them paid; a view of those.
fn pipeline(program: &Program) -> String {
    let orders: String = (1..=10)
        .map(|id| {
            let status = if id <= 7 { "paid" } else { "placed" };
            format!("{{\"id\": {id}, \"amount\": {}.5, \"status\": \"{status}\"}}\n", id * 10)
        })
        .collect();
    let path = program.write("orders.ndjson", &orders);
    let sql = format!(
        "-- orders from a file\n\
         CREATE SOURCE orders (id BIGINT, amount DOUBLE, status VARCHAR)\n  \
           WITH (connector = 'files', path = '{}', format = 'json');\n\n\
         CREATE MATERIALIZED VIEW paid AS\n  SELECT id, amount FROM orders WHERE status = 'paid';\n",
        path.display()
    );
    program.write("pipeline.sql", &sql);
    sql
}

#[test]
fn run_once_reads_what_is_there_and_the_view_can_be_asked() {
    let program = Program::new();
    pipeline(&program);
    let stdout = program.ok(&["run", "--once", "pipeline.sql", "--warehouse", "mill"]);
    assert_eq!(stdout, "", "progress is talk");
    let sql = |query: &str, format: &str| {
        program.ok(&["sql", "--warehouse", "mill", "-c", query, "--format", format])
    };
    assert_eq!(sql("SELECT count(*) AS n, sum(amount) AS s FROM paid", "csv"), "n,s\n7,283.5\n");
    assert_eq!(
        sql("SELECT id, amount FROM paid ORDER BY id LIMIT 2", "ndjson"),
        "{\"id\":1,\"amount\":10.5}\n{\"id\":2,\"amount\":20.5}\n"
    );
    let rows: serde_json::Value =
        serde_json::from_str(&sql("SELECT max(id) AS id, NULL AS none FROM paid", "json")).unwrap();
    assert_eq!(rows, serde_json::json!([{"id": 7, "none": null}]));
    assert_eq!(sql("SELECT id FROM paid WHERE id > 6", "table"), " id\n----\n  7\n(1 row)\n");
}

#[test]
fn running_the_same_file_again_goes_on_and_adds_nothing() {
    let program = Program::new();
    pipeline(&program);
    program.ok(&["run", "--once", "pipeline.sql"]);
    let again = program.run(&["run", "--once", "pipeline.sql"]);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stderr.contains("exists already"), "{}", again.stderr);
    // Without a file: what the warehouse holds.
    program.ok(&["run", "--once"]);
    let count = program.ok(&["sql", "-c", "SELECT count(*) AS n FROM paid", "--format", "csv"]);
    assert_eq!(count, "n\n7\n");
    let status = program.ok(&["status", "--format", "ndjson"]);
    assert!(status.contains("\"paid\",\"state\":\"stopped\",\"epoch\":1,"), "{status}");
}

#[test]
fn a_continuous_insert_is_not_started_twice() {
    let program = Program::new();
    program.write(
        "insert.sql",
        "CREATE SOURCE s WITH (connector = 'generator', template = 'orders', rows_per_second = 100);\n\
         CREATE TABLE t (order_id BIGINT);\n\
         INSERT INTO t SELECT order_id FROM s;\nINSERT INTO t VALUES (0);",
    );
    program.ok(&["run", "--once", "insert.sql"]);
    let again = program.run(&["run", "--once", "insert.sql"]);
    assert!(again.stderr.contains("runs already"), "{}", again.stderr);
    let sql = "SELECT count(*) AS n FROM t WHERE order_id = 0";
    assert_eq!(
        program.ok(&["sql", "-c", sql, "--format", "csv"]),
        "n\n2\n",
        "given rows each time"
    );
    let queries = program.ok(&["sql", "-c", "SHOW QUERIES", "--format", "ndjson"]);
    assert_eq!(queries.lines().count(), 1, "{queries}");
}

#[test]
fn another_definition_under_the_same_name_is_refused_at_its_place() {
    let program = Program::new();
    let sql = pipeline(&program);
    program.ok(&["run", "--once", "pipeline.sql"]);
    program.write("pipeline.sql", &sql.replace("'paid'", "'placed'"));
    let error = program.refused(&["run", "--once", "pipeline.sql"]);
    assert!(error.contains("pipeline.sql:5:1: error: "), "{error}");
    assert!(error.contains("another definition") && error.contains("OR REPLACE"), "{error}");
}

#[test]
fn a_statement_that_fails_is_placed_in_its_file() {
    let program = Program::new();
    let sql = pipeline(&program);
    program.write("pipeline.sql", &sql.replace("status = 'paid'", "state = 'paid'"));
    let error = program.refused(&["run", "--once", "pipeline.sql"]);
    assert!(error.contains("pipeline.sql:6:"), "{error}");
    assert!(error.contains("FROM orders WHERE state = 'paid'") && error.contains("^"), "{error}");
    program.write("pipeline.sql", "SELECT 1;\n\\dt\n");
    let error = program.refused(&["run", "--once", "pipeline.sql"]);
    assert!(error.contains("pipeline.sql:2:1") && error.contains("tidemill sql"), "{error}");
    let error = program.refused(&["run", "nowhere.sql"]);
    assert!(error.contains("nowhere.sql"), "{error}");
}

#[test]
fn a_query_that_can_not_read_its_source_fails_the_run() {
    let program = Program::new();
    let sql = pipeline(&program).replace("format = 'json'", "format = 'json', on_error = 'fail'");
    program.write("pipeline.sql", &sql);
    program.write("orders.ndjson", "{\"id\": 1}\n{\"id\": \"many\"}\n");
    let error = program.refused(&["run", "--once", "pipeline.sql"]);
    assert!(error.contains("orders") && error.contains("many"), "{error}");
}

#[test]
fn check_says_ok_statement_by_statement() {
    let program = Program::new();
    pipeline(&program);
    let stdout = program.ok(&["check", "pipeline.sql", "--explain"]);
    assert!(stdout.contains("pipeline.sql:2:1: ok: CREATE SOURCE orders"), "{stdout}");
    assert!(stdout.contains("pipeline.sql:5:1: ok: CREATE MATERIALIZED VIEW paid"), "{stdout}");
    assert!(stdout.contains("\n  Projection: "), "{stdout}");
    assert!(!program.folder.path().join("tidemill-data").exists(), "check leaves nothing behind");
}

#[test]
fn check_goes_on_after_an_error_and_contacts_nothing() {
    let program = Program::new();
    let sql = "CREATE SOURCE s (id BIGINT) WITH (connector = 'kafka', topic = 't',\n  \
               'bootstrap.servers' = 'nowhere.invalid:9092', format = 'json');\n\
               CREATE MATERIALIZED VIEW a AS SELECT id, id FORM s;\n\
               CREATE MATERIALIZED VIEW b AS SELECT id FROM s LIMIT 3;\n\
               CREATE MATERIALIZED VIEW c AS SELECT id FROM s;\n";
    program.write("q.sql", sql);
    let outcome = program.run(&["check", "q.sql"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stdout.contains("q.sql:5:1: ok"), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("q.sql:3:"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("q.sql:4:"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("4 statements checked, 2 wrong"), "{}", outcome.stderr);
}

#[test]
fn the_queries_of_the_demo_are_right() {
    let program = Program::new();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../queries/demo");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().display().to_string())
        .collect();
    files.sort();
    let args: Vec<&str> =
        std::iter::once("check").chain(files.iter().map(String::as_str)).collect();
    program.ok(&args);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_run_well() {
    let program = Program::new();
    program.write(
        "endless.sql",
        "CREATE SOURCE s WITH (connector = 'generator', template = 'orders', rows_per_second = 100);\n\
         CREATE MATERIALIZED VIEW v AS SELECT order_id FROM s;",
    );
    let mut running = program.start(&["run", "endless.sql", "--trigger-interval", "50ms"]);
    running.wait_for("rows read");
    running.signal("INT");
    running.wait_for("finishing the epochs in flight");
    assert_eq!(running.wait().code(), Some(0));
    // The lease was given back: the next one need not wait for it.
    let left = program.run(&[
        "sql",
        "-c",
        "CREATE TABLE t (id BIGINT); SELECT 1 AS one",
        "--format",
        "csv",
    ]);
    assert_eq!((left.code, left.stdout.as_str()), (Some(0), "one\n1\n"), "{}", left.stderr);
}
