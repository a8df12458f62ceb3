//! Windows in `GROUP BY`, as Flink had them before window tables.
//!
//! `SELECT k, TUMBLE_START(ts, size), count(*) FROM t WHERE p GROUP BY k, TUMBLE(ts, size)` is
//! `SELECT k, window_start, count(*) FROM TUMBLE((SELECT * FROM t WHERE p), ts, size) GROUP BY
//! k, window_start, window_end`. The same for `HOP` and `SESSION`; what else stands in the
//! `GROUP BY` separates sessions.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident,
    ObjectName, Query, Select, SelectItem, SetExpr, Spanned as _, TableFactor, TableWithJoins,
    Value, VisitMut, VisitorMut,
};

use super::call::{Kind, PARTITION_BY, everything_from, function, plain};
use super::{WINDOW_END, WINDOW_START};
use crate::error::{Error, Location, Result};
use crate::schema::fold;

/// Rewrites every query inside.
pub fn rewrite(query: &mut Query) -> Result<()> {
    struct Queries;
    impl VisitorMut for Queries {
        type Break = Error;
        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
            if let SetExpr::Select(select) = query.body.as_mut()
                && let Some(window) = take_window(select)
            {
                let mut bounds = Bounds { window: &window };
                query.order_by.visit(&mut bounds)?;
            }
            ControlFlow::Continue(())
        }

        fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
            match take_window(select) {
                Some(window) => rewrite_select(select, &window),
                None => ControlFlow::Continue(()),
            }
        }
    }
    match query.visit(&mut Queries) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// The window that a `SELECT` is grouped by.
fn take_window(select: &Select) -> Option<Function> {
    let GroupByExpr::Expressions(keys, _) = &select.group_by else { return None };
    keys.iter().find_map(as_window).cloned()
}

fn as_window(expr: &Expr) -> Option<&Function> {
    match expr {
        Expr::Function(function) if function.over.is_none() => {
            Kind::of(&function.name).map(|_| function)
        }
        _ => None,
    }
}

fn rewrite_select(select: &mut Select, window: &Function) -> ControlFlow<Error> {
    let mut bounds = Bounds { window };
    select.projection.visit(&mut bounds)?;
    select.having.visit(&mut bounds)?;
    let GroupByExpr::Expressions(keys, _) = &mut select.group_by else {
        return ControlFlow::Continue(());
    };
    if keys.iter().filter(|key| as_window(key).is_some()).count() > 1 {
        let second = keys.iter().rev().find_map(as_window);
        let place = second.and_then(|window| Location::of(window.name.span()));
        return ControlFlow::Break(
            Error::refused("a query can be grouped by one window only")
                .at(place)
                .with_hint("put a window around a subquery that is grouped by another"),
        );
    }
    keys.retain(|key| as_window(key).is_none());
    let resolved = keys.iter().map(|key| resolve(key, &select.projection)).collect();
    keys.extend([WINDOW_START, WINDOW_END].map(|name| Expr::Identifier(Ident::new(name))));
    select.from =
        vec![TableWithJoins { relation: windowed(select, window, resolved), joins: vec![] }];
    select.selection = None;
    ControlFlow::Continue(())
}

/// The window function around what the `SELECT` read.
fn windowed(select: &mut Select, window: &Function, keys: Vec<Expr>) -> TableFactor {
    let mut read = everything_from(plain(ObjectName::from(vec![])));
    if let SetExpr::Select(inner) = read.body.as_mut() {
        inner.from = std::mem::take(&mut select.from);
        inner.selection = select.selection.take();
    }
    let positional = |expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    let mut arguments = vec![positional(Expr::Subquery(Box::new(read)))];
    if let FunctionArguments::List(list) = &window.args {
        arguments.extend(list.args.iter().cloned());
    }
    if Kind::of(&window.name) == Some(Kind::Session) && !keys.is_empty() {
        arguments.push(FunctionArg::Named {
            name: Ident::new(PARTITION_BY),
            arg: FunctionArgExpr::Expr(Expr::Tuple(keys)),
            operator: datafusion::sql::sqlparser::ast::FunctionArgOperator::RightArrow,
        });
    }
    let expr = Expr::Function(function(window.name.clone(), arguments));
    TableFactor::TableFunction { expr, alias: None }
}

/// What `GROUP BY 1` and `GROUP BY alias` mean.
fn resolve(key: &Expr, projection: &[SelectItem]) -> Expr {
    let aliased = |item: &SelectItem| match (item, key) {
        (SelectItem::ExprWithAlias { expr, alias }, Expr::Identifier(name))
            if fold(alias) == fold(name) =>
        {
            Some(expr.clone())
        }
        _ => None,
    };
    let numbered = || match key {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => number.to_string().parse::<usize>().ok(),
            _ => None,
        },
        _ => None,
    };
    if let Some(item) = numbered().and_then(|number| projection.get(number.checked_sub(1)?))
        && let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
    {
        return expr.clone();
    }
    projection.iter().find_map(aliased).unwrap_or_else(|| key.clone())
}

/// Puts `window_start` for `TUMBLE_START(…)`, and `window_end` for `TUMBLE_END(…)`.
struct Bounds<'a> {
    window: &'a Function,
}

impl VisitorMut for Bounds<'_> {
    type Break = Error;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let Expr::Function(function) = &*expr else { return ControlFlow::Continue(()) };
        let name = function.name.to_string().to_uppercase();
        let window = self.window.name.to_string().to_uppercase();
        let bound = match name.strip_prefix(&window) {
            Some("_START") => WINDOW_START,
            Some("_END") => WINDOW_END,
            _ => return ControlFlow::Continue(()),
        };
        if function.args != self.window.args {
            return ControlFlow::Break(
                Error::refused(format!("{name} is of another window than the one in GROUP BY"))
                    .at(Location::of(function.name.span()))
                    .with_hint(format!("give it the arguments of {}", self.window)),
            );
        }
        *expr = Expr::Identifier(Ident::new(bound));
        ControlFlow::Continue(())
    }
}
