//! Stateful nodes as physical plans.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::SessionState;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Expr, LogicalPlan, SortExpr, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

use crate::changelog::{has_weight, without_weight};
use crate::error::{Error, Result};
use crate::function::Width;
use crate::operator::aggregate::session::Session as SessionGroups;
use crate::operator::aggregate::{Aggregate, AggregateSpec, Call};
use crate::operator::close::Close;
use crate::operator::invariants::{CheckedExec, Edge};
use crate::operator::join::Join;
use crate::operator::lookup::Lookup;
use crate::operator::once::Once;
use crate::operator::recompute::{Recompute, Template};
use crate::operator::rows::Closing;
use crate::operator::side::Side;
use crate::operator::states::States;
use crate::operator::top_n::TopN;
use crate::operator::upsert::Upsert;
use crate::operator::{Operator, OperatorExec};
use crate::plan::info::{Info, bare};
use crate::plan::leaf::{Leaf, LeafExec, LeafNode};
use crate::plan::node::{Op, SessionBy, Stateful};

/// Plans logical plans that hold stateful nodes, over one query's state.
pub fn planner(states: Arc<States>, state: &SessionState, checked: bool) -> DefaultPhysicalPlanner {
    // The shards are the parallelism: what runs inside one is planned for one partition.
    let mut alone = state.clone();
    alone.config_mut().options_mut().execution.target_partitions = 1;
    let planner = Planner { states, alone, checked };
    DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(planner)])
}

/// A whole plan whose result is checked on its way out.
pub fn checked(
    plan: Arc<dyn ExecutionPlan>,
    info: &Info,
    states: &Arc<States>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let name = "the result".to_owned();
    let edge = Edge::new(0, name, !info.retracting, Vec::new(), Arc::clone(states))?;
    Ok(Arc::new(CheckedExec::new(Arc::new(edge), plan)))
}

struct Planner {
    states: Arc<States>,
    alone: SessionState,
    /// Whether what operators put out is checked.
    checked: bool,
}

#[async_trait]
impl ExtensionPlanner for Planner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        logical: &[&LogicalPlan],
        physical: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
        if let Some(leaf) = node.as_any().downcast_ref::<LeafNode>() {
            let schema = Arc::new(leaf.schema.as_arrow().clone());
            return Ok(Some(Arc::new(LeafExec::new(leaf.index, schema))));
        }
        let Some(stateful) = node.as_any().downcast_ref::<Stateful>() else { return Ok(None) };
        let site = Site { of: self, planner, stateful, logical, session, context };
        let (operator, keys) = site.operator().await.map_err(DataFusionError::from)?;
        let states = Arc::clone(&self.states);
        let exec = OperatorExec::new(stateful.id, operator, physical.to_vec(), keys, states)?;
        if !self.checked {
            return Ok(Some(Arc::new(exec)));
        }
        let name = format!("#{} {}", stateful.id, UserDefinedLogicalNodeCore::name(stateful));
        let (closings, states) = (stateful.closings.clone(), Arc::clone(&self.states));
        let appends = !has_weight(stateful.schema.as_arrow());
        let edge = Edge::new(stateful.id, name, appends, closings, states)?;
        Ok(Some(Arc::new(CheckedExec::new(Arc::new(edge), Arc::new(exec)))))
    }
}

/// One stateful node about to be planned.
struct Site<'a> {
    of: &'a Planner,
    planner: &'a dyn PhysicalPlanner,
    stateful: &'a Stateful,
    logical: &'a [&'a LogicalPlan],
    session: &'a dyn Session,
    context: &'a PhysicalPlanningContext,
}

type Keys = Vec<Vec<Arc<dyn PhysicalExpr>>>;

