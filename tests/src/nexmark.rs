//! The files of `queries/nexmark`: three streams, a side input, q0 to q22.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use tidemill_sql::statement::Statement;
use tidemill_sql::{Answer, Session, parse};

use crate::error::{Error, Result};
use crate::oracle;
use crate::values::{cast_to, collect, sorted_lines};

/// The queries are `q0.sql` to `q22.sql`, and views of these names.
pub const QUERIES: RangeInclusive<u32> = 0..=22;

pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../queries/nexmark").join(name)
}

pub fn read(name: &str) -> Result<String> {
    let path = file(name);
    fs::read_to_string(&path).map_err(|error| Error::script(format!("{}: {error}", path.display())))
}

/// Executes the statements of a text.
pub async fn run(session: &Session, text: &str) -> Result<()> {
    for statement in parse(text)? {
        let sql = statement.text(text);
        let failed = |error| Error::script(format!("{sql}: {error}"));
        if let Answer::Rows(rows) = session.execute(sql).await.map_err(failed)? {
            collect(rows).await?;
        }
    }
    Ok(())
}

/// The query of the view that a file declares.
pub fn query_of(name: &str) -> Result<String> {
    let text = read(name)?;
    match parse(&text)?.remove(0).node {
        Statement::CreateMaterializedView(create) => Ok(create.query.to_string()),
        other => Err(Error::script(format!("{name} is {}", other.tag()))),
    }
}

/// Compares each view in `kept` with the answer of its query as a batch in `batch`. All
/// that differ are told.
pub async fn check(kept: &Session, batch: &Session) -> Result<()> {
    let mut failures = Vec::new();
    for number in QUERIES {
        let (schema, held) = oracle::query(kept, &format!("SELECT * FROM q{number}")).await?;
        let wanted: Vec<RecordBatch> =
            oracle::query(batch, &query_of(&format!("q{number}.sql"))?).await?.1;
        let wanted = sorted_lines(&cast_to(&wanted, &schema)?)?;
        if wanted.is_empty() {
            failures.push(format!("q{number} answers nothing"));
        }
        let compared = oracle::compare(&format!("q{number}"), &wanted, &sorted_lines(&held)?);
        failures.extend(compared.err().map(|error| head(&error.to_string())));
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Error::wrong(failures.join("\n"))),
    }
}

/// The first lines of a long message.
fn head(text: &str) -> String {
    text.lines().take(12).collect::<Vec<_>>().join("\n")
}
