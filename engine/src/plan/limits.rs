//! Limits above sorts while their inputs are put in order.
//!
//! Where the input of a limited sort turns out to have its order already, DataFusion 55
//! drops the sort and gives its limit to the merge of partitions that the order comes from.
//! Windows, filters and joins keep the order too: one that lies between then sees the first
//! rows alone, and counts too few.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::sorts::sort::SortExec;

/// DataFusion's rules for physical plans, with [`LimitsAboveSorts`] before the one that puts
/// inputs in order. A later rule of DataFusion's brings the limits back down.
#[must_use]
pub fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    let sorting = rules.iter().position(|rule| rule.name() == "EnsureRequirements");
    rules.insert(sorting.unwrap_or_default(), Arc::new(LimitsAboveSorts));
    rules
}

/// Makes a limited sort a limit over a sort.
#[derive(Debug)]
pub struct LimitsAboveSorts;

impl PhysicalOptimizerRule for LimitsAboveSorts {
    fn name(&self) -> &str {
        "limits_above_sorts"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let Some(sort) = node.downcast_ref::<SortExec>() else {
                return Ok(Transformed::no(node));
            };
            if sort.fetch().is_none() || sort.preserve_partitioning() {
                return Ok(Transformed::no(node));
            }
            let mut limit = GlobalLimitExec::new(Arc::new(sort.with_fetch(None)), 0, sort.fetch());
            limit.set_required_ordering(Some(sort.expr().clone()));
            Ok(Transformed::yes(Arc::new(limit)))
        })
        .data()
    }
}