impl Site<'_> {
    async fn operator(&self) -> Result<(Arc<dyn Operator>, Keys)> {
        match &self.stateful.op {
            Op::Aggregate { .. } => self.aggregate(),
            Op::Join { .. } => self.join(),
            Op::Recompute { .. } => self.recompute().await,
            Op::TopN { .. } => self.top_n(),
            Op::Close(closing) => self.close(closing),
            Op::Lookup { key, copies, closing } => self.lookup(key, *copies, closing.clone()),
            Op::Once => Ok((Arc::new(Once { rows: self.rows() }), vec![Vec::new()])),
            Op::Upsert { key, deletes } => self.upsert(key, *deletes),
        }
    }

    fn schema(&self, input: usize) -> &DFSchema {
        self.logical[input].schema()
    }

    /// Columns of an input as its batches have them, the weight included.
    fn arrow(&self, input: usize) -> SchemaRef {
        Arc::new(self.schema(input).as_arrow().clone())
    }

    fn output(&self) -> SchemaRef {
        Arc::new(self.stateful.schema.as_arrow().clone())
    }

    /// Columns of the result, without weight.
    fn rows(&self) -> SchemaRef {
        without_weight(&self.output())
    }

    fn expr(&self, expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(self.planner.create_physical_expr(expr, schema, self.session, self.context)?)
    }

    fn exprs(&self, exprs: &[Expr], schema: &DFSchema) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
        exprs.iter().map(|expr| self.expr(expr, schema)).collect()
    }

    fn side(
        &self,
        input: usize,
        key: &[Expr],
        late: Option<Closing>,
        free: Option<Closing>,
    ) -> Result<Side> {
        let mut side = Side::new(self.exprs(key, self.schema(input))?, self.arrow(input))?;
        (side.late, side.free) = (late, free);
        Ok(side)
    }

    fn aggregate(&self) -> Result<(Arc<dyn Operator>, Keys)> {
        let Op::Aggregate { group, session, calls, finish, counted, closing } = &self.stateful.op
        else {
            return Err(Error::internal("no aggregate"));
        };
        let schema = self.schema(0);
        let keys = self.exprs(group, schema)?;
        let mut types: Vec<DataType> =
            keys.iter().map(|key| Ok(key.data_type(schema.as_arrow())?)).collect::<Result<_>>()?;
        let session = session.as_ref().map(|session| self.session(session)).transpose()?;
        if let Some(session) = &session {
            let time = session.time.data_type(schema.as_arrow())?;
            types.extend([time.clone(), time]);
        }
        let calls: Vec<Call> =
            calls.iter().map(|(expr, once)| self.call(expr, *once)).collect::<Result<_>>()?;
        let finish = match finish {
            None => None,
            Some(exprs) => Some(self.exprs(exprs, &values_schema(&types, &calls)?)?),
        };
        let operator = Aggregate::new(AggregateSpec {
            group: keys.clone(),
            group_types: types,
            session,
            calls,
            finish,
            counted: *counted,
            closing: closing.clone(),
            input: self.arrow(0),
            output: self.rows(),
        })?;
        Ok((Arc::new(operator), vec![keys]))
    }

    fn session(&self, by: &SessionBy) -> Result<SessionGroups> {
        let time = self.expr(&by.time, self.schema(0))?;
        let Expr::Literal(gap, _) = bare(&by.gap) else {
            return Err(Error::invalid("the gap of a session must be a constant"));
        };
        let unit = time.data_type(self.schema(0).as_arrow())?;
        let gap = Width::of(gap)?.positive("the gap")?.units(&unit)?;
        Ok(SessionGroups { time, gap })
    }

    fn call(&self, expr: &Expr, once: bool) -> Result<Call> {
        let schema = self.schema(0);
        let props = self.session.execution_props();
        let name = expr.schema_name().to_string();
        let lowered =
            LoweredAggregateBuilder::new(expr, schema, schema.as_arrow(), props, self.context)
                .with_name(name)
                .build()?;
        let once = match once {
            false => None,
            true => {
                let args = lowered.aggregate.expressions();
                let arg = args.first().ok_or_else(|| Error::internal("DISTINCT of nothing"))?;
                Some(arg.data_type(schema.as_arrow())?)
            }
        };
        Call::new(lowered.aggregate, lowered.filter, once)
    }

    fn join(&self) -> Result<(Arc<dyn Operator>, Keys)> {
        let Op::Join { on, filter, kind, null_equal, late, free } = &self.stateful.op else {
            return Err(Error::internal("no join"));
        };
        let (left, right): (Vec<Expr>, Vec<Expr>) = on.iter().cloned().unzip();
        let left = self.side(0, &left, late[0].clone(), free[0].clone())?;
        let right = self.side(1, &right, late[1].clone(), free[1].clone())?;
        let both = crate::plan::rewrite::pairs_schema(self.logical[0], self.logical[1])?;
        let filter = filter.as_ref().map(|filter| self.expr(filter, &both)).transpose()?;
        let keys = vec![left.key.clone(), right.key.clone()];
        let operator = Join {
            left,
            right,
            kind: *kind,
            filter,
            null_equal: *null_equal,
            pairs: Arc::new(both.as_arrow().clone()),
            output: self.output(),
        };
        Ok((Arc::new(operator), keys))
    }

    async fn recompute(&self) -> Result<(Arc<dyn Operator>, Keys)> {
        let Op::Recompute { keys, template, from_nothing, closing, sessions } = &self.stateful.op
        else {
            return Err(Error::internal("nothing to recompute"));
        };
        let sides = keys.iter().zip(closing).enumerate().map(|(input, (key, closing))| {
            let late = sessions.as_ref().map(|sessions| sessions.late.clone());
            self.side(input, key, late.or_else(|| closing.clone()), closing.clone())
        });
        let sides: Vec<Side> = sides.collect::<Result<_>>()?;
        let plan = self.planner.create_physical_plan(template, &self.of.alone).await?;
        let single = keys.iter().any(Vec::is_empty);
        let shards = if single { 1 } else { self.of.states.shards() };
        let templates: Vec<Template> =
            (0..shards).map(|_| fork(&plan, sides.len())).collect::<Result<_>>()?;
        let keys = sides.iter().map(|side| side.key.clone()).collect();
        let (rows, from_nothing, sessions) = (self.rows(), *from_nothing, sessions.clone());
        Ok((Arc::new(Recompute { sides, templates, rows, from_nothing, sessions }), keys))
    }

    fn top_n(&self) -> Result<(Arc<dyn Operator>, Keys)> {
        let Op::TopN { key, order, rank, skip, last, numbered, closing } = &self.stateful.op else {
            return Err(Error::internal("no top-N"));
        };
        let side = self.side(0, key, closing.clone(), closing.clone())?;
        let keys = vec![side.key.clone()];
        let order = order.iter().map(|SortExpr { expr, asc, nulls_first }| {
            let options = SortOptions { descending: !asc, nulls_first: *nulls_first };
            Ok((self.expr(expr, self.schema(0))?, options))
        });
        let operator = TopN {
            side,
            order: order.collect::<Result<_>>()?,
            rank: *rank,
            skip: *skip,
            last: *last,
            numbered: *numbered,
            rows: self.rows(),
        };
        Ok((Arc::new(operator), keys))
    }

    fn close(&self, closing: &Closing) -> Result<(Arc<dyn Operator>, Keys)> {
        let schema = self.schema(0);
        let (qualifier, field) = schema.qualified_field(closing.column);
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        let mut side = self.side(0, &[column], Some(closing.clone()), None)?;
        side.rows = self.rows();
        let keys = vec![side.key.clone()];
        Ok((Arc::new(Close { side, closing: closing.clone() }), keys))
    }

    fn lookup(
        &self,
        key: &[Expr],
        copies: bool,
        closing: Option<Closing>,
    ) -> Result<(Arc<dyn Operator>, Keys)> {
        let side = self.side(0, key, None, closing)?;
        let keys = vec![side.key.clone()];
        Ok((Arc::new(Lookup { side, rows: self.rows(), copies }), keys))
    }

    fn upsert(&self, key: &[usize], deletes: Option<usize>) -> Result<(Arc<dyn Operator>, Keys)> {
        let schema = self.schema(0);
        let columns = key.iter().map(|i| {
            let (qualifier, field) = schema.qualified_field(*i);
            Expr::Column(Column::new(qualifier.cloned(), field.name()))
        });
        let keys = self.exprs(&columns.collect::<Vec<_>>(), schema)?;
        let operator = Upsert { rows: self.arrow(0), key: key.to_vec(), deletes };
        Ok((Arc::new(operator), vec![keys]))
    }
}

