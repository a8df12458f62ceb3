//! Running the same file again: a `CREATE` that the warehouse already holds,
//! as it is, is passed over; a different one stays an error. So is a continuous
//! `INSERT` that runs already; one of given rows is executed each time.

use arrow::array::{AsArray, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::sql::sqlparser::ast::{Ident, ObjectName};
use tidemill_sql::parser;
use tidemill_sql::session::Done;
use tidemill_sql::statement::{ObjectKind, Statement};

use crate::target::{Reply, Target, collect};

/// Settles a `CREATE` that failed: it is fine if what it creates is there
/// already and was created by the same statement.
///
/// # Errors
/// What the statement failed with, or that the definitions differ.
pub async fn settle(
    target: &Target,
    sql: &str,
    error: tidemill_sql::Error,
) -> Result<Done, tidemill_sql::Error> {
    let Ok(parsed) = parser::parse_one(sql) else { return Err(error) };
    let Some((kind, name)) = created(&parsed.node) else { return Err(error) };
    let Some(text) = definition(target, kind, &name).await else { return Err(error) };
    let Ok(present) = parser::parse_one(&text) else { return Err(error) };
    let present = plain(present.node);
    let wanted = plain(parsed.node.clone());
    if present == wanted || present.redacted() == wanted.redacted() {
        let notice = format!("{kind} {name} exists already, goes on");
        return Ok(Done { tag: parsed.node.tag(), rows: None, notice: Some(notice) });
    }
    Err(tidemill_sql::Error::name(format!("{kind} {name} exists already, with another definition"))
        .at(parsed.start)
        .with_hint(format!(
            "the warehouse holds\n{text}\nto replace it, write CREATE OR REPLACE, or DROP it first"
        )))
}

/// Whether an `INSERT` is one that runs continuously already.
pub async fn runs_already(target: &Target, sql: &str) -> Option<Done> {
    let wanted = parser::parse_one(sql).ok()?.node;
    if !matches!(wanted, Statement::Insert(_)) {
        return None;
    }
    let wanted = wanted.redacted();
    for query in queries(target).await? {
        let name = ObjectName::from(vec![Ident::with_quote('"', query)]);
        let Some(text) = definition(target, ObjectKind::Query, &name).await else { continue };
        if parser::parse_one(&text).is_ok_and(|present| present.node.redacted() == wanted) {
            let notice = format!("runs already as query {name}, goes on");
            return Some(Done { tag: wanted.tag(), rows: None, notice: Some(notice) });
        }
    }
    None
}

/// Names of the continuous queries.
async fn queries(target: &Target) -> Option<Vec<String>> {
    let Ok(Reply::Rows(rows)) = target.execute("SHOW QUERIES").await else { return None };
    let batches = collect(rows).await.ok()?;
    let names = batches.iter().filter_map(|batch| batch.column(0).as_string_opt::<i32>());
    Some(names.flat_map(|names| names.iter().flatten().map(str::to_owned)).collect())
}

/// What a plain `CREATE` makes: neither `OR REPLACE` nor `IF NOT EXISTS`, which say
/// themselves what is to happen.
fn created(statement: &Statement) -> Option<(ObjectKind, ObjectName)> {
    let (or_replace, if_not_exists, kind, name) = match statement {
        Statement::CreateSource(c) => (c.or_replace, c.if_not_exists, ObjectKind::Source, &c.name),
        Statement::CreateTable(c) => (c.or_replace, c.if_not_exists, ObjectKind::Table, &c.name),
        Statement::CreateView(c) => (c.or_replace, c.if_not_exists, ObjectKind::View, &c.name),
        Statement::CreateMaterializedView(c) => {
            (c.or_replace, c.if_not_exists, ObjectKind::MaterializedView, &c.name)
        }
        Statement::CreateSink(c) => (c.or_replace, c.if_not_exists, ObjectKind::Sink, &c.name),
        _ => return None,
    };
    (!or_replace && !if_not_exists).then(|| (kind, name.clone()))
}

/// The same statement without the words that are about running it.
fn plain(mut statement: Statement) -> Statement {
    let flags = match &mut statement {
        Statement::CreateSource(c) => Some((&mut c.or_replace, &mut c.if_not_exists)),
        Statement::CreateTable(c) => Some((&mut c.or_replace, &mut c.if_not_exists)),
        Statement::CreateView(c) => Some((&mut c.or_replace, &mut c.if_not_exists)),
        Statement::CreateMaterializedView(c) => Some((&mut c.or_replace, &mut c.if_not_exists)),
        Statement::CreateSink(c) => Some((&mut c.or_replace, &mut c.if_not_exists)),
        _ => None,
    };
    if let Some((or_replace, if_not_exists)) = flags {
        (*or_replace, *if_not_exists) = (false, false);
    }
    statement
}

/// What `SHOW CREATE` answers; nothing if there is no such thing.
async fn definition(target: &Target, kind: ObjectKind, name: &ObjectName) -> Option<String> {
    let sql = format!("SHOW CREATE {} {name}", kind.keyword());
    let Ok(Reply::Rows(rows)) = target.execute(&sql).await else { return None };
    let batches = collect(rows).await.ok()?;
    batches.iter().find_map(last_text)
}

/// The last column of the first row: `SHOW CREATE` puts the statement there.
fn last_text(batch: &RecordBatch) -> Option<String> {
    let column = batch.columns().last().filter(|_| batch.num_rows() > 0)?;
    let formatter = ArrayFormatter::try_new(column.as_ref(), &FormatOptions::default()).ok()?;
    Some(formatter.value(0).to_string())
}
