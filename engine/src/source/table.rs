//! A declared source as a DataFusion table.
//!
//! Scanned by a batch query it is the bounded range from where a new query
//! would start to what is available now. A continuous query replaces it by the
//! rows of its epochs ([`crate::plan`]).

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::TryStreamExt;

use crate::epoch::{OffsetRange, Offsets, Ranges, ends};
use crate::error::{Error, Result};
use crate::leaf_node::{leaf_node, leaf_properties};
use crate::operator::upsert::Upsert;
use crate::source::{DeclaredSource, LeftOut, OnError, Rows};

/// Rows that a batch scan reads at a time.
const ROWS_A_READ: u64 = 131_072;

#[derive(Debug, Clone)]
pub struct SourceTable {
    pub declared: DeclaredSource,
}

impl SourceTable {
    pub fn new(declared: DeclaredSource) -> Self {
        Self { declared }
    }
}

#[async_trait]
impl TableProvider for SourceTable {
    fn schema(&self) -> SchemaRef {
        self.declared.source.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let source = &self.declared.source;
        let available = source.available().await?;
        let start = source.start(&available).await?;
        let projection = all_or(projection, &source.schema());
        let ranges = (available.iter())
            .map(|(p, r)| (*p, OffsetRange::new(*start.get(p).unwrap_or(&r.start), r.end)))
            .collect();
        if !self.declared.primary_key.is_empty() {
            return Ok(LastRowsExec::over(&self.declared, projection, ranges)?);
        }
        let parts = split(ranges, state.config().target_partitions());
        Ok(Arc::new(SourceScanExec::new(self.declared.clone(), projection, parts, limit)?))
    }
}

/// The columns that were asked for; all where nothing was said.
pub(crate) fn all_or(projection: Option<&Vec<usize>>, schema: &SchemaRef) -> Vec<usize> {
    projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect())
}

/// Deals source partitions out to at most `n` plan partitions.
fn split(ranges: Ranges, n: usize) -> Vec<Ranges> {
    let n = n.clamp(1, ranges.len().max(1));
    let mut parts = vec![Ranges::new(); n];
    for (index, (partition, range)) in ranges.into_iter().enumerate() {
        parts[index % n].insert(partition, range);
    }
    parts
}

/// Reads fixed ranges of a source once.
#[derive(Debug)]
struct SourceScanExec {
    declared: DeclaredSource,
    projection: Vec<usize>,
    parts: Vec<Ranges>,
    limit: Option<usize>,
    properties: Arc<PlanProperties>,
}

impl SourceScanExec {
    fn new(
        declared: DeclaredSource,
        projection: Vec<usize>,
        parts: Vec<Ranges>,
        limit: Option<usize>,
    ) -> Result<Self> {
        let schema = Arc::new(declared.source.schema().project(&projection)?);
        let properties = Arc::new(leaf_properties(schema, parts.len()));
        Ok(Self { declared, projection, parts, limit, properties })
    }
}

impl DisplayAs for SourceScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let rows: u64 = self.parts.iter().flat_map(|p| p.values()).map(OffsetRange::len).sum();
        let source = &self.declared.source;
        let columns: Vec<_> =
            self.properties.eq_properties.schema().fields().iter().map(|f| f.name()).collect();
        write!(
            f,
            "SourceScanExec: source={}, connector={}, columns={columns:?}, offsets={rows}",
            source.name(),
            source.connector()
        )?;
        self.limit.map_or(Ok(()), |limit| write!(f, ", limit={limit}"))
    }
}

