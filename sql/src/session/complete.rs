//! What can stand next: keywords, names, columns, functions.

use super::Session;

/// Words that statements are made of, most used first.
const KEYWORDS: [&str; 78] = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "LIMIT",
    "JOIN",
    "LEFT JOIN",
    "ON",
    "AS",
    "AND",
    "OR",
    "NOT",
    "NULL",
    "IS",
    "IN",
    "LIKE",
    "BETWEEN",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "CAST",
    "DISTINCT",
    "HAVING",
    "UNION ALL",
    "WITH",
    "VALUES",
    "INSERT INTO",
    "CREATE",
    "SOURCE",
    "TABLE",
    "VIEW",
    "MATERIALIZED VIEW",
    "SINK",
    "OR REPLACE",
    "IF NOT EXISTS",
    "IF EXISTS",
    "PARTITIONED BY",
    "PRIMARY KEY",
    "WATERMARK FOR",
    "METADATA",
    "EMIT CHANGES",
    "EMIT ON WINDOW CLOSE",
    "DROP",
    "CASCADE",
    "ALTER",
    "PAUSE",
    "RESUME",
    "SHOW",
    "SOURCES",
    "TABLES",
    "VIEWS",
    "MATERIALIZED VIEWS",
    "QUERIES",
    "SINKS",
    "CREATE SOURCE",
    "DESCRIBE",
    "EXPLAIN",
    "INCREMENTAL",
    "ANALYZE",
    "SUBSCRIBE TO",
    "SET",
    "RESET",
    "INTERVAL",
    "TIMESTAMP",
    "DATE",
    "BIGINT",
    "INT",
    "DOUBLE",
    "DECIMAL",
    "VARCHAR",
    "BOOLEAN",
    "UNNEST",
    "EXISTS",
    "ASC",
    "DESC",
];

/// Complete words (not only their rest) for the word that `before` ends in,
/// without doubles: names first, then columns, keywords, functions.
pub(super) fn completions(session: &Session, before: &str) -> Vec<String> {
    let start = before.rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.' || c == '"'));
    let word =
        &before[start.map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8))..];
    let relations = session.database.relations();
    if let Some((relation, column)) = word.rsplit_once('.') {
        let found = relations.iter().find(|r| r.name.eq_ignore_ascii_case(relation));
        let columns = found.iter().flat_map(|r| r.columns.fields().iter());
        return columns
            .filter(|field| starts(field.name(), column))
            .map(|field| format!("{relation}.{}", field.name()))
            .collect();
    }
    let mut words: Vec<String> = Vec::new();
    let mut offer = |candidate: &str| {
        if starts(candidate, word) && !words.iter().any(|known| known == candidate) {
            words.push(candidate.to_owned());
        }
    };
    relations.iter().for_each(|relation| offer(&relation.name));
    let fields = relations.iter().flat_map(|relation| relation.columns.fields().iter());
    if !word.is_empty() {
        fields.for_each(|field| offer(field.name()));
    }
    KEYWORDS.iter().for_each(|keyword| offer(keyword));
    if !word.is_empty() {
        let state = session.state();
        let mut functions: Vec<_> = (state.scalar_functions().keys())
            .chain(state.aggregate_functions().keys())
            .chain(state.window_functions().keys())
            .collect();
        functions.sort();
        functions.into_iter().for_each(|function| offer(function));
    }
    words
}

fn starts(candidate: &str, word: &str) -> bool {
    candidate.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
}
