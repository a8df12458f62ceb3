//! What a physical plan keeps from epoch to epoch.
//!
//! A plan is made fresh before each execution: its nodes forget what they gathered. One
//! thing is worth keeping: the hash table of a lake table that a stream is joined with. It
//! is the same until the table moves to a new version, and then there is a new plan. So an
//! epoch costs what it brings, however large the table.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::stats::Precision;
use datafusion::common::{JoinType, Result, Statistics};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::{
    ChildrenPropertiesMode, ReplaceChildrenOptions, replace_children_if_necessary,
};
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};

use crate::operator::OperatorExec;
use crate::plan::leaf::LeafExec;
use crate::plan::scan::EpochScanExec;

/// Rows that a stream is said to have, so that joins build their hash table of the table.
const MANY: usize = 1 << 40;

/// What is known of a stream's rows beforehand.
pub fn statistics_of_stream(schema: &Schema) -> Arc<Statistics> {
    let unknown = Statistics::new_unknown(schema);
    Arc::new(Statistics { num_rows: Precision::Inexact(MANY), ..unknown })
}

/// The plan, to be executed once more.
pub fn refresh(plan: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some((table, stream)) = table_and_stream(plan) {
        let children = vec![Arc::clone(table), refresh(stream)?];
        let keep = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
        return Arc::clone(plan).replace_children(children, keep);
    }
    let children = plan.children().into_iter().map(refresh).collect::<Result<Vec<_>>>()?;
    replace_children_if_necessary(Arc::clone(plan), children)?.reset_state()
}

type Plan = Arc<dyn ExecutionPlan>;

/// The sides of a join whose hash table can be kept: it is of a table, and no row of it
/// comes out that has no partner (which are marked in the hash table).
fn table_and_stream(plan: &Plan) -> Option<(&Plan, &Plan)> {
    let join = (plan.as_ref() as &dyn Any).downcast_ref::<HashJoinExec>()?;
    let only_pairs = matches!(
        join.join_type,
        JoinType::Inner
            | JoinType::Right
            | JoinType::RightSemi
            | JoinType::RightAnti
            | JoinType::RightMark
    );
    let collected = *join.partition_mode() == PartitionMode::CollectLeft;
    let keeps = collected && only_pairs && !reads_stream(join.left()) && reads_stream(join.right());
    keeps.then_some((join.left(), join.right()))
}

fn reads_stream(plan: &Plan) -> bool {
    let node = plan.as_ref() as &dyn Any;
    node.is::<EpochScanExec>()
        || node.is::<OperatorExec>()
        || node.is::<LeafExec>()
        || plan.children().into_iter().any(reads_stream)
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Int64Type};
    use datafusion::common::NullEquality;
    use datafusion::datasource::memory::MemorySourceConfig;
    use datafusion::physical_expr::expressions::col;
    use datafusion::physical_plan::collect;
    use datafusion::prelude::SessionContext;

    use super::*;

    fn batch(name: &str, values: &[i64]) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new(name, DataType::Int64, false)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(values.to_vec()))]).unwrap()
    }

    #[tokio::test]
    async fn a_table_is_hashed_once_and_the_stream_read_each_time() {
        let rows = batch("id", &[1, 2, 3]);
        let table =
            MemorySourceConfig::try_new_exec(&[vec![rows.clone()]], rows.schema(), None).unwrap();
        let stream = Arc::new(LeafExec::new(0, batch("key", &[]).schema()));
        let on = vec![(col("id", &table.schema()).unwrap(), col("key", &stream.schema()).unwrap())];
        let join: Plan = Arc::new(
            HashJoinExec::try_new(
                table,
                Arc::clone(&stream) as Plan,
                on,
                None,
                &JoinType::Inner,
                None,
                PartitionMode::CollectLeft,
                NullEquality::NullEqualsNothing,
                false,
            )
            .unwrap(),
        );
        let context = SessionContext::new().task_ctx();
        for (keys, wanted) in [(vec![3, 7], vec![3]), (vec![1, 2, 1], vec![1, 2, 1])] {
            stream.leaf.fill(vec![batch("key", &keys)]);
            let plan = refresh(&join).unwrap();
            let found = collect(Arc::clone(&plan), Arc::clone(&context)).await.unwrap();
            let found: Vec<i64> = found
                .iter()
                .flat_map(|rows| rows.column(1).as_primitive::<Int64Type>().values().to_vec())
                .collect();
            assert_eq!(found, wanted);
            let built = plan.metrics().unwrap().sum_by_name("build_input_rows").unwrap();
            assert_eq!(built.as_usize(), 3);
        }
    }
}
