//! Constants: rows that come in the first epoch and never again.

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use crate::error::Result;
use crate::operator::{Epoch, Operator, Step};
use crate::state::TableSpec;

/// Lets its input through once. The input gives the same rows in every epoch.
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

    async fn step(&self, epoch: Epoch<'_>) -> Result<Step> {
        let Epoch { inputs, first, .. } = epoch;
        let output = if first { inputs.into_iter().flatten().collect() } else { Vec::new() };
        Ok(Step { output, ..Step::default() })
    }
}
