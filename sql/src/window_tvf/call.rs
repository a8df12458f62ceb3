//! A call of a window function, taken apart.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
    ObjectName, Query, SelectItem, SetExpr, Spanned as _, TableFactor, TableFunctionArgs,
    TableWithJoins, VisitMut, VisitorMut, WildcardAdditionalOptions,
};

use crate::error::{Error, Location, Result};
use crate::plan::{plain_query, plain_select};
use crate::window_tvf::SYSTEM_TIME_AS_OF;

/// Functions that put rows of a table into windows.
pub const WINDOW_FUNCTIONS: [&str; 4] = ["TUMBLE", "HOP", "CUMULATE", "SESSION"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tumble,
    Hop,
    Cumulate,
    Session,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Tumble, Kind::Hop, Kind::Cumulate, Kind::Session];

    /// The window function of that name.
    pub fn of(name: &ObjectName) -> Option<Self> {
        let [part] = name.0.as_slice() else { return None };
        let ident = part.as_ident().filter(|ident| ident.quote_style.is_none())?;
        Self::ALL.into_iter().find(|kind| ident.value.eq_ignore_ascii_case(kind.name()))
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Tumble => "TUMBLE",
            Kind::Hop => "HOP",
            Kind::Cumulate => "CUMULATE",
            Kind::Session => "SESSION",
        }
    }

    /// Its arguments in order, as Flink names them.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Kind::Tumble => &["DATA", "TIMECOL", "SIZE", "OFFSET"],
            Kind::Hop => &["DATA", "TIMECOL", "SLIDE", "SIZE", "OFFSET"],
            Kind::Cumulate => &["DATA", "TIMECOL", "STEP", "SIZE", "OFFSET"],
            Kind::Session => &["DATA", "TIMECOL", "GAP"],
        }
    }

    pub fn description(self) -> &'static str {
        match self {
            Kind::Tumble => "The rows with the window of a fixed size that each falls into.",
            Kind::Hop => "The rows with each of the overlapping windows that they fall into.",
            Kind::Cumulate => "The rows with each of the growing windows that they fall into.",
            Kind::Session => "The rows with the session of their key that they belong to.",
        }
    }

    pub fn example(self) -> &'static str {
        match self {
            Kind::Tumble => "TUMBLE(table, time, INTERVAL '1' MINUTE)",
            Kind::Hop => "HOP(table, time, INTERVAL '10' SECOND, INTERVAL '1' MINUTE)",
            Kind::Cumulate => "CUMULATE(table, time, INTERVAL '1' HOUR, INTERVAL '1' DAY)",
            Kind::Session => "SESSION(table PARTITION BY key, time, INTERVAL '5' MINUTE)",
        }
    }
}

/// A window function with its arguments by name.
#[derive(Debug)]
pub struct Call {
    pub kind: Kind,
    place: Option<Location>,
    arguments: Vec<(String, Expr)>,
}

/// The name that a `PARTITION BY` inside the arguments is parsed as.
pub const PARTITION_BY: &str = "PARTITION_BY";

impl Call {
    pub fn of(kind: Kind, function: &Function) -> Result<Self> {
        let place = Location::of(function.name.span());
        let mut call = Self { kind, place, arguments: Vec::new() };
        let FunctionArguments::List(list) = &function.args else {
            return Err(call.misspelled("it has no arguments"));
        };
        let mut positions = kind.parameters().iter();
        for argument in &list.args {
            let (name, value) = match named(argument) {
                (Some(name), value) => (name, value),
                (None, value) => match positions.next() {
                    Some(name) => ((*name).to_owned(), value),
                    None => return Err(call.misspelled("it has too many arguments")),
                },
            };
            let Some(value) = value else {
                return Err(call.misspelled(&format!("{argument} is no argument of it")));
            };
            let known = kind.parameters().contains(&name.as_str())
                || kind == Kind::Session && name == PARTITION_BY;
            if !known {
                return Err(call.misspelled(&format!("it has no argument {name}")));
            }
            if call.argument(&name).is_some() {
                return Err(call.misspelled(&format!("{name} is given twice")));
            }
            call.arguments.push((name, value.clone()));
        }
        Ok(call)
    }

    pub fn argument(&self, name: &str) -> Option<&Expr> {
        self.arguments.iter().find(|(given, _)| given == name).map(|(_, value)| value)
    }

    /// Where the argument stands, or else the call.
    pub fn place(&self, name: &str) -> Option<Location> {
        self.argument(name).and_then(|expr| Location::of(expr.span())).or(self.place)
    }

    pub fn misspelled(&self, what: &str) -> Error {
        Error::syntax(format!("{} can't be understood: {what}", self.kind.name()))
            .at(self.place)
            .with_hint(format!("write it as {}", self.kind.example()))
    }

    /// The rows that are put into windows.
    pub fn table(&self) -> Result<TableFactor> {
        match self.argument("DATA") {
            Some(Expr::Subquery(query)) => Ok(derived(query.clone())),
            Some(_) => Err(self.misspelled("its first argument is a table or a query")),
            None => Err(self.misspelled("its table is missing")),
        }
    }

