//! The value of an `INSERT … VALUES` that can't become one of its column.

use std::ops::Range;

use datafusion::physical_plan::collect;
use datafusion::sql::sqlparser::ast::{Ident, SetExpr, Spanned as _, Values};

use crate::error::{Error, Location, Result};
use crate::plan::plain_query;
use crate::session::Session;
use crate::statement::Insert;

/// Where the value stands that keeps the rows of an `INSERT` from being made.
pub async fn place_of_value(session: &Session, insert: &Insert) -> Option<Location> {
    let SetExpr::Values(values) = insert.query.body.as_ref() else { return None };
    Rows { session, insert, values }.place().await
}

struct Rows<'a> {
    session: &'a Session,
    insert: &'a Insert,
    values: &'a Values,
}

impl Rows<'_> {
    async fn place(&self) -> Option<Location> {
        // The first row that fails: the first half is looked at closer as long as it fails.
        let mut rows = 0..self.values.rows.len();
        while rows.len() > 1 {
            let middle = rows.start + rows.len() / 2;
            rows = match self.fails(rows.start..middle, None).await {
                true => rows.start..middle,
                false => middle..rows.end,
            };
        }
        let row = self.values.rows.get(rows.start)?;
        for nth in 0..row.content.len() {
            if self.fails(rows.clone(), Some(nth)).await {
                return Location::of(row.content[nth].span());
            }
        }
        None
    }

    /// Whether these rows, or one column of them, can't be made. The words may be others than
    /// those of the whole: the type that all values of a column have in common is another.
    async fn fails(&self, rows: Range<usize>, column: Option<usize>) -> bool {
        self.made(rows, column).await.is_err()
    }

    /// Makes the rows that would be written, and writes nothing.
    async fn made(&self, rows: Range<usize>, column: Option<usize>) -> Result<()> {
        let mut insert = self.insert.clone();
        let mut values = self.values.clone();
        values.rows = values.rows[rows].to_vec();
        if let Some(nth) = column {
            insert.columns = vec![self.name(nth)?];
            for row in &mut values.rows {
                row.content = row.content.get(nth).cloned().into_iter().collect();
            }
        }
        *insert.query = plain_query(SetExpr::Values(values));
        let plan = self.session.database.prepare_insert(&insert).await?;
        let state = self.session.state();
        let plan = state.create_physical_plan(&plan).await?;
        collect(plan, state.task_ctx()).await?;
        Ok(())
    }

    fn name(&self, nth: usize) -> Result<Ident> {
        if let Some(name) = self.insert.columns.get(nth) {
            return Ok(name.clone());
        }
        let schema = self.session.database.target(self.insert)?.schema();
        let field = schema.fields().get(nth).ok_or_else(|| Error::internal("no such column"))?;
        Ok(Ident::with_quote('"', field.name()))
    }
}
