//! What is refused, with the exact words. One case a rule; each says where and what to do.
//!
//! Long because it is one list.

use super::parse;

fn refusal(sql: &str) -> String {
    match parse(sql) {
        Ok(statements) => panic!("parsed: {statements:?}"),
        Err(error) => error.render(sql),
    }
}

#[test]
fn text_that_never_closes() {
    insta::assert_snapshot!(refusal("SELECT 1,\n       'open"), @"
    error: this string is not closed
      --> line 2, column 8
       |
     2 |        'open
       |        ^
       hint: close it with '; a quote inside a string is written twice: ''
    ");
    insta::assert_snapshot!(refusal("SELECT \"open"), @r#"
    error: this quoted name is not closed
      --> line 1, column 8
       |
     1 | SELECT "open
       |        ^
       hint: close it with the quote that opened it; inside a name a quote is written twice
    "#);
    insta::assert_snapshot!(refusal("SELECT 1 /* open"), @"
    error: this comment is not closed
      --> line 1, column 10
       |
     1 | SELECT 1 /* open
       |          ^
       hint: close it with */
    ");
    insta::assert_snapshot!(refusal("SELECT $t$ open"), @"
    error: this dollar-quoted string is not closed
      --> line 1, column 8
       |
     1 | SELECT $t$ open
       |        ^
       hint: close it with the same $tag$ again
    ");
}

#[test]
fn misspelt_first_words() {
    insta::assert_snapshot!(refusal("SELCT 1"), @"
    error: SELCT starts no statement
      --> line 1, column 1
       |
     1 | SELCT 1
       | ^^^^^
       hint: did you mean SELECT?
    ");
    insta::assert_snapshot!(refusal("CRAETE SOURCE s"), @"
    error: CRAETE starts no statement
      --> line 1, column 1
       |
     1 | CRAETE SOURCE s
       | ^^^^^^
       hint: did you mean CREATE?
    ");
    insta::assert_snapshot!(refusal("hello"), @"
    error: hello starts no statement
      --> line 1, column 1
       |
     1 | hello
       | ^^^^^
       hint: statements start with SELECT, CREATE, INSERT, SUBSCRIBE, SHOW, DESCRIBE, EXPLAIN, ALTER, DROP or SET
    ");
    insta::assert_snapshot!(refusal("42"), @"
    error: expected a statement, found 42
      --> line 1, column 1
       |
     1 | 42
       | ^^
       hint: a statement starts with a word such as SELECT, CREATE or SHOW
    ");
    insta::assert_snapshot!(refusal("CREATE SUORCE s"), @"
    error: expected SOURCE, TABLE, VIEW, MATERIALIZED VIEW or SINK after CREATE, found SUORCE
      --> line 1, column 8
       |
     1 | CREATE SUORCE s
       |        ^^^^^^
       hint: did you mean CREATE SOURCE?
    ");
    insta::assert_snapshot!(refusal("CREATE MATERIALIZED SELECT 1"), @"
    error: expected VIEW, found SELECT
      --> line 1, column 21
       |
     1 | CREATE MATERIALIZED SELECT 1
       |                     ^^^^^^
    ");
}

#[test]
fn statements_of_other_systems() {
    insta::assert_snapshot!(refusal("COPY t TO 'x'"), @"
    error: COPY is not supported
      --> line 1, column 1
       |
     1 | COPY t TO 'x'
       | ^^^^
       hint: to read files, CREATE SOURCE s WITH (connector = 'files', path = '…'); to keep them, INSERT INTO t SELECT * FROM s
    ");
    insta::assert_snapshot!(refusal("SELECT 1; UPDATE t SET a = 1"), @"
    error: UPDATE is not supported
      --> line 1, column 11
       |
     1 | SELECT 1; UPDATE t SET a = 1
       |           ^^^^^^
       hint: rows change by what is read: give the source a PRIMARY KEY, and a newer row replaces the older
    ");
    insta::assert_snapshot!(refusal("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'x'"), @"
    error: CREATE EXTERNAL is not supported
      --> line 1, column 8
       |
     1 | CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'x'
       |        ^^^^^^^^
       hint: for files, write CREATE SOURCE name WITH (connector = 'files', path = '…'); for a Delta table, CREATE TABLE name WITH (connector = 'delta', location = '…')
    ");
    insta::assert_snapshot!(refusal("CREATE OR REPLACE TEMPORARY TABLE t (a INT)"), @"
    error: CREATE TEMPORARY is not supported
      --> line 1, column 19
       |
     1 | CREATE OR REPLACE TEMPORARY TABLE t (a INT)
       |                   ^^^^^^^^^
       hint: objects are kept until they are dropped; leave the word out
    ");
    insta::assert_snapshot!(refusal("CREATE STREAM s (a INT)"), @"
    error: CREATE STREAM is not supported
      --> line 1, column 8
       |
     1 | CREATE STREAM s (a INT)
       |        ^^^^^^
       hint: write CREATE SOURCE name (…) WITH (connector = 'kafka', …)
    ");
    insta::assert_snapshot!(refusal("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a"), @"
    error: INSERT can't stand inside a query
      --> line 1, column 1
       |
     1 | WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a
       | ^^^^
       hint: write INSERT INTO table WITH … SELECT …; other changes are not supported
    ");
    insta::assert_snapshot!(refusal("SELECT a INTO b FROM c"), @"
    error: SELECT INTO is not supported
      --> line 1, column 1
       |
     1 | SELECT a INTO b FROM c
       | ^^^^^^
       hint: write CREATE TABLE name AS SELECT …
    ");
    insta::assert_snapshot!(refusal("INSERT OVERWRITE t SELECT 1"), @"
    error: INSERT OVERWRITE is not supported
      --> line 1, column 8
       |
     1 | INSERT OVERWRITE t SELECT 1
       |        ^^^^^^^^^
       hint: INSERT INTO adds rows; a materialized view replaces what changed
    ");
    insta::assert_snapshot!(refusal("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING"), @"
    error: INSERT … ON is not supported
      --> line 1, column 26
       |
     1 | INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING
       |                          ^^
       hint: INSERT INTO adds rows and answers their count
    ");
    insta::assert_snapshot!(refusal("ROLLBACK TO SAVEPOINT a"), @"
    error: savepoints are not supported
      --> line 1, column 10
       |
     1 | ROLLBACK TO SAVEPOINT a
       |          ^^
       hint: every statement stands for itself
    ");
    insta::assert_snapshot!(refusal("CREATE SINK s INTO t AS SELECT 1"), @"
    error: a sink does not write to a table of Tidemill
      --> line 1, column 1
       |
     1 | CREATE SINK s INTO t AS SELECT 1
       | ^^^^^^
       hint: write INSERT INTO t SELECT …
    ");
}

#[test]
fn sources() {
    insta::assert_snapshot!(refusal("CREATE SOURCE s (a INT)"), @"
    error: a source needs options that say where its rows come from
      --> line 1, column 24
       |
     1 | CREATE SOURCE s (a INT)
       |                        ^
       hint: add WITH (connector = 'kafka', topic = '…', …)
    ");
    insta::assert_snapshot!(refusal("CREATE SOURCE s (a INT) (connector = 'kafka')"), @"
    error: expected WITH, found (
      --> line 1, column 25
       |
     1 | CREATE SOURCE s (a INT) (connector = 'kafka')
       |                         ^
       hint: options are written WITH (name = 'value', …)
    ");
    insta::assert_snapshot!(refusal("CREATE SOURCE s (connector = 'kafka')"), @"
    error: expected a data type name, found =
      --> line 1, column 28
       |
     1 | CREATE SOURCE s (connector = 'kafka')
       |                            ^
       hint: options go into WITH (name = 'value', …)
    ");
    insta::assert_snapshot!(refusal("CREATE SOURCE (a INT)"), @"
    error: expected a name, found (
      --> line 1, column 15
       |
     1 | CREATE SOURCE (a INT)
       |               ^
    ");
    insta::assert_snapshot!(refusal("CREATE SOURCE s WITH (connector = 'kafka') FORMAT PLAIN ENCODE JSON"), @"
    error: expected the end of the statement, found FORMAT
      --> line 1, column 44
       |
     1 | CREATE SOURCE s WITH (connector = 'kafka') FORMAT PLAIN ENCODE JSON
       |                                            ^^^^^^
       hint: the format is an option: WITH (…, format = 'json')
    ");
    insta::assert_snapshot!(refusal("CREATE SOURCE s WITH (connector = 'kafka') AS SELECT 1"), @"
    error: expected the end of the statement, found AS
      --> line 1, column 44
       |
     1 | CREATE SOURCE s WITH (connector = 'kafka') AS SELECT 1
       |                                            ^^
       hint: a source has no query; write CREATE VIEW or CREATE MATERIALIZED VIEW
    ");
    insta::assert_snapshot!(refusal("CREATE OR REPLACE SOURCE IF NOT EXISTS s WITH (a = 1)"), @"
    error: OR REPLACE and IF NOT EXISTS contradict each other
      --> line 1, column 40
       |
     1 | CREATE OR REPLACE SOURCE IF NOT EXISTS s WITH (a = 1)
       |                                        ^
       hint: write one of them
    ");
}

#[test]
fn columns() {
    insta::assert_snapshot!(refusal("CREATE TABLE t (a INT, b)"), @"
    error: expected a data type name, found )
      --> line 1, column 25
       |
     1 | CREATE TABLE t (a INT, b)
       |                         ^
    ");
    insta::assert_snapshot!(refusal("CREATE TABLE t (a INT b INT)"), @"
    error: expected , or ), found b
      --> line 1, column 23
       |
     1 | CREATE TABLE t (a INT b INT)
       |                       ^
    ");
    insta::assert_snapshot!(refusal("CREATE TABLE t (a INT,\n  A BIGINT)"), @"
    error: there are two columns a
      --> line 2, column 3
       |
     2 |   A BIGINT)
       |   ^
    ");
    insta::assert_snapshot!(refusal("CREATE TABLE t (a INT DEFAULT 1)"), @"
    error: DEFAULT is not supported in a column list
      --> line 1, column 23
       |
     1 | CREATE TABLE t (a INT DEFAULT 1)
       |                       ^^^^^^^
       hint: a missing key is NULL; use a computed column: name type AS (coalesce(…))
    ");
    insta::assert_snapshot!(refusal("CREATE TABLE t (a INT, UNIQUE (a))"), @"
    error: UNIQUE is not supported in a column list
      --> line 1, column 24
       |
     1 | CREATE TABLE t (a INT, UNIQUE (a))
       |                        ^^^^^^
       hint: a source has one key: PRIMARY KEY (columns)
    ");
    insta::assert_snapshot!(refusal("CREATE TABLE t (a INT PRIMARY KEY, b INT PRIMARY KEY)"), @"
    error: there are two primary keys
      --> line 1, column 36
       |
     1 | CREATE TABLE t (a INT PRIMARY KEY, b INT PRIMARY KEY)
       |                                    ^
       hint: a key of several columns is written PRIMARY KEY (a, b)
    ");
    insta::assert_snapshot!(refusal("CREATE TABLE t (a INT NOT NULL METADATA)"), @"
    error: NOT NULL is for columns that are read from the payload
      --> line 1, column 23
       |
     1 | CREATE TABLE t (a INT NOT NULL METADATA)
       |                       ^^^
       hint: leave it out
    ");
    insta::assert_snapshot!(refusal("CREATE TABLE t (a INT AS (SELECT 1))"), @"
    error: a computed column can't ask other tables
      --> line 1, column 26
       |
     1 | CREATE TABLE t (a INT AS (SELECT 1))
       |                          ^
       hint: join them in a view
    ");
    insta::assert_snapshot!(refusal("CREATE TABLE t (WATERMARK FOR a AS a, WATERMARK FOR b AS b)"), @"
    error: there are two watermarks
      --> line 1, column 39
       |
     1 | CREATE TABLE t (WATERMARK FOR a AS a, WATERMARK FOR b AS b)
       |                                       ^^^^^^^^^
    ");
    insta::assert_snapshot!(refusal("CREATE TABLE t"), @"
    error: a table needs columns, options or a query
      --> line 1, column 15
       |
     1 | CREATE TABLE t
       |               ^
       hint: CREATE TABLE t (id BIGINT), or CREATE TABLE t WITH (connector = 'delta', location = '…')
    ");
}

#[test]
fn options() {
    insta::assert_snapshot!(refusal("CREATE SOURCE s WITH (topic: 'x')"), @"
    error: expected =, found :
      --> line 1, column 28
       |
     1 | CREATE SOURCE s WITH (topic: 'x')
       |                            ^
       hint: an option is written name = 'value'
    ");
    insta::assert_snapshot!(refusal("CREATE SOURCE s WITH (servers = localhost:9092)"), @"
    error: expected , or ), found :
      --> line 1, column 42
       |
     1 | CREATE SOURCE s WITH (servers = localhost:9092)
       |                                          ^
       hint: text that is no single word goes in single quotes: name = 'value'
    ");
    insta::assert_snapshot!(refusal("CREATE SOURCE s WITH (topic = \"x\")"), @r#"
    error: expected a value, found "x"
      --> line 1, column 31
       |
     1 | CREATE SOURCE s WITH (topic = "x")
       |                               ^^^
       hint: text that is no single word goes in single quotes: name = 'value'
    "#);
    insta::assert_snapshot!(refusal("CREATE SOURCE s WITH (idle_timeout = INTERVAL '1' SECOND)"), @"
    error: expected a value, found INTERVAL
      --> line 1, column 38
       |
     1 | CREATE SOURCE s WITH (idle_timeout = INTERVAL '1' SECOND)
       |                                      ^^^^^^^^
       hint: a duration is written '1 second', without INTERVAL
    ");
    insta::assert_snapshot!(refusal("CREATE SOURCE s WITH (topic = 'x'"), @"
    error: expected , or ), but the statement ends here
      --> line 1, column 34
       |
     1 | CREATE SOURCE s WITH (topic = 'x'
       |                                  ^
    ");
}

#[test]
fn queries() {
    insta::assert_snapshot!(refusal("SELECT a FROM t EMIT CHANGES"), @"
    error: EMIT belongs to a continuous query: CREATE MATERIALIZED VIEW, CREATE SINK, INSERT
      --> line 1, column 17
       |
     1 | SELECT a FROM t EMIT CHANGES
       |                 ^^^^
       hint: SELECT answers once; to follow changes, write SUBSCRIBE TO view
    ");
    insta::assert_snapshot!(refusal("CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT FINAL"), @"
    error: EMIT FINAL is not supported
      --> line 1, column 40
       |
     1 | CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT FINAL
       |                                        ^^^^
       hint: write EMIT ON WINDOW CLOSE, or EMIT CHANGES
    ");
    insta::assert_snapshot!(refusal("CREATE MATERIALIZED VIEW v SELECT 1"), @"
    error: expected AS, found SELECT
      --> line 1, column 28
       |
     1 | CREATE MATERIALIZED VIEW v SELECT 1
       |                            ^^^^^^
    ");
    insta::assert_snapshot!(refusal("CREATE MATERIALIZED VIEW v AS EMIT CHANGES"), @"
    error: expected SELECT, VALUES, or a subquery in the query body, but the statement ends here
      --> line 1, column 31
       |
     1 | CREATE MATERIALIZED VIEW v AS EMIT CHANGES
       |                               ^
    ");
    insta::assert_snapshot!(refusal("CREATE VIEW v WITH (a = 1) AS SELECT 1"), @"
    error: expected AS, found WITH
      --> line 1, column 15
       |
     1 | CREATE VIEW v WITH (a = 1) AS SELECT 1
       |               ^^^^
       hint: a view is only a name for a query; to keep its result, write CREATE MATERIALIZED VIEW
    ");
    insta::assert_snapshot!(refusal("CREATE MATERIALIZED VIEW v PARTITIONED BY (date_trunc('day', a)) AS SELECT 1"), @"
    error: expected , or ), found (
      --> line 1, column 54
       |
     1 | CREATE MATERIALIZED VIEW v PARTITIONED BY (date_trunc('day', a)) AS SELECT 1
       |                                                      ^
       hint: partition by a column; to partition by an expression, select it as a column
    ");
    insta::assert_snapshot!(refusal("SELECT * FROM a JOIN b FOR SYSTEM_TIME AS OF a.at ON a.id = b.id"), @"
    error: a table can be joined as of now() only
      --> line 1, column 46
       |
     1 | SELECT * FROM a JOIN b FOR SYSTEM_TIME AS OF a.at ON a.id = b.id
       |                                              ^
       hint: write FOR SYSTEM_TIME AS OF now(): each epoch reads the table as it is then
    ");
    insta::assert_snapshot!(refusal("SELECT a FROM"), @"
    error: expected a name, but the statement ends here
      --> line 1, column 14
       |
     1 | SELECT a FROM
       |              ^
    ");
    insta::assert_snapshot!(refusal("SELECT * FROM t WHERE GROUP BY a"), @"
    error: expected the end of the statement, found BY
      --> line 1, column 29
       |
     1 | SELECT * FROM t WHERE GROUP BY a
       |                             ^^
    ");
    insta::assert_snapshot!(refusal("SELECT 1 2"), @"
    error: expected the end of the statement, found 2
      --> line 1, column 10
       |
     1 | SELECT 1 2
       |          ^
    ");
    insta::assert_snapshot!(refusal("SELECT (1"), @"
    error: expected ), but the statement ends here
      --> line 1, column 10
       |
     1 | SELECT (1
       |          ^
    ");
}

#[test]
fn commands() {
    insta::assert_snapshot!(refusal("DROP IF EXISTS t"), @"
    error: expected SOURCE, TABLE, VIEW, MATERIALIZED VIEW, SINK or QUERY, found IF
      --> line 1, column 6
       |
     1 | DROP IF EXISTS t
       |      ^^
    ");
    insta::assert_snapshot!(refusal("ALTER SOURCE s PAUSE"), @"
    error: a source does not run, so it can't be paused
      --> line 1, column 7
       |
     1 | ALTER SOURCE s PAUSE
       |       ^^^^^^
       hint: pause the materialized views, sinks or queries that read it
    ");
    insta::assert_snapshot!(refusal("ALTER MATERIALIZED VIEW v SUSPEND"), @"
    error: expected PAUSE or RESUME, found SUSPEND
      --> line 1, column 27
       |
     1 | ALTER MATERIALIZED VIEW v SUSPEND
       |                           ^^^^^^^
       hint: did you mean PAUSE?
    ");
    insta::assert_snapshot!(refusal("ALTER MATERIALIZED VIEW v RENAME TO w"), @"
    error: expected PAUSE or RESUME, found RENAME
      --> line 1, column 27
       |
     1 | ALTER MATERIALIZED VIEW v RENAME TO w
       |                           ^^^^^^
       hint: to change a materialized view, write CREATE OR REPLACE MATERIALIZED VIEW …
    ");
    insta::assert_snapshot!(refusal("EXPLAIN DROP TABLE t"), @"
    error: there is no plan for DROP TABLE
      --> line 1, column 9
       |
     1 | EXPLAIN DROP TABLE t
       |         ^^^^
       hint: EXPLAIN takes a query, or a statement that holds one
    ");
    insta::assert_snapshot!(refusal("EXPLAIN ANALYZE INCREMENTAL SELECT 1"), @"
    error: ANALYZE and INCREMENTAL exclude each other
      --> line 1, column 17
       |
     1 | EXPLAIN ANALYZE INCREMENTAL SELECT 1
       |                 ^^^^^^^^^^^
    ");
    insta::assert_snapshot!(refusal("SHOW CREATE v"), @"
    error: expected SOURCE, TABLE, VIEW, MATERIALIZED VIEW, SINK or QUERY, found v
      --> line 1, column 13
       |
     1 | SHOW CREATE v
       |             ^
    ");
    insta::assert_snapshot!(refusal("SET a"), @"
    error: expected = or TO, but the statement ends here
      --> line 1, column 6
       |
     1 | SET a
       |      ^
    ");
    insta::assert_snapshot!(refusal("SUBSCRIBE TO v AS OF now()"), @"
    error: expected a version number or a timestamp in single quotes, found now
      --> line 1, column 22
       |
     1 | SUBSCRIBE TO v AS OF now()
       |                      ^^^
    ");
    insta::assert_snapshot!(refusal("DEALLOCATE p1"), @"
    error: DEALLOCATE of a single name is not supported
      --> line 1, column 12
       |
     1 | DEALLOCATE p1
       |            ^^
       hint: prepared statements and cursors belong to the client's protocol
    ");
}
