//! `CREATE TABLE`, and the Delta tables behind all that keeps rows.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{Ident, Query};
use tidemill_engine::catalog::{Entry, EntryKind};
use tidemill_engine::lake::types::{check_partition_column, delta_schema};
use tidemill_engine::lake::{LakeTable, TableSpec};
use tidemill_engine::storage::parse_location;

use super::{Way, name_place, simple_name, skipped};
use crate::database::Database;
use crate::error::{Error, Location, Result};
use crate::objects::Object;
use crate::options::{self, Checked, OptionEntry};
use crate::schema::{fold, place, table_schema, without_metadata};
use crate::session::{Access, Done};
use crate::statement::{CreateTable, ObjectKind, Statement};

impl Database {
    pub(crate) async fn create_table(self: &Arc<Self>, create: &CreateTable) -> Result<Done> {
        let _changing = self.changing.lock().await;
        let name = simple_name(&create.name)?;
        let filled = match &create.query {
            Some(query) => Some(self.planned_table(query).await?),
            None => None,
        };
        let flags = (create.or_replace, create.if_not_exists);
        // What is replaced goes last: the query may read it, and the new one may be refused.
        let old = match self.way(&name, flags, &create.name, ObjectKind::Table).await? {
            Way::Skip => return Ok(skipped("CREATE TABLE", ObjectKind::Table, &name)),
            Way::Replace(old) => Some(old),
            Way::Make => None,
        };
        let mut bare = create.clone();
        (bare.or_replace, bare.if_not_exists) = (false, false);
        let mut entry = self.entry(&name, EntryKind::Table, &Statement::CreateTable(bare), &[]);
        let schema = filled.as_ref().map(|plan| without_metadata(plan.schema().as_arrow()));
        let object = self.make_table(create, &mut entry, schema).await?;
        // Filled before it is known: a crash in between leaves no empty table behind.
        let (rows, notice) = match (filled, object.lake()) {
            (Some(plan), Some(table)) => {
                let (rows, notice) = self.write_once(plan, table).await?;
                (Some(rows), notice)
            }
            _ => (None, None),
        };
        match old {
            Some(old) => self.supersede(&old, entry, object).await?,
            None => self.keep(entry, object).await?,
        }
        Ok(Done { tag: "CREATE TABLE".into(), rows, notice })
    }

    /// Plans what `CREATE TABLE … AS` is filled from.
    pub(crate) async fn planned_table(&self, query: &Query) -> Result<LogicalPlan> {
        let plan = self.bounded(query, "CREATE TABLE AS").await?;
        delta_schema(&without_metadata(plan.schema().as_arrow()))?;
        Ok(plan)
    }

    async fn make_table(
        self: &Arc<Self>,
        create: &CreateTable,
        entry: &mut Entry,
        from_query: Option<SchemaRef>,
    ) -> Result<Object> {
        let checked = table_options(create)?;
        refuse_files(&checked)?;
        let declared = table_schema(&self.state, &create.columns)?;
        let managed = !checked.is_set("location");
        if managed && declared.fields().is_empty() && from_query.is_none() {
            return Err(Error::refused("a table needs columns")
                .at(name_place(&create.name))
                .with_hint(
                    "declare its columns, or say where it lies: WITH (connector = 'delta', \
                     location = '…')",
                ));
        }
        for (field, column) in declared.fields().iter().zip(&create.columns.columns) {
            delta_schema(&Schema::new(vec![Arc::clone(field)]))
                .map_err(|error| Error::from(error).at(place(&column.name)))?;
        }
        let schema = from_query.unwrap_or(declared);
        if schema.fields().is_empty() || self.access == Access::Offline && !managed {
            return self.open_table(create, entry).await;
        }
        let partition_by = partition_columns(&create.partitioned_by, &schema)?;
        let table = self.make_lake(entry, &checked, schema, partition_by, false).await?;
        Ok(Object::Table { table, managed })
    }

    /// Opens a table that the catalog knows, or that lies somewhere already.
    pub(in crate::database) async fn open_table(
        self: &Arc<Self>,
        create: &CreateTable,
        entry: &Entry,
    ) -> Result<Object> {
        let checked = table_options(create)?;
        refuse_files(&checked)?;
        let managed = !checked.is_set("location");
        if self.access == Access::Offline && !managed {
            return self.pretend_table(create, entry).await;
        }
        let table = self.open_lake(entry, &checked).await?;
        Ok(Object::Table { table, managed })
    }

