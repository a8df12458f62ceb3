//! Column definitions to Arrow: physical and metadata columns become the
//! source's schema, computed columns a projection over it.

mod names;

pub use names::sql_type;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::catalog::view::ViewTable;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlanBuilder, cast, col, lit};
use datafusion::sql::sqlparser::ast::{
    CastKind, DataType as SqlType, Expr as SqlExpr, ExprWithAlias, Ident, Value,
};
use datafusion::sql::unparser::Unparser;
use tidemill_engine::decode::{check_metadata, marks_tombstones, tombstone_field};
use tidemill_engine::source::{DeclaredSource, METADATA_KEY, WatermarkSpec};

use crate::error::{Error, Location, Result, nearest};
use crate::options::Checked;
use crate::statement::{ColumnDef, ColumnKind, Columns, Watermark};

/// What can stand behind `METADATA`.
pub const METADATA_COLUMNS: [&str; 7] =
    ["topic", "partition", "offset", "timestamp", "key", "headers", "file"];

/// The name as DataFusion normalises it: lower case unless it was quoted.
pub fn fold(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

pub fn place(ident: &Ident) -> Option<Location> {
    Location::of(ident.span)
}

/// The columns that the source itself yields: physical ones, then metadata.
pub fn source_schema(state: &SessionState, columns: &Columns) -> Result<SchemaRef> {
    refuse_twins(&columns.columns)?;
    let mut physical = Vec::new();
    let mut metadata = Vec::new();
    for column in &columns.columns {
        let name = fold(&column.name);
        match &column.kind {
            ColumnKind::Physical { data_type, not_null } => {
                let ty = declared_type(state, column, data_type)?;
                let required = *not_null || is_key(columns, &name);
                physical.push(Field::new(name, ty, !required));
            }
            ColumnKind::Metadata { data_type, from } => {
                let ty = declared_type(state, column, data_type)?;
                metadata.push(metadata_field(column, name, ty, from.as_deref())?);
            }
            ColumnKind::Computed { .. } => {}
        }
    }
    physical.extend(metadata);
    Ok(Arc::new(Schema::new(physical)))
}

/// With a hidden column for records that delete the row of their key, if there is a key.
pub fn with_tombstones(schema: &SchemaRef, columns: &Columns) -> Result<SchemaRef> {
    check_key(columns)?;
    if columns.primary_key.is_empty() {
        return Ok(Arc::clone(schema));
    }
    let mut name = "__deleted".to_owned();
    while columns.columns.iter().any(|column| fold(&column.name) == name) {
        name.push('_');
    }
    let key: Vec<String> = columns.primary_key.iter().map(fold).collect();
    let mark = Arc::new(tombstone_field(&name, &key));
    let fields = schema.fields().iter().cloned().chain([mark]);
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

fn is_key(columns: &Columns, name: &str) -> bool {
    columns.primary_key.iter().any(|key| fold(key) == name)
}

fn metadata_field(
    column: &ColumnDef,
    name: String,
    ty: DataType,
    from: Option<&str>,
) -> Result<Field> {
    let what = from.unwrap_or(&name).to_owned();
    if !METADATA_COLUMNS.contains(&what.as_str()) {
        return Err(Error::name(format!("there is no metadata column \"{what}\""))
            .at(place(&column.name))
            .with_hint(format!(
                "there are {}; another name is given by METADATA FROM 'offset'",
                METADATA_COLUMNS.join(", ")
            )));
    }
    let marked = HashMap::from([(METADATA_KEY.to_owned(), what.clone())]);
    let field = Field::new(name, ty, true).with_metadata(marked);
    check_metadata(&what, &field).map_err(|error| Error::from(error).at(place(&column.name)))?;
    Ok(field)
}

fn refuse_twins(columns: &[ColumnDef]) -> Result<()> {
    let mut seen = HashSet::new();
    for column in columns {
        let name = fold(&column.name);
        if !seen.insert(name.clone()) {
            return Err(
                Error::name(format!("column \"{name}\" is declared twice")).at(place(&column.name))
            );
        }
    }
    Ok(())
}

/// The type of a column; where it is none, the error tells the nearest.
fn declared_type(state: &SessionState, column: &ColumnDef, ty: &SqlType) -> Result<DataType> {
    arrow_type(state, ty).map_err(|error| match names::unknown_type(ty) {
        Some(written) => {
            let name = written.to_string();
            let error = Error::types(format!("there is no type {name}"));
            let error = error.at(written.0.last().and_then(|part| part.as_ident()).and_then(place));
            match nearest(&name, names::TYPES) {
                Some(near) => error.with_hint(format!("did you mean {near}?")),
                None => error.with_hint(format!("there are {}", names::TYPES.join(", "))),
            }
        }
        None => error.or_at(place(&column.name)),
    })
}

/// The Arrow type that DataFusion takes a SQL type for; timestamps in
/// microseconds, as lake tables hold them, and `WITH TIME ZONE` in UTC.
pub fn arrow_type(state: &SessionState, ty: &SqlType) -> Result<DataType> {
    let null = SqlExpr::Value(Value::Null.into());
    let expr = SqlExpr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(null),
        data_type: ty.clone(),
        array: false,
        format: None,
    };
    let schema = DFSchema::empty();
    let cast =
        state.create_logical_expr_from_sql_expr(ExprWithAlias { expr, alias: None }, &schema)?;
    Ok(in_microseconds(&cast.get_type(&schema)?))
}

/// The same type with every timestamp in microseconds, nested ones included.
fn in_microseconds(ty: &DataType) -> DataType {
    let inner = |field: &Arc<Field>| {
        Arc::new(field.as_ref().clone().with_data_type(in_microseconds(field.data_type())))
    };
    match ty {
        DataType::Timestamp(_, zone) => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.as_ref().map(|_| "UTC".into()))
        }
        DataType::List(field) => DataType::List(inner(field)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        DataType::Map(field, sorted) => DataType::Map(inner(field), *sorted),
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        other => other.clone(),
    }
}

