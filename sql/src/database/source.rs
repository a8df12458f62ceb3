//! `CREATE SOURCE`: a declaration becomes a source that can be read.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use tidemill_engine::catalog::Entry;
use tidemill_engine::decode::{Format, TimestampUnit};
use tidemill_engine::source::kafka::KafkaSource;
use tidemill_engine::source::memory::MemorySource;
use tidemill_engine::source::table::SourceTable;
use tidemill_engine::source::{DeclaredSource, OnError, Source};

use super::Database;
use super::create::name_place;
use crate::error::{Error, Result};
use crate::objects::Object;
use crate::options::{self, Checked};
use crate::schema::{declared_view, source_schema};
use crate::statement::{CreateSource, ObjectKind};

impl Database {
    pub(super) async fn bind_source(&self, create: &CreateSource, entry: &Entry) -> Result<Object> {
        let place = name_place(&create.name);
        let checked = options::check(ObjectKind::Source, &create.options)?;
        let schema = source_schema(&self.state, &create.columns)?;
        let source =
            self.open_source(entry, &checked, schema).await.map_err(|error| error.or_at(place))?;
        let declared = DeclaredSource {
            source,
            on_error: on_error(&checked),
            max_rows_per_epoch: checked.u64("max_rows_per_epoch"),
        };
        let table = Arc::new(SourceTable::new(declared.clone()));
        let provider = declared_view(&self.state, &entry.name, &create.columns, table)?;
        Ok(Object::Source { declared, provider })
    }

    async fn open_source(
        &self,
        entry: &Entry,
        checked: &Checked,
        schema: SchemaRef,
    ) -> Result<Arc<dyn Source>> {
        let name = entry.name.as_str();
        let connector = checked.required("connector")?;
        if schema.fields().is_empty() && !matches!(connector, "generator" | "files") {
            return Err(Error::refused("a source without columns")
                .with_hint("declare the columns that its records have"));
        }
        let options = texts(checked);
        let engine = &self.engine;
        Ok(match connector {
            "kafka" => Arc::new(KafkaSource::new(name, schema, format(checked), &options)?),
            "memory" => Arc::new(MemorySource::new(
                name,
                schema,
                format(checked),
                engine.memory().clone(),
                &options,
            )?),
            other => {
                return Err(Error::refused(format!("a source with connector '{other}'"))
                    .at(checked.entry("connector").and_then(|entry| entry.value_location()))
                    .with_hint(
                        "a lake table is declared by CREATE TABLE … WITH (connector = 'delta')",
                    ));
            }
        })
    }
}

/// Every option that was given or has a default, as text.
fn texts(checked: &Checked) -> BTreeMap<String, String> {
    checked.all().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn format(checked: &Checked) -> Format {
    if checked.string("format") == Some("raw") {
        return Format::Raw;
    }
    let timestamp_unit = match checked.string("json.timestamp_unit") {
        Some("s") => TimestampUnit::Second,
        Some("us") => TimestampUnit::Microsecond,
        Some("ns") => TimestampUnit::Nanosecond,
        _ => TimestampUnit::Millisecond,
    };
    Format::Json { timestamp_unit }
}

fn on_error(checked: &Checked) -> OnError {
    match checked.string("on_error") {
        Some("fail") => OnError::Fail,
        Some("skip") => OnError::Skip,
        _ => OnError::DeadLetter,
    }
}
