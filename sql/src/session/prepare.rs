//! Prepared statements: parameters by number (`$1`) or by place (`?`).

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{Expr, Query, Value, VisitMut, VisitorMut};
use futures::FutureExt;

use super::{Answer, Done, Prepared, Session, rows};
use crate::error::{Error, Result};
use crate::parser::parse_one;
use crate::plan;
use crate::statement::{Insert, Statement};

/// The highest number that a parameter can have, as in PostgreSQL.
const MAX_PARAMETERS: usize = 65_535;

pub(super) async fn prepare(session: &Session, sql: &str) -> Result<Prepared> {
    let mut spanned = parse_one(sql)?;
    let place = spanned.start;
    number_placeholders(&mut spanned.node)?;
    let is_query = spanned.node.answers_rows();
    let plan = match plan_of(session, &spanned.node).await {
        Ok(plan) => plan,
        Err(error) => return Err(session.placed(error, sql, &spanned.node).await.or_at(place)),
    };
    let parameters = plan.as_ref().map_or_else(|| Ok(empty()), parameter_schema)?;
    let schema = match (&spanned.node, plan) {
        (Statement::Query(_), Some(plan)) => Arc::new(plan.schema().as_arrow().clone()),
        (_, _) if is_query => answer_schema(session, sql, &spanned.node).await?,
        _ => empty(),
    };
    let takes_rows = match &spanned.node {
        Statement::Insert(insert) => rows::parameters(insert).is_some(),
        _ => false,
    };
    Ok(Prepared { sql: sql.to_owned(), schema, parameters, is_query, takes_rows })
}

pub(super) async fn execute(
    session: &Session,
    prepared: &Prepared,
    parameters: Vec<ScalarValue>,
) -> Result<Answer> {
    if prepared.parameters.fields().is_empty() && parameters.is_empty() {
        return session.execute(&prepared.sql).boxed().await;
    }
    let (statement, plan) = bind(session, prepared, parameters).await?;
    match statement {
        Statement::Insert(insert) => {
            let done = session.database.insert_bound(&insert, plan).await?;
            session.open.wrote();
            Ok(Answer::Done(done))
        }
        _ => session.select(plan).await,
    }
}

pub(super) async fn insert_rows(
    session: &Session,
    prepared: &Prepared,
    rows: SendableRecordBatchStream,
) -> Result<Done> {
    let mut spanned = parse_one(&prepared.sql)?;
    number_placeholders(&mut spanned.node)?;
    match &spanned.node {
        Statement::Insert(insert) if prepared.takes_rows => {
            let order = rows::parameters(insert).unwrap_or_default();
            let plan = rows::plan(rows, &order)?;
            let done = session.database.insert_given(insert, plan).await?;
            session.open.wrote();
            Ok(done)
        }
        other => Err(Error::refused(format!("{} of many rows", other.tag()))
            .with_hint("it takes INSERT INTO … VALUES ($1, …)")),
    }
}

/// The columns that a query answers with these values: a parameter whose type can't be
/// told from the statement gives its value's own.
pub(super) async fn bound_schema(
    session: &Session,
    prepared: &Prepared,
    parameters: Vec<ScalarValue>,
) -> Result<SchemaRef> {
    let (_, plan) = bind(session, prepared, parameters).await?;
    Ok(Arc::new(plan.schema().as_arrow().clone()))
}

/// The plan with a value in place of each parameter.
async fn bind(
    session: &Session,
    prepared: &Prepared,
    parameters: Vec<ScalarValue>,
) -> Result<(Statement, LogicalPlan)> {
    let wanted = prepared.parameters.fields().len();
    if parameters.len() != wanted {
        return Err(Error::types(format!(
            "the statement has {wanted} parameters, but {} values are bound",
            parameters.len()
        )));
    }
    let mut spanned = parse_one(&prepared.sql)?;
    number_placeholders(&mut spanned.node)?;
    let Some(plan) = plan_of(session, &spanned.node).await? else {
        return Err(Error::refused(format!("{} takes no parameters", spanned.node.tag())));
    };
    let values = cast_to(parameters, &prepared.parameters, prepared.is_query)?;
    Ok((spanned.node, plan.with_param_values(ParamValues::from(values))?))
}

