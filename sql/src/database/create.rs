//! `CREATE`: bind, check, make, and only then write it into the catalog.

mod table;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::view::ViewTable;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::ObjectName;
use tidemill_engine::catalog::{Change, Entry, EntryKind};
use tidemill_engine::lake::types::{check_partition_columns, delta_schema};
use tidemill_engine::lake::{Contents, LakeTable, TableSpec};
use tidemill_engine::plan::{ContinuousPlan, PlanOptions};
use tidemill_engine::query::{QueryOptions, QuerySpec};
use tidemill_engine::sink::Sink;
use tidemill_engine::sink::delta::{DeltaSink, WriteMode};
use tidemill_engine::sink::memory::MemorySink;
use tidemill_engine::storage::parse_location;

use super::Database;
use crate::error::{Error, Location, Result};
use crate::objects::Object;
use crate::options::{self, Checked};
use crate::plan;
use crate::schema::{fold, place, without_metadata};
use crate::session::{Access, CATALOG, Done, SCHEMA};
use crate::statement::{
    CreateMaterializedView, CreateSink, CreateSource, CreateView, Emit, ObjectKind, Statement,
};
use table::partition_columns;
pub(super) use table::storage;

/// A materialized view, planned.
pub(crate) struct View {
    checked: Checked,
    plan: LogicalPlan,
    continuous: ContinuousPlan,
    schema: SchemaRef,
    partition_by: Vec<String>,
}

/// What `CREATE OR REPLACE` and `IF NOT EXISTS` come to for a name.
enum Way {
    Make,
    /// Make it in the place of this one.
    Replace(Entry),
    /// It is there and that is fine.
    Skip,
}

impl Database {
    pub(crate) async fn create_source(self: &Arc<Self>, create: &CreateSource) -> Result<Done> {
        let _changing = self.changing.lock().await;
        let name = simple_name(&create.name)?;
        let mut bare = self.with_columns(create).await?;
        (bare.or_replace, bare.if_not_exists) = (false, false);
        let statement = Statement::CreateSource(bare.clone());
        let entry = self.entry(&name, EntryKind::Source, &statement, &[]);
        let object = self.bind_source(&bare, &entry).await?;
        let flags = (create.or_replace, create.if_not_exists);
        if let Way::Skip = self.clear(&name, flags, &create.name, ObjectKind::Source).await? {
            return Ok(skipped("CREATE SOURCE", ObjectKind::Source, &name));
        }
        self.keep(entry, object).await?;
        Ok(done("CREATE SOURCE"))
    }

    pub(crate) async fn create_view(self: &Arc<Self>, create: &CreateView) -> Result<Done> {
        let _changing = self.changing.lock().await;
        let name = simple_name(&create.name)?;
        let object = self.bind_view(create).await?;
        let depends = plan::references(&self.state, &create.query)?;
        refuse_itself(&name, &depends, &create.name)?;
        let flags = (create.or_replace, create.if_not_exists);
        if let Way::Skip = self.clear(&name, flags, &create.name, ObjectKind::View).await? {
            return Ok(skipped("CREATE VIEW", ObjectKind::View, &name));
        }
        let mut bare = create.clone();
        (bare.or_replace, bare.if_not_exists) = (false, false);
        let entry = self.entry(&name, EntryKind::View, &Statement::CreateView(bare), &depends);
        self.keep(entry, object).await?;
        Ok(done("CREATE VIEW"))
    }

    pub(crate) async fn bind_view(&self, create: &CreateView) -> Result<Object> {
        let plan = plan::query(&self.state, &create.query).await?;
        let plan = plan::with_names(plan, &create.columns)?;
        Ok(Object::View(Arc::new(ViewTable::new(plan, Some(create.query.to_string())))))
    }

