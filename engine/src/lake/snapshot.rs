//! A table fixed at one version, as DataFusion reads it.
//!
//! Tables whose files' Parquet is their content are scanned by DataFusion's own
//! Parquet source, planned from the file list in memory. The others (column
//! mapping, deletion vectors, shallow clones) are read by delta-rs's provider,
//! which knows every reader feature but plans slower.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::DateTime;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Result, ScalarValue, Statistics, project_schema};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use deltalake::DeltaTable;
use deltalake::delta_datafusion::{DeltaScanConfig, DeltaScanNext};
use object_store::ObjectMeta;
use tokio::sync::{Mutex, OnceCell};

use crate::lake::bounds;
use crate::lake::files::{DataFile, FileSet};
use crate::lake::layout::Layout;

/// One version of a table.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub version: u64,
    pub layout: Arc<Layout>,
    pub files: FileSet,
    delta_rs: OnceCell<DeltaScanNext>,
    /// The state that delta-rs loaded last for this table, to go on from.
    loaded: Arc<Mutex<Option<DeltaTable>>>,
}

impl Snapshot {
    pub fn new(version: u64, layout: Arc<Layout>, files: FileSet) -> Self {
        Self { version, layout, files, delta_rs: OnceCell::new(), loaded: Arc::default() }
    }

    /// The same table at a later version.
    pub fn next(&self, version: u64, files: FileSet) -> Self {
        Self {
            version,
            layout: self.layout.clone(),
            files,
            delta_rs: OnceCell::new(),
            loaded: self.loaded.clone(),
        }
    }

    fn reads_plain(&self) -> bool {
        self.layout.plain && self.files.is_plain()
    }

    /// Makes the table's object store known to the session.
    fn register_store(&self, session: &dyn Session) {
        let place = &self.layout.place;
        let runtime = session.runtime_env();
        if place.root.injected || runtime.object_store(&place.store_url).is_err() {
            runtime.register_object_store(place.store_url.as_ref(), place.root.store.clone());
        }
    }

    fn plan_scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let partitions = bounds::partition_values(&self.layout, &self.files)?;
        let keep = bounds::prune(session, &self.layout, &self.files, &partitions, filters)?;
        let files = self.partitioned_files(&partitions, keep.as_deref())?;
        if files.is_empty() {
            let schema = project_schema(&self.layout.schema, projection)?;
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let rows = self.rows(keep.as_deref());
        let groups = FileGroup::new(files).split_files(session.config().target_partitions());
        let columns = self.layout.schema.fields().len();
        let statistics = Statistics {
            num_rows: rows,
            total_byte_size: Precision::Absent,
            column_statistics: vec![ColumnStatistics::new_unknown(); columns],
        };
        let source = Arc::new(self.parquet_source(session)?);
        let config = FileScanConfigBuilder::new(self.layout.place.store_url.clone(), source)
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_limit(limit)
            .with_projection_indices(Some(self.scan_projection(projection)))?
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn parquet_source(&self, session: &dyn Session) -> Result<ParquetSource> {
        let schema = &self.layout.schema;
        let partition = |name: &String| Ok(Arc::new(schema.field_with_name(name)?.clone()));
        let partitions: Result<Vec<_>> =
            self.layout.partition_columns.iter().map(partition).collect();
        let table_schema = TableSchema::builder(self.layout.file_schema.clone())
            .with_table_partition_cols(partitions?)
            .build();
        let options = TableParquetOptions {
            global: session.config().options().execution.parquet.clone(),
            ..TableParquetOptions::default()
        };
        let runtime = session.runtime_env();
        let footers = runtime.cache_manager.get_file_metadata_cache();
        let store = runtime.object_store(&self.layout.place.store_url)?;
        Ok(ParquetSource::new(table_schema)
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(CachedParquetFileReaderFactory::new(
                store, footers,
            ))))
    }

    /// Columns of the table as the scan counts them: those of the files, then partitions.
    fn scan_projection(&self, projection: Option<&Vec<usize>>) -> Vec<usize> {
        let layout = &self.layout;
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

    fn partitioned_files(
        &self,
        partitions: &[ArrayRef],
        keep: Option<&[bool]>,
    ) -> Result<Vec<PartitionedFile>> {
        let kept = |(index, _): &(usize, _)| keep.is_none_or(|keep| keep[*index]);
        let file = |(index, file): (usize, &Arc<DataFile>)| {
            let mut part = PartitionedFile::from(self.object_meta(file));
            part.partition_values = partitions
                .iter()
                .map(|values| ScalarValue::try_from_array(values, index))
                .collect::<Result<_>>()?;
            Ok(part)
        };
        self.files.iter().enumerate().filter(kept).map(file).collect()
    }

    fn object_meta(&self, file: &DataFile) -> ObjectMeta {
        ObjectMeta {
            location: file.location(&self.layout.place.path),
            last_modified: DateTime::from_timestamp_millis(file.modified_ms).unwrap_or_default(),
            size: file.size,
            e_tag: None,
            version: None,
        }
    }

    fn rows(&self, keep: Option<&[bool]>) -> Precision<usize> {
        let kept = |index: usize| keep.is_none_or(|keep| keep[index]);
        let files = self.files.iter().enumerate().filter(|(index, _)| kept(*index));
        match files.map(|(_, file)| file.rows).sum::<Option<u64>>() {
            Some(rows) => Precision::Exact(usize::try_from(rows).unwrap_or(usize::MAX)),
            None => Precision::Absent,
        }
    }

    /// delta-rs's provider of this version.
    async fn delta_rs(&self) -> crate::Result<&DeltaScanNext> {
        let load = || async {
            let mut loaded = self.loaded.lock().await;
            let mut table = match loaded.take() {
                Some(table) if table.version() <= Some(self.version) => table,
                _ => DeltaTable::new(self.layout.place.log.clone()),
            };
            table.load_version(self.version).await?;
            let state = table.snapshot()?.snapshot().clone();
            *loaded = Some(table);
            let config = DeltaScanConfig {
                wrap_partition_values: false,
                schema_force_view_types: false,
                ..DeltaScanConfig::new()
            };
            crate::Result::Ok(DeltaScanNext::new(
                state,
                config.with_schema(self.layout.schema.clone()),
            )?)
        };
        self.delta_rs.get_or_try_init(load).await
    }
}

#[async_trait]
impl TableProvider for Snapshot {
    fn schema(&self) -> SchemaRef {
        self.layout.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.register_store(session);
        if self.reads_plain() {
            return self.plan_scan(session, projection, filters, limit);
        }
        self.delta_rs().await?.scan(session, projection, filters, limit).await
    }

    /// Filters skip files and row groups; which rows pass is for the plan above to say.
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    fn statistics(&self) -> Option<Statistics> {
        if !self.reads_plain() {
            return None;
        }
        let mut statistics = Statistics::new_unknown(&self.layout.schema);
        statistics.num_rows = self.rows(None);
        Some(statistics)
    }
}
