//! Skipping files that can't hold a row a filter lets through, by partition
//! values and by the statistics that the log keeps per file.
//!
//! The statistics (JSON in the log) are decoded a chunk of files at a time into
//! Arrow, one row a file, and stay with the chunk:
//!
//! ```text
//! numRecords: Int64 | minValues: {id, name, …} | maxValues: {…} | nullCount: {…: Int64}
//! ```
//!
//! Floats have no bounds here: the statistics leave NaN out, which SQL orders
//! above every number.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray, StructArray, UInt64Array};
use arrow::compute::{CastOptions, cast, cast_with_options, concat};
use arrow::datatypes::{
    DataType, Field, Fields, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use arrow::json::ReaderBuilder;
use datafusion::catalog::Session;
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_optimizer::pruning::{PruningPredicateBuilder, PruningStatistics};

use crate::lake::files::{Chunk, DataFile, FileSet};
use crate::lake::layout::Layout;

/// Per file whether it may hold rows that pass all `filters`; `None` if nothing can be told.
pub(super) fn prune(
    session: &dyn Session,
    layout: &Layout,
    files: &FileSet,
    partitions: &[ArrayRef],
    filters: &[Expr],
) -> Result<Option<Vec<bool>>> {
    let Some(filter) = conjunction(filters.iter().cloned()) else { return Ok(None) };
    let schema = DFSchema::try_from(layout.schema.clone())?;
    let filter = session.create_physical_expr(filter, &schema)?;
    let predicate =
        PruningPredicateBuilder::new().with_file_schema(layout.schema.clone()).try_build(filter)?;
    if predicate.always_true() {
        return Ok(None);
    }
    predicate.prune(&Bounds { layout, files, partitions }).map(Some)
}

/// The partition columns' values, one row a file, typed as the table's columns.
pub(super) fn partition_values<'a>(
    layout: &Layout,
    files: impl Iterator<Item = &'a Arc<DataFile>> + Clone,
) -> Result<Vec<ArrayRef>> {
    let column = |name: &String| {
        let texts = files.clone().map(|file| partition_value(file, name));
        let texts: StringArray = texts.collect();
        let wanted = layout.schema.field_with_name(name)?.data_type();
        let options = CastOptions { safe: false, ..CastOptions::default() };
        Ok(cast_with_options(&texts, wanted, &options)?)
    };
    layout.partition_columns.iter().map(column).collect()
}

/// The protocol writes NULL as null or as the empty string.
fn partition_value<'a>(file: &'a DataFile, name: &str) -> Option<&'a str> {
    file.partition_values.get(name)?.as_deref().filter(|value| !value.is_empty())
}

struct Bounds<'a> {
    layout: &'a Layout,
    files: &'a FileSet,
    partitions: &'a [ArrayRef],
}

impl Bounds<'_> {
    fn partition(&self, column: &Column) -> Option<ArrayRef> {
        let index = self.layout.partition_columns.iter().position(|name| *name == column.name)?;
        self.partitions.get(index).cloned()
    }

    /// One value a file of `part` (`minValues`, …), NULL where a file does not tell.
    fn statistic(&self, part: &str, column: &str, data_type: &DataType) -> Option<ArrayRef> {
        let chunks = self.files.chunks().iter().map(|chunk| {
            let known = chunk_bounds(chunk, &self.layout.file_schema)
                .and_then(|bounds| bounds.column_by_name(part)?.as_struct().column_by_name(column));
            known.cloned().unwrap_or_else(|| new_nulls(data_type, chunk.files.len()))
        });
        let chunks: Vec<ArrayRef> = chunks.collect();
        let chunks: Vec<&dyn Array> = chunks.iter().map(AsRef::as_ref).collect();
        concat(&chunks).ok()
    }

    fn bound(&self, part: &str, column: &Column) -> Option<ArrayRef> {
        let field = self.layout.file_schema.field_with_name(&column.name).ok()?;
        if !has_bounds(field.data_type()) {
            return None;
        }
        self.statistic(part, &column.name, field.data_type())
    }
}

fn new_nulls(data_type: &DataType, len: usize) -> ArrayRef {
    arrow::array::new_null_array(data_type, len)
}

impl PruningStatistics for Bounds<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.partition(column).or_else(|| self.bound("minValues", column))
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.partition(column).or_else(|| self.bound("maxValues", column).map(round_up))
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        if let Some(values) = self.partition(column) {
            let rows = self.files.iter().map(|file| file.rows);
            let counts = rows.enumerate().map(|(file, rows)| match values.is_null(file) {
                true => rows,
                false => Some(0),
            });
            return Some(Arc::new(counts.collect::<UInt64Array>()));
        }
        let counts = self.statistic("nullCount", &column.name, &DataType::Int64)?;
        cast(&counts, &DataType::UInt64).ok()
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.files.iter().map(|file| file.rows).collect::<UInt64Array>()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// Some writers cut timestamps to milliseconds, so a maximum may be that much too small.
fn round_up(max: ArrayRef) -> ArrayRef {
    match max.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let values = max.as_primitive::<TimestampMicrosecondType>();
            let raised = values
                .unary::<_, TimestampMicrosecondType>(|value| value.saturating_add(999))
                .with_timezone_opt(zone.clone());
            Arc::new(raised)
        }
        _ => max,
    }
}

fn has_bounds(data_type: &DataType) -> bool {
    use DataType::*;
    matches!(
        data_type,
        Int8 | Int16
            | Int32
            | Int64
            | Utf8
            | Date32
            | Decimal128(..)
            | Timestamp(TimeUnit::Microsecond, _)
    )
}

fn chunk_bounds<'a>(chunk: &'a Chunk, file_schema: &Schema) -> Option<&'a StructArray> {
    chunk.bounds.get_or_init(|| decode(&chunk.files, file_schema)).as_ref()
}

/// Statistics of the files as one struct array. One that can't be read makes the
/// chunk tell nothing: its files are then read, never wrongly skipped.
fn decode(files: &[Arc<DataFile>], file_schema: &Schema) -> Option<StructArray> {
    let mut decoder = ReaderBuilder::new(statistics_schema(file_schema))
        .with_batch_size(files.len())
        .build_decoder()
        .ok()?;
    for file in files {
        decoder.decode(file.stats.as_deref().unwrap_or("{}").as_bytes()).ok()?;
    }
    let batch = decoder.flush().ok()??;
    (batch.num_rows() == files.len()).then(|| StructArray::from(batch))
}

fn statistics_schema(file_schema: &Schema) -> SchemaRef {
    let bounded = file_schema.fields().iter().filter(|field| has_bounds(field.data_type()));
    let bounds: Fields =
        bounded.map(|f| Field::new(f.name(), f.data_type().clone(), true)).collect();
    let flat = file_schema.fields().iter().filter(|field| !field.data_type().is_nested());
    let counts: Fields = flat.map(|f| Field::new(f.name(), DataType::Int64, true)).collect();
    Arc::new(Schema::new(vec![
        Field::new("numRecords", DataType::Int64, true),
        Field::new("minValues", DataType::Struct(bounds.clone()), true),
        Field::new("maxValues", DataType::Struct(bounds), true),
        Field::new("nullCount", DataType::Struct(counts), true),
    ]))
}