    pub(crate) async fn create_materialized_view(
        self: &Arc<Self>,
        create: &CreateMaterializedView,
    ) -> Result<Done> {
        let _changing = self.changing.lock().await;
        let name = simple_name(&create.name)?;
        let kind = ObjectKind::MaterializedView;
        // Everything that can be wrong is found out before anything is dropped.
        let View { checked, plan, continuous, schema, partition_by } =
            self.planned_view(create).await?;
        self.refuse_taken_late(&name, &continuous, &create.name)?;
        self.refuse_taken(&checked, &name).await?;
        let depends = plan::references(&self.state, &create.query)?;
        refuse_itself(&name, &depends, &create.name)?;
        let flags = (create.or_replace, create.if_not_exists);
        if let Way::Skip = self.clear(&name, flags, &create.name, kind).await? {
            return Ok(skipped("CREATE MATERIALIZED VIEW", kind, &name));
        }
        let mut bare = create.clone();
        (bare.or_replace, bare.if_not_exists) = (false, false);
        let statement = Statement::CreateMaterializedView(bare);
        let mut entry = self.entry(&name, EntryKind::MaterializedView, &statement, &depends);
        let changes = continuous.info().retracting;
        let vectors = changes && write_mode(&checked) == WriteMode::DeletionVectors;
        let table = self.make_lake(&mut entry, &checked, schema, partition_by, vectors).await?;
        table.set_contents(contents(&continuous));
        self.keep(entry.clone(), Object::MaterializedView(Arc::clone(&table))).await?;
        let sink = view_sink(&continuous, table, &entry, &checked);
        self.start(&entry, plan, &continuous, sink, &checked, create.emit).await?;
        Ok(done("CREATE MATERIALIZED VIEW"))
    }

    /// Checks and plans a view, and makes nothing.
    pub(crate) async fn planned_view(&self, create: &CreateMaterializedView) -> Result<View> {
        let checked = options::check(ObjectKind::MaterializedView, &create.options)?;
        refuse_retention(&checked)?;
        let plan = self.view_plan(create).await?;
        let continuous = self.continuous(&plan, create.emit, &checked)?;
        continuous.plannable().await?;
        continuous.late_schema()?;
        let schema = without_metadata(plan.schema().as_arrow());
        let partition_by = partition_columns(&create.partitioned_by, &schema)?;
        check_partition_columns(&*delta_schema(&schema)?, &partition_by)?;
        Ok(View { checked, plan, continuous, schema, partition_by })
    }

    /// A view's table holds what its query answers and nothing else. The view that is
    /// replaced by it may lie there.
    async fn refuse_taken(&self, checked: &Checked, name: &str) -> Result<()> {
        let Some(entry) = checked.entry("location") else { return Ok(()) };
        let location = parse_location(entry.value.text())?;
        let old = self.objects.get(name);
        if old.as_ref().and_then(Object::lake).is_some_and(|old| old.location() == location) {
            return Ok(());
        }
        let warehouse = self.engine.warehouse();
        let found = LakeTable::open_if_there(warehouse, "", location, storage(checked)).await?;
        match found {
            None => Ok(()),
            Some(_) => Err(Error::refused("a Delta table lies at this location already")
                .at(entry.value_location())
                .with_hint("name an empty folder; INSERT INTO adds to a table that is there")),
        }
    }

    async fn view_plan(&self, create: &CreateMaterializedView) -> Result<LogicalPlan> {
        let plan = plan::query(&self.state, &create.query).await?;
        plan::with_names(plan, &create.columns)
    }

    pub(super) async fn start_view(
        self: &Arc<Self>,
        create: &CreateMaterializedView,
        entry: &Entry,
    ) -> Result<Object> {
        let checked = options::check(ObjectKind::MaterializedView, &create.options)?;
        let plan = self.view_plan(create).await?;
        let table = self.open_lake(entry, &checked).await?;
        let continuous = self.continuous(&plan, create.emit, &checked)?;
        table.set_contents(contents(&continuous));
        let sink = view_sink(&continuous, Arc::clone(&table), entry, &checked);
        self.start(entry, plan, &continuous, sink, &checked, create.emit).await?;
        Ok(Object::MaterializedView(table))
    }

