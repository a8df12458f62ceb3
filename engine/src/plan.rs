//! From a logical plan to what an epoch executes.
//!
//! [`ContinuousPlan::new`] checks the plan, puts an [`EpochTable`] in the place of
//! every source, has DataFusion optimize it and [`rewrite`]s it: nodes that need
//! memory of earlier rows become stateful ones ([`node`]). It is then planned
//! physically once; an epoch fills the slots and executes that plan again. It is
//! planned anew only when a joined table has moved to a new version, or when the
//! query asks for the time (`now()` is folded into the plan, so each epoch gets its
//! own).

pub mod check;
pub mod durations;
pub mod explain;
pub mod info;
pub mod keys;
pub mod late;
pub mod leaf;
pub mod limits;
pub mod node;
pub mod physical;
pub mod reuse;
pub mod rewrite;
pub mod scan;
pub mod subqueries;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use chrono::DateTime;
use datafusion::catalog::TableProvider;
use datafusion::common::DFSchema;
use datafusion::common::alias::AliasGenerator;
use datafusion::common::hash_utils::RandomState;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::DataFusionError;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{LogicalPlan, TableScan, TableScanBuilder};
use datafusion::optimizer::AnalyzerRule as _;
use datafusion::optimizer::simplify_expressions::{ExprSimplifier, SimplifyContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

use crate::epoch::EpochPlan;
use crate::error::{Error, Result};
use crate::lake::LakeTable;
use crate::operator::states::States;
use crate::plan::durations::IntervalsToDurations;
use crate::plan::info::Info;
use crate::plan::keys::KeysOfOneType;
use crate::plan::late::LateInput;
use crate::plan::limits::physical_rules;
use crate::plan::node::Stateful;
use crate::plan::rewrite::{Node, Rewriter};
use crate::plan::scan::{EpochScanExec, EpochTable, Slot};
use crate::plan::subqueries::SubqueriesInProjections;
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

impl Input {
    fn new(declared: DeclaredSource) -> Self {
        Self { declared, projection: Vec::new(), slot: Arc::default() }
    }
}

/// How a query is to be planned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanOptions {
    /// `EMIT ON WINDOW CLOSE`.
    pub on_close: bool,
    /// Into how many shards state is dealt out; 0: one a partition of DataFusion.
    pub shards: usize,
    /// Bytes of state in memory; the rest lies on disk.
    pub state_memory_limit: Option<usize>,
    /// Whether each changelog is checked on its way ([`crate::operator::invariants`]).
    pub checked: bool,
}

/// A query that passed the checks, ready to be executed epoch by epoch.
pub struct ContinuousPlan {
    state: SessionState,
    inputs: BTreeMap<String, Input>,
    tables: BTreeMap<String, Arc<LakeTable>>,
    timed: bool,
    incremental: LogicalPlan,
    /// Where rows can come too late.
    late_inputs: Vec<LateInput>,
    info: Info,
    /// `None` for a plan that keeps no state.
    states: Option<Arc<States>>,
    checked: bool,
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
    pub fn new(plan: LogicalPlan, mut state: SessionState, options: &PlanOptions) -> Result<Self> {
        state = configure(state);
        if !check::check(&plan)? {
            return Err(Error::invalid_hint(
                "the query reads neither a source nor a table, so nothing would ever change it",
                "use CREATE VIEW, or INSERT INTO to run it once",
            ));
        }
        let timed = check::depends_on_time(&plan);
        let (mut inputs, mut tables) = (BTreeMap::new(), BTreeMap::new());
        let logical = plan
            .transform_up_with_subqueries(|node| substitute(node, &mut inputs, &mut tables))?
            .data;
        let optimized = state.optimize(&logical)?;
        check::refuse_lateral(&optimized)?;
        let mut rewriter = Rewriter::new(options.on_close, inputs);
        let Node { plan: incremental, info } = rewriter.query(&optimized)?;
        let inputs = rewriter.inputs;
        let read = lakes(&incremental)?;
        tables.retain(|name, _| read.contains(name));
        let shards = match options.shards {
            0 => state.config().target_partitions(),
            shards => shards,
        };
        let limit = options.state_memory_limit;
        let pool = &state.runtime_env().memory_pool;
        let states = is_stateful(&incremental)?.then(|| Arc::new(States::new(shards, limit, pool)));
        let (planned, checked) = (None, options.checked);
        let late_inputs = late::inputs(&incremental)?;
        let mut this = Self {
            state,
            inputs,
            tables,
            timed,
            incremental,
            late_inputs,
            info,
            states,
            checked,
            planned,
        };
        this.find_projections()?;
        Ok(this)
    }

