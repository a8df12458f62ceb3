//! Names for the columns of an `INSERT`'s query, which go by position.

use std::collections::HashSet;

use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, SelectItem, SetExpr};

/// Gives columns without a name of their own another one if they are written like one before
/// them: `SELECT 'x', NULL, NULL` is fine where names don't matter, but DataFusion wants them
/// to differ.
pub fn made_different(query: &Query) -> Query {
    let mut query = query.clone();
    body(&mut query.body);
    query
}

fn body(part: &mut SetExpr) {
    match part {
        SetExpr::Select(select) => items(&mut select.projection),
        SetExpr::Query(query) => body(&mut query.body),
        SetExpr::SetOperation { left, right, .. } => {
            body(left);
            body(right);
        }
        _ => {}
    }
}

fn items(items: &mut [SelectItem]) {
    let mut seen = HashSet::new();
    for (nth, item) in items.iter_mut().enumerate() {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        if !seen.insert(written(expr)) {
            let alias = Ident::with_quote('"', format!("{} {nth}", written(expr)));
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

fn written(expr: &Expr) -> String {
    match expr {
        Expr::CompoundIdentifier(parts) => parts.last().map(|part| part.value.clone()),
        Expr::Identifier(name) => Some(name.value.clone()),
        _ => None,
    }
    .unwrap_or_else(|| expr.to_string())
    .to_lowercase()
}