    /// `check` contacts nothing: a declared lake table is what its columns say.
    async fn pretend_table(&self, create: &CreateTable, entry: &Entry) -> Result<Object> {
        let schema = table_schema(&self.state, &create.columns)?;
        if schema.fields().is_empty() {
            return Err(Error::refused("the table's columns are not known without contacting it")
                .at(name_place(&create.name))
                .with_hint("declare its columns to have queries over it checked"));
        }
        let spec = TableSpec {
            name: entry.name.clone(),
            location: self.engine.warehouse().table_url(&entry.name)?,
            storage_options: Default::default(),
            schema,
            partition_by: Vec::new(),
            deletion_vectors: false,
        };
        let table = LakeTable::create(self.engine.warehouse(), spec).await?;
        Ok(Object::Table { table, managed: false })
    }

    /// Makes the Delta table of an entry and notes in it where that lies.
    pub(super) async fn make_lake(
        &self,
        entry: &mut Entry,
        checked: &Checked,
        schema: SchemaRef,
        partition_by: Vec<String>,
        deletion_vectors: bool,
    ) -> Result<Arc<LakeTable>> {
        let warehouse = self.engine.warehouse();
        let place = checked.entry("location").and_then(OptionEntry::value_location);
        let location = match checked.string("location") {
            Some(location) => located(parse_location(location), place)?,
            None => {
                let folder = self.free_folder(entry).await?;
                let url = warehouse.table_url(&folder)?;
                entry.location = Some(folder);
                url
            }
        };
        let storage_options = storage(checked);
        let spec = TableSpec {
            name: entry.name.clone(),
            location,
            storage_options,
            schema,
            partition_by,
            deletion_vectors,
        };
        located(LakeTable::create(warehouse, spec).await, place)
    }

    /// The folder of a new managed table: its name. Where a file system would not
    /// take that, or something lies there that the catalog does not know, the first
    /// part of its id makes it a fresh one.
    async fn free_folder(&self, entry: &Entry) -> Result<String> {
        let short = &entry.id.simple().to_string()[..8];
        let plain = entry.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if !plain || entry.name.starts_with('_') {
            return Ok(format!("table-{short}"));
        }
        let warehouse = self.engine.warehouse();
        let url = warehouse.table_url(&entry.name)?;
        match LakeTable::open_if_there(warehouse, &entry.name, url, Default::default()).await {
            Ok(None) => Ok(entry.name.clone()),
            _ => Ok(format!("{}-{short}", entry.name)),
        }
    }

    pub(super) async fn open_lake(
        &self,
        entry: &Entry,
        checked: &Checked,
    ) -> Result<Arc<LakeTable>> {
        let warehouse = self.engine.warehouse();
        let entry_place = checked.entry("location").and_then(OptionEntry::value_location);
        let location = match checked.string("location") {
            Some(location) => located(parse_location(location), entry_place)?,
            // Relative, so that a warehouse can be moved as a whole.
            None => warehouse.table_url(entry.location.as_ref().unwrap_or(&entry.name))?,
        };
        let found =
            LakeTable::open_if_there(warehouse, &entry.name, location.clone(), storage(checked));
        located(found.await, entry_place)?.ok_or_else(|| {
            Error::name(format!("no Delta table lies at {location}"))
                .at(entry_place)
                .with_hint("mend the location, or declare columns to have a table made there")
        })
    }
}

/// An error about a location is at its option, if it was given.
fn located<T>(result: tidemill_engine::Result<T>, place: Option<Location>) -> Result<T> {
    result.map_err(|error| Error::from(error).or_at(place))
}

pub(in crate::database) fn storage(checked: &Checked) -> std::collections::HashMap<String, String> {
    checked.prefixed("storage.").map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// A managed table has no options; any other names its connector.
fn table_options(create: &CreateTable) -> Result<Checked> {
    match create.options.is_empty() {
        true => Ok(Checked::default()),
        false => options::check(ObjectKind::Table, &create.options),
    }
}

fn refuse_files(checked: &Checked) -> Result<()> {
    match checked.string("connector") {
        None | Some("delta") => Ok(()),
        Some(other) => {
            Err(Error::refused(format!("a table with connector '{other}' is not supported"))
                .at(checked.entry("connector").and_then(|entry| entry.value_location()))
                .with_hint("CREATE SOURCE reads files; CREATE TABLE … AS SELECT copies them"))
        }
    }
}

pub(super) fn partition_columns(idents: &[Ident], schema: &SchemaRef) -> Result<Vec<String>> {
    let one = |ident: &Ident| {
        let name = fold(ident);
        match schema.column_with_name(&name) {
            Some((_, field)) => {
                check_partition_column(field).map_err(|e| Error::from(e).at(place(ident)))?;
                Ok(name)
            }
            None => Err(Error::name(format!("there is no column \"{name}\" to partition by"))
                .at(place(ident))),
        }
    };
    let columns = idents.iter().map(one).collect::<Result<Vec<_>>>()?;
    if !columns.is_empty() && columns.len() == schema.fields().len() {
        return Err(Error::refused("partitioning by all columns leaves none for the files")
            .at(idents.first().and_then(place)));
    }
    Ok(columns)
}