    /// What is known of its result: whether it may take rows away, and its key.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Whether there may be rows although nothing was read: a global aggregate has one.
    pub fn from_nothing(&self) -> bool {
        let is = |node: &LogicalPlan| {
            Ok(as_stateful(node).is_some_and(|stateful| stateful.op.from_nothing()))
        };
        self.incremental.exists(is).unwrap_or(false)
    }

    /// The state of its operators; `None` for a plan that keeps none.
    pub fn states(&self) -> Option<&Arc<States>> {
        self.states.as_ref()
    }

    /// The columns of the result that no two of its rows share, by their places; `None`
    /// also where there is but one row.
    pub fn key(&self) -> Option<Vec<usize>> {
        let key = self.info.key.as_ref().filter(|key| !key.is_empty())?;
        let schema = self.incremental.schema();
        key.iter().map(|column| schema.index_of_column(column).ok()).collect()
    }

    /// Tells one plan's state from another's: a snapshot holds the state of one plan.
    pub fn fingerprint(&self) -> String {
        let text = self.incremental.display_indent_schema().to_string();
        let hash = RandomState::with_seed(FINGERPRINT_SEED).hash_one(&text);
        format!("1/{DATAFUSION_VERSION}/{hash:016x}")
    }

    /// Columns of the epoch's result; with a weight column where it may retract.
    pub fn incremental(&self) -> &LogicalPlan {
        &self.incremental
    }

    pub fn inputs(&self) -> &BTreeMap<String, Input> {
        &self.inputs
    }

    /// The lake tables that it joins, by name.
    pub fn tables(&self) -> &BTreeMap<String, Arc<LakeTable>> {
        &self.tables
    }

    /// Plans it physically once, so that what DataFusion can't execute is refused
    /// when a query is created and not when its first row arrives.
    pub async fn plannable(&self) -> Result<()> {
        self.plan_for(&EpochPlan::default()).await.map(|_| ())
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
        Ok(reuse::refresh(&planned.physical)?)
    }

    async fn plan_for(&self, epoch: &EpochPlan) -> Result<Planned> {
        let physical = match &self.states {
            None => self.plan_stateless(self.incremental.clone(), epoch).await?,
            Some(states) => {
                let (logical, state) = self.fixed(&self.incremental, epoch).await?;
                states.begin_plan();
                let planner = physical::planner(Arc::clone(states), &state, self.checked);
                let plan = planner.create_physical_plan(&logical, &state).await?;
                if self.checked { physical::checked(plan, &self.info, states)? } else { plan }
            }
        };
        Ok(Planned { physical, tables: epoch.tables.clone(), timestamp_us: epoch.timestamp_us })
    }

    /// A part of the incremental plan that keeps no state, planned for `epoch`.
    async fn plan_stateless(
        &self,
        part: LogicalPlan,
        epoch: &EpochPlan,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (logical, state) = self.fixed(&part, epoch).await?;
        Ok(DefaultPhysicalPlanner::default().create_physical_plan(&logical, &state).await?)
    }

    /// A plan with its tables and its time as they are in `epoch`.
    async fn fixed(
        &self,
        plan: &LogicalPlan,
        epoch: &EpochPlan,
    ) -> Result<(LogicalPlan, SessionState)> {
        let mut state = self.state.clone();
        let now = DateTime::from_timestamp_micros(epoch.timestamp_us);
        state.execution_props_mut().query_execution_start_time = now;
        let plan = self.with_snapshots(plan, &epoch.tables).await?;
        Ok((if self.timed { fold_time(plan, &state)? } else { plan }, state))
    }

