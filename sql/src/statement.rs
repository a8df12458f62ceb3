//! Statements: what a person can say to Tidemill.
//!
//! One struct a statement. Names, queries and expressions are sqlparser's, so
//! that quoting and positions are kept; the rest is ours. A statement prints
//! back (`Display`) as SQL that parses to an equal statement; `{:#}` prints
//! the same over several lines. Equality ignores positions.

mod columns;
mod command;
mod create;
pub(crate) mod print;

use std::fmt;

use datafusion::sql::sqlparser::ast::{ObjectName, Query};

pub use columns::{ColumnDef, ColumnKind, Columns, Watermark};
pub use command::{
    Alter, AlterAction, AsOf, Describe, DropObjects, Explain, ExplainMode, Insert, Set, Show,
    ShowCreate, ShowWhat, Subscribe, Target, Transaction,
};
pub use create::{CreateMaterializedView, CreateSink, CreateSource, CreateTable, CreateView, Emit};

use crate::options::Options;

/// One statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    CreateSource(CreateSource),
    CreateTable(CreateTable),
    CreateView(CreateView),
    CreateMaterializedView(CreateMaterializedView),
    CreateSink(CreateSink),
    Insert(Insert),
    /// `SELECT`, `WITH`, `VALUES`, `TABLE`: a finite snapshot.
    Query(Box<Query>),
    Subscribe(Subscribe),
    Show(Show),
    ShowCreate(ShowCreate),
    Describe(Describe),
    Explain(Explain),
    Alter(Alter),
    Drop(DropObjects),
    Set(Set),
    /// `RESET name`; without a name, `RESET ALL`.
    Reset(Option<ObjectName>),
    /// Transaction control, which clients send and Tidemill answers without doing anything.
    Transaction(Transaction),
    /// `DISCARD ALL` and its kin, which connection pools send between clients.
    Discard,
}

/// The kinds of objects that have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    Source,
    Table,
    View,
    MaterializedView,
    Sink,
    /// A continuous query, such as a continuous `INSERT` runs.
    Query,
}

impl ObjectKind {
    pub const ALL: [ObjectKind; 6] = [
        ObjectKind::Source,
        ObjectKind::Table,
        ObjectKind::View,
        ObjectKind::MaterializedView,
        ObjectKind::Sink,
        ObjectKind::Query,
    ];

    /// As SQL has it: `MATERIALIZED VIEW`.
    pub fn keyword(self) -> &'static str {
        match self {
            ObjectKind::Source => "SOURCE",
            ObjectKind::Table => "TABLE",
            ObjectKind::View => "VIEW",
            ObjectKind::MaterializedView => "MATERIALIZED VIEW",
            ObjectKind::Sink => "SINK",
            ObjectKind::Query => "QUERY",
        }
    }
}

/// As a message has it: `materialized view`.
impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.keyword().to_lowercase())
    }
}

impl Statement {
    /// The words that say what was done, as psql prints them: `CREATE SOURCE`.
    pub fn tag(&self) -> String {
        let text = match self {
            Statement::CreateSource(_) => "CREATE SOURCE",
            Statement::CreateTable(_) => "CREATE TABLE",
            Statement::CreateView(_) => "CREATE VIEW",
            Statement::CreateMaterializedView(_) => "CREATE MATERIALIZED VIEW",
            Statement::CreateSink(_) => "CREATE SINK",
            Statement::Insert(_) => "INSERT",
            Statement::Query(_) => "SELECT",
            Statement::Subscribe(_) => "SUBSCRIBE",
            Statement::Show(_) | Statement::ShowCreate(_) => "SHOW",
            Statement::Describe(_) => "DESCRIBE",
            Statement::Explain(_) => "EXPLAIN",
            Statement::Alter(alter) => return format!("ALTER {}", alter.kind.keyword()),
            Statement::Drop(drop) => return format!("DROP {}", drop.kind.keyword()),
            Statement::Set(_) => "SET",
            Statement::Reset(_) => "RESET",
            Statement::Transaction(transaction) => transaction.keyword(),
            Statement::Discard => "DISCARD ALL",
        };
        text.to_owned()
    }

    /// Whether it answers rows and changes nothing.
    pub fn answers_rows(&self) -> bool {
        matches!(
            self,
            Statement::Query(_)
                | Statement::Subscribe(_)
                | Statement::Show(_)
                | Statement::ShowCreate(_)
                | Statement::Describe(_)
                | Statement::Explain(_)
        )
    }

    /// Whether its text outlives it: the catalog keeps it and parses it again.
    pub(crate) fn is_kept(&self) -> bool {
        match self {
            Statement::CreateSource(_)
            | Statement::CreateTable(_)
            | Statement::CreateView(_)
            | Statement::CreateMaterializedView(_)
            | Statement::CreateSink(_)
            | Statement::Insert(_) => true,
            Statement::Explain(explain) => explain.statement.is_kept(),
            _ => false,
        }
    }

    /// The same statement with `***` for passwords and other secrets in its options.
    /// For showing, never for storing.
    #[must_use]
    pub fn redacted(&self) -> Self {
        let mut copy = self.clone();
        if let Some(options) = copy.options_mut() {
            *options = options.redacted();
        }
        copy
    }

    fn options_mut(&mut self) -> Option<&mut Options> {
        match self {
            Statement::CreateSource(create) => Some(&mut create.options),
            Statement::CreateTable(create) => Some(&mut create.options),
            Statement::CreateMaterializedView(create) => Some(&mut create.options),
            Statement::CreateSink(create) => Some(&mut create.options),
            Statement::Insert(insert) => Some(&mut insert.options),
            Statement::Explain(explain) => explain.statement.options_mut(),
            _ => None,
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Statement::CreateSource(statement) => statement.fmt(f),
            Statement::CreateTable(statement) => statement.fmt(f),
            Statement::CreateView(statement) => statement.fmt(f),
            Statement::CreateMaterializedView(statement) => statement.fmt(f),
            Statement::CreateSink(statement) => statement.fmt(f),
            Statement::Insert(statement) => statement.fmt(f),
            Statement::Query(query) => print::query(f, query),
            Statement::Subscribe(statement) => statement.fmt(f),
            Statement::Show(statement) => statement.fmt(f),
            Statement::ShowCreate(statement) => statement.fmt(f),
            Statement::Describe(statement) => statement.fmt(f),
            Statement::Explain(statement) => statement.fmt(f),
            Statement::Alter(statement) => statement.fmt(f),
            Statement::Drop(statement) => statement.fmt(f),
            Statement::Set(statement) => statement.fmt(f),
            Statement::Reset(None) => f.write_str("RESET ALL"),
            Statement::Reset(Some(name)) => {
                f.write_str("RESET ")?;
                print::name(f, name)
            }
            Statement::Transaction(transaction) => f.write_str(transaction.keyword()),
            Statement::Discard => f.write_str("DISCARD ALL"),
        }
    }
}
