//! Numbers for keys, in the order in which the keys are first seen.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::logical_expr::EmitTo;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use crate::error::Result;

/// Gives each distinct key a number from 0 on. Keys of no columns are all number 0.
pub struct Numbers {
    values: Option<Box<dyn GroupValues>>,
}

impl Numbers {
    /// For keys of columns of these types.
    pub fn new(types: impl IntoIterator<Item = DataType>) -> Result<Self> {
        let fields = types.into_iter().enumerate();
        let fields: Vec<_> = fields.map(|(i, ty)| Field::new(format!("k{i}"), ty, true)).collect();
        if fields.is_empty() {
            return Ok(Self { values: None });
        }
        let schema = Arc::new(Schema::new(fields));
        Ok(Self { values: Some(new_group_values(schema, &GroupOrdering::None)?) })
    }

    /// The number of each of `rows` keys.
    pub fn of(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Vec<usize>> {
        let mut numbers = Vec::with_capacity(rows);
        match &mut self.values {
            Some(values) => values.intern(keys, &mut numbers)?,
            None => numbers.resize(rows, 0),
        }
        Ok(numbers)
    }

    /// How many keys have a number.
    pub fn count(&self) -> usize {
        self.values.as_ref().map_or(1, |values| values.len())
    }

    /// All keys by their number, and how many they are.
    pub fn all(self) -> Result<(Vec<ArrayRef>, usize)> {
        let count = self.count();
        match self.values {
            Some(mut values) => Ok((values.emit(EmitTo::All)?, count)),
            None => Ok((Vec::new(), count)),
        }
    }
}
