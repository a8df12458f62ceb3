//! What a table is apart from its rows: place, columns, protocol.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::execution::object_store::ObjectStoreUrl;
use deltalake::delta_datafusion::engine::AsObjectStoreUrl;
use deltalake::kernel::transaction::PROTOCOL;
use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake::table::normalize_table_url;
use deltalake::table::state::DeltaTableState;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use url::Url;

use crate::error::{Error, Result};
use crate::storage::RootStore;

/// Reader features under which a file's content is its Parquet without its deleted rows.
const PLAIN_FEATURES: [&str; 4] =
    ["timestampNtz", "deletionVectors", "v2Checkpoint", "vacuumProtocolCheck"];

/// The property of tables that Tidemill made.
pub(super) const MANAGED: &str = "tidemill.managed";

/// Where a table lies and how to reach it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub name: String,
    pub url: Url,
    pub root: RootStore,
    /// The table's folder in `root`.
    pub path: Path,
    /// How DataFusion's scans name `root`.
    pub store_url: ObjectStoreUrl,
    pub log: LogStoreRef,
}

impl Place {
    pub fn new(name: &str, location: &Url, root: RootStore) -> Result<Self> {
        let url = normalize_table_url(location);
        let path = Path::from_url_path(url.path())
            .map_err(|error| Error::invalid(format!("{location} is no location: {error}")))?;
        if path.as_ref().contains('%') {
            return Err(Error::invalid_hint(
                format!("a Delta table can't lie at {location}"),
                "its log can't be read with a percent sign in the path: choose another folder",
            ));
        }
        let below = Arc::new(PrefixStore::new(root.store.clone(), path.clone()));
        let log = default_logstore(below, root.store.clone(), &url, &StorageConfig::default());
        let store_url = url.as_object_store_url();
        Ok(Self { name: name.into(), url, root, path, store_url, log })
    }
}

/// Columns and protocol; the same from version to version until someone alters the table.
#[derive(Debug)]
pub(crate) struct Layout {
    pub place: Place,
    /// Columns as DataFusion sees them.
    pub schema: SchemaRef,
    /// Those that lie in the files.
    pub file_schema: SchemaRef,
    pub partition_columns: Vec<String>,
    /// Our own scan reads it right (no column mapping, no feature that changes what a file means).
    pub plain: bool,
    /// Why we must not append to it, if so.
    pub read_only: Option<String>,
    /// The table is Tidemill's own, to rearrange and to clean up.
    pub managed: bool,
    /// Rows may be deleted by deletion vectors.
    pub deletion_vectors: bool,
    /// Commits between two checkpoints of the log.
    pub checkpoint_interval: u64,
    /// How many columns the log keeps bounds for, as the table's property says it.
    pub indexed_columns: String,
}

impl Layout {
    pub fn new(place: Place, state: &DeltaTableState) -> Self {
        let schema = plain_schema(&state.snapshot().arrow_schema());
        let partition_columns = state.metadata().partition_columns().to_vec();
        let in_files = schema.fields().iter().filter(|f| !partition_columns.contains(f.name()));
        let file_schema = Arc::new(Schema::new(in_files.cloned().collect::<Vec<_>>()));
        Self {
            place,
            file_schema,
            plain: is_plain(state),
            read_only: read_only(state),
            indexed_columns: state
                .metadata()
                .configuration()
                .get("delta.dataSkippingNumIndexedCols")
                .cloned()
                .unwrap_or_default(),
            managed: is_true(state, MANAGED),
            deletion_vectors: is_true(state, "delta.enableDeletionVectors"),
            checkpoint_interval: state.table_config().checkpoint_interval.map_or(100, |n| n.get()),
            partition_columns,
            schema,
        }
    }

    /// Whether rows of `schema` partitioned by `columns` go into it as they are.
    pub fn check_same(&self, schema: &Schema, columns: &[String]) -> Result<()> {
        if self.schema.as_ref() == schema && self.partition_columns == columns {
            return Ok(());
        }
        let describe = |schema: &Schema, partitions: &[String]| {
            let columns = schema.fields().iter().map(|field| {
                let null = if field.is_nullable() { "" } else { " NOT NULL" };
                format!("{} {}{null}", field.name(), field.data_type())
            });
            let columns = columns.collect::<Vec<_>>().join(", ");
            format!("({columns}) partitioned by ({})", partitions.join(", "))
        };
        Err(Error::invalid_hint(
            format!(
                "a table with other columns lies at {}: {}, wanted {}",
                self.place.url,
                describe(&self.schema, &self.partition_columns),
                describe(schema, columns)
            ),
            "drop it, or choose another name or location",
        ))
    }
}

/// Without field metadata, which is Delta's business and would make equal schemas differ.
fn plain_schema(schema: &Schema) -> SchemaRef {
    let fields = schema
        .fields()
        .iter()
        .map(|field| Field::new(field.name(), field.data_type().clone(), field.is_nullable()));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn is_true(state: &DeltaTableState, property: &str) -> bool {
    let value = state.metadata().configuration().get(property);
    value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

fn is_plain(state: &DeltaTableState) -> bool {
    let mapping = state.metadata().configuration().get("delta.columnMapping.mode");
    let unmapped = mapping.is_none_or(|mode| mode == "none");
    let features = state.protocol().reader_features().unwrap_or_default();
    unmapped && features.iter().all(|feature| PLAIN_FEATURES.contains(&feature.as_ref()))
}

fn read_only(state: &DeltaTableState) -> Option<String> {
    if let Err(error) = PROTOCOL.can_write_to(state) {
        return Some(error.to_string());
    }
    let properties = state.metadata().configuration();
    if properties.get("delta.columnMapping.mode").is_some_and(|mode| mode != "none") {
        return Some("it maps column names".into());
    }
    if let Some(name) = properties.keys().find_map(|key| key.strip_prefix("delta.constraints.")) {
        return Some(format!("it has the constraint \"{name}\""));
    }
    state.snapshot().arrow_schema().fields().iter().find_map(|field| {
        let rule = ["delta.invariants", "delta.generationExpression"];
        let found = rule.iter().find(|key| field.metadata().contains_key(**key))?;
        Some(format!("column \"{}\" has {found}", field.name()))
    })
}
