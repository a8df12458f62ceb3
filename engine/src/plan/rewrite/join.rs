//! Joins of two streams.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::{Column, ExprSchema, JoinType, NullEquality};
use datafusion::logical_expr::{Expr, Extension, Join, LogicalPlan};

use crate::error::{Error, Result};
use crate::operator::join::Kind;
use crate::operator::rows::Closing;
use crate::plan::check;
use crate::plan::info::{Info, Watermarked, bare};
use crate::plan::leaf::LeafNode;
use crate::plan::node::Op;
use crate::plan::rewrite::{Node, Rewriter, closing, rows, without_weight};

impl Rewriter {
    pub(super) fn join(&mut self, join: &Join) -> Result<Node> {
        let (keeps_left, keeps_right) = kept(join.join_type);
        let mut left = self.node(&join.left)?;
        let mut right = self.node(&join.right)?;
        if keeps_left && !left.info.streaming {
            left = self.streaming(&join.left)?;
        }
        if keeps_right && !right.info.streaming {
            right = self.streaming(&join.right)?;
        }
        match left.info.streaming && right.info.streaming {
            true => self.join_streams(join, left, right),
            false => self.join_table(join, left, right),
        }
    }

    /// A leaf that stands for an input of a node that is planned by itself.
    pub(super) fn leaf(&self, index: usize, input: &Node) -> LogicalPlan {
        let schema = without_weight(input.plan.schema());
        LogicalPlan::Extension(Extension { node: Arc::new(LeafNode { index, schema }) })
    }

    fn join_streams(&mut self, join: &Join, left: Node, right: Node) -> Result<Node> {
        super::time::refuse(&left, join.filter.as_slice())?;
        super::time::refuse(&right, join.filter.as_slice())?;
        if join.on.is_empty() && !left.info.small && !right.info.small {
            return Err(Error::unsupported(
                "a join of two sources without equal columns",
                "join on an equality (ON a.x = b.y AND …), or make one side small: an aggregate \
                 without GROUP BY, a LIMIT, a bounded source",
            ));
        }
        let inner = join.join_type == JoinType::Inner;
        for (l, r) in &join.on {
            super::time::refuse_in("in an equality of a join", &[l.clone(), r.clone()])?;
        }
        if let Some(filter) = join.filter.as_ref().filter(|e| check::asks_for_time(e)) {
            if !inner {
                super::time::refuse_in(
                    "in the condition of an outer join",
                    std::slice::from_ref(filter),
                )?;
            }
            let plain = Join { filter: None, ..join.clone() };
            let node = self.join_streams(&plain, left, right)?;
            return self.keep(node, filter.clone());
        }
        if (join.filter.is_some() && !inner) || join.null_aware {
            return self.keys_anew(join, left, right);
        }
        let swapped = matches!(
            join.join_type,
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark
        );
        let kind = kind(join.join_type);
        let on: Vec<(Expr, Expr)> = match swapped {
            true => join.on.iter().map(|(l, r)| (r.clone(), l.clone())).collect(),
            false => join.on.clone(),
        };
        let (left, right) = if swapped { (right, left) } else { (left, right) };
        let retracting = left.info.retracting
            || right.info.retracting
            || !matches!(kind, Kind::Pairs { left: false, right: false } | Kind::Semi);
        let windows = windows(&on, &left, &right);
        let info = Info {
            streaming: true,
            retracting,
            key: key(kind, &left, &right),
            watermarks: passed(&windows, join),
            small: left.info.small && right.info.small,
        };
        let free = bounds(&windows, join.filter.as_ref(), &left, &right)?;
        let notes = notes(&free);
        let late = [own(&free[0], &windows, &left, 0)?, own(&free[1], &windows, &right, 1)?];
        let op = Op::Join {
            on,
            filter: join.filter.clone(),
            kind,
            null_equal: join.null_equality == NullEquality::NullEqualsNull,
            late,
            free,
        };
        self.stateful(op, vec![left.plan, right.plan], &join.schema, info, notes)
    }

    /// Keeps both sides' rows and joins those of touched keys anew.
    fn keys_anew(&mut self, join: &Join, left: Node, right: Node) -> Result<Node> {
        let (mut lefts, mut rights): (Vec<Expr>, Vec<Expr>) = join.on.iter().cloned().unzip();
        if join.null_aware {
            // One NULL on the right decides about every row of the left.
            (lefts, rights) = (Vec::new(), Vec::new());
        }
        let mut template = join.clone();
        template.left = Arc::new(self.leaf(0, &left));
        template.right = Arc::new(self.leaf(1, &right));
        let windows = if join.null_aware { Vec::new() } else { windows(&join.on, &left, &right) };
        let free = bounds(&windows, None, &left, &right)?;
        let mut notes = notes(&free);
        notes.push("joins the rows of touched keys anew".to_owned());
        let kind = kind(join.join_type);
        let info = Info {
            streaming: true,
            retracting: true,
            key: match join.join_type {
                JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
                    right.info.key.clone()
                }
                _ => key(kind, &left, &right),
            },
            watermarks: passed(&windows, join),
            small: left.info.small && right.info.small,
        };
        let op = Op::Recompute {
            keys: vec![lefts, rights],
            template: Box::new(LogicalPlan::Join(template)),
            from_nothing: false,
            closing: free.to_vec(),
            sessions: None,
        };
        self.stateful(op, vec![left.plan, right.plan], &join.schema, info, notes)
    }
}

