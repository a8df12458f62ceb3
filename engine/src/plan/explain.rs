//! `EXPLAIN INCREMENTAL`: how a continuous query is kept up to date.
//!
//! A line for each node of the incremental plan, and under it the mode of its changelog, the
//! state that it keeps and what frees it. Nodes that only rename columns are left out.

mod text;

use std::fmt::Write;

use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::changelog::has_weight;
use crate::error::Result;
use crate::plan::node::Stateful;
use crate::plan::{ContinuousPlan, as_epoch, as_lake};

/// Draws the incremental plan, indented by two blanks a level.
pub fn explain(plan: &ContinuousPlan) -> Result<String> {
    let mut out = String::new();
    draw(plan.incremental(), 0, true, &mut out)?;
    if plan.info().retracting && plan.key().is_none() {
        out.push_str("warning: the result has no key: rows are told apart by all their columns\n");
    }
    Ok(out)
}

/// Draws `node` and what is below; answers whether rows of a source flow through it.
fn draw(node: &LogicalPlan, depth: usize, root: bool, out: &mut String) -> Result<bool> {
    let shown = root || !only_renames(node);
    let mut below = String::new();
    let mut streaming = false;
    for input in node.inputs() {
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
            let kind = if source.bounded() { "bounded " } else { "" };
            let note = format!("{kind}source, {}, append-only", source.connector());
            return Ok((note, true));
        }
        let what = as_lake(&provider).map_or("table", |_| "lake table");
        return Ok((format!("{what}, snapshot of each epoch"), false));
    }
    if let LogicalPlan::Extension(extension) = node
        && let Some(stateful) = extension.node.as_any().downcast_ref::<Stateful>()
    {
        return Ok((format!("{}; {}", mode(node), stateful.notes.join("; ")), true));
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
