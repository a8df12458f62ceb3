//! What is no statement of Tidemill, and what to do instead.

use super::cursor::Cursor;
use crate::error::{Error, Location, nearest};
use crate::statement::ObjectKind;

/// First words of statements that are no queries.
pub const VERBS: [&str; 21] = [
    "CREATE",
    "INSERT",
    "SUBSCRIBE",
    "SHOW",
    "DESCRIBE",
    "DESC",
    "EXPLAIN",
    "ALTER",
    "DROP",
    "SET",
    "RESET",
    "BEGIN",
    "START",
    "COMMIT",
    "END",
    "ROLLBACK",
    "ABORT",
    "DISCARD",
    "DEALLOCATE",
    "CLOSE",
    "UNLISTEN",
];

/// The kinds of objects, for messages.
pub const KINDS: &str = "SOURCE, TABLE, VIEW, MATERIALIZED VIEW, SINK or QUERY";

/// Statements of other systems, and what to do instead.
const FOREIGN: [(&str, &str); 29] = [
    (
        "COPY",
        "to read files, CREATE SOURCE s WITH (connector = 'files', path = '…'); to keep them, INSERT INTO t SELECT * FROM s",
    ),
    (
        "UPDATE",
        "rows change by what is read: give the source a PRIMARY KEY, and a newer row replaces the older",
    ),
    ("DELETE", "rows go by what is read: give the source a PRIMARY KEY, or filter them in a view"),
    (
        "MERGE",
        "a materialized view over a source with a PRIMARY KEY keeps the last row of each key",
    ),
    ("TRUNCATE", "DROP the table and CREATE it again"),
    ("REPLACE", "a source with a PRIMARY KEY keeps the last row of each key"),
    ("UPSERT", "a source with a PRIMARY KEY keeps the last row of each key"),
    ("REFRESH", "a materialized view is always up to date; there is nothing to refresh"),
    ("VACUUM", "tables are maintained while queries run"),
    ("OPTIMIZE", "tables are maintained while queries run"),
    ("ANALYZE", "files carry their statistics; to see what a query does, EXPLAIN ANALYZE SELECT …"),
    ("USE", "there is one catalog; write schema.name"),
    ("GRANT", "who may do what is set in the server's configuration"),
    ("REVOKE", "who may do what is set in the server's configuration"),
    ("PREPARE", "prepared statements belong to the client's protocol"),
    ("EXECUTE", "prepared statements belong to the client's protocol"),
    (
        "DECLARE",
        "cursors are not supported; SELECT streams its result, SUBSCRIBE TO view follows changes",
    ),
    (
        "FETCH",
        "cursors are not supported; SELECT streams its result, SUBSCRIBE TO view follows changes",
    ),
    ("LISTEN", "SUBSCRIBE TO view follows changes"),
    ("NOTIFY", "SUBSCRIBE TO view follows changes"),
    ("TAIL", "write SUBSCRIBE TO view"),
    ("SAVEPOINT", "every statement stands for itself; leave it out"),
    ("RELEASE", "every statement stands for itself; leave it out"),
    ("LOCK", "readers always see one committed version; leave it out"),
    ("CALL", "there are no procedures"),
    ("DO", "there are no procedures"),
    ("PAUSE", "write ALTER MATERIALIZED VIEW name PAUSE"),
    ("RESUME", "write ALTER MATERIALIZED VIEW name RESUME"),
    ("COMMENT", "a column's comment stands in its definition: name type COMMENT '…'"),
];

