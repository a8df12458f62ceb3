//! `CREATE …` and `INSERT`.

use datafusion::sql::sqlparser::ast::{Ident, ObjectName};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use super::refuse;
use crate::error::{Error, Result};
use crate::statement::{
    CreateMaterializedView, CreateSink, CreateSource, CreateTable, CreateView, Insert, Statement,
};

/// What every `CREATE` starts with.
struct Head {
    or_replace: bool,
    if_not_exists: bool,
    name: ObjectName,
}

impl Cursor {
    /// After `CREATE`.
    pub fn create(&mut self) -> Result<Statement> {
        let or_replace = self.eat("OR REPLACE");
        if self.eat("SOURCE") {
            self.create_source(or_replace)
        } else if self.eat("TABLE") {
            self.create_table(or_replace)
        } else if self.eat("VIEW") {
            self.create_view(or_replace)
        } else if self.eat("MATERIALIZED VIEW") {
            self.create_materialized_view(or_replace)
        } else if self.eat("SINK") {
            self.create_sink(or_replace)
        } else {
            Err(refuse::create(self))
        }
    }

    fn head(&mut self, or_replace: bool) -> Result<Head> {
        let if_not_exists = self.eat("IF NOT EXISTS");
        if or_replace && if_not_exists {
            return Err(Error::syntax("OR REPLACE and IF NOT EXISTS contradict each other")
                .at(self.here())
                .with_hint("write one of them"));
        }
        Ok(Head { or_replace, if_not_exists, name: self.name()? })
    }

    fn create_source(&mut self, or_replace: bool) -> Result<Statement> {
        let Head { or_replace, if_not_exists, name } = self.head(or_replace)?;
        let columns = self.columns()?;
        self.refuse_missing_with()?;
        let place = self.here();
        let options = self.with_options()?;
        if options.is_empty() {
            return Err(Error::syntax("a source needs options that say where its rows come from")
                .at(place)
                .with_hint("add WITH (connector = 'kafka', topic = '…', …)"));
        }
        if self.at("AS") {
            return Err(self.unexpected("the end of the statement").with_hint(
                "a source has no query; write CREATE VIEW or CREATE MATERIALIZED VIEW",
            ));
        }
        self.refuse_format_clause()?;
        Ok(Statement::CreateSource(CreateSource {
            or_replace,
            if_not_exists,
            name,
            columns,
            options,
        }))
    }

    fn create_table(&mut self, or_replace: bool) -> Result<Statement> {
        let Head { or_replace, if_not_exists, name } = self.head(or_replace)?;
        let columns = self.columns()?;
        let mut partitioned_by = self.partitioned_by()?;
        self.refuse_missing_with()?;
        let options = self.with_options()?;
        if partitioned_by.is_empty() {
            partitioned_by = self.partitioned_by()?;
        }
        self.refuse_format_clause()?;
        let query = if self.eat("AS") { Some(self.query()?) } else { None };
        if columns.is_empty() && options.is_empty() && query.is_none() {
            return Err(Error::syntax("a table needs columns, options or a query")
                .at(self.here())
                .with_hint(
                    "CREATE TABLE t (id BIGINT), or CREATE TABLE t WITH (connector = 'delta', \
                     location = '…')",
                ));
        }
        Ok(Statement::CreateTable(CreateTable {
            or_replace,
            if_not_exists,
            name,
            columns,
            partitioned_by,
            options,
            query,
        }))
    }

    fn create_view(&mut self, or_replace: bool) -> Result<Statement> {
        let Head { or_replace, if_not_exists, name } = self.head(or_replace)?;
        let columns = self.column_names()?;
        if self.at("WITH") || self.at("PARTITIONED BY") {
            return Err(self
                .unexpected("AS")
                .with_hint("a view is only a name for a query; to keep its result, write CREATE MATERIALIZED VIEW"));
        }
        self.expect("AS")?;
        let query = self.query()?;
        Ok(Statement::CreateView(CreateView { or_replace, if_not_exists, name, columns, query }))
    }

