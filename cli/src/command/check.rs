//! `tidemill check`: parses, binds, plans and explains; contacts nothing.
//!
//! The files' objects are declared in a throw-away catalog, in order, so that
//! views find their sources. Every statement is checked, also after an error.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use arrow::util::display::array_value_to_string;
use tidemill_sql::parser;
use tidemill_sql::session::{Access, Answer, Database, Session};
use tidemill_sql::statement::Statement;

use super::read_script;
use crate::args::CheckArgs;
use crate::config::Config;
use crate::failure::Failure;
use crate::output::talk;
use crate::script::{self, Piece};
use crate::target::{Reply, Target, collect};

pub async fn run(args: CheckArgs, config: Config) -> Result<ExitCode> {
    let opened = Database::open(config.engine, Access::Offline).await;
    let database = opened.map_err(|error| Failure::of(&error, ""))?;
    let session = database.session();
    let (mut statements, mut wrong) = (0, 0);
    for file in &args.files {
        let text = read_script(file)?;
        let name = file.display().to_string();
        for piece in script::split(&text) {
            statements += 1;
            match check(&session, &piece).await {
                Ok(what) => {
                    let (line, column) = (piece.line, piece.column);
                    writeln!(io::stdout(), "{name}:{line}:{column}: ok: {what}")?;
                    if args.explain {
                        explain(&Target::of(database.clone()), &piece).await?;
                    }
                }
                Err(error) => {
                    wrong += 1;
                    talk(Failure::in_script(&error, &piece, &text, Some(&name)).to_string());
                }
            }
        }
    }
    talk(format!("{statements} statements checked, {wrong} wrong"));
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Answers the words for a statement that is right: `CREATE SOURCE orders`.
async fn check(session: &Session, piece: &Piece) -> Result<String, tidemill_sql::Error> {
    if piece.meta {
        return Err(tidemill_sql::Error::syntax(format!("{} is no statement", piece.text))
            .with_hint("commands that start with \\ are for `tidemill sql`"));
    }
    let statement = parser::parse_one(&piece.text)?.node;
    match &statement {
        Statement::Query(_) | Statement::Insert(_) | Statement::Subscribe(_) => {
            session.prepare(&piece.text).await?;
        }
        _ => {
            // Rows are not looked at: that they can be had is what was asked.
            let _: Answer = session.execute(&piece.text).await?;
        }
    }
    Ok(headline(&statement))
}

/// The first words of a statement, up to its name.
fn headline(statement: &Statement) -> String {
    let name = match statement {
        Statement::CreateSource(create) => &create.name,
        Statement::CreateTable(create) => &create.name,
        Statement::CreateView(create) => &create.name,
        Statement::CreateMaterializedView(create) => &create.name,
        Statement::CreateSink(create) => &create.name,
        Statement::Insert(insert) => &insert.table,
        _ => return statement.tag(),
    };
    format!("{} {name}", statement.tag())
}

/// Prints how a continuous query is maintained; other statements have nothing to show.
async fn explain(target: &Target, piece: &Piece) -> Result<()> {
    let statement = parser::parse_one(&piece.text)?.node;
    if !matches!(statement, Statement::CreateMaterializedView(_) | Statement::CreateSink(_)) {
        return Ok(());
    }
    let sql = format!("EXPLAIN INCREMENTAL {}", piece.text);
    let Reply::Rows(rows) = target.execute(&sql).await? else { return Ok(()) };
    for batch in collect(rows).await? {
        for line in (0..batch.num_rows()).map(|row| array_value_to_string(batch.column(0), row)) {
            writeln!(io::stdout(), "  {}", line?)?;
        }
    }
    Ok(())
}
