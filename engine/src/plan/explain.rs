//! `EXPLAIN INCREMENTAL`: how a continuous query is kept up to date.
//!
//! A line for each node of the incremental plan, and under it the mode of its changelog, the
//! key of its rows, the state that it keeps and what frees it. Nodes that only rename columns
//! are left out. What may surprise later stands below, as warnings.

mod text;

use std::fmt::Write;
use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::changelog::has_weight;
use crate::error::Result;
use crate::plan::node::{Op, Stateful};
use crate::plan::{ContinuousPlan, as_epoch, as_lake, as_stateful};
use crate::source::delta::DELTA;

/// Draws the incremental plan, indented by two blanks a level.
pub fn explain(plan: &ContinuousPlan) -> Result<String> {
    let mut out = String::new();
    draw(plan.incremental(), 0, true, &mut out)?;
    let growing = growing(plan.incremental())?;
    if !growing.is_empty() {
        let _ = writeln!(
            out,
            "warning: nothing frees the state of {}: it grows with the keys and rows that come; \
             windows over a WATERMARK free theirs",
            growing.join(", ")
        );
    }
    if plan.info().retracting && plan.key().is_none() {
        out.push_str("warning: the result has no key: rows are told apart by all their columns\n");
    }
    Ok(out)
}

/// The operators over unbounded sources whose state only grows.
fn growing(plan: &LogicalPlan) -> Result<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    plan.apply(|node| {
        let Some(stateful) = as_stateful(node) else { return Ok(TreeNodeRecursion::Continue) };
        let kept = stateful.notes.iter().any(|note| note.contains("nothing frees"));
        if kept && !few(stateful) && endless(node)? {
            let name = stateful.op.name().to_owned();
            if !found.contains(&name) {
                found.push(name);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Whether what an operator keeps is few rows whatever comes: one, or the first ones of all.
fn few(stateful: &Stateful) -> bool {
    let appends = || stateful.inputs.iter().all(|input| !has_weight(input.schema().as_arrow()));
    match &stateful.op {
        Op::TopN { key, .. } => key.is_empty() && appends(),
        Op::Lookup { key, copies, .. } => key.is_empty() && !copies,
        op => op.from_nothing() && appends(),
    }
}

/// Whether rows never cease to come from below.
fn endless(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    plan.exists(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(false) };
        let provider = source_as_provider(&scan.source)?;
        Ok(as_epoch(&provider).is_some_and(|table| !table.declared.source.bounded()))
    })
}

/// Draws `node` and what is below; answers whether rows of a source flow through it.
fn draw(node: &LogicalPlan, depth: usize, root: bool, out: &mut String) -> Result<bool> {
    let shown = root || !only_renames(node);
    let mut below = String::new();
    let mut streaming = false;
    for input in inputs(node) {
        streaming |= draw(input, depth + usize::from(shown), false, &mut below)?;
    }
    let (note, own) = annotate(node, streaming)?;
    if shown {
        let indent = depth * 2;
        // Writing to a String can't fail.
        let _ = writeln!(out, "{:indent$}{}\n{:indent$}  -- {note}", "", text::title(node), "");
    }
    out.push_str(&below);
    Ok(own)
}

/// What is drawn below a node. A lookup's rows that are put in and those that are taken away
/// come from the same place.
fn inputs(node: &LogicalPlan) -> Vec<&LogicalPlan> {
    let Some(join) = as_stateful(node).and_then(Stateful::looked_up) else { return node.inputs() };
    fn side(side: &Arc<LogicalPlan>) -> &LogicalPlan {
        match side.as_ref() {
            LogicalPlan::Filter(put_in) if has_weight(side.schema().as_arrow()) => &put_in.input,
            table => table,
        }
    }
    vec![side(&join.left), side(&join.right)]
}

fn only_renames(node: &LogicalPlan) -> bool {
    match node {
        LogicalPlan::SubqueryAlias(_) => true,
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().all(|expr| matches!(expr.clone().unalias(), Expr::Column(_)))
        }
        _ => false,
    }
}

fn annotate(node: &LogicalPlan, streaming: bool) -> Result<(String, bool)> {
    if let LogicalPlan::TableScan(scan) = node {
        let provider = source_as_provider(&scan.source)?;
        if let Some(table) = as_epoch(&provider) {
            let source = &table.declared.source;
            let note = match (source.connector(), source.bounded()) {
                (DELTA, _) => "lake table, what each commit adds; append-only".to_owned(),
                (connector, true) => format!("bounded source, {connector}, append-only"),
                (connector, false) => format!("source, {connector}, append-only"),
            };
            return Ok((note, true));
        }
        let what = as_lake(&provider).map_or("table", |_| "lake table");
        return Ok((format!("{what}, snapshot of each epoch"), false));
    }
    if let Some(stateful) = as_stateful(node) {
        let names = |key: &Vec<Column>| {
            let names: Vec<&str> = key.iter().map(|column| column.name.as_str()).collect();
            format!(", key ({})", names.join(", "))
        };
        let key = stateful.key.as_ref().filter(|key| !key.is_empty()).map(names);
        let key = key.unwrap_or_default();
        return Ok((format!("{}{key}; {}", mode(node), stateful.notes.join("; ")), true));
    }
    let note = match (streaming, node) {
        (true, LogicalPlan::Join(_)) => {
            format!("{}, no state: joins the snapshot of each epoch", mode(node))
        }
        (true, _) => format!("{}, no state", mode(node)),
        (false, _) => "batch, computed on the snapshot of each epoch".to_owned(),
    };
    Ok((note, streaming))
}

/// The mode of a node's changelog.
fn mode(node: &LogicalPlan) -> &'static str {
    match has_weight(node.schema().as_arrow()) {
        true => "retracting",
        false => "append-only",
    }
}
