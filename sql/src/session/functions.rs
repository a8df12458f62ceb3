//! `SHOW FUNCTIONS`: everything that can be called, of every kind, each name of it once.

use std::collections::BTreeMap;

use datafusion::execution::SessionState;
use datafusion::logical_expr::Documentation;

use super::show::{strings, table};
use super::{Answer, Session};
use crate::error::Result;
use crate::window_tvf::call::Kind;

/// A name, and what it names: `scalar`, `aggregate`, `table` or `window`.
type Name = (String, &'static str);

/// What is told of a function.
struct Function {
    description: String,
    syntax: String,
}

impl Session {
    pub(super) fn show_functions(&self, like: &dyn Fn(&str) -> bool) -> Result<Answer> {
        let mut functions = functions(&self.state());
        functions.retain(|(name, _), _| like(name));
        table(vec![
            ("function_name", strings(functions.keys().map(|(name, _)| name.as_str()))),
            ("function_type", strings(functions.keys().map(|(_, kind)| *kind))),
            ("description", strings(functions.values().map(|f| f.description.as_str()))),
            ("syntax_example", strings(functions.values().map(|f| f.syntax.as_str()))),
        ])
    }
}

/// The other names of a function are names, too.
fn functions(state: &SessionState) -> BTreeMap<Name, Function> {
    let mut all = BTreeMap::new();
    let mut add = |kind, name: &str, function| all.insert((name.to_owned(), kind), function);
    for kind in Kind::ALL {
        let (description, syntax) = (kind.description().to_owned(), kind.example().to_owned());
        add("table", &kind.name().to_lowercase(), Function { description, syntax });
    }
    for name in state.table_functions().keys() {
        add("table", name, described(name, name, None));
    }
    for (name, function) in state.window_functions() {
        add("window", name, described(name, function.name(), function.documentation()));
    }
    for (name, function) in state.aggregate_functions() {
        add("aggregate", name, described(name, function.name(), function.documentation()));
    }
    for (name, function) in state.scalar_functions() {
        add("scalar", name, described(name, function.name(), function.documentation()));
    }
    all
}

fn described(name: &str, of: &str, documentation: Option<&Documentation>) -> Function {
    let first_line = |text: &str| text.trim().lines().next().unwrap_or_default().to_owned();
    let description = match documentation {
        _ if name != of => format!("Another name of {of}."),
        Some(documentation) => first_line(&documentation.description),
        None => String::new(),
    };
    let syntax = documentation.map(|documentation| first_line(&documentation.syntax_example));
    Function { description, syntax: syntax.unwrap_or_default() }
}