    /// The column that holds the time, without its `DESCRIPTOR`.
    pub fn time(&self) -> Result<Expr> {
        let time = self.argument("TIMECOL");
        match time.ok_or_else(|| self.misspelled("its time is missing"))? {
            Expr::Function(function) if is(&function.name, "DESCRIPTOR") => match &function.args {
                FunctionArguments::List(list) => match list.args.as_slice() {
                    [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))] => Ok(expr.clone()),
                    _ => Err(self.misspelled("a DESCRIPTOR names one column")),
                },
                _ => Err(self.misspelled("a DESCRIPTOR names one column")),
            },
            other => Ok(other.clone()),
        }
    }

    /// What separates sessions.
    pub fn partition_by(&self) -> Result<Vec<Expr>> {
        match self.argument(PARTITION_BY) {
            Some(Expr::Tuple(keys)) => Ok(keys.clone()),
            Some(Expr::Nested(key)) => Ok(vec![key.as_ref().clone()]),
            Some(key) => Ok(vec![key.clone()]),
            None => Ok(Vec::new()),
        }
    }
}

/// Whether it is the function called `word`.
pub fn is(name: &ObjectName, word: &str) -> bool {
    name.to_string().eq_ignore_ascii_case(word)
}

/// Whether the function's first argument is a table.
fn takes_table(name: &ObjectName) -> bool {
    Kind::of(name).is_some() || is(name, SYSTEM_TIME_AS_OF)
}

/// The query that stands for a table as of now.
pub fn table_as_of(function: &Function) -> Option<&Query> {
    let FunctionArguments::List(list) = &function.args else { return None };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Subquery(query)))] => Some(query),
        _ => None,
    }
}

fn named(argument: &FunctionArg) -> (Option<String>, Option<&Expr>) {
    let (name, value) = match argument {
        FunctionArg::Named { name, arg, .. } => (Some(name.value.to_uppercase()), arg),
        FunctionArg::ExprNamed { name, arg, .. } => (Some(name.to_string().to_uppercase()), arg),
        FunctionArg::Unnamed(arg) => (None, arg),
    };
    match value {
        FunctionArgExpr::Expr(expr) => (name, Some(expr)),
        _ => (name, None),
    }
}

/// Turns every window function in `FROM` into `TABLE(F((SELECT * FROM t), …))`.
pub fn tables_as_subqueries(query: &mut Query) {
    struct Tables;
    impl VisitorMut for Tables {
        type Break = ();
        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            into_table_function(factor);
            if let TableFactor::TableFunction { expr: Expr::Function(function), .. } = factor
                && takes_table(&function.name)
                && let FunctionArguments::List(list) = &mut function.args
            {
                table_as_subquery(&mut list.args);
            }
            ControlFlow::Continue(())
        }
    }
    let _ = query.visit(&mut Tables);
}

/// `TUMBLE(…)` in `FROM` is parsed as a table with arguments; `TABLE(TUMBLE(…))` is not.
fn into_table_function(factor: &mut TableFactor) {
    let TableFactor::Table { name, args: Some(args), alias, .. } = factor else { return };
    if !takes_table(name) {
        return;
    }
    let TableFunctionArgs { args, .. } =
        std::mem::replace(args, TableFunctionArgs { args: Vec::new(), settings: None });
    let function = function(name.clone(), args);
    *factor = TableFactor::TableFunction { expr: Expr::Function(function), alias: alias.take() };
}

/// A call without any of the clauses that a function can have.
pub fn function(name: ObjectName, args: Vec<FunctionArg>) -> Function {
    let list = FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() };
    Function {
        name,
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    }
}

fn table_as_subquery(args: &mut [FunctionArg]) {
    let data = |argument: &FunctionArg| match named(argument) {
        (Some(name), _) => name == "DATA",
        (None, _) => true,
    };
    let Some(at) = args.iter().position(data) else { return };
    let (FunctionArg::Named { arg, .. }
    | FunctionArg::ExprNamed { arg, .. }
    | FunctionArg::Unnamed(arg)) = &mut args[at];
    let FunctionArgExpr::Expr(expr) = arg else { return };
    let name = match &*expr {
        Expr::Identifier(ident) => ObjectName::from(vec![ident.clone()]),
        Expr::CompoundIdentifier(idents) => ObjectName::from(idents.clone()),
        // A window over a window's rows.
        Expr::Function(inner) if takes_table(&inner.name) => {
            let table = TableFactor::TableFunction { expr: expr.clone(), alias: None };
            *expr = Expr::Subquery(Box::new(everything_from(table)));
            return;
        }
        _ => return,
    };
    *expr = Expr::Subquery(Box::new(everything_from(plain(name))));
}

pub fn plain(name: ObjectName) -> TableFactor {
    TableFactor::Table {
        name,
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}

pub fn derived(subquery: Box<Query>) -> TableFactor {
    TableFactor::Derived { lateral: false, subquery, alias: None, sample: None }
}

/// `SELECT * FROM table`
pub fn everything_from(table: TableFactor) -> Query {
    let everything = SelectItem::Wildcard(WildcardAdditionalOptions::default());
    let from = vec![TableWithJoins { relation: table, joins: Vec::new() }];
    plain_query(SetExpr::Select(Box::new(plain_select(vec![everything], from))))
}