/// Columns `k0`, … and `v0`, …: what an aggregate's last expressions see.
fn values_schema(types: &[DataType], calls: &[Call]) -> Result<DFSchema> {
    use arrow::datatypes::{Field, Schema};
    let keys =
        types.iter().enumerate().map(|(i, ty)| Field::new(format!("k{i}"), ty.clone(), true));
    let values = calls.iter().enumerate().map(|(i, call)| {
        Field::new(format!("v{i}"), call.function.field().data_type().clone(), true)
    });
    Ok(DFSchema::try_from(Schema::new(keys.chain(values).collect::<Vec<_>>()))?)
}

/// A copy of a plan with leaves of its own.
fn fork(plan: &Arc<dyn ExecutionPlan>, inputs: usize) -> Result<Template> {
    let mut leaves: Vec<Arc<Leaf>> = (0..inputs).map(|_| Arc::default()).collect();
    let forked = Arc::clone(plan).transform_up(|node| {
        let Some(leaf) = (node.as_ref() as &dyn std::any::Any).downcast_ref::<LeafExec>() else {
            return Ok(Transformed::no(node));
        };
        let own = LeafExec::new(leaf.index, leaf.schema());
        leaves[leaf.index] = Arc::clone(&own.leaf);
        Ok(Transformed::yes(Arc::new(own) as Arc<dyn ExecutionPlan>))
    })?;
    Ok(Template { plan: forked.data, leaves })
}