    /// The query as the engine would run it.
    pub(super) fn continuous(
        &self,
        plan: &LogicalPlan,
        emit: Emit,
        checked: &Checked,
    ) -> Result<ContinuousPlan> {
        let options = self.plan_options(emit, checked);
        Ok(ContinuousPlan::new(plan.clone(), self.state.clone(), &options)?)
    }

    pub(super) fn plan_options(&self, emit: Emit, checked: &Checked) -> PlanOptions {
        let limit = checked.u64("state_memory_limit").and_then(|bytes| usize::try_from(bytes).ok());
        PlanOptions {
            on_close: emit == Emit::OnWindowClose,
            shards: 0,
            state_memory_limit: limit,
            checked: self.engine.checked(),
        }
    }

    pub(crate) async fn create_sink(self: &Arc<Self>, create: &CreateSink) -> Result<Done> {
        let _changing = self.changing.lock().await;
        let name = simple_name(&create.name)?;
        let continuous = self.planned_sink(create).await?;
        self.refuse_taken_late(&name, &continuous, &create.name)?;
        let flags = (create.or_replace, create.if_not_exists);
        if let Way::Skip = self.clear(&name, flags, &create.name, ObjectKind::Sink).await? {
            return Ok(skipped("CREATE SINK", ObjectKind::Sink, &name));
        }
        let mut bare = create.clone();
        (bare.or_replace, bare.if_not_exists) = (false, false);
        let depends = plan::references(&self.state, &create.query)?;
        let entry = self.entry(&name, EntryKind::Sink, &Statement::CreateSink(bare), &depends);
        self.keep(entry.clone(), Object::Query).await?;
        self.start_sink(create, &entry).await?;
        Ok(done("CREATE SINK"))
    }

    /// Checks and plans a sink, and makes nothing.
    pub(crate) async fn planned_sink(&self, create: &CreateSink) -> Result<ContinuousPlan> {
        let plan = plan::query(&self.state, &create.query).await?;
        let (_, checked) = sink_of(create)?;
        let continuous = self.continuous(&plan, create.emit, &checked)?;
        continuous.plannable().await?;
        Ok(continuous)
    }

    pub(super) async fn start_sink(
        self: &Arc<Self>,
        create: &CreateSink,
        entry: &Entry,
    ) -> Result<Object> {
        let (sink, checked) = sink_of(create)?;
        let plan = plan::query(&self.state, &create.query).await?;
        let continuous = self.continuous(&plan, create.emit, &checked)?;
        self.start(entry, plan, &continuous, sink, &checked, create.emit).await?;
        Ok(Object::Query)
    }

    /// Hands a continuous query to the engine.
    pub(super) async fn start(
        &self,
        entry: &Entry,
        plan: LogicalPlan,
        continuous: &ContinuousPlan,
        sink: Arc<dyn Sink>,
        checked: &Checked,
        emit: Emit,
    ) -> Result<()> {
        refuse_retention(checked)?;
        let sources = continuous.inputs().values().map(|input| input.declared.clone());
        let sources: Vec<_> = sources.collect();
        let late = self.late_sink(entry, continuous).await?;
        let config = self.engine.config();
        let options = QueryOptions {
            trigger_interval: checked
                .duration("trigger_interval")
                .unwrap_or(config.trigger_interval),
            max_rows_per_epoch: config.max_rows_per_epoch,
            epoch_bytes: config.epoch_bytes,
            snapshot_interval: checked
                .duration("snapshot_interval")
                .unwrap_or(config.snapshot_interval),
            plan: self.plan_options(emit, checked),
        };
        let spec = QuerySpec {
            id: entry.id.to_string(),
            name: entry.name.clone(),
            plan,
            state: self.state.clone(),
            sink: Arc::clone(&sink),
            late,
            options,
        };
        self.engine.add(spec, &sources, entry.paused)?;
        if self.access == Access::ReadOnly {
            self.look_up_epoch(&entry.name, sink.as_ref()).await?;
        }
        Ok(())
    }

