//! `CREATE SOURCE`: a declaration becomes a source that can be read.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use object_store::path::Path;
use tidemill_engine::catalog::Entry;
use tidemill_engine::decode::Format;
use tidemill_engine::source::files::FilesSource;
use tidemill_engine::source::generator::GeneratorSource;
use tidemill_engine::source::kafka::{KafkaSource, check_property, property_names};
use tidemill_engine::source::memory::MemorySource;
use tidemill_engine::source::table::SourceTable;
use tidemill_engine::source::{DeclaredSource, OnError, Source};
use tidemill_engine::storage::Warehouse;

use super::Database;
use super::create::name_place;
use crate::error::{Error, Result, nearest};
use crate::objects::Object;
use crate::options::{self, Checked, OptionEntry};
use crate::schema::{columns_of, declared_view, event_time, source_schema, with_tombstones};
use crate::session::Access;
use crate::statement::{CreateSource, ObjectKind};

/// What stands before the name of a property of librdkafka.
const PROPERTIES: &str = "properties.";

impl Database {
    /// The declaration with the columns that its files have, if it names none:
    /// what is read must not change when the files do.
    pub(super) async fn with_columns(&self, create: &CreateSource) -> Result<CreateSource> {
        let mut create = create.clone();
        let is_files = create.options.get("connector").is_some_and(|o| o.value.text() == "files");
        if !is_files || !create.columns.columns.is_empty() {
            return Ok(create);
        }
        let place = name_place(&create.name);
        if self.access == Access::Offline {
            return Err(Error::refused("the columns are not known without reading the files")
                .at(place)
                .with_hint("declare the columns to have queries over the source checked"));
        }
        let options = texts(&options::check(ObjectKind::Source, &create.options)?);
        let path = create.options.get("path").and_then(OptionEntry::value_location);
        let inferred = FilesSource::infer_schema(&options).await;
        let inferred = inferred.map_err(|error| Error::from(error).or_at(path))?;
        create.columns.columns = columns_of(&inferred).map_err(|error| error.or_at(place))?;
        Ok(create)
    }

    pub(super) async fn bind_source(&self, create: &CreateSource, entry: &Entry) -> Result<Object> {
        let checked = options::check(ObjectKind::Source, &create.options)?;
        // What is wrong with files is wrong with their path, of what has a place of its own.
        let path = checked.entry("path").and_then(OptionEntry::value_location);
        let place = path.or(name_place(&create.name));
        let mut schema = source_schema(&self.state, &create.columns)?;
        if matches!(checked.string("connector"), Some("kafka" | "memory")) {
            schema = with_tombstones(&schema, &create.columns)?;
        }
        let source =
            self.open_source(entry, &checked, schema).await.map_err(|error| error.or_at(place))?;
        let declared = DeclaredSource {
            source,
            on_error: on_error(&checked),
            max_rows_per_epoch: checked.u64("max_rows_per_epoch"),
            primary_key: Vec::new(),
            deletes: None,
            watermark: None,
            keeps_late: checked.string("late_rows") == Some("table"),
        };
        let declared = event_time(&self.state, &entry.name, &create.columns, &checked, declared)?;
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
            return Err(Error::refused("a source needs columns")
                .with_hint("declare the columns that its records have"));
        }
        let options = texts(checked);
        let engine = &self.engine;
        Ok(match connector {
            "kafka" => {
                check_properties(checked)?;
                Arc::new(KafkaSource::new(name, schema, Format::from_options(&options)?, &options)?)
            }
            "memory" => Arc::new(MemorySource::new(
                name,
                schema,
                Format::from_options(&options)?,
                engine.memory().clone(),
                &options,
            )?),
            "generator" => {
                let declared = Some(schema).filter(|schema| !schema.fields().is_empty());
                let (since, clock) = (entry.created_at_us, engine.clock().clone());
                Arc::new(GeneratorSource::new(name, declared, &options, since, clock)?)
            }
            "files" => {
                let log = (self.access != Access::Offline)
                    .then(|| (Arc::clone(engine.warehouse().store()), files_folder(entry)));
                Arc::new(FilesSource::new(name, schema, &options, log)?)
            }
            other => {
                return Err(Error::refused(format!(
                    "a source with connector '{other}' is not supported"
                ))
                .at(checked.entry("connector").and_then(|entry| entry.value_location()))
                .with_hint(
                    "a lake table is declared by CREATE TABLE … WITH (connector = 'delta')",
                ));
            }
        })
    }
}

/// Properties of librdkafka, each with its place in the text.
fn check_properties(checked: &Checked) -> Result<()> {
    for (key, value) in checked.prefixed(PROPERTIES).filter(|(key, _)| *key != "bootstrap.servers")
    {
        check_property(key, value).map_err(|error| {
            let written = checked.entry(&format!("{PROPERTIES}{key}"));
            let error = Error::from(error).at(written.and_then(|entry| entry.name_location()));
            let names = property_names();
            let is_known = names.iter().any(|name| name == key);
            match nearest(key, names.iter().map(String::as_str)).filter(|_| !is_known) {
                Some(near) => error.with_hint(format!("did you mean '{PROPERTIES}{near}'?")),
                None => error,
            }
        })?;
    }
    Ok(())
}

/// Every option that was given or has a default, as text.
fn texts(checked: &Checked) -> BTreeMap<String, String> {
    checked.all().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What a source keeps in the warehouse.
pub(super) fn folder(entry: &Entry) -> Path {
    Warehouse::internal(&["sources", &entry.id.to_string()])
}

/// Where a files source keeps the log of what it has found.
fn files_folder(entry: &Entry) -> Path {
    folder(entry).join("files")
}

fn on_error(checked: &Checked) -> OnError {
    match checked.string("on_error") {
        Some("fail") => OnError::Fail,
        Some("skip") => OnError::Skip,
        _ => OnError::DeadLetter,
    }
}
