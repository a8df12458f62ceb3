//! `INSERT INTO`: bounded input is written once, in one commit; unbounded
//! input is a continuous query into the table.

use std::sync::Arc;

use datafusion::execution::TaskContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::sql::sqlparser::ast::Query;
use tidemill_engine::catalog::{Entry, EntryKind};
use tidemill_engine::lake::LakeTable;
use tidemill_engine::plan::ContinuousPlan;
use tidemill_engine::sink::delta::DeltaSink;

use super::Database;
use super::create::{name_place, simple_name};
use crate::error::{Error, Result};
use crate::objects::Object;
use crate::options;
use crate::plan;
use crate::session::{Done, count_left_out};
use crate::statement::{Insert, ObjectKind, Statement};

impl Database {
    pub(crate) async fn insert(self: &Arc<Self>, insert: &Insert) -> Result<Done> {
        self.refuse_changes("INSERT")?;
        let table = self.target(insert)?;
        let plan = self.insert_plan(insert, &table).await?;
        if unbounded(&plan)? {
            return self.insert_forever(insert, plan, table).await;
        }
        let (rows, notice) = self.write_once(plan, &table).await?;
        Ok(Done { tag: "INSERT".into(), rows: Some(rows), notice })
    }

    pub(crate) fn target(&self, insert: &Insert) -> Result<Arc<LakeTable>> {
        let name = simple_name(&insert.table)?;
        let place = name_place(&insert.table);
        match self.objects.get(&name) {
            Some(Object::Table { table, .. }) => Ok(table),
            Some(_) => Err(Error::refused(format!("\"{name}\" can't be inserted into"))
                .at(place)
                .with_hint("only a table can; views get their rows from their query")),
            None => Err(Error::name(format!("table \"{name}\" does not exist")).at(place)),
        }
    }

    /// The query with its columns spread over the table's.
    pub(crate) async fn insert_plan(
        &self,
        insert: &Insert,
        table: &LakeTable,
    ) -> Result<LogicalPlan> {
        let query = plan::made_different(&insert.query);
        let plan = plan::query(&self.state, &query).await?;
        let plan = plan::typed_parameters(plan, &table.schema(), &insert.columns)?;
        plan::spread(plan, &table.schema(), &insert.columns)
            .map_err(|error| error.or_at(name_place(&insert.table)))
    }

    /// Plans an insert for its parameters; `None` for what runs forever.
    pub(crate) async fn prepare_insert(&self, insert: &Insert) -> Result<LogicalPlan> {
        let table = self.target(insert)?;
        self.insert_plan(insert, &table).await
    }

    /// Writes the rows of a plan in place of an insert's own.
    pub(crate) async fn insert_given(&self, insert: &Insert, rows: LogicalPlan) -> Result<Done> {
        let table = self.target(insert)?;
        let plan = plan::spread(rows, &table.schema(), &insert.columns)
            .map_err(|error| error.or_at(name_place(&insert.table)))?;
        self.insert_bound(insert, plan).await
    }

    /// Executes a prepared insert, its parameters bound.
    pub(crate) async fn insert_bound(&self, insert: &Insert, plan: LogicalPlan) -> Result<Done> {
        self.refuse_changes("INSERT")?;
        let (rows, notice) = self.write_once(plan, &*self.target(insert)?).await?;
        Ok(Done { tag: "INSERT".into(), rows: Some(rows), notice })
    }

    async fn insert_forever(
        self: &Arc<Self>,
        insert: &Insert,
        plan: LogicalPlan,
        table: Arc<LakeTable>,
    ) -> Result<Done> {
        let _changing = self.changing.lock().await;
        let continuous = self.continuous_insert(insert, plan).await?;
        let name = self.free_name(&format!("insert_into_{}", table.name()));
        self.refuse_taken_late(&name, &continuous, &insert.table)?;
        let mut depends = plan::references(&self.state, &insert.query)?;
        depends.push(table.name().to_owned());
        let statement = Statement::Insert(insert.clone());
        let entry = self.entry(&name, EntryKind::Insert, &statement, &depends);
        self.keep(entry.clone(), Object::Query).await?;
        self.start_insert(insert, &entry).await?;
        let notice = format!("runs continuously as query \"{name}\"; DROP QUERY {name} ends it");
        Ok(Done { tag: "INSERT".into(), rows: None, notice: Some(notice) })
    }

