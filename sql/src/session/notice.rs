//! Notices beside rows: what a reader should know that is known only once all was read.
//!
//! A notice travels behind the rows, in a batch without rows whose schema has it among its
//! metadata. Who does not look for it sees an empty batch.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use tidemill_engine::source::LeftOut;

const NOTICE: &str = "tidemill.notice";

/// The notice that a batch carries.
pub fn notice_of(batch: &RecordBatch) -> Option<String> {
    batch.schema_ref().metadata().get(NOTICE).cloned()
}

/// A batch without rows that carries a notice.
pub fn noticed(schema: &SchemaRef, notice: String) -> RecordBatch {
    let metadata = HashMap::from([(NOTICE.to_owned(), notice)]);
    RecordBatch::new_empty(Arc::new(schema.as_ref().clone().with_metadata(metadata)))
}

/// Has the scans of a statement count the records that they leave out.
pub(crate) fn count_left_out(state: &mut SessionState) -> Arc<LeftOut> {
    let left_out = Arc::new(LeftOut::default());
    state.config_mut().set_extension(Arc::clone(&left_out));
    left_out
}

/// The rows, and behind them a notice of what was left out.
pub(super) fn with_notice(
    rows: SendableRecordBatchStream,
    left_out: Arc<LeftOut>,
) -> SendableRecordBatchStream {
    let schema = rows.schema();
    let told = Arc::clone(&schema);
    let last = stream::once(async move { left_out.notice().map(|notice| noticed(&told, notice)) });
    let last = last.filter_map(|batch| async move { batch.map(Ok) });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows.chain(last)))
}
