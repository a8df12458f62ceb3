//! Keys of a join in one type.
//!
//! DataFusion 55 leaves some in two: where its rule for a single `DISTINCT` has widened a
//! sum, or where a subquery depends on a column of a union. A batch join of such keys
//! fails when it comes to compare them, and a state would not know its own keys.

use datafusion::common::DFSchema;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, cast};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// Casts the keys of joins to the type that they have in common.
#[derive(Debug)]
pub struct KeysOfOneType;

impl OptimizerRule for KeysOfOneType {
    fn name(&self) -> &str {
        "keys_of_one_type"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Join(mut join) = plan else { return Ok(Transformed::no(plan)) };
        let mut changed = false;
        for (left, right) in &mut join.on {
            changed |= of_one_type((left, join.left.schema()), (right, join.right.schema()))?;
        }
        Ok(Transformed::new_transformed(LogicalPlan::Join(join), changed))
    }
}

/// Whether one of them had to be cast. What has no type in common is left as it is.
fn of_one_type(
    (left, left_schema): (&mut Expr, &DFSchema),
    (right, right_schema): (&mut Expr, &DFSchema),
) -> Result<bool> {
    let (l, r) = (left.get_type(left_schema)?, right.get_type(right_schema)?);
    if l == r {
        return Ok(false);
    }
    let Some(common) = comparison_coercion(&l, &r) else { return Ok(false) };
    for (side, own) in [(left, l), (right, r)] {
        if own != common {
            *side = cast(side.clone(), common.clone());
        }
    }
    Ok(true)
}