/// The table that a query sees: the source as it is if its columns stand in
/// declared order, else a projection that adds computed columns and reorders.
pub fn declared_view(
    state: &SessionState,
    name: &str,
    columns: &Columns,
    source: Arc<dyn TableProvider>,
) -> Result<Arc<dyn TableProvider>> {
    let schema = source.schema();
    let declared: Vec<_> = columns.columns.iter().map(|c| fold(&c.name)).collect();
    let plain =
        declared.is_empty() || declared.iter().eq(schema.fields().iter().map(|field| field.name()));
    let qualified = DFSchema::try_from_qualified_schema(name.to_owned(), &schema)?;
    if plain {
        return Ok(source);
    }
    let scan = LogicalPlanBuilder::scan(name.to_owned(), provider_as_source(source), None)?;
    let exprs = columns
        .columns
        .iter()
        .map(|column| projected(state, &qualified, column))
        .collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(ViewTable::new(scan.project(exprs)?.build()?, None)))
}

fn projected(state: &SessionState, schema: &DFSchema, column: &ColumnDef) -> Result<Expr> {
    let name = fold(&column.name);
    let ColumnKind::Computed { data_type, expr } = &column.kind else {
        return Ok(col(datafusion::common::Column::from_name(name)));
    };
    let bound = bind_expr(state, schema, expr).map_err(|e| e.or_at(place(&column.name)))?;
    let typed = match data_type {
        Some(ty) => cast(bound, arrow_type(state, ty)?),
        None => {
            let ty = in_microseconds(&bound.get_type(schema)?);
            if ty == bound.get_type(schema)? { bound } else { cast(bound, ty) }
        }
    };
    Ok(typed.alias(name))
}

fn bind_expr(state: &SessionState, schema: &DFSchema, expr: &SqlExpr) -> Result<Expr> {
    let expr = ExprWithAlias { expr: expr.clone(), alias: None };
    Ok(state.create_logical_expr_from_sql_expr(expr, schema)?)
}

/// A watermark is a timestamp computed from a declared timestamp column. It may
/// be a computed column itself, so that is checked by name only.
fn check_watermark(state: &SessionState, schema: &DFSchema, columns: &Columns) -> Result<()> {
    let Some(watermark) = &columns.watermark else { return Ok(()) };
    let name = fold(&watermark.column);
    let Some(column) = columns.columns.iter().find(|c| fold(&c.name) == name) else {
        return Err(Error::name(format!("the watermark's column \"{name}\" is not declared"))
            .at(place(&watermark.column)));
    };
    if matches!(column.kind, ColumnKind::Computed { .. }) {
        return Ok(());
    }
    let bound =
        bind_expr(state, schema, &watermark.expr).map_err(|e| e.or_at(place(&watermark.column)))?;
    let types =
        [schema.field_with_unqualified_name(&name)?.data_type().clone(), bound.get_type(schema)?];
    if types.iter().all(|ty| matches!(ty, DataType::Timestamp(..))) {
        return Ok(());
    }
    Err(Error::types(format!(
        "a watermark is a TIMESTAMP, but \"{name}\" is {} and its watermark {}",
        sql_type(&types[0]),
        sql_type(&types[1])
    ))
    .at(place(&watermark.column)))
}

