//! Statements that use, show, change or remove what was created.

use std::fmt::{self, Formatter};

use datafusion::sql::sqlparser::ast::{Ident, ObjectName, Query};

use super::create::{Emit, with};
use super::{ObjectKind, Statement, print};
use crate::options::{OptionValue, Options};

/// `INSERT INTO table [(columns)] [WITH (options)] query`: once if the query's input is
/// bounded, else a continuous query.
#[derive(Debug, Clone, PartialEq)]
pub struct Insert {
    pub table: ObjectName,
    /// Empty: all of them, in the table's order.
    pub columns: Vec<Ident>,
    /// For a continuous query.
    pub options: Options,
    pub query: Box<Query>,
    pub emit: Emit,
}

/// `SUBSCRIBE TO target [AS OF …]`: endless changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    pub target: Target,
    pub as_of: Option<AsOf>,
}

/// A named relation, or a query written in its place.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    Relation(ObjectName),
    Query(Box<Query>),
}

/// A committed version of a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AsOf {
    /// By its number.
    Version(u64),
    /// The last one at this time.
    Timestamp(String),
}

/// `SHOW what [FROM schema] [LIKE 'pattern']`.
#[derive(Debug, Clone, PartialEq)]
pub struct Show {
    pub what: ShowWhat,
    /// Only those in this schema.
    pub from: Option<ObjectName>,
    /// Only those whose name is like this pattern.
    pub like: Option<String>,
}

/// What `SHOW` can list.
#[derive(Debug, Clone, PartialEq)]
pub enum ShowWhat {
    Sources,
    Tables,
    Views,
    MaterializedViews,
    Sinks,
    Queries,
    Schemas,
    Functions,
    /// The columns of one relation.
    Columns(ObjectName),
    /// All settings.
    All,
    /// One setting.
    Setting(ObjectName),
}

/// `SHOW CREATE kind name`.
#[derive(Debug, Clone, PartialEq)]
pub struct ShowCreate {
    pub kind: ObjectKind,
    pub name: ObjectName,
}

/// `DESCRIBE target`: its columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Describe {
    pub target: Target,
}

