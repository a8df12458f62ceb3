//! The place of an error that names none.
//!
//! Of few errors DataFusion says which part of a query they are about. The others are
//! placed by trial: parts of the query are planned by themselves, as the statement plans
//! its query, and the smallest that fails with the same words is the place. Where no part
//! fails alone, it is the one without which the rest can be planned. Nothing is written for
//! it; parts without columns, and values to insert, are executed where only that shows the
//! error. Only statements that failed pay for it.

use std::time::Duration;

use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::collect;
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    Cte, Expr, Ident, Join, JoinConstraint, JoinOperator, Query, Select, SelectItem, SetExpr,
    Spanned as _, TableFactor, TableWithJoins, Value, Values, With,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::{Instant, timeout_at};

use super::Session;
use crate::error::{Error, Location, Result};
use crate::plan::{plain_query, plain_select};
use crate::statement::{Emit, ExplainMode, Statement, Target};
use crate::{parser, plan};

mod parts;
mod values;

use parts::{is_constant, operands, subqueries};
pub(super) use values::place_of_value;

/// What a search may cost: parts tried, and the time they take.
const MOST_TRIALS: usize = 200;
const LONGEST: Duration = Duration::from_secs(2);

/// Where in a statement that can't be planned the error is at home.
pub(super) async fn place_of(
    session: &Session,
    sql: &str,
    statement: &Statement,
    error: &Error,
) -> Option<Location> {
    let query = query_of(statement)?;
    // Rather without physical planning, which may ask brokers.
    let mut search = Search::new(session, Trial::Planned(statement), error);
    if !search.fails(query.clone()).await {
        search.trial = Trial::PlannedToTheEnd(statement);
        if !search.fails(query.clone()).await {
            return None;
        }
    }
    if let Some(unhurried) = without_emit(statement) {
        let mut search = Search::new(session, Trial::PlannedToTheEnd(&unhurried), error);
        if !search.fails(query.clone()).await {
            return parser::emit_place(sql);
        }
    }
    let found = search.query(query, &Scope::default()).await;
    found.or(Location::of(query.span()))
}

/// Where in a query that failed while it ran the error is at home: the part without columns,
/// such as `1 / 0`, that fails alike.
pub(super) async fn place_of_constant(
    session: &Session,
    query: &Query,
    error: &Error,
) -> Option<Location> {
    let mut search = Search::new(session, Trial::Executed, error);
    for part in parts::constants(query) {
        let alone = alone(&part);
        if search.fails(of_select(&alone, &Scope::default())).await {
            return search.narrowed(&part, &alone, &Scope::default()).await;
        }
    }
    None
}

/// The query of a statement, if it has one to plan.
fn query_of(statement: &Statement) -> Option<&Query> {
    match statement {
        Statement::Query(query) => Some(query),
        Statement::CreateTable(create) => create.query.as_deref(),
        Statement::CreateView(create) => Some(&create.query),
        Statement::CreateMaterializedView(create) => Some(&create.query),
        Statement::CreateSink(create) => Some(&create.query),
        Statement::Insert(insert) => Some(&insert.query),
        Statement::Explain(explain) => query_of(&explain.statement),
        Statement::Subscribe(subscribe) => match &subscribe.target {
            Target::Query(query) => Some(query),
            Target::Relation(_) => None,
        },
        _ => None,
    }
}

/// The statement without its `EMIT ON WINDOW CLOSE`, if it has one.
fn without_emit(statement: &Statement) -> Option<Statement> {
    let mut statement = statement.clone();
    let emit = match &mut statement {
        Statement::CreateMaterializedView(create) => &mut create.emit,
        Statement::CreateSink(create) => &mut create.emit,
        Statement::Insert(insert) => &mut insert.emit,
        _ => return None,
    };
    let was = std::mem::replace(emit, Emit::Changes);
    (was == Emit::OnWindowClose).then_some(statement)
}

/// The statement with another query.
fn with_query(statement: &Statement, query: Query) -> Statement {
    let mut statement = statement.clone();
    let query = Box::new(query);
    match &mut statement {
        Statement::Query(own) => *own = query,
        Statement::CreateTable(create) => create.query = Some(query),
        Statement::CreateView(create) => create.query = query,
        Statement::CreateMaterializedView(create) => create.query = query,
        Statement::CreateSink(create) => create.query = query,
        Statement::Insert(insert) => insert.query = query,
        Statement::Explain(explain) => {
            *explain.statement = with_query(&explain.statement, *query);
        }
        Statement::Subscribe(subscribe) => subscribe.target = Target::Query(query),
        _ => {}
    }
    statement
}

/// Common table expressions that a part of a query may name.
#[derive(Debug, Clone, Default)]
struct Scope {
    tables: Vec<Cte>,
    recursive: bool,
}

impl Scope {
    /// The scope inside a query: its own `WITH` added.
    fn inside(&self, query: &Query) -> Self {
        let mut inside = self.clone();
        if let Some(with) = &query.with {
            inside.tables.extend(with.cte_tables.iter().cloned());
            inside.recursive |= with.recursive;
        }
        inside
    }

