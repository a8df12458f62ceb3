//! Batches to messages and back, with what arrow-flight's own encoder leaves out: batches
//! without rows, which keep a connection alive and carry the notices behind an answer.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightRecordBatchStream};
use arrow_flight::error::FlightError;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tidemill_sql::session::{notice_of, noticed};
use tonic::Status;

use super::{FlightDataStream, chunks};
use crate::error::{Error, Result};

/// Encodes batches that have the schema `schema` already. The notice of a batch without rows
/// is the `app_metadata` of its message.
pub(crate) fn encode(
    schema: SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
) -> FlightDataStream {
    let mut encoder = Encoder::default();
    let first = encoder.schema(&schema);
    let messages = batches
        .map_ok(|batch| stream::iter(chunks(batch).into_iter().map(Ok::<_, Error>)))
        .try_flatten()
        .map(move |chunk| encoder.batch(&chunk?))
        .map_ok(|messages| stream::iter(messages.into_iter().map(Ok::<_, Error>)))
        .try_flatten()
        .map_err(|error| Status::from(FlightError::from(error)));
    stream::iter([Ok(first)]).chain(messages).boxed()
}

/// The batches of an answer as [`encode`] has sent them, with their notices.
pub(crate) fn decode(
    answer: FlightRecordBatchStream,
) -> impl Stream<Item = Result<RecordBatch, FlightError>> + Send {
    answer.into_inner().try_filter_map(|message| async move {
        let DecodedPayload::RecordBatch(batch) = message.payload else { return Ok(None) };
        let notice = message.inner.app_metadata;
        if batch.num_rows() > 0 || notice.is_empty() {
            return Ok(Some(batch));
        }
        Ok(Some(noticed(batch.schema_ref(), String::from_utf8_lossy(&notice).into_owned())))
    })
}

struct Encoder {
    ipc: IpcDataGenerator,
    dictionaries: DictionaryTracker,
    options: IpcWriteOptions,
    context: IpcWriteContext,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            ipc: IpcDataGenerator::default(),
            dictionaries: DictionaryTracker::new(false),
            options: IpcWriteOptions::default(),
            context: IpcWriteContext::default(),
        }
    }
}

impl Encoder {
    fn schema(&mut self, schema: &SchemaRef) -> FlightData {
        let (tracker, options) = (&mut self.dictionaries, &self.options);
        self.ipc.schema_to_bytes_with_dictionary_tracker(schema, tracker, options).into()
    }

    /// The messages of a batch, its dictionaries first.
    fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<FlightData>> {
        let (tracker, options) = (&mut self.dictionaries, &self.options);
        let (dictionaries, rows) = self.ipc.encode(batch, tracker, options, &mut self.context)?;
        let mut rows = FlightData::from(rows);
        if let Some(notice) = notice_of(batch) {
            rows.app_metadata = notice.into();
        }
        Ok(dictionaries.into_iter().map(FlightData::from).chain([rows]).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array};

    use super::*;
    use crate::wire::{to_wire, wire_schema};

    async fn received(batches: &[RecordBatch]) -> Vec<RecordBatch> {
        let schema = wire_schema(&batches[0].schema());
        let sent: Vec<_> = batches.iter().map(|batch| to_wire(batch, &schema)).collect();
        let sent = encode(schema, stream::iter(sent)).map_err(Into::into);
        let plain = FlightRecordBatchStream::new_from_flight_data(sent);
        decode(plain).try_collect().await.unwrap()
    }

    fn numbers(to: i32) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int32Array::from_iter_values(0..to));
        RecordBatch::try_from_iter([("n", numbers)]).unwrap()
    }

    #[tokio::test]
    async fn what_is_encoded_decodes_to_itself() {
        let from = numbers(1_500_000);
        let batches = received(std::slice::from_ref(&from)).await;
        let schema = wire_schema(&from.schema());
        assert!(batches.len() > 1);
        assert_eq!(batches[0].schema(), schema);
        let sent = to_wire(&from, &schema).unwrap();
        assert_eq!(arrow::compute::concat_batches(&schema, &batches).unwrap(), sent);
    }

    #[tokio::test]
    async fn a_batch_without_rows_is_sent() {
        let rows = received(&[numbers(0), numbers(2), numbers(0)]).await;
        assert_eq!(rows.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [0, 2, 0]);
    }

    #[tokio::test]
    async fn a_notice_comes_behind_the_rows() {
        let notice = noticed(&numbers(0).schema(), "2 are missing".to_owned());
        let batches = received(&[numbers(3), notice]).await;
        let notices: Vec<_> = batches.iter().map(notice_of).collect();
        assert_eq!(notices, [None, Some("2 are missing".to_owned())]);
        assert_eq!((batches[0].num_rows(), batches[1].num_rows()), (3, 0));
    }
}