    fn create_materialized_view(&mut self, or_replace: bool) -> Result<Statement> {
        let Head { or_replace, if_not_exists, name } = self.head(or_replace)?;
        let columns = self.column_names()?;
        let mut partitioned_by = self.partitioned_by()?;
        let options = self.with_options()?;
        if partitioned_by.is_empty() {
            partitioned_by = self.partitioned_by()?;
        }
        self.expect("AS")?;
        let query = self.query()?;
        Ok(Statement::CreateMaterializedView(CreateMaterializedView {
            or_replace,
            if_not_exists,
            name,
            columns,
            partitioned_by,
            options,
            query,
            emit: self.take_emit(),
        }))
    }

    fn create_sink(&mut self, or_replace: bool) -> Result<Statement> {
        let Head { or_replace, if_not_exists, name } = self.head(or_replace)?;
        if self.eat("INTO") {
            let table = self.name()?;
            return Err(Error::refused("a sink does not write to a table of Tidemill")
                .with_hint(format!("write INSERT INTO {table} SELECT …")));
        }
        let place = self.here();
        let options = self.with_options()?;
        if options.is_empty() {
            return Err(Error::syntax("a sink needs options that say where its rows go")
                .at(place)
                .with_hint("add WITH (connector = 'kafka', topic = '…', …) before AS"));
        }
        self.expect("AS")?;
        let query = self.query()?;
        let emit = self.take_emit();
        Ok(Statement::CreateSink(CreateSink {
            or_replace,
            if_not_exists,
            name,
            options,
            query,
            emit,
        }))
    }

    /// After `INSERT`.
    pub fn insert(&mut self) -> Result<Statement> {
        if self.at("OVERWRITE") {
            return Err(Error::refused("INSERT OVERWRITE is not supported")
                .at(self.here())
                .with_hint("INSERT INTO adds rows; a materialized view replaces what changed"));
        }
        self.expect("INTO")?;
        self.eat("TABLE");
        let table = self.name()?;
        let columns = if self.at_query() { Vec::new() } else { self.column_names()? };
        let options = self.with_options()?;
        if self.at("DEFAULT VALUES") || self.at("SET") {
            return self.expected("SELECT or VALUES");
        }
        let query = self.query()?;
        if self.at("ON") || self.at("RETURNING") {
            let clause = self.word().unwrap_or_default();
            return Err(Error::refused(format!("INSERT … {clause} is not supported"))
                .at(self.here())
                .with_hint("INSERT INTO adds rows and answers their count"));
        }
        let emit = self.take_emit();
        Ok(Statement::Insert(Insert { table, columns, options, query, emit }))
    }

    fn column_names(&mut self) -> Result<Vec<Ident>> {
        if *self.peek() == Token::LParen { self.idents() } else { Ok(Vec::new()) }
    }

    fn partitioned_by(&mut self) -> Result<Vec<Ident>> {
        if self.at("PARTITION BY") {
            return Err(self.unexpected("PARTITIONED BY"));
        }
        if !self.eat("PARTITIONED BY") {
            return Ok(Vec::new());
        }
        self.idents().map_err(|error| match self.peek() {
            Token::LParen | Token::Word(_) => error.with_hint(
                "partition by a column; to partition by an expression, select it as a column",
            ),
            _ => error,
        })
    }

    /// A second parenthesis where `WITH` should stand.
    fn refuse_missing_with(&self) -> Result<()> {
        match self.peek() {
            Token::LParen => Err(self
                .unexpected("WITH")
                .with_hint("options are written WITH (name = 'value', …)")),
            _ => Ok(()),
        }
    }

    /// `FORMAT PLAIN ENCODE JSON`, as RisingWave has it.
    fn refuse_format_clause(&self) -> Result<()> {
        match self.at("FORMAT") || self.at("ENCODE") {
            true => Err(self
                .unexpected("the end of the statement")
                .with_hint("the format is an option: WITH (…, format = 'json')")),
            false => Ok(()),
        }
    }
}
