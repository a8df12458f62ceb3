//! `serve`, and the verbs that talk to it.

use crate::program::{Program, Running};

/// A server on a free port of loopback, and its address.
fn serve(program: &Program, more: &[&str]) -> (Running, String) {
    let mut args = vec!["serve", "--listen", "127.0.0.1:0", "--warehouse", "mill"];
    args.extend(["--trigger-interval", "50ms"]);
    args.extend(more);
    let mut server = program.start(&args);
    let line = server.wait_for("listening on grpc://");
    let address = line.split_whitespace().last().unwrap().to_string();
    (server, address)
}

#[cfg(unix)]
#[test]
fn statements_are_submitted_answered_and_survive_a_restart() {
    let program = Program::new();
    let (mut server, address) = serve(&program, &[]);
    program.write("numbers.ndjson", "{\"n\": 1}\n{\"n\": 2}\n{\"n\": 3}\n");
    let sql = format!(
        "CREATE SOURCE numbers (n BIGINT) WITH (connector = 'files', path = '{}', format = 'json');\n\
         CREATE MATERIALIZED VIEW squares AS SELECT n, n * n AS square FROM numbers;\n\
         CREATE TABLE notes (id BIGINT);\nINSERT INTO notes VALUES (1), (2);",
        program.folder.path().join("numbers.ndjson").display()
    );
    program.write("q.sql", &sql);
    let submitted = program.run(&["submit", "q.sql", "--connect", &address]);
    assert_eq!(submitted.code, Some(0), "{}", submitted.stderr);
    assert!(submitted.stderr.contains("INSERT (2 rows)"), "{}", submitted.stderr);

    let ask = |sql: &str, address: &str| {
        program.ok(&["sql", "--connect", address, "--format", "csv", "-c", sql])
    };
    assert_eq!(ask("SELECT count(*) AS n FROM notes", &address), "n\n2\n");
    let status = program.ok(&["status", "--connect", &address, "--format", "ndjson"]);
    assert!(status.contains("\"squares\""), "{status}");

    let refused = program.run(&["sql", "--connect", &address, "-c", "SELECT\n  nonsense"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("line 2, column 3"), "{}", refused.stderr);
    assert!(refused.stderr.contains("  nonsense\n"), "{}", refused.stderr);

    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let (mut server, address) = serve(&program, &[]);
    assert_eq!(ask("SELECT count(*) AS n FROM notes", &address), "n\n2\n");
    server.signal("INT");
    assert_eq!(server.wait().code(), Some(0));
    // The view was filled by one of the two servers, or is by this run; by one only.
    program.ok(&["run", "--once", "--warehouse", "mill"]);
    let sum = "SELECT count(*) AS n, sum(square) AS s FROM squares";
    let left = program.ok(&["sql", "--warehouse", "mill", "--format", "csv", "-c", sum]);
    assert_eq!(left, "n,s\n3,14\n");
}

#[test]
fn a_warehouse_that_a_server_runs_is_opened_for_reading() {
    let program = Program::new();
    let (_server, address) = serve(&program, &[]);
    program.ok(&["sql", "--connect", &address, "-c", "CREATE TABLE t (id BIGINT)"]);
    let read =
        ["sql", "--warehouse", "mill", "--format", "csv", "-c", "SELECT count(*) AS n FROM t"];
    assert_eq!(program.ok(&read), "n\n0\n");
    let write = program.run(&["sql", "--warehouse", "mill", "-c", "INSERT INTO t VALUES (1)"]);
    assert_eq!(write.code, Some(1));
    assert!(write.stderr.contains("opened for reading only"), "{}", write.stderr);
    let run = program.refused(&["run", "--once", "--warehouse", "mill"]);
    assert!(run.contains("is run by another engine") && run.contains("--connect"), "{run}");
}

#[test]
fn a_server_with_a_password_lets_nobody_else_in() {
    let program = Program::new().with_env("TIDEMILL_USER", "ann");
    program.write("secret.txt", "hunter2\n");
    let (_server, address) = serve(&program, &["--password-file", "secret.txt"]);
    let right = ["sql", "--connect", &address, "--password-file", "secret.txt", "-c", "SELECT 1"];
    program.ok(&right);
    let error =
        program.refused(&["sql", "--connect", &address, "--password", "wrong", "-c", "SELECT 1"]);
    assert!(error.contains("can't connect"), "{error}");
    let error = program.refused(&["sql", "--connect", &address, "-c", "SELECT 1"]);
    assert!(error.contains("a user without a password"), "{error}");
}

#[test]
fn what_would_let_strangers_in_is_refused() {
    let program = Program::new();
    let error = program.refused(&["serve", "--listen", "0.0.0.0:0"]);
    assert!(error.contains("password") && !error.contains("listening"), "{error}");
    let error = program.refused(&["serve", "--tls-cert", "a.pem"]);
    assert!(error.contains("--tls-key"), "{error}");
    let error = program.refused(&["serve", "--listen", "no-port"]);
    assert!(error.contains("can't listen on no-port"), "{error}");
}
