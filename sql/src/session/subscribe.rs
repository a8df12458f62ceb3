//! `SUBSCRIBE TO`: the rows of a source as they arrive, without end.
//!
//! Nothing is recorded and nothing is committed: a subscription starts at what
//! is newest and lives as long as its reader. Each row carries the operation
//! (`insert`, or `delete` for a row that was there and is taken away) and the number
//! of the batch it came in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_stream::try_stream;
use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::sql::sqlparser::ast::ObjectName;
use futures::StreamExt;
use tidemill_engine::changelog::split;
use tidemill_engine::epoch::{EpochPlan, OffsetRange, Offsets, Ranges, clamp, ends};
use tidemill_engine::operator::rows::units;
use tidemill_engine::plan::ContinuousPlan;
use tidemill_engine::source::Reader;

use super::{Answer, Session};
use crate::database::name_place;
use crate::error::{Error, Result};
use crate::parser::parse_one;
use crate::plan;
use crate::statement::{Statement, Subscribe, Target};

/// How often the source is asked for new rows.
const POLL: Duration = Duration::from_millis(50);
/// An empty batch goes out after this long without rows, so that nothing on the
/// way takes the stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Rows read at a time.
const ROWS: u64 = 8192;

impl Session {
    pub(super) async fn subscribe(&self, subscribe: &Subscribe) -> Result<Answer> {
        let (plan, schema) = self.subscription(subscribe).await?;
        let tail = Tail::open(plan).await?;
        let context = Arc::new(TaskContext::from(&self.database.state));
        let rows = tail.rows(Arc::clone(&schema), context);
        Ok(Answer::Rows(Box::pin(RecordBatchStreamAdapter::new(schema, rows))))
    }

    pub(super) async fn subscribe_schema(&self, subscribe: &Subscribe) -> Result<SchemaRef> {
        Ok(self.subscription(subscribe).await?.1)
    }

    async fn subscription(&self, subscribe: &Subscribe) -> Result<(ContinuousPlan, SchemaRef)> {
        if subscribe.as_of.is_some() {
            return Err(Error::refused("SUBSCRIBE … AS OF is not supported yet")
                .with_hint("without AS OF it starts with the next row"));
        }
        let plan = self.subscribed_plan(&subscribe.target).await?;
        let mut fields = vec![
            Field::new("operation", DataType::Utf8, false),
            Field::new("epoch", DataType::Int64, false),
        ];
        fields.extend(plan.schema().as_arrow().fields().iter().map(|f| f.as_ref().clone()));
        let plan = ContinuousPlan::new(plan, self.database.state.clone(), &Default::default())?;
        if !plan.tables().is_empty() {
            return Err(Error::refused("SUBSCRIBE does not take a query that joins a table")
                .with_hint("subscribe to the source, or read the materialized view"));
        }
        Ok((plan, Arc::new(Schema::new(fields))))
    }

    async fn subscribed_plan(&self, target: &Target) -> Result<LogicalPlan> {
        match target {
            Target::Query(query) => plan::query(&self.state(), query).await,
            Target::Relation(name) => {
                // Places in the query that is made up here say nothing.
                self.subscribed_relation(name).await.map_err(|error| error.at(name_place(name)))
            }
        }
    }

    async fn subscribed_relation(&self, name: &ObjectName) -> Result<LogicalPlan> {
        let Statement::Query(query) = parse_one(&format!("SELECT * FROM {name}"))?.node else {
            return Err(Error::internal("a SELECT that is no query"));
        };
        plan::query(&self.state(), &query).await
    }
}

/// A plan that follows its sources.
struct Tail {
    plan: ContinuousPlan,
    readers: BTreeMap<String, Box<dyn Reader>>,
    positions: BTreeMap<String, Offsets>,
}

impl Tail {
    async fn open(plan: ContinuousPlan) -> Result<Self> {
        let mut readers = BTreeMap::new();
        let mut positions = BTreeMap::new();
        for (name, input) in plan.inputs() {
            let source = &input.declared.source;
            readers.insert(name.clone(), source.open(input.projection.clone())?);
            positions.insert(name.clone(), ends(&source.available().await?));
        }
        Ok(Self { plan, readers, positions })
    }

    fn rows(
        mut self,
        schema: SchemaRef,
        context: Arc<TaskContext>,
    ) -> impl futures::Stream<Item = Result<RecordBatch, DataFusionError>> + Send {
        try_stream! {
            let mut epoch = 0;
            let mut silent = tokio::time::Instant::now();
            loop {
                if self.fill().await? == 0 {
                    if silent.elapsed() > KEEP_ALIVE {
                        silent = tokio::time::Instant::now();
                        yield RecordBatch::new_empty(Arc::clone(&schema));
                    }
                    tokio::time::sleep(POLL).await;
                    continue;
                }
                epoch += 1;
                silent = tokio::time::Instant::now();
                let physical = self.plan.physical(&now(epoch)).await?;
                let mut rows = execute_stream(physical, Arc::clone(&context))?;
                while let Some(batch) = rows.next().await {
                    let batch = batch?;
                    if batch.num_rows() > 0 {
                        yield marked(&schema, batch, epoch)?;
                    }
                }
                if let Some(states) = self.plan.states() {
                    states.apply().await?;
                }
            }
        }
    }

    /// Reads what is new into the plan's slots; answers how many rows.
    async fn fill(&mut self) -> tidemill_engine::Result<usize> {
        let mut found = 0;
        for (name, input) in self.plan.inputs() {
            let source = &input.declared.source;
            let available = source.available().await?;
            let from = self.positions.entry(name.clone()).or_default();
            let ranges: Ranges = clamp(from, &available, ROWS);
            let mut batches = Vec::new();
            if ranges.values().any(|range: &OffsetRange| !range.is_empty())
                && let Some(reader) = self.readers.get_mut(name)
            {
                let rows = reader.read(&ranges).await?;
                found += rows.len();
                batches = rows.chunks.into_iter().map(|chunk| chunk.batch).collect();
            }
            from.extend(ends(&ranges));
            input.slot.fill(input.projection.clone(), batches);
        }
        Ok(found)
    }
}

/// A plan for rows that are recorded nowhere.
fn now(epoch: u64) -> EpochPlan {
    EpochPlan {
        epoch,
        timestamp_us: chrono::Utc::now().timestamp_micros(),
        sources: BTreeMap::new(),
        ..EpochPlan::default()
    }
}

fn marked(
    schema: &SchemaRef,
    batch: RecordBatch,
    epoch: u64,
) -> Result<RecordBatch, DataFusionError> {
    let (rows, weights) = split(&units(batch)?)?;
    let number = i64::try_from(epoch).unwrap_or(i64::MAX);
    let operation = |weight: &i64| if *weight > 0 { "insert" } else { "delete" };
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(weights.values().iter().map(operation))),
        Arc::new(Int64Array::from_value(number, rows.num_rows())),
    ];
    columns.extend(rows.columns().iter().cloned());
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
