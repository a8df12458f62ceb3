//! `SHOW`, `SHOW CREATE`, `DESCRIBE`, `EXPLAIN`: what is there, as rows.

use std::str::FromStr;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt64Array,
};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::format::{ExplainFormat, ExplainStatementOptions};
use datafusion::sql::parser::{ExplainStatement, Statement as DfStatement};
use datafusion::sql::sqlparser::ast::{ObjectName, Query, Statement as SqlStatement};
use tidemill_engine::catalog::EntryKind;

use super::{Answer, RelationKind, SCHEMA, Session, rows};
use crate::database::{name_place, simple_name};
use crate::error::{Error, Result, nearest};
use crate::parser;
use crate::plan;
use crate::schema::sql_type;
use crate::statement::{
    Describe, Explain, ExplainMode, ObjectKind, Show, ShowCreate, ShowWhat, Target,
};

/// One column of text, one row a line.
pub(super) fn lines(title: &str, text: &str) -> Result<Answer> {
    table(vec![(title, strings(text.lines()))])
}

pub(super) fn strings<'a>(values: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(values.into_iter().map(Some).collect::<StringArray>())
}

pub(super) fn table(columns: Vec<(&str, ArrayRef)>) -> Result<Answer> {
    let fields: Vec<_> = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .map_err(|error| Error::internal(error.to_string()))?;
    Ok(rows(batch))
}

impl Session {
    pub(super) async fn show(&self, show: &Show) -> Result<Answer> {
        let like = |name: &str| show.like.as_ref().is_none_or(|pattern| is_like(name, pattern));
        let kinds = |wanted: &[RelationKind]| {
            let relations = self.database.relations().into_iter();
            relations
                .filter(|r| wanted.contains(&r.kind) && like(&r.name))
                .map(|r| r.name)
                .collect::<Vec<_>>()
        };
        match &show.what {
            ShowWhat::Sources => self.show_sources(&kinds(&[RelationKind::Source])),
            ShowWhat::Tables => self.show_lakes(&kinds(&[RelationKind::Table])),
            ShowWhat::MaterializedViews => {
                self.show_lakes(&kinds(&[RelationKind::MaterializedView]))
            }
            ShowWhat::Views => names(&kinds(&[RelationKind::View])),
            ShowWhat::Sinks => self.show_sinks(&like).await,
            ShowWhat::Queries => self.show_queries(&like),
            ShowWhat::Schemas => names(&[SCHEMA.to_owned(), "information_schema".to_owned()]),
            ShowWhat::Functions => self.show_functions(&like),
            ShowWhat::Columns(name) => self.columns_of(&simple_name(name)?).await,
            ShowWhat::All => self.settings(&like),
            ShowWhat::Setting(name) => self.setting(name),
        }
    }

    fn show_sources(&self, names: &[String]) -> Result<Answer> {
        let sources: Vec<_> =
            names.iter().filter_map(|name| plan::declared(&self.database.objects, name)).collect();
        let bounded = sources.iter().map(|s| Some(s.source.bounded())).collect::<BooleanArray>();
        table(vec![
            ("name", strings(sources.iter().map(|s| s.source.name()))),
            ("connector", strings(sources.iter().map(|s| s.source.connector()))),
            ("bounded", Arc::new(bounded)),
            ("on_error", strings(sources.iter().map(|s| s.on_error.word()))),
        ])
    }

    fn show_lakes(&self, names: &[String]) -> Result<Answer> {
        let lakes: Vec<_> =
            names.iter().filter_map(|name| Some((name, self.database.lake(name)?))).collect();
        let versions: UInt64Array = lakes.iter().map(|(_, lake)| Some(lake.version())).collect();
        let locations: Vec<_> = lakes.iter().map(|(_, lake)| lake.location().to_string()).collect();
        let partitions: Vec<_> =
            lakes.iter().map(|(_, lake)| lake.partition_columns().join(", ")).collect();
        table(vec![
            ("name", strings(lakes.iter().map(|(name, _)| name.as_str()))),
            ("version", Arc::new(versions)),
            ("partitioned_by", strings(partitions.iter().map(String::as_str))),
            ("location", strings(locations.iter().map(String::as_str))),
        ])
    }

    async fn show_sinks(&self, like: &(dyn Fn(&str) -> bool + Sync)) -> Result<Answer> {
        let entries = self.database.engine.catalog().entries();
        let sinks = entries.into_iter().filter(|e| e.kind == EntryKind::Sink && like(&e.name));
        names(&sinks.map(|entry| entry.name).collect::<Vec<_>>())
    }