    /// The query by itself.
    fn around(&self, mut query: Query) -> Query {
        let whole = self.inside(&query);
        query.with = (!whole.tables.is_empty()).then(|| With {
            with_token: AttachedToken::empty(),
            recursive: whole.recursive,
            cte_tables: whole.tables,
        });
        query
    }
}

/// What is done with a part to see whether it fails.
#[derive(Clone, Copy)]
enum Trial<'a> {
    /// Planned in the place of this statement's query.
    Planned(&'a Statement),
    /// Planned until it could be executed.
    PlannedToTheEnd(&'a Statement),
    /// Planned and executed.
    Executed,
}

struct Search<'a> {
    session: &'a Session,
    trial: Trial<'a>,
    /// What the whole says, in its first sentence: what follows may tell more of one part
    /// than of another.
    message: String,
    trials: usize,
    until: Instant,
}

type Found<'a> = BoxFuture<'a, Option<Location>>;

impl<'a> Search<'a> {
    fn new(session: &'a Session, trial: Trial<'a>, error: &Error) -> Self {
        let until = Instant::now() + LONGEST;
        let message = first_sentence(&error.message()).to_owned();
        Self { session, trial, message, trials: MOST_TRIALS, until }
    }

    /// What a part comes to; `None` when it was not tried.
    async fn tried(&mut self, query: Query) -> Option<Result<()>> {
        self.trials = self.trials.checked_sub(1)?;
        let trial = async {
            match self.trial {
                Trial::Planned(statement) => {
                    self.session.plan_alone(&with_query(statement, query), false).await
                }
                Trial::PlannedToTheEnd(statement) => {
                    self.session.plan_alone(&with_query(statement, query), true).await
                }
                Trial::Executed => self.session.execute_alone(&query).await,
            }
        };
        timeout_at(self.until, trial).await.ok()
    }

    /// Whether it fails with the words of the whole.
    async fn fails(&mut self, query: Query) -> bool {
        let tried = self.tried(query).await;
        matches!(tried, Some(Err(error)) if first_sentence(&error.message()) == self.message)
    }

    /// The place in a query that fails.
    fn query<'b>(&'b mut self, query: &'b Query, outer: &'b Scope) -> Found<'b> {
        async move {
            let mut scope = outer.clone();
            for table in query.with.iter().flat_map(|with| &with.cte_tables) {
                if self.fails(scope.around((*table.query).clone())).await {
                    return self.query(&table.query, &scope).await;
                }
                scope.tables.push(table.clone());
            }
            let scope = outer.inside(query);
            match self.body(&query.body, &scope).await {
                Some(found) => Some(found),
                None => self.left_out(query, outer).await,
            }
        }
        .boxed()
    }

    async fn body(&mut self, body: &SetExpr, scope: &Scope) -> Option<Location> {
        match body {
            SetExpr::Select(select) => self.select(select, scope).await,
            SetExpr::Query(query) => self.query(query, scope).await,
            SetExpr::Values(Values { rows, .. }) => {
                let values = rows.iter().flat_map(|row| row.iter());
                self.among(values.cloned().collect(), &alone(&one()), scope).await
            }
            SetExpr::SetOperation { left, right, .. } => {
                for side in [left, right] {
                    if self.fails(scope.around(plain_query((**side).clone()))).await {
                        return Box::pin(self.body(side, scope)).await;
                    }
                }
                None
            }
            _ => None,
        }
    }

    async fn select(&mut self, select: &Select, scope: &Scope) -> Option<Location> {
        if !select.from.is_empty() && self.fails(of_select(&part(select, one()), scope)).await {
            return self.from(&select.from, scope).await;
        }
        self.among(parts::expressions(select), select, scope).await
    }

    /// The place among expressions over the tables of a `SELECT`.
    async fn among(
        &mut self,
        exprs: Vec<Expr>,
        select: &Select,
        scope: &Scope,
    ) -> Option<Location> {
        for expr in exprs {
            if self.fails(of_select(&part(select, expr.clone()), scope)).await {
                return self.narrowed(&expr, select, scope).await;
            }
        }
        None
    }

    /// The smallest part of an expression that fails as the whole does.
    fn narrowed<'b>(
        &'b mut self,
        expr: &'b Expr,
        select: &'b Select,
        scope: &'b Scope,
    ) -> Found<'b> {
        async move {
            let whole = Location::of(expr.span());
            for query in subqueries(expr) {
                if self.fails(scope.around(query.clone())).await {
                    return self.query(&query, scope).await.or(whole);
                }
            }
            let operands = operands(expr).into_iter();
            // What was executed to see it fail must not name a column.
            let operands =
                operands.filter(|part| !matches!(self.trial, Trial::Executed) || is_constant(part));
            self.among(operands.collect(), select, scope).await.or(whole)
        }
        .boxed()
    }

    /// The place in a `FROM` that fails.
    async fn from(&mut self, from: &[TableWithJoins], scope: &Scope) -> Option<Location> {
        let joined = |table: &TableWithJoins| {
            let joins: Vec<_> = table.joins.iter().map(|join| join.relation.clone()).collect();
            std::iter::once(table.relation.clone()).chain(joins)
        };
        for factor in from.iter().flat_map(joined) {
            if let TableFactor::Derived { subquery, .. } = &factor
                && self.fails(scope.around((**subquery).clone())).await
            {
                return self.query(subquery, scope).await;
            }
        }
        for (nth, table) in from.iter().enumerate() {
            for joins in 0..=table.joins.len() {
                let prefix = TableWithJoins {
                    relation: table.relation.clone(),
                    joins: table.joins[..joins].to_vec(),
                };
                let mut select = alone(&one());
                select.from = from[..nth].iter().cloned().chain([prefix]).collect();
                if self.fails(of_select(&select, scope)).await {
                    return match joins.checked_sub(1) {
                        None => Location::of(table.relation.span()),
                        Some(last) => self.join(&table.joins[last], select, scope).await,
                    };
                }
            }
        }
        None
    }

    /// The place in a join, the last of `select`, that fails.
    async fn join(&mut self, join: &Join, mut select: Select, scope: &Scope) -> Option<Location> {
        let Some(JoinConstraint::On(on)) = constraint(&join.join_operator) else {
            return Location::of(join.relation.span());
        };
        for join in select.from.iter_mut().flat_map(|table| &mut table.joins) {
            join.join_operator = JoinOperator::CrossJoin(JoinConstraint::None);
        }
        let found = self.among(vec![on.clone()], &select, scope).await;
        found.or(Location::of(on.span()))
    }

    /// The part without which the query can be planned.
    async fn left_out(&mut self, query: &Query, scope: &Scope) -> Option<Location> {
        for (without, place) in parts::without(query) {
            if let Some(place) = Location::of(place)
                && let Some(Ok(())) = self.tried(scope.around(without)).await
            {
                return Some(place);
            }
        }
        None
    }
}

