//! Queries to DataFusion plans, and the state they are planned with.

mod names;
mod plain;

pub use names::made_different;
pub use plain::{plain_query, plain_select};

use std::any::Any;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::ConfigOptions;
use datafusion::datasource::source_as_provider;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast};
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{Ident, Query, Statement as SqlStatement};

use tidemill_engine::lake::LakeTable;
use tidemill_engine::plan::with_rules;
use tidemill_engine::source::DeclaredSource;
use tidemill_engine::source::table::SourceTable;

use crate::asof::AsOfJoins;
use crate::error::{Error, Result};
use crate::objects::{Object, Objects};
use crate::schema::{fold, place};
use crate::session::{CATALOG, SCHEMA};
use crate::window_tvf::{WindowTables, prepared};

/// A state that plans against `objects`; 0 `partitions` takes the cores, 0 bytes of `memory`
/// has no limit.
pub fn state(objects: &Arc<Objects>, partitions: usize, memory: u64) -> Result<SessionState> {
    let mut options = ConfigOptions::new();
    options.catalog.default_catalog = CATALOG.into();
    options.catalog.default_schema = SCHEMA.into();
    options.catalog.create_default_catalog_and_schema = false;
    options.catalog.information_schema = true;
    options.sql_parser.collect_spans = true;
    // A time with a zone is UTC inside; without this it would have no zone at all.
    options.execution.time_zone = Some("UTC".into());
    // Clients can't take view types, so nothing makes them in the first place.
    options.sql_parser.map_string_types_to_utf8view = false;
    options.execution.parquet.schema_force_view_types = false;
    options.execution.parquet.pushdown_filters = true;
    // DataFusion 55 stops grouping early under a LIMIT also where a window function is between,
    // which then counts too few rows.
    options.optimizer.enable_distinct_aggregation_soft_limit = false;
    // Its first groups by some order panic where NaN is among them.
    options.optimizer.enable_topk_aggregation = false;
    // Pushed down to the scans, a struct's field takes a column along a second time where two
    // columns are the same one: the plan fails.
    options.optimizer.enable_leaf_expression_pushdown = false;
    let mut config = SessionConfig::from(options);
    if partitions > 0 {
        config = config.with_target_partitions(partitions);
    }
    let catalog = Arc::new(MemoryCatalogProvider::new());
    catalog.register_schema(SCHEMA, Arc::clone(objects) as _)?;
    let mut runtime = RuntimeEnvBuilder::new();
    if memory > 0 {
        runtime = runtime.with_memory_limit(usize::try_from(memory).unwrap_or(usize::MAX), 1.0);
    }
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime.build_arc()?)
        .with_default_features()
        .with_relation_planners(vec![Arc::new(WindowTables), Arc::new(AsOfJoins)])
        .build();
    let mut state = with_rules(state);
    tidemill_engine::function::register(&mut state)?;
    state.catalog_list().register_catalog(CATALOG.into(), catalog);
    Ok(state)
}

/// Plans a query; only reading is allowed.
pub async fn query(state: &SessionState, query: &Query) -> Result<LogicalPlan> {
    statement(state, SqlStatement::Query(Box::new(prepared(query)?))).await
}

pub async fn statement(state: &SessionState, statement: SqlStatement) -> Result<LogicalPlan> {
    let plan = state.statement_to_plan(DfStatement::Statement(Box::new(statement))).await?;
    let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false);
    reading.with_allow_statements(false).verify_plan(&plan)?;
    Ok(plan)
}

/// The plan with its columns renamed to `names` (none: as they are).
///
/// # Errors
/// Columns without a name of their own, or two with the same one, can't
/// become columns of a table.
pub fn with_names(plan: LogicalPlan, names: &[Ident]) -> Result<LogicalPlan> {
    let fields = plan.schema().fields().len();
    if !names.is_empty() && names.len() != fields {
        return Err(Error::name(format!(
            "{} column names are given for a query of {fields} columns",
            names.len()
        ))
        .at(names.first().and_then(place)));
    }
    let columns = plan.schema().columns();
    let mut seen = std::collections::HashSet::new();
    let mut exprs = Vec::with_capacity(fields);
    for (index, column) in columns.into_iter().enumerate() {
        let name = names.get(index).map_or_else(|| column.name.clone(), fold);
        if !seen.insert(name.clone()) {
            return Err(Error::name(format!("two columns of the query are called \"{name}\""))
                .with_hint("give one of them another name with AS"));
        }
        exprs.push(Expr::Column(column).alias(name));
    }
    Ok(LogicalPlanBuilder::from(plan).project(exprs)?.build()?)
}

