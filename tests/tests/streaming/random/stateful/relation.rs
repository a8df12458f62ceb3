//! Relations of a random query: SQL text and what is known of its columns.
//!
//! Every `SELECT` gives its columns names that occur nowhere else in the query, so that
//! a column can be named without its table, from inside a subquery too.

use std::collections::{HashMap, HashSet};

use super::choices::Choices;

/// What a column may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ty {
    Int,
    /// Quarters, or NaN: sums are exact in any order.
    Float,
    /// Not to be summed up: the result would depend on the order.
    Rough,
    Text,
    Decimal,
    Time,
    Bool,
    /// `STRUCT<x INT, y VARCHAR>`.
    Struct,
    List,
}

impl Ty {
    pub fn sortable(self) -> bool {
        self != Ty::List
    }

    /// What a join or a subquery may compare.
    pub fn comparable(self) -> bool {
        !matches!(self, Ty::List | Ty::Struct)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub ty: Ty,
}

#[derive(Debug, Clone)]
pub struct Relation {
    /// A `SELECT`.
    pub sql: String,
    pub columns: Vec<Column>,
}

/// Sources by name; all have the columns of [`COLUMNS`].
pub const APPENDED: [&str; 2] = ["a", "b"];
pub const UPSERTED: &str = "u";

pub const COLUMNS: [(&str, Ty); 9] = [
    ("k", Ty::Int),
    ("n", Ty::Int),
    ("s", Ty::Text),
    ("t", Ty::Time),
    ("id", Ty::Int),
    ("f", Ty::Float),
    ("d", Ty::Decimal),
    ("ok", Ty::Bool),
    ("p", Ty::Struct),
];

/// Makes one query.
#[derive(Debug)]
pub struct Maker<'a> {
    pub choices: Choices<'a>,
    names: usize,
    /// Joins and the like multiply rows: a query has few.
    pub products: usize,
    pub shared: Vec<String>,
    /// Columns that may hold one value alone.
    constants: HashSet<String>,
    /// Columns that are others under another name, or may be equal to them in every row.
    same: HashMap<String, String>,
}

/// The columns and relations that an expression names.
fn names(expr: &str) -> impl Iterator<Item = &str> {
    let unquoted = expr.split('\'').step_by(2);
    let words = unquoted.flat_map(|part| part.split(|c: char| !c.is_ascii_alphanumeric()));
    words.filter(|word| {
        let made = word.strip_prefix(['c', 'n', 'r', 'w']).unwrap_or_default();
        made.parse::<usize>().is_ok() || COLUMNS.iter().any(|(name, _)| name == word)
    })
}

/// The text before the comma that ends the first argument of a call.
fn first_argument(arguments: &str) -> &str {
    let (mut depth, mut quoted) = (0, false);
    let end = arguments.find(|c: char| {
        quoted ^= c == '\'';
        match c {
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            _ => {}
        }
        depth < 0 || (c == ',' && depth == 0 && !quoted)
    });
    &arguments[..end.unwrap_or(arguments.len())]
}

impl<'a> Maker<'a> {
    pub fn new(tape: &'a [u16]) -> Self {
        Self {
            choices: Choices::new(tape),
            names: 0,
            products: 0,
            shared: Vec::new(),
            constants: HashSet::new(),
            same: HashMap::new(),
        }
    }

    /// Whether an expression has the same value in every row, as far as is known.
    pub fn is_constant(&self, expr: &str) -> bool {
        // DataFusion leaves off what comes behind a value that is never NULL.
        let first = expr.strip_prefix("coalesce(").map(first_argument);
        first.is_some_and(|first| self.is_constant(first))
            || names(expr).all(|name| self.constants.contains(name))
    }

    /// A column is not the same in every row, whatever it is made of.
    pub fn vary(&mut self, column: &str) {
        self.constants.remove(column);
    }

    /// Whether two expressions may be one and the same once they are simplified: only columns
    /// are told apart for certain.
    pub fn may_be_same(&self, x: &str, y: &str) -> bool {
        let is_column = |expr: &str| names(expr).next() == Some(expr);
        !is_column(x) || !is_column(y) || self.first(x) == self.first(y)
    }

