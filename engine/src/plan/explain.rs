//! `EXPLAIN INCREMENTAL`: how a continuous query is kept up to date.
//!
//! One line a node of the optimized logical plan, with what an epoch feeds it,
//! the mode of its changelog and the state that it keeps.

use std::fmt::Write;

use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::LogicalPlan;

use crate::error::Result;
use crate::plan::{ContinuousPlan, as_epoch, as_lake};

/// Draws the incremental plan, indented by two blanks a level.
pub fn explain(plan: &ContinuousPlan) -> Result<String> {
    let mut out = String::new();
    draw(&plan.optimized()?, 0, &mut out)?;
    Ok(out)
}

/// Draws `node` and what is below; answers whether rows of a source flow through it.
fn draw(node: &LogicalPlan, depth: usize, out: &mut String) -> Result<bool> {
    let mut below = String::new();
    let mut streaming = false;
    for input in node.inputs() {
        streaming |= draw(input, depth + 1, &mut below)?;
    }
    let (note, own) = annotate(node, streaming)?;
    // Writing to a String can't fail.
    let _ = writeln!(out, "{:indent$}{}  [{note}]", "", node.display(), indent = depth * 2);
    out.push_str(&below);
    Ok(own)
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
    let note = match (streaming, node) {
        (true, LogicalPlan::Join(_)) => "append-only, no state: joins the snapshot of each epoch",
        (true, _) => "append-only, no state",
        (false, _) => "batch, computed on the snapshot of each epoch",
    };
    Ok((note.into(), streaming))
}