/// Objects of other systems, and what to do instead.
const FOREIGN_OBJECTS: [(&str, &str); 19] = [
    (
        "EXTERNAL",
        "for files, write CREATE SOURCE name WITH (connector = 'files', path = '…'); for a Delta table, CREATE TABLE name WITH (connector = 'delta', location = '…')",
    ),
    ("UNBOUNDED", "write CREATE SOURCE name (…) WITH (connector = '…')"),
    ("STREAM", "write CREATE SOURCE name (…) WITH (connector = 'kafka', …)"),
    ("STREAMING", "write CREATE SOURCE name (…) WITH (connector = 'kafka', …)"),
    ("CONTINUOUS", "write CREATE MATERIALIZED VIEW name AS SELECT …"),
    ("DYNAMIC", "write CREATE MATERIALIZED VIEW name AS SELECT …"),
    ("TEMPORARY", "objects are kept until they are dropped; leave the word out"),
    ("TEMP", "objects are kept until they are dropped; leave the word out"),
    ("INDEX", "tables have no indexes; PARTITIONED BY (column) lets queries skip files"),
    ("UNIQUE", "tables have no indexes; a source's key is PRIMARY KEY (columns)"),
    ("SCHEMA", "there is one schema, public"),
    ("DATABASE", "there is one catalog; another warehouse is another --warehouse"),
    ("CONNECTION", "connections are options of a source: WITH (connector = '…', …)"),
    ("SECRET", "secrets are options of a source, and are never shown"),
    ("FUNCTION", "DataFusion's functions are there: SHOW FUNCTIONS"),
    ("TYPE", "write the type out: STRUCT<a INT, b VARCHAR>"),
    ("SEQUENCE", "metadata columns partition and offset number the rows"),
    ("ROLE", "who may do what is set in the server's configuration"),
    ("USER", "who may do what is set in the server's configuration"),
];

/// The error for a statement that starts with no word of ours.
pub fn statement(cursor: &Cursor) -> Error {
    let Some(first) = cursor.word() else {
        return cursor
            .unexpected("a statement")
            .with_hint("a statement starts with a word such as SELECT, CREATE or SHOW");
    };
    if let Some((verb, hint)) = FOREIGN.iter().find(|(verb, _)| *verb == first) {
        return Error::refused(format!("{verb} is not supported"))
            .at(cursor.here())
            .with_hint(hint);
    }
    let queries = ["SELECT", "WITH", "VALUES", "FROM"];
    let error = Error::syntax(format!("{} starts no statement", cursor.peek())).at(cursor.here());
    match nearest(&first, VERBS.into_iter().chain(queries)) {
        Some(near) => error.with_hint(format!("did you mean {near}?")),
        None => error.with_hint(
            "statements start with SELECT, CREATE, INSERT, SUBSCRIBE, SHOW, DESCRIBE, EXPLAIN, \
             ALTER, DROP or SET",
        ),
    }
}

/// The error for `CREATE` and something that can't be created.
pub fn create(cursor: &mut Cursor) -> Error {
    let what = cursor.word().unwrap_or_default();
    if let Some((what, hint)) = FOREIGN_OBJECTS.iter().find(|(word, _)| *word == what) {
        return Error::refused(format!("CREATE {what} is not supported"))
            .at(cursor.here())
            .with_hint(hint);
    }
    if cursor.eat("MATERIALIZED") {
        return cursor.unexpected("VIEW");
    }
    let error = cursor.unexpected("SOURCE, TABLE, VIEW, MATERIALIZED VIEW or SINK after CREATE");
    let kinds = ["SOURCE", "TABLE", "VIEW", "MATERIALIZED VIEW", "SINK"];
    match nearest(&what, kinds) {
        Some(near) => error.with_hint(format!("did you mean CREATE {near}?")),
        None => error,
    }
}

/// The error for an action of `ALTER` that there isn't.
pub fn alter(cursor: &Cursor, kind: ObjectKind) -> Error {
    let error = cursor.unexpected("PAUSE or RESUME");
    match cursor.word().unwrap_or_default().as_str() {
        "SUSPEND" | "STOP" | "DISABLE" => error.with_hint("did you mean PAUSE?"),
        "START" | "CONTINUE" | "ENABLE" => error.with_hint("did you mean RESUME?"),
        "" => error,
        "PAUS" | "PAUSED" => error.with_hint("did you mean PAUSE?"),
        "RESUM" | "RESUMED" => error.with_hint("did you mean RESUME?"),
        _ => {
            let keyword = kind.keyword();
            error.with_hint(format!("to change a {kind}, write CREATE OR REPLACE {keyword} …"))
        }
    }
}

/// The error for savepoints.
pub fn savepoint(place: Location) -> Error {
    Error::refused("savepoints are not supported")
        .at(place)
        .with_hint("every statement stands for itself")
}
