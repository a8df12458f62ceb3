//! Constants: rows that come in the first epoch and never again.

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use crate::error::Result;
use crate::operator::{Epoch, Operator, Step};
use crate::state::TableSpec;

/// Lets its input through once.
#[derive(Debug)]
pub struct Once {
    pub rows: SchemaRef,
}

#[async_trait]
impl Operator for Once {
    fn tables(&self) -> Vec<TableSpec> {
        Vec::new()
    }

    fn schema(&self) -> SchemaRef {
        self.rows.clone()
    }

    fn reads(&self, first: bool) -> bool {
        first
    }

    async fn step(&self, epoch: Epoch<'_>) -> Result<Step> {
        Ok(Step { output: epoch.inputs.into_iter().flatten().collect(), ..Step::default() })
    }
}