/// A value takes the type that the statement expects where one is known: a
/// client that has only one integer type can still fill a DECIMAL.
///
/// In a query, a number that would lose its fraction by it stays what it is, and the
/// plan coerces as it does for a literal: `id = 1.5` must not find 1.
fn cast_to(
    values: Vec<ScalarValue>,
    schema: &SchemaRef,
    is_query: bool,
) -> Result<Vec<ScalarValue>> {
    let each = values.into_iter().zip(schema.fields()).map(|(value, field)| {
        if *field.data_type() == DataType::Null || value.data_type() == *field.data_type() {
            return Ok(value);
        }
        let cast = value.cast_to(field.data_type()).map_err(|error| {
            Error::types(format!(
                "parameter {} is a {}, which can't be a {}: {}",
                field.name(),
                value.data_type(),
                field.data_type(),
                error.strip_backtrace()
            ))
        })?;
        Ok(if is_query && is_rounded(&value, &cast) { value } else { cast })
    });
    each.collect()
}

fn is_rounded(value: &ScalarValue, cast: &ScalarValue) -> bool {
    let numbers = value.data_type().is_numeric() && cast.data_type().is_numeric();
    numbers && cast.cast_to(&value.data_type()).is_ok_and(|back| back != *value)
}

/// The plan whose parameters can be bound; `None` for statements without any.
async fn plan_of(session: &Session, statement: &Statement) -> Result<Option<LogicalPlan>> {
    match statement {
        Statement::Query(query) => Ok(Some(plan::query(&session.state(), query).await?)),
        Statement::Insert(insert) => session.database.prepare_insert(insert).await.map(Some),
        _ => Ok(None),
    }
}

/// The columns of `SHOW`, `EXPLAIN` and their kin: what they answer.
async fn answer_schema(session: &Session, sql: &str, statement: &Statement) -> Result<SchemaRef> {
    if let Statement::Subscribe(subscribe) = statement {
        return session.subscribe_schema(subscribe).await;
    }
    match session.execute(sql).boxed().await? {
        Answer::Rows(rows) => Ok(rows.schema()),
        Answer::Done(_) => Ok(empty()),
    }
}

fn empty() -> SchemaRef {
    Arc::new(Schema::empty())
}

/// `$1`, `$2`, … in numeric order, with the types that planning found.
fn parameter_schema(plan: &LogicalPlan) -> Result<SchemaRef> {
    let types = plan.get_parameter_types()?;
    let mut numbered = Vec::new();
    for (name, ty) in types {
        let number = name.trim_start_matches('$').parse().ok();
        let number = number.filter(|n| (1..=MAX_PARAMETERS).contains(n)).ok_or_else(|| {
            Error::syntax(format!("parameter \"{name}\" has no number"))
                .with_hint(format!("write $1, $2, … ${MAX_PARAMETERS}, or ?"))
        })?;
        numbered.push((number, ty.unwrap_or(DataType::Null)));
    }
    numbered.sort_by_key(|(number, _)| *number);
    let last = numbered.last().map_or(0, |(number, _)| *number);
    let mut fields: Vec<_> =
        (1..=last).map(|n| Field::new(format!("${n}"), DataType::Null, true)).collect();
    for (number, ty) in numbered {
        if let Some(field) = number.checked_sub(1).and_then(|index| fields.get_mut(index)) {
            field.set_data_type(ty);
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// Gives every `?` its number: DataFusion takes all of them for one parameter.
fn number_placeholders(statement: &mut Statement) -> Result<()> {
    let query: &mut Query = match statement {
        Statement::Query(query) => query,
        Statement::Insert(Insert { query, .. }) => query,
        _ => return Ok(()),
    };
    let mut numbering = Numbering::default();
    // The visitor never breaks.
    let _ = VisitMut::visit(query, &mut numbering);
    if numbering.by_place > 0 && numbering.by_number {
        return Err(Error::syntax("? and $1 can't be mixed in one statement"));
    }
    Ok(())
}

#[derive(Default)]
struct Numbering {
    by_place: usize,
    by_number: bool,
}

impl VisitorMut for Numbering {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Value(value) = expr
            && let Value::Placeholder(name) = &mut value.value
        {
            if name == "?" {
                self.by_place += 1;
                *name = format!("${}", self.by_place);
            } else {
                self.by_number = true;
            }
        }
        ControlFlow::Continue(())
    }
}
