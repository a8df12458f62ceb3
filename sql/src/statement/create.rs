//! `CREATE …`.

use std::fmt::{self, Display, Formatter};

use datafusion::sql::sqlparser::ast::{Ident, ObjectName, Query};

use super::columns::Columns;
use super::print;
use crate::options::Options;

/// `CREATE SOURCE`: a log of records to read.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateSource {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub name: ObjectName,
    pub columns: Columns,
    pub options: Options,
}

/// `CREATE TABLE`: with options a table that lies elsewhere, without a Delta table in
/// the warehouse.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateTable {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub name: ObjectName,
    /// Empty: the schema is read from the table, or follows from the query.
    pub columns: Columns,
    pub partitioned_by: Vec<Ident>,
    pub options: Options,
    /// `AS SELECT …`: filled once.
    pub query: Option<Box<Query>>,
}

/// `CREATE VIEW`: a name for a query.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateView {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub name: ObjectName,
    /// New names for the query's columns; empty to keep them.
    pub columns: Vec<Ident>,
    pub query: Box<Query>,
}

/// `CREATE MATERIALIZED VIEW`: a continuous query whose result is a Delta table.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateMaterializedView {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub name: ObjectName,
    /// New names for the query's columns; empty to keep them.
    pub columns: Vec<Ident>,
    pub partitioned_by: Vec<Ident>,
    pub options: Options,
    pub query: Box<Query>,
    pub emit: Emit,
}

/// `CREATE SINK`: a continuous query whose result leaves Tidemill.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateSink {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub name: ObjectName,
    pub options: Options,
    pub query: Box<Query>,
    pub emit: Emit,
}

/// When a continuous query gives its results out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Emit {
    /// As they change.
    #[default]
    Changes,
    /// Once, when the watermark passes the end of their window.
    OnWindowClose,
}

impl Emit {
    pub fn keyword(self) -> &'static str {
        match self {
            Emit::Changes => "EMIT CHANGES",
            Emit::OnWindowClose => "EMIT ON WINDOW CLOSE",
        }
    }

    /// Prints the clause after a query; the default is left to be understood, unless
    /// the query itself ends in words that would be taken for the clause.
    pub(super) fn print(self, f: &mut Formatter<'_>, query: &Query) -> fmt::Result {
        let last_words = || query.to_string().to_uppercase();
        let understood = self == Emit::default()
            && !last_words().ends_with("EMIT CHANGES")
            && !last_words().ends_with("CLOSE");
        if understood {
            return Ok(());
        }
        print::gap(f)?;
        f.write_str(self.keyword())
    }
}

/// `CREATE [OR REPLACE] kind [IF NOT EXISTS] name`.
fn head(
    f: &mut Formatter<'_>,
    kind: &str,
    (or_replace, if_not_exists): (bool, bool),
    name: &ObjectName,
) -> fmt::Result {
    f.write_str(if or_replace { "CREATE OR REPLACE " } else { "CREATE " })?;
    f.write_str(kind)?;
    f.write_str(if if_not_exists { " IF NOT EXISTS " } else { " " })?;
    print::name(f, name)
}

fn names(f: &mut Formatter<'_>, columns: &[Ident]) -> fmt::Result {
    if columns.is_empty() {
        return Ok(());
    }
    f.write_str(" ")?;
    print::idents(f, columns)
}

fn definitions(f: &mut Formatter<'_>, columns: &Columns) -> fmt::Result {
    if columns.is_empty() {
        return Ok(());
    }
    f.write_str(" ")?;
    columns.fmt(f)
}

fn partitions(f: &mut Formatter<'_>, columns: &[Ident]) -> fmt::Result {
    if columns.is_empty() {
        return Ok(());
    }
    print::gap(f)?;
    f.write_str("PARTITIONED BY ")?;
    print::idents(f, columns)
}

pub(super) fn with(f: &mut Formatter<'_>, options: &Options) -> fmt::Result {
    if options.is_empty() {
        return Ok(());
    }
    print::gap(f)?;
    f.write_str("WITH ")?;
    options.fmt(f)
}

fn as_query(f: &mut Formatter<'_>, query: &Query) -> fmt::Result {
    print::gap(f)?;
    f.write_str("AS ")?;
    print::query(f, query)
}

impl fmt::Display for CreateSource {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        head(f, "SOURCE", (self.or_replace, self.if_not_exists), &self.name)?;
        definitions(f, &self.columns)?;
        with(f, &self.options)
    }
}

impl fmt::Display for CreateTable {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        head(f, "TABLE", (self.or_replace, self.if_not_exists), &self.name)?;
        definitions(f, &self.columns)?;
        partitions(f, &self.partitioned_by)?;
        with(f, &self.options)?;
        match &self.query {
            Some(query) => as_query(f, query),
            None => Ok(()),
        }
    }
}

impl fmt::Display for CreateView {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        head(f, "VIEW", (self.or_replace, self.if_not_exists), &self.name)?;
        names(f, &self.columns)?;
        as_query(f, &self.query)
    }
}

impl fmt::Display for CreateMaterializedView {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        head(f, "MATERIALIZED VIEW", (self.or_replace, self.if_not_exists), &self.name)?;
        names(f, &self.columns)?;
        partitions(f, &self.partitioned_by)?;
        with(f, &self.options)?;
        as_query(f, &self.query)?;
        self.emit.print(f, &self.query)
    }
}

impl fmt::Display for CreateSink {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        head(f, "SINK", (self.or_replace, self.if_not_exists), &self.name)?;
        with(f, &self.options)?;
        as_query(f, &self.query)?;
        self.emit.print(f, &self.query)
    }
}
