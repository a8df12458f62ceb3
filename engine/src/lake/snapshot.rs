//! A table fixed at one version, as DataFusion reads it.
//!
//! Tables whose files' Parquet is their content, less the rows that a deletion
//! vector names, are scanned by DataFusion's own Parquet source, planned from the
//! file list in memory. The others (column mapping, shallow clones) are read by
//! delta-rs's provider, which knows every reader feature but plans slower.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{Result, ScalarValue, Statistics, project_schema};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::FileGroup;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use deltalake::DeltaTable;
use deltalake::delta_datafusion::{DeltaScanConfig, DeltaScanNext};
use tokio::sync::{Mutex, OnceCell};

use crate::lake::files::{DataFile, FileSet};
use crate::lake::layout::Layout;
use crate::lake::{bounds, read};

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

    /// The table's name, for messages.
    pub fn name(&self) -> &str {
        &self.layout.place.name
    }

    /// Whether our own scan reads it right.
    pub fn reads_plain(&self) -> bool {
        self.layout.plain && self.files.is_plain()
    }

    async fn plan_scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let partitions = bounds::partition_values(&self.layout, self.files.iter())?;
        let keep = bounds::prune(session, &self.layout, &self.files, &partitions, filters)?;
        let kept = |(index, _): &(usize, _)| keep.as_ref().is_none_or(|keep| keep[*index]);
        let files: Vec<_> = self.files.iter().enumerate().filter(kept).collect();
        if files.is_empty() {
            let schema = project_schema(&self.layout.schema, projection)?;
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        read::load_vectors(&self.layout, files.iter().map(|(_, file)| *file)).await?;
        let part = |(index, file): &(usize, &Arc<DataFile>)| {
            let values =
                partitions.iter().map(|values| ScalarValue::try_from_array(values, *index));
            let part = read::partitioned_file(&self.layout, file, values.collect::<Result<_>>()?);
            read::live_rows_of(part, file)
        };
        let parts: Vec<PartitionedFile> = files.iter().map(part).collect::<Result<_>>()?;
        let groups = FileGroup::new(parts).split_files(session.config().target_partitions());
        let rows = self.rows(keep.as_deref());
        let scan = read::Scan { projection, limit, rows };
        scan.plan(session, &self.layout, groups)
    }

    fn rows(&self, keep: Option<&[bool]>) -> Precision<usize> {
        let kept = |index: usize| keep.is_none_or(|keep| keep[index]);
        let files = self.files.iter().enumerate().filter(|(index, _)| kept(*index));
        match files.map(|(_, file)| file.live_rows()).sum::<Option<u64>>() {
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
        read::register_store(session, &self.layout.place);
        if self.reads_plain() {
            return self.plan_scan(session, projection, filters, limit).await;
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
