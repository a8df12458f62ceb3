//! Reading data files through DataFusion's Parquet source: the plan of a scan, and
//! single files in the order of their rows.
//!
//! Deleted rows are left out by a row selection on the file, so that row groups,
//! pages and rows are still skipped by filters as in any Parquet file.

use std::sync::Arc;

use chrono::DateTime;
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Result, ScalarValue, Statistics, internal_err};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{
    CachedParquetFileReaderFactory, ParquetRowSelection,
};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use roaring::RoaringBitmap;

use crate::lake::files::DataFile;
use crate::lake::layout::{Layout, Place};
use crate::lake::{bounds, vector};

/// Vectors that are fetched at a time.
const FETCHES: usize = 16;
/// Rows of a batch where files are read whole.
const BATCH_ROWS: usize = 32 << 10;

/// Makes the table's object store known to the session.
pub(super) fn register_store(session: &dyn Session, place: &Place) {
    let runtime = session.runtime_env();
    if place.root.injected || runtime.object_store(&place.store_url).is_err() {
        runtime.register_object_store(place.store_url.as_ref(), place.root.store.clone());
    }
}

/// Has the deletion vectors of `files` at hand from here on.
pub(crate) async fn load_vectors(
    layout: &Layout,
    files: impl Iterator<Item = &Arc<DataFile>>,
) -> crate::Result<()> {
    let far = |file: &&Arc<DataFile>| file.vector.as_ref().is_some_and(|v| v.get().is_none());
    let missing: Vec<Arc<DataFile>> = files.filter(far).cloned().collect();
    let place = &layout.place;
    let load = async |file: Arc<DataFile>| match &file.vector {
        Some(vector) => vector.load(place).await.map(drop),
        None => Ok(()),
    };
    futures::stream::iter(missing).map(load).buffer_unordered(FETCHES).try_collect().await
}

/// A file as DataFusion names it.
pub(super) fn partitioned_file(
    layout: &Layout,
    file: &DataFile,
    partition_values: Vec<ScalarValue>,
) -> PartitionedFile {
    let mut part = PartitionedFile::from(ObjectMeta {
        location: file.location(&layout.place.path),
        last_modified: DateTime::from_timestamp_millis(file.modified_ms).unwrap_or_default(),
        size: file.size,
        e_tag: None,
        version: None,
    });
    part.partition_values = partition_values;
    part
}

/// Leaves the deleted rows out, whose vector must be at hand.
pub(super) fn live_rows_of(part: PartitionedFile, file: &DataFile) -> Result<PartitionedFile> {
    let Some(vector) = &file.vector else { return Ok(part) };
    match vector.live(row_count(file)?) {
        Some(live) => Ok(part.with_extension(ParquetRowSelection::new(live.clone()))),
        None => internal_err!("{}'s vector is not at hand", file.path),
    }
}

fn row_count(file: &DataFile) -> Result<usize> {
    match file.rows.and_then(|rows| usize::try_from(rows).ok()) {
        Some(rows) => Ok(rows),
        None => internal_err!("{} has no row count", file.path),
    }
}

fn without(
    part: PartitionedFile,
    file: &DataFile,
    rows: &RoaringBitmap,
) -> Result<PartitionedFile> {
    if rows.is_empty() {
        return Ok(part);
    }
    let left = vector::all_but(rows, row_count(file)?);
    Ok(part.with_extension(ParquetRowSelection::new(left)))
}

/// What a scan of some files yields.
pub(super) struct Scan<'a> {
    /// Columns of the table; `None` takes all.
    pub projection: Option<&'a Vec<usize>>,
    pub limit: Option<usize>,
    pub rows: Precision<usize>,
}

impl Scan<'_> {
    pub fn plan(
        &self,
        session: &dyn Session,
        layout: &Layout,
        groups: Vec<FileGroup>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = layout.schema.fields().len();
        let statistics = Statistics {
            num_rows: self.rows,
            total_byte_size: Precision::Absent,
            column_statistics: vec![ColumnStatistics::new_unknown(); columns],
        };
        let source = Arc::new(parquet_source(session, layout)?);
        let config = FileScanConfigBuilder::new(layout.place.store_url.clone(), source)
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_limit(self.limit)
            .with_projection_indices(Some(scan_projection(layout, self.projection)))?
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

fn parquet_source(session: &dyn Session, layout: &Layout) -> Result<ParquetSource> {
    let schema = &layout.schema;
    let partition = |name: &String| Ok(Arc::new(schema.field_with_name(name)?.clone()));
    let partitions: Result<Vec<_>> = layout.partition_columns.iter().map(partition).collect();
    let table_schema = TableSchema::builder(layout.file_schema.clone())
        .with_table_partition_cols(partitions?)
        .build();
    let options = TableParquetOptions {
        global: session.config().options().execution.parquet.clone(),
        ..TableParquetOptions::default()
    };
    let runtime = session.runtime_env();
    let footers = runtime.cache_manager.get_file_metadata_cache();
    let store = runtime.object_store(&layout.place.store_url)?;
    Ok(ParquetSource::new(table_schema)
        .with_table_parquet_options(options)
        .with_parquet_file_reader_factory(Arc::new(CachedParquetFileReaderFactory::new(
            store, footers,
        ))))
}

/// Columns of the table as the scan counts them: those of the files, then partitions.
fn scan_projection(layout: &Layout, projection: Option<&Vec<usize>>) -> Vec<usize> {
    let in_scan = |index: usize| {
        let name = layout.schema.field(index).name();
        match layout.partition_columns.iter().position(|partition| partition == name) {
            Some(at) => layout.file_schema.fields().len() + at,
            None => layout.file_schema.index_of(name).unwrap_or(index),
        }
    };
    match projection {
        Some(columns) => columns.iter().map(|index| in_scan(*index)).collect(),
        None => (0..layout.schema.fields().len()).map(in_scan).collect(),
    }
}

/// A file and which of its rows are left out.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub file: Arc<DataFile>,
    pub without: Arc<RoaringBitmap>,
}

/// The rows of each file, in the order that they have in it.
pub(crate) fn files(
    layout: &Layout,
    parts: &[Part],
    projection: Option<&Vec<usize>>,
) -> crate::Result<Vec<SendableRecordBatchStream>> {
    let session = own_session();
    register_store(&session, &layout.place);
    let partitions = bounds::partition_values(layout, parts.iter().map(|part| &part.file))?;
    let scan = Scan { projection, limit: None, rows: Precision::Absent };
    // A plan a file: the streams of one plan share its files among themselves.
    let stream = |(index, Part { file, without: rows }): (usize, &Part)| {
        let values = partitions.iter().map(|values| ScalarValue::try_from_array(values, index));
        let part = partitioned_file(layout, file, values.collect::<Result<_>>()?);
        let part = without(part, file, rows)?;
        let plan = scan.plan(&session, layout, vec![FileGroup::new(vec![part])])?;
        plan.execute(0, session.task_ctx())
    };
    Ok(parts.iter().enumerate().map(stream).collect::<Result<_>>()?)
}

fn own_session() -> SessionState {
    let config = SessionConfig::new().with_batch_size(BATCH_ROWS).with_target_partitions(1);
    SessionStateBuilder::new().with_config(config).build()
}