/// Whether a join puts out rows of its left, and of its right, that have no partner: or, as
/// semi joins do, no more of the other side than that.
fn kept(join: JoinType) -> (bool, bool) {
    match join {
        JoinType::Inner => (false, false),
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
            (true, false)
        }
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
            (false, true)
        }
        JoinType::Full => (true, true),
    }
}

fn kind(join: JoinType) -> Kind {
    match join {
        JoinType::Inner => Kind::Pairs { left: false, right: false },
        JoinType::Left => Kind::Pairs { left: true, right: false },
        JoinType::Right => Kind::Pairs { left: false, right: true },
        JoinType::Full => Kind::Pairs { left: true, right: true },
        JoinType::LeftSemi | JoinType::RightSemi => Kind::Semi,
        JoinType::LeftAnti | JoinType::RightAnti => Kind::Anti,
        JoinType::LeftMark | JoinType::RightMark => Kind::Mark,
    }
}

/// Pairs of the sides' keys are a key, with NULLs for a missing partner; a semi join's is the
/// left one.
fn key(kind: Kind, left: &Node, right: &Node) -> Option<Vec<Column>> {
    let own = left.info.key.clone()?;
    if matches!(kind, Kind::Semi | Kind::Anti | Kind::Mark) {
        return Some(own);
    }
    let other = right.info.key.clone()?;
    if matches!(kind, Kind::Pairs { left: true, right: true }) {
        // Where every part may be NULL by itself, a row of the left without a partner can look
        // like one of the right.
        let tells = |node: &Node, key: &[Column]| {
            let schema = node.plan.schema();
            let field = |column| schema.field_from_column(column);
            key.iter().any(|column| field(column).is_ok_and(|field| !field.is_nullable()))
        };
        if !tells(left, &own) && !tells(right, &other) {
            return None;
        }
    }
    Some(own.into_iter().chain(other).collect())
}

/// Equal columns that both follow a watermark: rows of one window join among themselves.
fn windows(on: &[(Expr, Expr)], left: &Node, right: &Node) -> Vec<(Watermarked, Watermarked)> {
    let pair = |(l, r): &(Expr, Expr)| match (bare(l), bare(r)) {
        (Expr::Column(l), Expr::Column(r)) => {
            Some((left.info.watermark(l)?.clone(), right.info.watermark(r)?.clone()))
        }
        _ => None,
    };
    on.iter().filter_map(pair).collect()
}

/// What the result follows: a pair of a window comes while either side's rows come. A column
/// that is NULL in a row without a partner says nothing of when that row is final.
fn passed(windows: &[(Watermarked, Watermarked)], join: &Join) -> Vec<Watermarked> {
    let left = !matches!(join.join_type, JoinType::Right | JoinType::Full);
    let right = !matches!(join.join_type, JoinType::Left | JoinType::Full);
    let mut all = Vec::new();
    for (l, r) in windows {
        let sources: BTreeSet<String> = l.sources.union(&r.sources).cloned().collect();
        let lag_us = l.lag_us.max(r.lag_us);
        for (column, always) in [(&l.column, left), (&r.column, right)] {
            if always && join.schema.has_column(column) {
                let sources = sources.clone();
                all.push(Watermarked { column: column.clone(), lag_us, sources });
            }
        }
    }
    all
}

/// When each side's rows are needed no more: once the other side's can't come.
fn bounds(
    windows: &[(Watermarked, Watermarked)],
    filter: Option<&Expr>,
    left: &Node,
    right: &Node,
) -> Result<[Option<Closing>; 2]> {
    if let Some((l, r)) = windows.first() {
        let as_seen = |own: &Watermarked, other: &Watermarked| Watermarked {
            column: own.column.clone(),
            ..other.clone()
        };
        return Ok([
            Some(closing(&as_seen(l, r), &without_weight(left.plan.schema()))?),
            Some(closing(&as_seen(r, l), &without_weight(right.plan.schema()))?),
        ]);
    }
    super::interval::bounds(filter, left, right)
}

/// Rows behind their own watermark are late where rows like them were freed.
fn own(
    free: &Option<Closing>,
    windows: &[(Watermarked, Watermarked)],
    side: &Node,
    index: usize,
) -> Result<Option<Closing>> {
    if free.is_none() {
        return Ok(None);
    }
    let schema = without_weight(side.plan.schema());
    if let Some((l, r)) = windows.first() {
        return closing(if index == 0 { l } else { r }, &schema).map(Some);
    }
    let found = rows(side).into_iter().find_map(|column| side.info.watermark(&column).cloned());
    found.map(|own| closing(&own, &schema)).transpose()
}

fn notes(free: &[Option<Closing>; 2]) -> Vec<String> {
    vec![match free {
        [Some(_), Some(_)] => "keeps the rows of both sides; freed as the watermark passes".into(),
        [None, None] => "keeps the rows of both sides; nothing frees them".into(),
        _ => "keeps the rows of both sides; one side is freed as the watermark passes".to_owned(),
    }]
}