impl Session {
    /// Plans a statement as executing it would, and does nothing. What is no continuous query
    /// is planned `to_the_end` only on demand.
    fn plan_alone<'a>(
        &'a self,
        statement: &'a Statement,
        to_the_end: bool,
    ) -> BoxFuture<'a, Result<()>> {
        let database = &self.database;
        async move {
            match statement {
                Statement::Query(query) => {
                    let plan = plan::query(&self.state(), query).await?;
                    self.plan_batch(&plan, to_the_end).await?;
                }
                Statement::CreateTable(create) => {
                    if let Some(query) = &create.query {
                        let plan = database.planned_table(query).await?;
                        self.plan_batch(&plan, to_the_end).await?;
                    }
                }
                Statement::CreateView(create) => drop(database.bind_view(create).await?),
                Statement::CreateMaterializedView(create) => {
                    database.planned_view(create).await?;
                }
                Statement::CreateSink(create) => drop(database.planned_sink(create).await?),
                Statement::Insert(insert) => {
                    if let Some(plan) = database.planned_insert(insert).await? {
                        self.plan_batch(&plan, to_the_end).await?;
                    }
                }
                Statement::Explain(explain) if explain.mode == ExplainMode::Incremental => {
                    self.incremental_plan(&explain.statement).await?;
                }
                Statement::Explain(explain) => {
                    self.plan_alone(&explain.statement, to_the_end).await?
                }
                Statement::Subscribe(to) => drop(self.subscribe_schema(to).await?),
                _ => {}
            }
            Ok(())
        }
        .boxed()
    }

    async fn plan_batch(&self, plan: &LogicalPlan, to_the_end: bool) -> Result<()> {
        let state = self.state();
        match to_the_end {
            true => drop(state.create_physical_plan(plan).await?),
            false => drop(state.optimize(plan)?),
        }
        Ok(())
    }

    async fn execute_alone(&self, query: &Query) -> Result<()> {
        let state = self.state();
        let plan = plan::query(&state, query).await?;
        let plan = state.create_physical_plan(&plan).await?;
        collect(plan, state.task_ctx()).await?;
        Ok(())
    }
}

fn constraint(operator: &JoinOperator) -> Option<&JoinConstraint> {
    use JoinOperator::*;
    match operator {
        Join(on) | Inner(on) | Left(on) | LeftOuter(on) | Right(on) | RightOuter(on)
        | FullOuter(on) | CrossJoin(on) | Semi(on) | LeftSemi(on) | RightSemi(on) | Anti(on)
        | LeftAnti(on) | RightAnti(on) | StraightJoin(on) => Some(on),
        AsOf { constraint, .. } => Some(constraint),
        _ => None,
    }
}

fn first_sentence(message: &str) -> &str {
    message.split(". ").next().unwrap_or(message)
}

/// `1`.
fn one() -> Expr {
    Expr::value(Value::Number("1".into(), false))
}

/// One expression over the tables of a `SELECT`.
fn part(select: &Select, expr: Expr) -> Select {
    Select { from: select.from.clone(), named_window: select.named_window.clone(), ..alone(&expr) }
}

/// One expression, over nothing.
fn alone(expr: &Expr) -> Select {
    let item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new("part") };
    plain_select(vec![item], Vec::new())
}

fn of_select(select: &Select, scope: &Scope) -> Query {
    scope.around(plain_query(SetExpr::Select(Box::new(select.clone()))))
}
