//! The oracle: a materialized view holds what plain DataFusion answers for its
//! `SELECT` as a batch over everything that was read.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;
use std::sync::Arc;
use tidemill_engine::lake::LakeTable;
use tidemill_engine::storage::parse_location;
use tidemill_sql::session::RelationKind;
use tidemill_sql::statement::Statement;
use tidemill_sql::{Answer, Session, parser};

use crate::error::{Error, Result};
use crate::values::{cast_to, collect, sorted_lines, texts};

/// Compares every materialized view but those in `without` with its batch answer.
pub async fn check(session: &Session, without: &[String]) -> Result<()> {
    for view in materialized_views(session) {
        if without.contains(&view) {
            continue;
        }
        let (schema, held) = query(session, &format!("SELECT * FROM \"{view}\"")).await?;
        let sql = definition(session, &view).await?;
        let (_, batch) = query(session, &sql)
            .await
            .map_err(|error| Error::wrong(format!("the oracle of \"{view}\" fails: {error}")))?;
        let wanted = cast_to(&batch, &schema)?;
        compare(&view, &sorted_lines(&wanted)?, &sorted_lines(&held)?)?;
    }
    Ok(())
}

/// Fails with the lines that are on one side only. Both are sorted.
pub fn compare(what: &str, wanted: &[String], held: &[String]) -> Result<()> {
    if wanted == held {
        return Ok(());
    }
    let changes = difference(wanted, held);
    Err(Error::wrong(format!(
        "{what} is not what it must be (+ too much, - missing):\n{}",
        changes.join("\n")
    )))
}

/// What must be added to (`+`) and taken from (`-`) `before` to have `after`, sorted.
fn difference(before: &[String], after: &[String]) -> Vec<String> {
    let mut weights: BTreeMap<&str, i64> = BTreeMap::new();
    for line in after {
        *weights.entry(line).or_default() += 1;
    }
    for line in before {
        *weights.entry(line).or_default() -= 1;
    }
    let drawn = |(line, weight): (&str, i64)| {
        let sign = if weight > 0 { "+" } else { "-" };
        vec![format!("{sign} {line}"); weight.unsigned_abs() as usize]
    };
    weights.into_iter().flat_map(drawn).collect()
}

pub fn materialized_views(session: &Session) -> Vec<String> {
    let relations = session.database().relations().into_iter();
    let views = relations.filter(|relation| relation.kind == RelationKind::MaterializedView);
    views.map(|view| view.name).collect()
}

/// Every table and materialized view, those of dead letters included.
pub fn tables(session: &Session) -> Vec<String> {
    let relations = session.database().relations().into_iter();
    let kinds = [RelationKind::Table, RelationKind::MaterializedView];
    relations.filter(|relation| kinds.contains(&relation.kind)).map(|table| table.name).collect()
}

/// The rows of each of `tables`, sorted.
pub async fn contents(session: &Session, tables: &[String]) -> Result<Vec<Vec<String>>> {
    let mut contents = Vec::new();
    for table in tables {
        let select = format!("SELECT * FROM \"{table}\"");
        contents.push(sorted_lines(&query(session, &select).await?.1)?);
    }
    Ok(contents)
}

/// The rows that a statement answers, with their schema.
pub async fn query(session: &Session, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    match session.execute(sql).await? {
        Answer::Rows(rows) => Ok((rows.schema(), collect(rows).await?)),
        Answer::Done(done) => Err(Error::script(format!("{sql} answers no rows, but {done:?}"))),
    }
}

/// The `SELECT` of a materialized view.
async fn definition(session: &Session, view: &str) -> Result<String> {
    let show = format!("SHOW CREATE MATERIALIZED VIEW \"{view}\"");
    let rows = texts(&query(session, &show).await?.1)?;
    let text = rows.first().and_then(|row| row.last()).cloned().unwrap_or_default();
    match parser::parse_one(&text.replace("\\n", "\n").replace("\\\\", "\\"))?.node {
        Statement::CreateMaterializedView(create) => Ok(create.query.to_string()),
        other => Err(Error::wrong(format!("\"{view}\" was made by {}", other.tag()))),
    }
}

/// What the last version of a view added (`+`) and took away (`-`), columns
/// parted by blanks, read from its Delta log anew.
pub async fn changes(session: &Session, view: &str) -> Result<Vec<String>> {
    let show = format!("SHOW MATERIALIZED VIEWS LIKE '{view}'");
    let rows = texts(&query(session, &show).await?.1)?;
    let location = match rows.as_slice() {
        [row] => row.last().cloned().unwrap_or_default(),
        _ => return Err(Error::script(format!("there is no materialized view \"{view}\""))),
    };
    let engine = Arc::clone(session.database().engine());
    let location = parse_location(&location)?;
    let table = LakeTable::open(engine.warehouse(), view, location, Default::default()).await?;
    let version = table.version();
    let Some(before) = version.checked_sub(1) else { return Ok(Vec::new()) };
    let before = lines(table.snapshot_at(before).await?).await?;
    Ok(difference(&before, &lines(table.snapshot()?).await?))
}

async fn lines(table: Arc<dyn TableProvider>) -> Result<Vec<String>> {
    let rows = SessionContext::new().read_table(table)?.collect().await?;
    Ok(texts(&rows)?.iter().map(|row| row.join(" ")).collect())
}