    /// Where the late rows of a query go, if some of its sources keep them: a table
    /// beside its result.
    async fn late_sink(
        &self,
        entry: &Entry,
        continuous: &ContinuousPlan,
    ) -> Result<Option<Arc<dyn Sink>>> {
        let Some(schema) = continuous.late_schema()? else { return Ok(None) };
        let name = late_table(&entry.name);
        let warehouse = self.engine.warehouse();
        let short = &entry.id.simple().to_string()[..8];
        let folder = match &entry.location {
            Some(folder) => late_table(folder),
            None => late_table(&format!("table-{short}")),
        };
        let location = warehouse.table_url(&folder)?;
        let table = match self.access {
            Access::ReadOnly => {
                LakeTable::open_if_there(warehouse, &name, location, Default::default()).await?
            }
            _ => {
                let spec = TableSpec {
                    name: name.clone(),
                    location,
                    storage_options: Default::default(),
                    schema,
                    partition_by: Vec::new(),
                    deletion_vectors: false,
                };
                Some(LakeTable::create(warehouse, spec).await?)
            }
        };
        let Some(table) = table else { return Ok(None) };
        self.objects.put_beside(&entry.name, Arc::clone(&table));
        Ok(Some(Arc::new(DeltaSink::new(table, entry.id.to_string()))))
    }

    /// Late rows need a name of their own.
    pub(super) fn refuse_taken_late(
        &self,
        name: &str,
        plan: &ContinuousPlan,
        written: &ObjectName,
    ) -> Result<()> {
        let late = late_table(name);
        if plan.late_schema()?.is_none() || self.objects.get(&late).is_none() {
            return Ok(());
        }
        Err(Error::name(format!("\"{late}\", where late rows are to be kept, exists already"))
            .at(name_place(written))
            .with_hint("choose another name, or late_rows = 'drop' for the source"))
    }