    /// The column that `name` is another name for.
    fn first<'b>(&'b self, name: &'b str) -> &'b str {
        let mut first = name;
        while let Some(before) = self.same.get(first) {
            first = before;
        }
        first
    }

    /// `x = y` may hold in all rows: where one is a constant, so is the other.
    pub fn equal(&mut self, x: &str, y: &str) {
        self.alias(x, y);
        for (one, other) in [(x, y), (y, x)] {
            if self.is_constant(one) {
                // A source's own columns are named alike in every source.
                let made = names(other).filter(|name| name.starts_with(['c', 'n']) && *name != "n");
                self.constants.extend(made.map(str::to_owned));
            }
        }
    }

    /// Both are columns: from here on they are the same.
    fn alias(&mut self, x: &str, y: &str) {
        let is_made = |name: &str| {
            let number = name.strip_prefix(['c', 'n']).unwrap_or_default();
            number.parse::<usize>().is_ok()
        };
        let (x, y) = (self.first(x).to_owned(), self.first(y).to_owned());
        if is_made(&x) && is_made(&y) && x != y {
            self.same.insert(y, x);
        }
    }

    pub fn fresh(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    pub fn column(&mut self, ty: Ty) -> Column {
        Column { name: self.fresh("c"), ty }
    }

    /// `e1 AS c1, e2 AS c2`, and the columns.
    pub fn items(&mut self, exprs: &[(String, Ty)]) -> (String, Vec<Column>) {
        let columns: Vec<Column> = exprs.iter().map(|(_, ty)| self.column(*ty)).collect();
        for ((expr, _), column) in exprs.iter().zip(&columns) {
            if self.is_constant(expr) {
                self.constants.insert(column.name.clone());
            }
            self.alias(expr, &column.name);
        }
        let items = exprs.iter().zip(&columns);
        let items: Vec<String> =
            items.map(|((expr, _), column)| format!("{expr} AS {}", column.name)).collect();
        (items.join(", "), columns)
    }

    /// `relation` as it stands in `FROM`.
    pub fn from(&mut self, relation: &Relation) -> String {
        format!("({}) AS {}", relation.sql, self.fresh("r"))
    }

    /// Some of the columns, at least one, in their order.
    pub fn some(&mut self, columns: &[Column], most: usize) -> Vec<Column> {
        let first = self.choices.below(columns.len());
        let kept = columns.iter().enumerate();
        let kept = kept.filter(|(i, _)| *i == first || self.choices.chance(60));
        let kept: Vec<Column> = kept.map(|(_, column)| column.clone()).collect();
        kept.into_iter().take(most.max(1)).collect()
    }

    /// Columns as expressions over themselves.
    pub fn plain(columns: &[Column]) -> Vec<(String, Ty)> {
        columns.iter().map(|column| (column.name.clone(), column.ty)).collect()
    }

    /// Some columns of a source.
    pub fn source(&mut self, name: &str) -> Relation {
        let (items, columns) = self.source_items();
        Relation { sql: format!("SELECT {items} FROM {name}"), columns }
    }

    pub fn source_items(&mut self) -> (String, Vec<Column>) {
        let mut exprs = vec![("k".to_owned(), Ty::Int), ("n".to_owned(), Ty::Int)];
        for (name, ty) in &COLUMNS[2..] {
            if exprs.len() < 5 && self.choices.chance(40) {
                exprs.push(((*name).to_owned(), *ty));
            }
        }
        self.items(&exprs)
    }

    pub fn any_source(&mut self) -> &'static str {
        let sources = [APPENDED[0], UPSERTED, APPENDED[1], APPENDED[0]];
        self.choices.pick::<&str>(&sources)
    }

    /// An order in which no two rows that differ are equal.
    pub fn total_order(&mut self, columns: &[Column]) -> String {
        let mut terms = Vec::new();
        let first = self.choices.below(columns.len());
        let rotated = columns[first..].iter().chain(&columns[..first]);
        for Column { name, ty } in rotated.filter(|column| column.ty.sortable()) {
            let how = self.direction();
            match ty {
                Ty::Struct => terms.push(format!("{name} IS NULL, {name}['x'], {name}['y']")),
                _ => terms.push(format!("{name}{how}")),
            }
        }
        terms.join(", ")
    }

    pub fn direction(&mut self) -> &'static str {
        self.choices.pick::<&str>(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"])
    }
}
