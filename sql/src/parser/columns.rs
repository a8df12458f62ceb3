//! The parentheses of `CREATE SOURCE` and `CREATE TABLE`.

use datafusion::sql::sqlparser::ast::{DataType, Expr, Ident};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use super::tokens::is_word;
use crate::error::{Error, Location, Result};
use crate::statement::{ColumnDef, ColumnKind, Columns, Watermark};

/// Clauses of other systems, and what to do instead.
const FOREIGN: [(&str, &str); 8] = [
    ("DEFAULT", "a missing key is NULL; use a computed column: name type AS (coalesce(…))"),
    ("UNIQUE", "a source has one key: PRIMARY KEY (columns)"),
    ("CHECK", "filter the rows in a view"),
    ("REFERENCES", "leave it out"),
    ("FOREIGN KEY", "leave it out"),
    ("COLLATE", "leave it out; text is compared byte by byte"),
    ("AUTO_INCREMENT", "leave it out"),
    ("INCLUDE", "write a metadata column: name type METADATA FROM 'partition'"),
];

impl Cursor {
    /// Column definitions, key and watermark, with their parentheses; nothing if there
    /// are no parentheses.
    pub fn columns(&mut self) -> Result<Columns> {
        let mut columns = Columns::default();
        if !self.eat_token(&Token::LParen) {
            return Ok(columns);
        }
        loop {
            self.element(&mut columns)?;
            if self.eat_token(&Token::RParen) {
                return Ok(columns);
            }
            if !self.eat_token(&Token::Comma) {
                return self.expected(", or )");
            }
        }
    }

    fn element(&mut self, columns: &mut Columns) -> Result<()> {
        let place = self.here();
        if self.eat("WATERMARK FOR") {
            let watermark = self.watermark()?;
            return match columns.watermark.replace(watermark) {
                Some(_) => Err(Error::syntax("there are two watermarks").at(place)),
                None => Ok(()),
            };
        }
        if self.at("CONSTRAINT") && is_word(self.peek_nth(2), "PRIMARY") {
            self.advance();
            self.ident()?;
        }
        if self.eat("PRIMARY KEY") {
            let key = self.idents()?;
            self.eat("NOT ENFORCED");
            return set_key(columns, key, place);
        }
        self.refuse_foreign_clause()?;
        let (column, is_key) = self.column()?;
        if let Some(twin) = columns.columns.iter().find(|c| same_name(&c.name, &column.name)) {
            return Err(Error::name(format!("there are two columns {}", twin.name)).at(place));
        }
        if is_key {
            set_key(columns, vec![column.name.clone()], place)?;
        }
        columns.columns.push(column);
        Ok(())
    }

    fn watermark(&mut self) -> Result<Watermark> {
        let column = self.ident()?;
        self.expect("AS")?;
        Ok(Watermark { column, expr: self.expr()? })
    }

    /// A column, and whether it said `PRIMARY KEY`.
    fn column(&mut self) -> Result<(ColumnDef, bool)> {
        let name = self.ident()?;
        let (mut kind, mut comment, mut is_key) = (None, None, false);
        let mut not_null = None;
        let data_type = if self.at("AS") { None } else { Some(self.column_type()?) };
        loop {
            let place = self.here();
            if self.eat("NOT NULL") {
                not_null = Some(place);
            } else if self.eat("PRIMARY KEY") {
                is_key = true;
                self.eat("NOT ENFORCED");
            } else if self.eat("COMMENT") {
                comment = Some(self.string()?);
            } else if self.eat("NULL") {
                // The default.
            } else if kind.is_none() && self.eat("METADATA") {
                let data_type = data_type.clone().ok_or_else(|| self.unexpected("a data type"))?;
                kind = Some(ColumnKind::Metadata { data_type, from: self.metadata_key()? });
            } else if kind.is_none() && self.eat_one(&["AS", "GENERATED ALWAYS AS"]).is_some() {
                let expr = Box::new(self.computed()?);
                kind = Some(ColumnKind::Computed { data_type: data_type.clone(), expr });
            } else {
                break;
            }
        }
        self.refuse_foreign_clause()?;
        let kind = match (kind, not_null, data_type) {
            (Some(_), Some(place), _) => {
                return Err(Error::syntax(
                    "NOT NULL is for columns that are read from the payload",
                )
                .at(place)
                .with_hint("leave it out"));
            }
            (Some(kind), None, _) => kind,
            (None, not_null, Some(data_type)) => {
                ColumnKind::Physical { data_type, not_null: not_null.is_some() }
            }
            (None, _, None) => return self.expected("AS and an expression"),
        };
        Ok((ColumnDef { name, kind, comment }, is_key))
    }

    fn column_type(&mut self) -> Result<DataType> {
        let at_equals = *self.peek() == Token::Eq;
        self.data_type().map_err(|error| match at_equals {
            true => error.with_hint("options go into WITH (name = 'value', …)"),
            false => error,
        })
    }

    /// `FROM 'partition'`, `VIRTUAL`.
    fn metadata_key(&mut self) -> Result<Option<String>> {
        let key = match self.eat("FROM") {
            true if matches!(self.peek(), Token::Word(_)) => Some(self.ident()?.value),
            true => Some(self.string()?),
            false => None,
        };
        self.eat("VIRTUAL");
        Ok(key)
    }

    /// The expression of a computed column; one pair of parentheses belongs to the clause.
    fn computed(&mut self) -> Result<Expr> {
        let place = self.here();
        let expr = match self.expr()? {
            Expr::Nested(inner) => *inner,
            other => other,
        };
        self.eat_one(&["STORED", "VIRTUAL"]);
        match expr {
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
                Err(Error::refused("a computed column can't ask other tables")
                    .at(place)
                    .with_hint("join them in a view"))
            }
            expr => Ok(expr),
        }
    }

    /// Clauses that other systems have here.
    fn refuse_foreign_clause(&self) -> Result<()> {
        // `check INT` is a column.
        let is_column = |words: &str| {
            !words.contains(' ') && matches!(self.peek_nth(1), Token::Word(_)) && words != "DEFAULT"
        };
        match FOREIGN.iter().find(|(words, _)| self.at(words) && !is_column(words)) {
            Some((words, hint)) => {
                let error = Error::refused(format!("{words} is not supported in a column list"));
                Err(error.at(self.here()).with_hint(hint))
            }
            None => Ok(()),
        }
    }
}

fn set_key(columns: &mut Columns, key: Vec<Ident>, place: Location) -> Result<()> {
    if !columns.primary_key.is_empty() {
        return Err(Error::syntax("there are two primary keys")
            .at(place)
            .with_hint("a key of several columns is written PRIMARY KEY (a, b)"));
    }
    columns.primary_key = key;
    Ok(())
}

/// Unquoted names are compared without regard to case.
fn same_name(a: &Ident, b: &Ident) -> bool {
    let normal = |name: &Ident| match name.quote_style {
        None => name.value.to_lowercase(),
        Some(_) => name.value.clone(),
    };
    normal(a) == normal(b)
}
