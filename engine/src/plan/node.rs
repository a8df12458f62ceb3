//! Stateful operators in a logical plan.

use std::cmp::Ordering;
use std::fmt::{Formatter, Result as FmtResult};
use std::hash::{Hash, Hasher};

use datafusion::common::{Column, DFSchemaRef};
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, SortExpr, UserDefinedLogicalNodeCore};

use crate::operator::join::Kind;
use crate::operator::rows::Closing;
use crate::operator::sessions::Sessions;
use crate::operator::top_n::Rank;

/// What a stateful node does. Expressions are over the columns of its inputs.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    Aggregate {
        group: Vec<Expr>,
        /// Groups are the sessions of each `group`.
        session: Option<SessionBy>,
        /// Aggregate functions; with `true` those whose `DISTINCT` is kept in a table.
        calls: Vec<(Expr, bool)>,
        /// Columns of the result over group columns `k0`, …, with a session's start and
        /// end as the last two, and values `v0`, ….
        finish: Option<Vec<Expr>>,
        /// The first two calls count rows put in and taken away.
        counted: bool,
        closing: Option<Closing>,
    },
    Join {
        on: Vec<(Expr, Expr)>,
        filter: Option<Expr>,
        kind: Kind,
        null_equal: bool,
        late: [Option<Closing>; 2],
        free: [Option<Closing>; 2],
    },
    Recompute {
        /// By input.
        keys: Vec<Vec<Expr>>,
        /// The node over [`super::leaf::LeafNode`]s.
        template: Box<LogicalPlan>,
        from_nothing: bool,
        closing: Vec<Option<Closing>>,
        /// When the rows of its only input close, where they do by session.
        sessions: Option<Sessions>,
    },
    TopN {
        key: Vec<Expr>,
        order: Vec<SortExpr>,
        rank: Rank,
        skip: u64,
        last: u64,
        numbered: bool,
        closing: Option<Closing>,
    },
    Close(Closing),
    /// Over a union of joined rows that are put in, and of rows that are taken away.
    Lookup {
        key: Vec<Expr>,
        /// The last column says how many of a row there are.
        copies: bool,
        closing: Option<Closing>,
    },
    /// Over constants.
    Once,
    Upsert {
        key: Vec<usize>,
        deletes: Option<usize>,
    },
}

/// How rows are cut into sessions.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionBy {
    pub time: Expr,
    /// An interval.
    pub gap: Expr,
}

/// A stateful operator over its inputs.
#[derive(Debug, Clone)]
pub struct Stateful {
    /// Names its state; the same whenever the query is planned.
    pub id: usize,
    pub op: Op,
    pub inputs: Vec<LogicalPlan>,
    /// With a weight column where it may retract.
    pub schema: DFSchemaRef,
    /// Columns of its rows that close: nothing comes for what is behind the watermark.
    pub closings: Vec<Closing>,
    /// Columns whose values no two of its rows share, if there are any.
    pub key: Option<Vec<Column>>,
    /// What `EXPLAIN INCREMENTAL` says of it.
    pub notes: Vec<String>,
}

impl Op {
    pub fn name(&self) -> &'static str {
        match self {
            Op::Aggregate { .. } => "Aggregate",
            Op::Join { .. } => "Join",
            Op::Recompute { .. } => "Recompute",
            Op::TopN { .. } => "TopN",
            Op::Close(_) => "EmitOnWindowClose",
            Op::Lookup { .. } => "Lookup",
            Op::Once => "Once",
            Op::Upsert { .. } => "Upsert",
        }
    }

    /// Whether it has a row for no input.
    pub fn from_nothing(&self) -> bool {
        match self {
            Op::Aggregate { group, session, .. } => group.is_empty() && session.is_none(),
            Op::Recompute { from_nothing, .. } => *from_nothing,
            Op::Once => true,
            _ => false,
        }
    }
}

impl Stateful {
    /// The join of a lookup's rows that are put in with their table.
    pub fn looked_up(&self) -> Option<&Join> {
        let (Op::Lookup { .. }, [LogicalPlan::Union(union)]) = (&self.op, self.inputs.as_slice())
        else {
            return None;
        };
        let LogicalPlan::Projection(put_in) = union.inputs.first()?.as_ref() else { return None };
        match put_in.input.as_ref() {
            LogicalPlan::Join(join) => Some(join),
            _ => None,
        }
    }
}

impl PartialEq for Stateful {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Stateful {}

impl PartialOrd for Stateful {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.id.partial_cmp(&other.id)
    }
}

impl Hash for Stateful {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl UserDefinedLogicalNodeCore for Stateful {
    fn name(&self) -> &str {
        self.op.name()
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.inputs.iter().collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    /// None: no rule of DataFusion's rewrites a plan any more that holds such a node.
    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut Formatter) -> FmtResult {
        let list =
            |exprs: &[Expr]| exprs.iter().map(Expr::to_string).collect::<Vec<_>>().join(", ");
        match &self.op {
            Op::Aggregate { group, session, calls, .. } => {
                let calls: Vec<String> = calls.iter().map(|(call, _)| call.to_string()).collect();
                write!(f, "Aggregate: by=[{}], calls=[{}]", list(group), calls.join(", "))?;
                let Some(SessionBy { time, gap }) = session else { return Ok(()) };
                write!(f, ", session=[{time}, {gap}]")
            }
            Op::Join { on, filter, kind, .. } => {
                let on: Vec<String> = on.iter().map(|(l, r)| format!("{l} = {r}")).collect();
                write!(f, "Join: {kind}, on=[{}]", on.join(", "))?;
                filter.as_ref().map_or(Ok(()), |filter| write!(f, ", filter={filter}"))
            }
            Op::Recompute { keys, template, .. } => {
                let key = keys.first().map(|key| list(key)).unwrap_or_default();
                write!(f, "Recompute: {} by key=[{key}]", template.display())
            }
            Op::TopN { key, order, skip, last, .. } => {
                let order: Vec<String> = order.iter().map(ToString::to_string).collect();
                write!(f, "TopN: by=[{}], order=[{}], ", list(key), order.join(", "))?;
                write!(f, "ranks {}..={last}", skip + 1)
            }
            Op::Close(closing) => {
                let column = self.schema.field(closing.column).name();
                write!(f, "EmitOnWindowClose: {column}")
            }
            Op::Lookup { key, .. } => {
                let join = self.looked_up().map(|join| LogicalPlan::Join(join.clone()));
                let join = join.map(|join| join.display().to_string()).unwrap_or_default();
                write!(f, "Lookup: {}, by=[{}]", join.trim_end_matches([':', ' ']), list(key))
            }
            Op::Once => write!(f, "Once"),
            Op::Upsert { key, .. } => {
                let names: Vec<&str> =
                    key.iter().map(|i| self.schema.field(*i).name().as_str()).collect();
                write!(f, "Upsert: key=[{}]", names.join(", "))
            }
        }
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        if inputs.len() != self.inputs.len() {
            return Err(DataFusionError::Internal("an operator's inputs went missing".into()));
        }
        Ok(Self { inputs, ..self.clone() })
    }
}
