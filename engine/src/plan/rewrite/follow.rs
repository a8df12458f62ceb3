//! Tables and constants whose rows come out by themselves.
//!
//! Beside a source a table is looked up, as it is when the epoch starts. Where its rows are
//! in the result without a row of a source (in a `UNION ALL`, unmatched in an outer join, or
//! because the query reads no source), it is a source itself: what it holds at first, then
//! what each commit adds. Constants in such a place come in the first epoch.

use std::any::Any;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::functions_table::generate_series::GenerateSeriesTable;
use datafusion::logical_expr::{LogicalPlan, TableScan, TableScanBuilder};

use crate::error::{Error, Result};
use crate::lake::{Contents, LakeTable};
use crate::plan::info::Info;
use crate::plan::node::Op;
use crate::plan::rewrite::{Node, Rewriter, without_weight};
use crate::plan::scan::EpochTable;
use crate::plan::{Input, as_epoch, as_lake};
use crate::source::DeclaredSource;

/// Which tables are sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Following {
    Nothing,
    /// Materialized views that only grow; tables are looked up.
    Views,
    Tables,
}

impl Following {
    fn covers(self, table: &LakeTable) -> bool {
        match table.contents() {
            Contents::Changing => false,
            Contents::Growing => self >= Following::Views,
            Contents::Inserted => self == Following::Tables,
        }
    }
}

impl Rewriter {
    /// Rewrites what has to put out rows by itself: follows no more tables than that takes.
    pub(super) fn streaming(&mut self, plan: &LogicalPlan) -> Result<Node> {
        let outer = self.following;
        for following in [Following::Nothing, Following::Views, Following::Tables] {
            self.following = outer.max(following);
            let node = self.node(plan);
            self.following = outer;
            if !matches!(&node, Ok(node) if !node.info.streaming) {
                return node;
            }
        }
        match unfollowed(plan)? {
            None => self.once(plan),
            Some((name, true)) => Err(Error::invalid_hint(
                format!(
                    "rows of \"{name}\" change after they were written, and only what grows can be \
                     followed"
                ),
                "write the query over the sources of that view, or compute it when it is read: \
                 CREATE VIEW",
            )),
            Some((name, false)) => Err(Error::invalid_hint(
                format!("nobody tells when rows of \"{name}\" change, so it can't be followed"),
                "join it with a source, or use CREATE VIEW",
            )),
        }
    }

    /// Whether rows of a source flow through a plan.
    pub(super) fn reads_source(&self, plan: &LogicalPlan) -> Result<bool> {
        if let LogicalPlan::TableScan(scan) = plan {
            let provider = source_as_provider(&scan.source)?;
            let followed = as_lake(&provider).is_some_and(|table| self.following.covers(table));
            return Ok(followed || as_epoch(&provider).is_some());
        }
        for input in plan.inputs() {
            if self.reads_source(input)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A scan of a table that is followed.
    pub(super) fn follow(
        &mut self,
        scan: &TableScan,
        provider: Arc<dyn TableProvider>,
    ) -> Result<Node> {
        let shared: Arc<dyn Any + Send + Sync> = provider;
        let table: Arc<LakeTable> =
            shared.downcast().map_err(|_| Error::internal("a source that is none"))?;
        // A table has an end whenever it is looked at.
        let small = table.contents() == Contents::Inserted;
        let name = table.name().to_owned();
        let new = || Input::new(DeclaredSource::following(table));
        let input = self.inputs.entry(name).or_insert_with(new);
        let provider = Arc::new(EpochTable {
            declared: input.declared.clone(),
            slot: Arc::clone(&input.slot),
        });
        // Its filters stand above it as well: a table only skips files by them.
        let whole = TableScanBuilder::new(scan.table_name.clone(), provider_as_source(provider))
            .with_projection(scan.projection.clone())
            .build()?;
        let info = Info { streaming: true, small, ..Info::default() };
        Ok(Node { plan: LogicalPlan::TableScan(whole), info })
    }

    /// Rows that hang on nothing that is read.
    fn once(&mut self, plan: &LogicalPlan) -> Result<Node> {
        let info = Info { streaming: true, small: true, ..Info::default() };
        let schema = without_weight(plan.schema());
        let notes = vec!["put out in the first epoch".to_owned()];
        self.stateful(Op::Once, vec![plan.clone()], &schema, info, notes)
    }
}

/// A table that keeps a plan from being constant, and whether it is one of the lake.
fn unfollowed(plan: &LogicalPlan) -> Result<Option<(String, bool)>> {
    if let LogicalPlan::TableScan(scan) = plan {
        let provider = source_as_provider(&scan.source)?;
        let any = provider.as_ref() as &dyn Any;
        return Ok(match any.is::<GenerateSeriesTable>() || any.is::<CteWorkTable>() {
            true => None,
            false => Some((scan.table_name.table().to_owned(), as_lake(&provider).is_some())),
        });
    }
    for input in plan.inputs() {
        if let Some(found) = unfollowed(input)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