    /// The logical plan with every lake table fixed at its recorded version.
    async fn with_snapshots(
        &self,
        plan: &LogicalPlan,
        versions: &BTreeMap<String, u64>,
    ) -> Result<LogicalPlan> {
        let mut snapshots: BTreeMap<&str, Arc<dyn TableProvider>> = BTreeMap::new();
        for (name, table) in &self.tables {
            let version = versions.get(name).copied().unwrap_or_else(|| table.version());
            snapshots.insert(name, table.snapshot_at(version).await?);
        }
        if snapshots.is_empty() {
            return Ok(plan.clone());
        }
        let fixed = plan.clone().transform_up_with_subqueries(|node| {
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

    /// Learns from the rewritten plan which columns of each source are used.
    fn find_projections(&mut self) -> Result<()> {
        let mut used: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        self.incremental.apply_with_subqueries(|node| {
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
        let keeping = self.inputs.iter().filter(|(_, input)| self.keeps(input));
        for (name, input) in keeping {
            // They are kept as they were read.
            let all = 0..input.declared.source.schema().fields().len();
            let columns = all.filter(|column| Some(*column) != input.declared.deletes);
            used.entry(name.clone()).or_default().extend(columns);
        }
        for (name, input) in &mut self.inputs {
            let mut columns = used.remove(name).unwrap_or_default();
            if self.states.is_some()
                && let Some(watermark) = &input.declared.watermark
            {
                columns.extend(&watermark.columns);
            }
            columns.sort_unstable();
            columns.dedup();
            input.projection = columns;
        }
        Ok(())
    }
}

/// Names the state's layout in snapshots, with the plan's hash.
const DATAFUSION_VERSION: &str = datafusion::DATAFUSION_VERSION;
const FINGERPRINT_SEED: u64 = 0x6669_6e67_6572;

/// What continuous plans need of DataFusion.
fn configure(mut state: SessionState) -> SessionState {
    // Names that the optimizer makes up are numbered anew: the same query makes the same
    // plan, whatever was planned before it.
    state.execution_props_mut().alias_generator = Arc::new(AliasGenerator::new());
    let optimizer = &mut state.config_mut().options_mut().optimizer;
    // A filter that an operator derives while it runs (the largest value so far, say)
    // and hands down to a scan stays in that scan when the plan is executed again:
    // it would hide rows of the table from every later epoch.
    optimizer.enable_dynamic_filter_pushdown = false;
    optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    optimizer.enable_join_dynamic_filter_pushdown = false;
    optimizer.enable_topk_dynamic_filter_pushdown = false;
    // A subquery's value changes from epoch to epoch: as a join, it can be kept up to date.
    optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    // Rows must keep their order: a run after a crash repeats it to the bit.
    optimizer.enable_round_robin_repartition = false;
    optimizer.repartition_joins = false;
    SessionStateBuilder::new_from_existing(with_rules(state))
        .with_optimizer_rule(Arc::new(IntervalsToDurations))
        .build()
}

/// What every query of Tidemill needs of DataFusion's planning, whether it is kept up to
/// date or answered once: more subqueries, and no wrong answers.
#[must_use]
pub fn with_rules(state: SessionState) -> SessionState {
    if state.analyzer().rules.iter().any(|rule| rule.name() == SubqueriesInProjections.name()) {
        return state;
    }
    SessionStateBuilder::new_from_existing(state)
        .with_analyzer_rule(Arc::new(SubqueriesInProjections))
        .with_optimizer_rule(Arc::new(KeysOfOneType))
        .with_physical_optimizer_rules(physical_rules())
        .build()
}

fn is_stateful(plan: &LogicalPlan) -> Result<bool> {
    Ok(plan.exists(|node| Ok(as_stateful(node).is_some()))?)
}

fn as_stateful(node: &LogicalPlan) -> Option<&Stateful> {
    match node {
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
        _ => None,
    }
}

/// Puts the epoch's time in the place of `now()`.
fn fold_time(plan: LogicalPlan, state: &SessionState) -> Result<LogicalPlan> {
    let now = state.execution_props().query_execution_start_time;
    let folded = plan.transform_up(|node| {
        let schema = match &node {
            LogicalPlan::Extension(_) => return Ok(Transformed::no(node)),
            // Its filters see columns that it does not put out.
            LogicalPlan::TableScan(scan) => {
                DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?
            }
            node => {
                let mut schema = DFSchema::empty();
                node.inputs().iter().for_each(|input| schema.merge(input.schema()));
                schema
            }
        };
        let named = !matches!(node, LogicalPlan::TableScan(_));
        let context = SimplifyContext::builder()
            .with_schema(Arc::new(schema))
            .with_config_options(Arc::clone(state.config_options()))
            .with_query_execution_start_time(now)
            .build();
        let simplifier = ExprSimplifier::new(context);
        node.map_expressions(|expr| {
            if !check::asks_for_time(&expr) {
                return Ok(Transformed::no(expr));
            }
            let name = expr.schema_name().to_string();
            let folded = simplifier.simplify(expr)?;
            let renamed = named && folded.schema_name().to_string() != name;
            Ok(Transformed::yes(if renamed { folded.alias(name) } else { folded }))
        })
    })?;
    Ok(folded.data)
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

/// The names of the lake tables that a plan scans.
fn lakes(plan: &LogicalPlan) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(table) = as_lake(&source_as_provider(&scan.source)?)
        {
            names.insert(table.name().to_owned());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(names)
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
        let input = inputs.entry(name).or_insert_with(|| Input::new(table.declared.clone()));
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