    /// Checks and plans an insert, and writes nothing. Answers the plan of one that ends.
    pub(crate) async fn planned_insert(&self, insert: &Insert) -> Result<Option<LogicalPlan>> {
        let plan = self.prepare_insert(insert).await?;
        if !unbounded(&plan)? {
            return Ok(Some(plan));
        }
        self.continuous_insert(insert, plan).await?;
        Ok(None)
    }

    async fn continuous_insert(
        &self,
        insert: &Insert,
        plan: LogicalPlan,
    ) -> Result<ContinuousPlan> {
        let checked = options::check(ObjectKind::Query, &insert.options)?;
        let options = self.plan_options(insert.emit, &checked);
        let continuous = ContinuousPlan::new(plan, self.state.clone(), &options)?;
        continuous.plannable().await?;
        let target = insert.table.to_string();
        let upstream = self.engine.upstream(continuous.inputs().keys().cloned());
        if upstream.contains(self.target(insert)?.name()) {
            return Err(Error::refused(format!(
                "the query follows {target}, and would read what it writes without end"
            ))
            .at(name_place(&insert.table))
            .with_hint("write into another table"));
        }
        if continuous.info().retracting {
            return Err(Error::refused(
                "rows of the query can change after they were written, and INSERT only adds",
            )
            .at(name_place(&insert.table))
            .with_hint("CREATE MATERIALIZED VIEW keeps its result up to date"));
        }
        Ok(continuous)
    }

    pub(super) async fn start_insert(
        self: &Arc<Self>,
        insert: &Insert,
        entry: &Entry,
    ) -> Result<Object> {
        let table = self.target(insert)?;
        let plan = self.insert_plan(insert, &table).await?;
        let checked = options::check(ObjectKind::Query, &insert.options)?;
        let sink = Arc::new(DeltaSink::new(table, entry.id.to_string()));
        let continuous = self.continuous(&plan, insert.emit, &checked)?;
        self.start(entry, plan, &continuous, sink, &checked, insert.emit).await?;
        Ok(Object::Query)
    }

    fn free_name(&self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut number = 2;
        while self.objects.get(&name).is_some() {
            name = format!("{wanted}_{number}");
            number += 1;
        }
        name
    }

    /// A query that must end, for statements that run once.
    pub(super) async fn bounded(&self, query: &Query, what: &str) -> Result<LogicalPlan> {
        let plan = plan::query(&self.state, query).await?;
        if unbounded(&plan)? {
            return Err(Error::refused(format!("{what} reads a source that never ends"))
                .with_hint("CREATE MATERIALIZED VIEW keeps its result up to date"));
        }
        plan::with_names(plan, &[])
    }

    /// Executes a bounded plan into a table: one commit. Answers the rows, and what of the
    /// input is not among them.
    pub(super) async fn write_once(
        &self,
        plan: LogicalPlan,
        table: &LakeTable,
    ) -> Result<(u64, Option<String>)> {
        if self.access == crate::session::Access::Offline {
            return Ok((0, None));
        }
        let mut state = self.state.clone();
        let left_out = count_left_out(&mut state);
        state.execution_props_mut().query_execution_start_time = Some(chrono::Utc::now());
        let physical = state.create_physical_plan(&plan).await?;
        let rows = execute_stream(physical, Arc::new(TaskContext::from(&state)))?;
        let staged = table.stage(rows).await?;
        Ok((table.commit(staged, None).await?.rows, left_out.notice()))
    }
}

/// Whether the plan reads a source that never ends.
pub(crate) fn unbounded(plan: &LogicalPlan) -> Result<bool> {
    Ok(plan::sources(plan)?.iter().any(|declared| !declared.source.bounded()))
}