impl ExecutionPlan for SourceScanExec {
    leaf_node!("SourceScanExec");

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let rows = read_in_steps(
            self.declared.clone(),
            self.projection.clone(),
            self.parts[partition].clone(),
            self.limit,
            context.session_config().get_extension::<LeftOut>(),
        );
        let schema = Arc::clone(self.properties.eq_properties.schema());
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

/// Reads fixed ranges of a source with a primary key: the last row of each key.
#[derive(Debug)]
struct LastRowsExec {
    scan: Arc<dyn ExecutionPlan>,
    upsert: Arc<Upsert>,
    /// Where the columns that were asked for stand in the scan.
    columns: Vec<usize>,
    properties: Arc<PlanProperties>,
}

impl LastRowsExec {
    fn over(
        declared: &DeclaredSource,
        wanted: Vec<usize>,
        ranges: Ranges,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut read: Vec<usize> = wanted.iter().chain(&declared.primary_key).copied().collect();
        read.extend(declared.deletes);
        read.sort_unstable();
        read.dedup();
        let place = |column: &usize| read.iter().position(|c| c == column).unwrap_or_default();
        let upsert = Arc::new(Upsert {
            rows: Arc::new(declared.source.schema().project(&read)?),
            key: declared.primary_key.iter().map(place).collect(),
            deletes: declared.deletes.as_ref().map(place),
        });
        let columns: Vec<usize> = wanted.iter().map(place).collect();
        let schema = Arc::new(upsert.rows.project(&columns)?);
        // One after the other: which row is the last depends on their order.
        let scan = SourceScanExec::new(declared.clone(), read.clone(), vec![ranges], None)?;
        let properties = Arc::new(leaf_properties(schema, 1));
        Ok(Arc::new(Self { scan: Arc::new(scan), upsert, columns, properties }))
    }
}

impl DisplayAs for LastRowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let key = self.upsert.key.iter().map(|i| self.upsert.rows.field(*i).name().as_str());
        write!(f, "LastRowsExec: key=[{}]", key.collect::<Vec<_>>().join(", "))
    }
}

impl ExecutionPlan for LastRowsExec {
    leaf_node!("LastRowsExec");

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let rows = self.scan.execute(partition, context)?;
        let (upsert, columns) = (Arc::clone(&self.upsert), self.columns.clone());
        let last = async move {
            let rows: Vec<RecordBatch> = rows.try_collect().await?;
            Ok(upsert.fold(&rows)?.project(&columns)?)
        };
        let schema = Arc::clone(self.properties.eq_properties.schema());
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::once(last))))
    }
}

/// Streams the rows of `ranges`, a bounded number at a time.
fn read_in_steps(
    declared: DeclaredSource,
    projection: Vec<usize>,
    ranges: Ranges,
    limit: Option<usize>,
    left_out: Option<Arc<LeftOut>>,
) -> impl futures::Stream<Item = Result<RecordBatch, DataFusionError>> + Send {
    try_stream! {
        let source = &declared.source;
        let step = limit.map_or(ROWS_A_READ, |limit| (limit as u64).min(ROWS_A_READ));
        let mut reader = source.open(projection)?;
        let mut from: Offsets = ranges.iter().map(|(p, r)| (*p, r.start)).collect();
        let mut left = limit.unwrap_or(usize::MAX);
        while left > 0 && ranges.iter().any(|(p, r)| from.get(p).is_some_and(|at| *at < r.end)) {
            let next = source.clamp(&from, &ranges, step).await?;
            let rows = reader.read(&next).await?;
            refuse_or_count(&declared, &rows, left_out.as_deref())?;
            for chunk in rows.chunks {
                let batch = chunk.batch.slice(0, chunk.batch.num_rows().min(left));
                left -= batch.num_rows();
                yield batch;
            }
            from.extend(ends(&next));
        }
    }
}

/// A batch query has nowhere to put bad records: it fails or goes on without
/// them, as `on_error` says.
fn refuse_or_count(
    declared: &DeclaredSource,
    rows: &Rows,
    left_out: Option<&LeftOut>,
) -> Result<()> {
    let Some(first) = rows.rejected.first() else { return Ok(()) };
    let name = declared.source.name().to_owned();
    if declared.on_error == OnError::Fail {
        return Err(Error::BadRecord {
            name,
            partition: first.partition,
            offset: first.offset,
            message: first.error.clone(),
        });
    }
    tracing::debug!(source = name, records = rows.rejected.len(), "left out bad records");
    if let Some(left_out) = left_out {
        left_out.add(&name, &rows.rejected);
    }
    Ok(())
}