/// `EXPLAIN [INCREMENTAL | ANALYZE] [VERBOSE] [FORMAT f] statement`.
#[derive(Debug, Clone, PartialEq)]
pub struct Explain {
    pub mode: ExplainMode,
    pub verbose: bool,
    /// DataFusion's name of an output format: `indent`, `tree`, `pgjson`, `graphviz`.
    pub format: Option<String>,
    pub statement: Box<Statement>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExplainMode {
    /// The plans of a batch query.
    #[default]
    Plan,
    /// How a continuous query is kept up to date.
    Incremental,
    /// Runs it and tells what each node did.
    Analyze,
}

/// `ALTER kind [IF EXISTS] name PAUSE | RESUME`.
#[derive(Debug, Clone, PartialEq)]
pub struct Alter {
    /// A materialized view, a sink, or a query.
    pub kind: ObjectKind,
    pub if_exists: bool,
    pub name: ObjectName,
    pub action: AlterAction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlterAction {
    Pause,
    Resume,
}

/// `DROP kind [IF EXISTS] names [CASCADE]`.
#[derive(Debug, Clone, PartialEq)]
pub struct DropObjects {
    pub kind: ObjectKind,
    pub if_exists: bool,
    /// At least one.
    pub names: Vec<ObjectName>,
    /// Also what depends on them.
    pub cascade: bool,
}

/// `SET name = values`.
#[derive(Debug, Clone, PartialEq)]
pub struct Set {
    pub name: ObjectName,
    /// Nearly always one; at least one.
    pub values: Vec<OptionValue>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transaction {
    Begin,
    Commit,
    Rollback,
    /// `SET TRANSACTION …`, `SET SESSION CHARACTERISTICS …`.
    Characteristics,
}

impl Transaction {
    pub fn keyword(self) -> &'static str {
        match self {
            Transaction::Begin => "BEGIN",
            Transaction::Commit => "COMMIT",
            Transaction::Rollback => "ROLLBACK",
            Transaction::Characteristics => "SET TRANSACTION",
        }
    }
}

impl fmt::Display for Insert {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("INSERT INTO ")?;
        print::name(f, &self.table)?;
        if !self.columns.is_empty() {
            f.write_str(" ")?;
            print::idents(f, &self.columns)?;
        }
        with(f, &self.options)?;
        print::gap(f)?;
        print::query(f, &self.query)?;
        self.emit.print(f, &self.query)
    }
}

impl fmt::Display for Subscribe {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("SUBSCRIBE TO ")?;
        match &self.target {
            Target::Relation(name) => print::name(f, name)?,
            Target::Query(query) => {
                f.write_str("(")?;
                print::query(f, query)?;
                f.write_str(")")?;
            }
        }
        match &self.as_of {
            Some(AsOf::Version(version)) => write!(f, " AS OF {version}"),
            Some(AsOf::Timestamp(time)) => {
                f.write_str(" AS OF ")?;
                print::string(f, time)
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for Show {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("SHOW ")?;
        match &self.what {
            ShowWhat::Sources => f.write_str("SOURCES"),
            ShowWhat::Tables => f.write_str("TABLES"),
            ShowWhat::Views => f.write_str("VIEWS"),
            ShowWhat::MaterializedViews => f.write_str("MATERIALIZED VIEWS"),
            ShowWhat::Sinks => f.write_str("SINKS"),
            ShowWhat::Queries => f.write_str("QUERIES"),
            ShowWhat::Schemas => f.write_str("SCHEMAS"),
            ShowWhat::Functions => f.write_str("FUNCTIONS"),
            ShowWhat::Columns(name) => {
                f.write_str("COLUMNS FROM ")?;
                print::name(f, name)
            }
            ShowWhat::All => f.write_str("ALL"),
            ShowWhat::Setting(name) => print::name(f, name),
        }?;
        if let Some(schema) = &self.from {
            f.write_str(" FROM ")?;
            print::name(f, schema)?;
        }
        if let Some(pattern) = &self.like {
            f.write_str(" LIKE ")?;
            print::string(f, pattern)?;
        }
        Ok(())
    }
}

impl fmt::Display for ShowCreate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "SHOW CREATE {} ", self.kind.keyword())?;
        print::name(f, &self.name)
    }
}

impl fmt::Display for Describe {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("DESCRIBE ")?;
        match &self.target {
            Target::Relation(name) => print::name(f, name),
            Target::Query(query) => {
                f.write_str("(")?;
                print::query(f, query)?;
                f.write_str(")")
            }
        }
    }
}

impl fmt::Display for Explain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("EXPLAIN ")?;
        f.write_str(match self.mode {
            ExplainMode::Plan => "",
            ExplainMode::Incremental => "INCREMENTAL ",
            ExplainMode::Analyze => "ANALYZE ",
        })?;
        f.write_str(if self.verbose { "VERBOSE " } else { "" })?;
        if let Some(format) = &self.format {
            f.write_str("FORMAT ")?;
            print::string(f, format)?;
            f.write_str(" ")?;
        }
        self.statement.fmt(f)
    }
}

impl fmt::Display for Alter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "ALTER {} ", self.kind.keyword())?;
        f.write_str(if self.if_exists { "IF EXISTS " } else { "" })?;
        print::name(f, &self.name)?;
        f.write_str(match self.action {
            AlterAction::Pause => " PAUSE",
            AlterAction::Resume => " RESUME",
        })
    }
}

impl fmt::Display for DropObjects {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "DROP {} ", self.kind.keyword())?;
        f.write_str(if self.if_exists { "IF EXISTS " } else { "" })?;
        for (index, name) in self.names.iter().enumerate() {
            f.write_str(if index > 0 { ", " } else { "" })?;
            print::name(f, name)?;
        }
        f.write_str(if self.cascade { " CASCADE" } else { "" })
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("SET ")?;
        print::name(f, &self.name)?;
        f.write_str(" = ")?;
        for (index, value) in self.values.iter().enumerate() {
            f.write_str(if index > 0 { ", " } else { "" })?;
            value.fmt(f)?;
        }
        Ok(())
    }
}