    fn show_queries(&self, like: &(dyn Fn(&str) -> bool + Sync)) -> Result<Answer> {
        let all: Vec<_> =
            self.database.queries().into_iter().filter(|query| like(&query.name)).collect();
        let number = |f: &dyn Fn(&super::QueryStatus) -> u64| -> ArrayRef {
            Arc::new(all.iter().map(|q| Some(f(q))).collect::<UInt64Array>())
        };
        let rate: Float64Array = all.iter().map(|q| Some(q.rate.round())).collect();
        let fresh: Float64Array =
            all.iter().map(|q| q.freshness.map(|d| d.as_millis() as f64 / 1000.0)).collect();
        let reasons: StringArray = all.iter().map(|q| q.reason.clone()).collect();
        // Past the end of time where the sources' event time is over: no date shows that.
        let watermarks: TimestampMicrosecondArray =
            all.iter().map(|q| q.watermark_us.filter(|at| *at < i64::MAX)).collect();
        table(vec![
            ("name", strings(all.iter().map(|q| q.name.as_str()))),
            ("state", strings(all.iter().map(|q| q.state.as_str()))),
            ("epoch", number(&|q| q.epoch)),
            ("rows_read", number(&|q| q.rows_read)),
            ("rows_written", number(&|q| q.rows_written)),
            ("rows_rejected", number(&|q| q.rows_rejected)),
            ("backlog", number(&|q| q.backlog)),
            ("rows_per_second", Arc::new(rate)),
            ("seconds_since_commit", Arc::new(fresh)),
            ("watermark", Arc::new(watermarks)),
            ("rows_late", number(&|q| q.rows_late)),
            ("state_rows", number(&|q| q.state_rows)),
            ("state_bytes", number(&|q| q.state_bytes)),
            ("reason", Arc::new(reasons)),
        ])
    }

    fn settings(&self, like: &dyn Fn(&str) -> bool) -> Result<Answer> {
        let mut entries = self.state().config().options().entries();
        entries.retain(|entry| like(&entry.key));
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        let values: StringArray = entries.iter().map(|entry| entry.value.clone()).collect();
        table(vec![
            ("name", strings(entries.iter().map(|entry| entry.key.as_str()))),
            ("value", Arc::new(values)),
            ("description", strings(entries.iter().map(|entry| entry.description))),
        ])
    }

    fn setting(&self, written: &ObjectName) -> Result<Answer> {
        let name = written.to_string().to_lowercase();
        let entries = self.state().config().options().entries();
        let Some(entry) = entries.iter().find(|entry| entry.key == name) else {
            let error = Error::name(format!("there is no setting \"{name}\""));
            let error = error.at(name_place(written));
            return Err(match nearest(&name, parser::SHOWN) {
                Some(near) => error.with_hint(format!("did you mean SHOW {near}?")),
                None => error.with_hint("SHOW ALL lists them"),
            });
        };
        let value: StringArray = std::iter::once(entry.value.clone()).collect();
        table(vec![("name", strings([name.as_str()])), ("value", Arc::new(value))])
    }

    /// The statement that made an object, secrets masked.
    pub(super) async fn show_create(&self, show: &ShowCreate) -> Result<Answer> {
        let name = simple_name(&show.name)?;
        let found = self.database.find(&name, show.kind).await;
        let entry = found.map_err(|error| error.or_at(name_place(&show.name)))?;
        let statement = parser::parse_one(&entry.definition)?.node.redacted();
        let text = format!("{statement:#};");
        table(vec![("name", strings([name.as_str()])), ("statement", strings([text.as_str()]))])
    }

    pub(super) async fn describe(&self, describe: &Describe) -> Result<Answer> {
        match &describe.target {
            Target::Relation(name) => {
                let columns = self.columns_of(&simple_name(name)?).await;
                columns.map_err(|error| error.or_at(name_place(name)))
            }
            Target::Query(query) => {
                let plan = plan::query(&self.state(), query).await?;
                describe_schema(&Arc::new(plan.schema().as_arrow().clone()))
            }
        }
    }

    async fn columns_of(&self, name: &str) -> Result<Answer> {
        let found = self.database.relations().into_iter().find(|relation| relation.name == name);
        match found {
            Some(relation) => describe_schema(&relation.columns),
            // The error knows what else there is, or why it could not be opened.
            None => Err(match self.database.find(name, ObjectKind::Table).await {
                Ok(_) => Error::name(format!("\"{name}\" could not be opened; see the log")),
                Err(error) => error,
            }),
        }
    }
}

fn names(names: &[String]) -> Result<Answer> {
    table(vec![("name", strings(names.iter().map(String::as_str)))])
}

fn describe_schema(schema: &SchemaRef) -> Result<Answer> {
    let fields = schema.fields();
    let types: Vec<_> = fields.iter().map(|f| sql_type(f.data_type())).collect();
    table(vec![
        ("column_name", strings(fields.iter().map(|f| f.name().as_str()))),
        ("data_type", strings(types.iter().map(String::as_str))),
        ("is_nullable", strings(fields.iter().map(|f| if f.is_nullable() { "YES" } else { "NO" }))),
    ])
}

/// `EXPLAIN` as DataFusion's own statement.
pub(super) fn explain_statement(explain: &Explain, query: &Query) -> Result<DfStatement> {
    let options = ExplainStatementOptions {
        analyze: explain.mode == ExplainMode::Analyze,
        verbose: explain.verbose,
        format: explain.format.as_deref().map(ExplainFormat::from_str).transpose()?,
        ..ExplainStatementOptions::default()
    };
    let query = SqlStatement::Query(Box::new(query.clone()));
    let statement = Box::new(DfStatement::Statement(Box::new(query)));
    Ok(DfStatement::Explain(ExplainStatement { options, statement }))
}

/// SQL's `LIKE`, without regard to case.
fn is_like(name: &str, pattern: &str) -> bool {
    let name: ArrayRef = Arc::new(StringArray::from(vec![name]));
    let pattern = StringArray::new_scalar(pattern);
    datafusion::arrow::compute::kernels::comparison::ilike(&name.as_ref(), &pattern)
        .is_ok_and(|found| found.value(0))
}
