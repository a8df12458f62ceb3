//! From a logical plan to what an epoch executes.
//!
//! [`ContinuousPlan::new`] checks the plan and puts an [`EpochTable`] in the
//! place of every source. DataFusion then plans it physically once; an epoch
//! fills the slots and executes that plan again. It is planned anew only when a
//! joined table has moved to a new version, or when the query asks for the time
//! (DataFusion folds `now()` into the plan, so each epoch gets its own).

pub mod check;
pub mod explain;
pub mod scan;

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::DateTime;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{LogicalPlan, TableScan, TableScanBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::reset_plan_states;

use crate::epoch::EpochPlan;
use crate::error::{Error, Result};
use crate::lake::LakeTable;
use crate::plan::scan::{EpochScanExec, EpochTable, Slot};
use crate::source::DeclaredSource;
use crate::source::table::SourceTable;

/// One source of a continuous query.
#[derive(Debug, Clone)]
pub struct Input {
    pub declared: DeclaredSource,
    /// The columns that the query uses: sorted indices into the source's schema.
    pub projection: Vec<usize>,
    pub slot: Arc<Slot>,
}

/// A query that passed the checks, ready to be executed epoch by epoch.
pub struct ContinuousPlan {
    logical: LogicalPlan,
    state: SessionState,
    inputs: BTreeMap<String, Input>,
    tables: BTreeMap<String, Arc<LakeTable>>,
    timed: bool,
    planned: Option<Planned>,
}

/// A physical plan and what it was planned for.
struct Planned {
    physical: Arc<dyn ExecutionPlan>,
    tables: BTreeMap<String, u64>,
    timestamp_us: i64,
}

impl ContinuousPlan {
    /// Checks `plan` (as SQL planning left it, not optimized).
    ///
    /// # Errors
    /// [`Error::Unsupported`] names what can't be maintained incrementally.
    pub fn new(plan: LogicalPlan, mut state: SessionState) -> Result<Self> {
        keep_filters_out_of_scans(&mut state);
        if !check::check(&plan)? {
            return Err(Error::invalid_hint(
                "the query reads no source, so nothing would ever change it",
                "use CREATE VIEW for a query over tables, or INSERT INTO to run it once",
            ));
        }
        let timed = check::depends_on_time(&plan);
        let mut inputs = BTreeMap::new();
        let mut tables = BTreeMap::new();
        let logical = plan
            .transform_up_with_subqueries(|node| substitute(node, &mut inputs, &mut tables))?
            .data;
        let mut this = Self { logical, state, inputs, tables, timed, planned: None };
        this.find_projections()?;
        Ok(this)
    }

    pub fn inputs(&self) -> &BTreeMap<String, Input> {
        &self.inputs
    }

    /// The lake tables that it joins, by name.
    pub fn tables(&self) -> &BTreeMap<String, Arc<LakeTable>> {
        &self.tables
    }

    /// The plan after DataFusion's logical optimizer.
    pub fn optimized(&self) -> Result<LogicalPlan> {
        Ok(self.state.optimize(&self.logical)?)
    }

    /// Plans it physically once, so that what DataFusion can't execute is refused
    /// when a query is created and not when its first row arrives.
    pub async fn plannable(&self) -> Result<()> {
        check::refuse_lateral(&self.optimized()?)?;
        let epoch = EpochPlan {
            epoch: 0,
            timestamp_us: 0,
            sources: BTreeMap::new(),
            tables: BTreeMap::new(),
        };
        self.plan_for(&epoch).await.map(|_| ())
    }

    /// The physical plan for `epoch`, fresh to be executed once.
    pub async fn physical(&mut self, epoch: &EpochPlan) -> Result<Arc<dyn ExecutionPlan>> {
        let stale = self.planned.as_ref().is_none_or(|planned| {
            planned.tables != epoch.tables
                || (self.timed && planned.timestamp_us != epoch.timestamp_us)
        });
        if stale {
            self.planned = Some(self.plan_for(epoch).await?);
        }
        let planned =
            self.planned.as_ref().ok_or_else(|| Error::internal("no plan for the epoch"))?;
        Ok(reset_plan_states(Arc::clone(&planned.physical))?)
    }

    async fn plan_for(&self, epoch: &EpochPlan) -> Result<Planned> {
        let logical = self.with_snapshots(&epoch.tables).await?;
        let mut state = self.state.clone();
        state.execution_props_mut().query_execution_start_time =
            DateTime::from_timestamp_micros(epoch.timestamp_us);
        let physical = state.create_physical_plan(&logical).await?;
        Ok(Planned { physical, tables: epoch.tables.clone(), timestamp_us: epoch.timestamp_us })
    }

    /// The logical plan with every lake table fixed at its recorded version.
    async fn with_snapshots(&self, versions: &BTreeMap<String, u64>) -> Result<LogicalPlan> {
        let mut snapshots: BTreeMap<&str, Arc<dyn TableProvider>> = BTreeMap::new();
        for (name, table) in &self.tables {
            let version = versions.get(name).copied().unwrap_or_else(|| table.version());
            snapshots.insert(name, table.snapshot_at(version).await?);
        }
        if snapshots.is_empty() {
            return Ok(self.logical.clone());
        }
        let fixed = self.logical.clone().transform_up_with_subqueries(|node| {
            let LogicalPlan::TableScan(scan) = &node else { return Ok(Transformed::no(node)) };
            let provider = source_as_provider(&scan.source)?;
            let snapshot = as_lake(&provider).and_then(|table| snapshots.get(table.name()));
            match snapshot {
                Some(snapshot) => Ok(Transformed::yes(rescan(scan, Arc::clone(snapshot))?)),
                None => Ok(Transformed::no(node)),
            }
        })?;
        Ok(fixed.data)
    }

    /// Learns from the optimized plan which columns of each source are used.
    fn find_projections(&mut self) -> Result<()> {
        let optimized = self.optimized()?;
        let mut used: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        optimized.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Some(table) = as_epoch(&source_as_provider(&scan.source)?)
            {
                let columns = used.entry(table.declared.source.name().to_owned()).or_default();
                columns.extend(crate::source::table::all_or(
                    scan.projection.as_ref(),
                    &table.declared.source.schema(),
                ));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        for (name, input) in &mut self.inputs {
            let mut columns = used.remove(name).unwrap_or_default();
            columns.sort_unstable();
            columns.dedup();
            input.projection = columns;
        }
        Ok(())
    }
}

/// A filter that an operator derives while it runs (the largest value so far, say)
/// and hands down to a scan stays in that scan when the plan is executed again:
/// it would hide rows of the table from every later epoch.
fn keep_filters_out_of_scans(state: &mut SessionState) {
    let optimizer = &mut state.config_mut().options_mut().optimizer;
    optimizer.enable_dynamic_filter_pushdown = false;
    optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    optimizer.enable_join_dynamic_filter_pushdown = false;
    optimizer.enable_topk_dynamic_filter_pushdown = false;
}

/// The declared source behind a provider.
pub(crate) fn as_source(provider: &Arc<dyn TableProvider>) -> Option<&SourceTable> {
    (provider.as_ref() as &dyn Any).downcast_ref()
}

fn as_epoch(provider: &Arc<dyn TableProvider>) -> Option<&EpochTable> {
    (provider.as_ref() as &dyn Any).downcast_ref()
}

pub(crate) fn as_lake(provider: &Arc<dyn TableProvider>) -> Option<&LakeTable> {
    (provider.as_ref() as &dyn Any).downcast_ref()
}

/// The same scan of another provider with the same schema.
fn rescan(
    scan: &TableScan,
    provider: Arc<dyn TableProvider>,
) -> Result<LogicalPlan, DataFusionError> {
    let scan = TableScanBuilder::new(scan.table_name.clone(), provider_as_source(provider))
        .with_projection(scan.projection.clone())
        .with_filters(scan.filters.clone())
        .with_fetch(scan.fetch)
        .build()?;
    Ok(LogicalPlan::TableScan(scan))
}

/// Puts an [`EpochTable`] for a source, and collects the lake tables.
fn substitute(
    node: LogicalPlan,
    inputs: &mut BTreeMap<String, Input>,
    tables: &mut BTreeMap<String, Arc<LakeTable>>,
) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let LogicalPlan::TableScan(scan) = &node else { return Ok(Transformed::no(node)) };
    let provider = source_as_provider(&scan.source)?;
    if let Some(table) = as_source(&provider) {
        let name = table.declared.source.name().to_owned();
        let input = inputs.entry(name).or_insert_with(|| Input {
            declared: table.declared.clone(),
            projection: Vec::new(),
            slot: Arc::default(),
        });
        let epoch = EpochTable { declared: table.declared.clone(), slot: Arc::clone(&input.slot) };
        return Ok(Transformed::yes(rescan(scan, Arc::new(epoch))?));
    }
    let shared: Arc<dyn Any + Send + Sync> = provider;
    if let Ok(table) = shared.downcast::<LakeTable>() {
        tables.insert(table.name().to_owned(), table);
    }
    Ok(Transformed::no(node))
}

/// The scans of sources in a physical plan.
pub fn epoch_scans(plan: &Arc<dyn ExecutionPlan>) -> Vec<(String, Vec<usize>)> {
    let own = (plan.as_ref() as &dyn Any).downcast_ref::<EpochScanExec>();
    let mut found: Vec<_> = own
        .map(|scan| (scan.source().to_owned(), scan.projection().to_vec()))
        .into_iter()
        .collect();
    for child in plan.children() {
        found.extend(epoch_scans(child));
    }
    found
}