/// The plan with its columns cast, by position, to those of `schema`.
pub fn coerced(plan: LogicalPlan, schema: &SchemaRef) -> Result<LogicalPlan> {
    let columns = plan.schema().columns();
    let types: Vec<DataType> =
        plan.schema().fields().iter().map(|field| field.data_type().clone()).collect();
    let exprs = columns.into_iter().zip(types).zip(schema.fields()).map(|((column, ty), field)| {
        let value = Expr::Column(column);
        let value =
            if ty == *field.data_type() { value } else { cast(value, field.data_type().clone()) };
        value.alias(field.name())
    });
    let exprs: Vec<_> = exprs.collect();
    Ok(LogicalPlanBuilder::from(plan).project(exprs)?.build()?)
}

/// Gives the parameters in an `INSERT`'s `VALUES` the types of the columns that they are
/// written to: clients that bind by type (JDBC) have to know them.
pub fn typed_parameters(
    plan: LogicalPlan,
    schema: &SchemaRef,
    named: &[Ident],
) -> Result<LogicalPlan> {
    let LogicalPlan::Values(values) = plan else { return Ok(plan) };
    let column = |index: usize| match named.get(index) {
        Some(ident) => schema.column_with_name(&fold(ident)).map(|(_, field)| field),
        None if named.is_empty() => schema.fields().get(index).map(AsRef::as_ref),
        None => None,
    };
    let typed = |(index, value): (usize, Expr)| match (value, column(index)) {
        (Expr::Placeholder(Placeholder { id, field: None }), Some(field)) => {
            let field = Field::new("", field.data_type().clone(), true);
            Expr::Placeholder(Placeholder::new_with_field(id, Some(Arc::new(field))))
        }
        (value, _) => value,
    };
    let rows =
        values.values.into_iter().map(|row| row.into_iter().enumerate().map(typed).collect());
    Ok(LogicalPlanBuilder::values(rows.collect())?.build()?)
}

/// Spreads the columns of an `INSERT` over the table's: those not named are NULL.
pub fn spread(plan: LogicalPlan, schema: &SchemaRef, named: &[Ident]) -> Result<LogicalPlan> {
    let given = plan.schema().columns();
    let expected = if named.is_empty() { schema.fields().len() } else { named.len() };
    if given.len() != expected {
        return Err(Error::types(format!(
            "{expected} columns are to be written, but the query has {}",
            given.len()
        ))
        .at(named.first().and_then(place)));
    }
    if named.is_empty() {
        return coerced(plan, schema);
    }
    let folded: Vec<_> = named.iter().map(fold).collect();
    for (ident, name) in named.iter().zip(&folded) {
        if schema.column_with_name(name).is_none() {
            return Err(Error::name(format!("the table has no column \"{name}\"")).at(place(ident)));
        }
        if folded.iter().filter(|other| *other == name).count() > 1 {
            return Err(Error::name(format!("column \"{name}\" is named twice")).at(place(ident)));
        }
    }
    let exprs = schema.fields().iter().map(|field| {
        let value = match folded.iter().position(|name| name == field.name()) {
            Some(index) => Expr::Column(given[index].clone()),
            None => Expr::Literal(datafusion::common::ScalarValue::Null, None),
        };
        cast(value, field.data_type().clone()).alias(field.name())
    });
    let exprs: Vec<_> = exprs.collect();
    Ok(LogicalPlanBuilder::from(plan).project(exprs)?.build()?)
}

/// The declared sources that a plan reads, once each.
pub fn sources(plan: &LogicalPlan) -> Result<Vec<DeclaredSource>> {
    let mut found: Vec<DeclaredSource> = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(table) = (source_as_provider(&scan.source)?.as_ref() as &dyn Any)
                .downcast_ref::<SourceTable>()
            && !found.iter().any(|f| f.source.name() == table.declared.source.name())
        {
            found.push(table.declared.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// The lake tables that a plan reads.
pub fn lakes(plan: &LogicalPlan, objects: &Objects) -> Result<Vec<Arc<LakeTable>>> {
    let mut names = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(table) =
                (source_as_provider(&scan.source)?.as_ref() as &dyn Any).downcast_ref::<LakeTable>()
        {
            names.push(table.name().to_owned());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(names.iter().filter_map(|name| objects.get(name)?.lake().cloned()).collect())
}

/// The relations that a query names.
pub fn references(state: &SessionState, query: &Query) -> Result<Vec<String>> {
    let statement = SqlStatement::Query(Box::new(prepared(query)?));
    let statement = DfStatement::Statement(Box::new(statement));
    let found = state.resolve_table_references(&statement)?;
    Ok(found.iter().map(|reference| reference.table().to_owned()).collect())
}

/// The declared source of a name.
pub fn declared(objects: &Objects, name: &str) -> Option<DeclaredSource> {
    match objects.get(name)? {
        Object::Source { declared, .. } => Some(declared),
        _ => None,
    }
}