    /// How far a query is that another process runs, or ran.
    async fn look_up_epoch(&self, name: &str, sink: &dyn Sink) -> Result<()> {
        if let Some(query) = self.engine.query(name) {
            let epoch = sink.committed().await?.unwrap_or(0);
            query.metrics().epoch.store(epoch, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes an object into the catalog and makes it known.
    pub(super) async fn keep(&self, entry: Entry, object: Object) -> Result<()> {
        let name = entry.name.clone();
        self.engine.catalog().apply(vec![Change::Put(entry)]).await?;
        self.objects.put(&name, object);
        Ok(())
    }

    pub(super) fn entry(
        &self,
        name: &str,
        kind: EntryKind,
        statement: &Statement,
        depends_on: &[String],
    ) -> Entry {
        Entry {
            id: uuid::Uuid::new_v4(),
            name: name.to_owned(),
            kind,
            definition: statement.to_string(),
            created_at_us: self.engine.clock().now_us(),
            paused: false,
            location: None,
            depends_on: depends_on.to_vec(),
        }
    }

    /// Makes room for a name that may be taken; there is nothing left to replace then.
    async fn clear(
        self: &Arc<Self>,
        name: &str,
        flags: (bool, bool),
        written: &ObjectName,
        kind: ObjectKind,
    ) -> Result<Way> {
        match self.way(name, flags, written, kind).await? {
            Way::Replace(old) => {
                self.forget(&[old]).await?;
                Ok(Way::Make)
            }
            way => Ok(way),
        }
    }

    /// What to do about a name that may be taken.
    async fn way(
        self: &Arc<Self>,
        name: &str,
        (or_replace, if_not_exists): (bool, bool),
        written: &ObjectName,
        kind: ObjectKind,
    ) -> Result<Way> {
        self.refuse_changes(&format!("CREATE {}", kind.keyword()))?;
        if self.objects.get(name).is_none() {
            return Ok(Way::Make);
        }
        if if_not_exists {
            return Ok(Way::Skip);
        }
        if or_replace {
            let old = self.replaceable(name, kind).await;
            return old.map(Way::Replace).map_err(|e| e.or_at(name_place(written)));
        }
        Err(Error::name(format!("\"{name}\" exists already"))
            .at(name_place(written))
            .with_hint("CREATE OR REPLACE replaces it, IF NOT EXISTS leaves it as it is"))
    }
}

/// The table of a query's late rows.
pub(super) fn late_table(query: &str) -> String {
    format!("{query}__late_rows")
}

/// A view that is replaced can't read what it was.
fn refuse_itself(name: &str, reads: &[String], written: &ObjectName) -> Result<()> {
    if !reads.iter().any(|read| read == name) {
        return Ok(());
    }
    Err(Error::refused(format!("\"{name}\" can't read itself"))
        .at(name_place(written))
        .with_hint("create one with another name"))
}

/// Where a view's result goes: rows that can change are replaced in place.
fn view_sink(
    plan: &ContinuousPlan,
    table: Arc<LakeTable>,
    entry: &Entry,
    checked: &Checked,
) -> Arc<dyn Sink> {
    let id = entry.id.to_string();
    match plan.info().retracting {
        false => Arc::new(DeltaSink::new(table, id)),
        true => Arc::new(DeltaSink::upserting(table, id, plan.key(), write_mode(checked))),
    }
}

fn contents(plan: &ContinuousPlan) -> Contents {
    match plan.info().retracting {
        false => Contents::Growing,
        true => Contents::Changing,
    }
}

fn write_mode(checked: &Checked) -> WriteMode {
    match checked.string("write_mode") {
        Some("copy_on_write") => WriteMode::CopyOnWrite,
        _ => WriteMode::DeletionVectors,
    }
}

fn sink_of(create: &CreateSink) -> Result<(Arc<dyn Sink>, Checked)> {
    let checked = options::check(ObjectKind::Sink, &create.options)?;
    match checked.required("connector")? {
        "blackhole" => Ok((Arc::new(MemorySink::blackhole()), checked)),
        other => Err(Error::refused(format!("a sink with connector '{other}' is not supported"))
            .at(checked.entry("connector").and_then(|entry| entry.value_location()))
            .with_hint("there is 'blackhole', which counts rows; a materialized view keeps them")),
    }
}

/// What is known to the tables of options but not done yet.
fn refuse_retention(checked: &Checked) -> Result<()> {
    match checked.entry("retention") {
        None => Ok(()),
        Some(entry) => Err(Error::refused("retention is not supported yet")
            .at(entry.name_location())
            .with_hint("leave it out: rows are kept until the view is dropped")),
    }
}

/// The one part of a name, folded; our schema may be written out before it.
pub(crate) fn simple_name(name: &ObjectName) -> Result<String> {
    let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident()).map(fold).collect();
    match parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [name] => Ok(name.to_owned()),
        [SCHEMA, name] | [CATALOG, SCHEMA, name] => Ok(name.to_owned()),
        _ => Err(Error::name(format!("\"{name}\" is in no schema of this database"))
            .at(name_place(name))
            .with_hint(format!("objects live in the schema {SCHEMA}"))),
    }
}

pub(crate) fn name_place(name: &ObjectName) -> Option<Location> {
    name.0.last().and_then(|part| part.as_ident()).and_then(place)
}

fn done(tag: &str) -> Done {
    Done { tag: tag.to_owned(), rows: None, notice: None }
}

fn skipped(tag: &str, kind: ObjectKind, name: &str) -> Done {
    let notice = Some(format!("{kind} \"{name}\" exists already, skipped"));
    Done { tag: tag.to_owned(), rows: None, notice }
}