/// The source with its primary key and watermark as the engine wants them.
pub fn event_time(
    state: &SessionState,
    name: &str,
    columns: &Columns,
    checked: &Checked,
    mut declared: DeclaredSource,
) -> Result<DeclaredSource> {
    let schema = declared.source.schema();
    let qualified = DFSchema::try_from_qualified_schema(name.to_owned(), &schema)?;
    check_watermark(state, &qualified, columns)?;
    check_key(columns)?;
    let at = |name: &str| schema.index_of(name).map_err(DataFusionError::from);
    for key in &columns.primary_key {
        declared.primary_key.push(at(&fold(key))?);
    }
    declared.deletes = schema.fields().iter().position(|field| marks_tombstones(field));
    let Some(watermark) = &columns.watermark else { return Ok(declared) };
    let value = watermark_value(state, &qualified, columns, watermark)?;
    let read: Vec<usize> =
        value.column_refs().into_iter().map(|c| at(&c.name)).collect::<Result<_, _>>()?;
    let own = at(&fold(&watermark.column)).ok();
    let Some(column) = own.or_else(|| read.first().copied()) else {
        return Err(Error::types("the watermark reads no column of the source")
            .at(place(&watermark.column))
            .with_hint("compute it from the column: column - INTERVAL '5' SECOND"));
    };
    let idle_timeout = checked.duration("idle_timeout");
    declared.watermark =
        Some(Arc::new(WatermarkSpec { column, value, columns: read, idle_timeout }));
    Ok(declared)
}

/// The watermark over the columns that the source itself has: a computed column stands
/// for its expression.
fn watermark_value(
    state: &SessionState,
    schema: &DFSchema,
    columns: &Columns,
    watermark: &Watermark,
) -> Result<Expr> {
    let at = |error: Error| error.or_at(place(&watermark.column));
    let name = fold(&watermark.column);
    let computed = columns.columns.iter().find(|column| {
        fold(&column.name) == name && matches!(column.kind, ColumnKind::Computed { .. })
    });
    let Some(computed) = computed else {
        return bind_expr(state, schema, &watermark.expr).map_err(at);
    };
    let projected = projected(state, schema, computed)?.unalias();
    let field = Field::new(&name, projected.get_type(schema)?, true);
    if !matches!(field.data_type(), DataType::Timestamp(..)) {
        return Err(at(Error::types(format!(
            "a watermark is a TIMESTAMP, but \"{name}\" is {}",
            field.data_type()
        ))));
    }
    let mut fields: Vec<_> = schema.iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
    fields.push((None, Arc::new(field)));
    let extended = DFSchema::new_with_metadata(fields, HashMap::new())?;
    let bound = bind_expr(state, &extended, &watermark.expr).map_err(at)?;
    let replaced = bound.transform(|expr| match &expr {
        Expr::Column(column) if column.name == name => Ok(Transformed::yes(projected.clone())),
        _ => Ok(Transformed::no(expr)),
    })?;
    Ok(replaced.data)
}

fn check_key(columns: &Columns) -> Result<()> {
    for key in &columns.primary_key {
        let name = fold(key);
        let column = columns.columns.iter().find(|c| fold(&c.name) == name);
        match column.map(|c| &c.kind) {
            Some(ColumnKind::Physical { .. }) => {}
            Some(_) => {
                return Err(Error::types(format!(
                    "the primary key's column \"{name}\" is not read from the payload"
                ))
                .at(place(key)));
            }
            None => {
                return Err(Error::name(format!(
                    "the primary key's column \"{name}\" is not declared"
                ))
                .at(place(key)));
            }
        }
    }
    Ok(())
}

/// Columns of a managed table: plain ones only.
pub fn table_schema(state: &SessionState, columns: &Columns) -> Result<SchemaRef> {
    refuse_twins(&columns.columns)?;
    if let Some(watermark) = &columns.watermark {
        return Err(Error::refused("a table has no watermark").at(place(&watermark.column)));
    }
    let field = |column: &ColumnDef| match &column.kind {
        ColumnKind::Physical { data_type, not_null } => {
            let ty = declared_type(state, column, data_type)?;
            let name = fold(&column.name);
            let required = *not_null || is_key(columns, &name);
            Ok(Field::new(name, ty, !required))
        }
        _ => Err(Error::refused("a table holds its columns: METADATA and AS are for sources")
            .at(place(&column.name))),
    };
    let fields = columns.columns.iter().map(field).collect::<Result<Vec<_>>>()?;
    check_key(columns)?;
    Ok(Arc::new(Schema::new(fields)))
}

/// Columns that declare `schema`, for a source whose columns were found out.
pub fn columns_of(schema: &Schema) -> Result<Vec<ColumnDef>> {
    let unparser = Unparser::default();
    let one = |field: &Arc<Field>| {
        let sql = unparser.expr_to_sql(&cast(lit(ScalarValue::Null), field.data_type().clone()))?;
        let SqlExpr::Cast { data_type, .. } = sql else {
            return Err(Error::types(format!(
                "column \"{}\" is a {}, which has no name in SQL",
                field.name(),
                field.data_type()
            ))
            .with_hint("declare the columns"));
        };
        let kind = ColumnKind::Physical { data_type, not_null: false };
        Ok(ColumnDef { name: Ident::with_quote('"', field.name()), kind, comment: None })
    };
    schema.fields().iter().map(one).collect()
}

/// A schema without what only the engine needs to know about its fields.
pub fn without_metadata(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter();
    let bare: Vec<_> = fields.map(|f| f.as_ref().clone().with_metadata(HashMap::new())).collect();
    Arc::new(Schema::new(bare))
}
