//! Column definitions of sources and tables.

use std::fmt::{self, Formatter};

use datafusion::sql::sqlparser::ast::{DataType, Expr, Ident};

use super::print;

/// What stands in the parentheses of `CREATE SOURCE` and `CREATE TABLE`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Columns {
    pub columns: Vec<ColumnDef>,
    /// Empty if there is none. An inline `PRIMARY KEY` stands here too.
    pub primary_key: Vec<Ident>,
    pub watermark: Option<Watermark>,
}

/// One column.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnDef {
    pub name: Ident,
    pub kind: ColumnKind,
    pub comment: Option<String>,
}

/// Where a column's values come from.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnKind {
    /// Read from the payload.
    Physical { data_type: DataType, not_null: bool },
    /// Read from what surrounds the payload: `partition INT METADATA`, or under another
    /// name `shard INT METADATA FROM 'partition'`.
    Metadata { data_type: DataType, from: Option<String> },
    /// `day DATE AS (CAST(ordered_at AS DATE))`: computed from other columns.
    Computed { data_type: Option<DataType>, expr: Box<Expr> },
}

/// `WATERMARK FOR column AS expr`.
#[derive(Debug, Clone, PartialEq)]
pub struct Watermark {
    pub column: Ident,
    pub expr: Expr,
}

impl Columns {
    /// Whether there is nothing to print.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty() && self.primary_key.is_empty() && self.watermark.is_none()
    }
}

/// One line of the list, so that all can be printed alike.
enum Element<'a> {
    Column(&'a ColumnDef),
    PrimaryKey(&'a [Ident]),
    Watermark(&'a Watermark),
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut elements: Vec<_> = self.columns.iter().map(Element::Column).collect();
        if !self.primary_key.is_empty() {
            elements.push(Element::PrimaryKey(&self.primary_key));
        }
        elements.extend(self.watermark.as_ref().map(Element::Watermark));
        print::list(f, &elements)
    }
}

impl fmt::Display for Element<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Element::Column(column) => column.fmt(f),
            Element::PrimaryKey(columns) => {
                f.write_str("PRIMARY KEY ")?;
                print::idents(f, columns)
            }
            Element::Watermark(watermark) => watermark.fmt(f),
        }
    }
}

impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("WATERMARK FOR ")?;
        print::ident(f, &self.column)?;
        f.write_str(" AS ")?;
        print::expr(f, &self.expr)
    }
}

impl fmt::Display for ColumnDef {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        print::ident(f, &self.name)?;
        match &self.kind {
            ColumnKind::Physical { data_type, not_null } => {
                write!(f, " {data_type}")?;
                f.write_str(if *not_null { " NOT NULL" } else { "" })?;
            }
            ColumnKind::Metadata { data_type, from } => {
                write!(f, " {data_type} METADATA")?;
                if let Some(key) = from {
                    f.write_str(" FROM ")?;
                    print::string(f, key)?;
                }
            }
            ColumnKind::Computed { data_type, expr } => {
                if let Some(data_type) = data_type {
                    write!(f, " {data_type}")?;
                }
                f.write_str(" AS (")?;
                print::expr(f, expr)?;
                f.write_str(")")?;
            }
        }
        if let Some(comment) = &self.comment {
            f.write_str(" COMMENT ")?;
            print::string(f, comment)?;
        }
        Ok(())
    }
}
