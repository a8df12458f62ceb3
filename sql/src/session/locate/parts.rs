//! The parts that a query can be taken apart into.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, OrderByKind, Query, Select, SelectItem, SetExpr, Spanned as _, Value,
    Visit, Visitor,
};
use datafusion::sql::sqlparser::tokenizer::Span;

/// The expressions of a `SELECT`, in the order they are written.
pub fn expressions(select: &Select) -> Vec<Expr> {
    let items = select.projection.iter().filter_map(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    });
    let by = match &select.group_by {
        GroupByExpr::Expressions(by, _) => by.as_slice(),
        GroupByExpr::All(_) => &[],
    };
    let all = items.chain(&select.selection).chain(by).chain(&select.having).chain(&select.qualify);
    all.cloned().collect()
}

/// The query without one of its parts, and the place of that part.
pub fn without(query: &Query) -> Vec<(Query, Span)> {
    let mut found = Vec::new();
    let mut add = |place: Span, leave_out: &dyn Fn(&mut Query)| {
        let mut without = query.clone();
        leave_out(&mut without);
        found.push((without, place));
    };
    if let Some(limit) = &query.limit_clause {
        add(limit.span(), &|query| query.limit_clause = None);
    }
    if let Some(order) = &query.order_by {
        if let OrderByKind::Expressions(terms) = &order.kind {
            for (nth, term) in terms.iter().enumerate().filter(|_| terms.len() > 1) {
                add(term.span(), &|query| {
                    if let Some(OrderByKind::Expressions(terms)) =
                        query.order_by.as_mut().map(|order| &mut order.kind)
                    {
                        terms.remove(nth);
                    }
                });
            }
        }
        add(order.span(), &|query| query.order_by = None);
    }
    let SetExpr::Select(select) = query.body.as_ref() else { return found };
    let mut add = |place: Span, leave_out: &dyn Fn(&mut Select)| {
        add(place, &|query| {
            if let SetExpr::Select(select) = query.body.as_mut() {
                leave_out(select);
            }
        });
    };
    if let Some(filter) = &select.selection {
        add(filter.span(), &|select| select.selection = None);
    }
    if let Some(filter) = &select.having {
        add(filter.span(), &|select| select.having = None);
    }
    if let Some(filter) = &select.qualify {
        add(filter.span(), &|select| select.qualify = None);
    }
    let nothing = || GroupByExpr::Expressions(Vec::new(), Vec::new());
    if select.group_by != nothing() {
        add(select.group_by.span(), &|select| select.group_by = nothing());
    }
    // Of two that don't go together the later one is to blame.
    for (nth, item) in select.projection.iter().enumerate().rev() {
        let alias = Ident::new(format!("part_{nth}"));
        let expr = Expr::value(Value::Number("1".into(), false));
        let item_of_its_own = SelectItem::ExprWithAlias { expr, alias };
        add(item.span(), &|select| select.projection[nth] = item_of_its_own.clone());
    }
    found
}

/// What an expression is made of, without what is inside of that.
pub fn operands(expr: &Expr) -> Vec<Expr> {
    Below::of(expr).exprs
}

/// The queries that an expression holds itself.
pub fn subqueries(expr: &Expr) -> Vec<Query> {
    Below::of(expr).queries
}

#[derive(Default)]
struct Below {
    depth: usize,
    /// How many queries are around what is visited.
    inside: usize,
    exprs: Vec<Expr>,
    queries: Vec<Query>,
}

impl Below {
    fn of(expr: &Expr) -> Self {
        let mut below = Self::default();
        // The visitor never breaks.
        let _ = expr.visit(&mut below);
        below
    }
}

impl Visitor for Below {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if self.inside == 0 && self.depth == 1 {
            self.queries.push(query.clone());
        }
        self.inside += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.inside -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if self.inside == 0 {
            if self.depth == 1 {
                self.exprs.push(expr.clone());
            }
            self.depth += 1;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
        if self.inside == 0 {
            self.depth -= 1;
        }
        ControlFlow::Continue(())
    }
}

/// Whether an expression names no column and asks nothing: it has one value.
pub fn is_constant(expr: &Expr) -> bool {
    struct Varies;
    impl Visitor for Varies {
        type Break = ();

        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(_)
                | Expr::CompoundIdentifier(_)
                | Expr::CompoundFieldAccess { .. }
                | Expr::Wildcard(_)
                | Expr::QualifiedWildcard(..) => ControlFlow::Break(()),
                Expr::Value(value) if matches!(value.value, Value::Placeholder(_)) => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Varies).is_continue()
}

/// The constant expressions of a query, each as large as can be, values by themselves left out.
pub fn constants(query: &Query) -> Vec<Expr> {
    #[derive(Default)]
    struct Constants {
        inside: usize,
        found: Vec<Expr>,
    }
    impl Visitor for Constants {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if self.inside > 0 {
                self.inside += 1;
            } else if is_constant(expr) {
                self.inside = 1;
                if !matches!(expr, Expr::Value(_)) {
                    self.found.push(expr.clone());
                }
            }
            ControlFlow::Continue(())
        }

        fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
            self.inside = self.inside.saturating_sub(1);
            ControlFlow::Continue(())
        }
    }
    let mut constants = Constants::default();
    let _ = query.visit(&mut constants);
    constants.found
}
