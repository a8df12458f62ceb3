//! Prepared statements and their parameters.
//!
//! Parameters come as Arrow batches, one column a parameter, one row an execution. The
//! columns are taken by position (`$1` first). flightsql-dbapi sends them as a dense
//! union, others as dictionaries; both become the plain value.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use datafusion::common::ScalarValue;
use futures::{Stream, TryStreamExt, future};
use parking_lot::Mutex;
use tidemill_sql::Prepared;
use tonic::Status;

use crate::error::{Error, Result};
use crate::session::ClientSession;
use crate::wire::wire_schema;

/// The values of one execution, `$1` first.
pub(crate) type Row = Vec<ScalarValue>;

/// A prepared statement of a client.
pub(crate) struct Statement {
    pub session: Arc<ClientSession>,
    pub prepared: Arc<Prepared>,
    /// The columns of its result, as they are sent.
    pub schema: SchemaRef,
    /// What was bound last.
    bound: Mutex<Option<Arc<[RecordBatch]>>>,
}

impl Statement {
    pub fn new(session: Arc<ClientSession>, prepared: Prepared) -> Self {
        let schema = match prepared.is_query {
            true => wire_schema(&prepared.schema),
            false => Arc::new(Schema::empty()),
        };
        Self { session, prepared: Arc::new(prepared), schema, bound: Mutex::default() }
    }

    /// One row of values for each execution; a single empty one without parameters.
    pub fn executions(&self) -> Result<Arc<[Row]>> {
        let wanted = self.prepared.parameters.fields().len();
        match self.bound() {
            Some(batches) => rows(&batches, &self.prepared.parameters),
            None if wanted == 0 => Ok(Arc::new([Row::new()])),
            None => Err(Error::request(format!(
                "the statement has {}, and no values were bound: prepare it and bind them",
                counted(wanted)
            ))),
        }
    }

    pub fn bound(&self) -> Option<Arc<[RecordBatch]>> {
        self.bound.lock().clone()
    }

    /// What is bound, where all of its rows can be written at once.
    pub fn rows_to_write(&self) -> Option<Arc<[RecordBatch]>> {
        let batches = self.bound().filter(|_| self.prepared.takes_rows)?;
        let several = batches.iter().map(RecordBatch::num_rows).sum::<usize>() > 1;
        // A union's values have types of their own: they are taken one by one.
        let plain = |field: &FieldRef| !matches!(field.data_type(), DataType::Union(_, _));
        let schema = batches.first()?.schema();
        (several && schema.fields().iter().all(plain)).then_some(batches)
    }

    /// Whether its columns can depend on the values that are bound.
    pub fn is_open(&self) -> bool {
        let mut parameters = self.prepared.parameters.fields().iter();
        self.prepared.is_query && parameters.any(|field| field.data_type() == &DataType::Null)
    }

    /// Binds the rows of `batches`; no batch takes away what was bound.
    pub fn bind(&self, batches: Vec<RecordBatch>) -> Result<()> {
        let (wanted, given) = (
            self.prepared.parameters.fields().len(),
            batches.first().map_or(0, RecordBatch::num_columns),
        );
        if !batches.is_empty() && given != wanted {
            return Err(Error::request(format!(
                "the statement has {}, but {given} values were bound",
                counted(wanted)
            )));
        }
        *self.bound.lock() = (given > 0).then(|| batches.into());
        Ok(())
    }

    /// The parameters' types as clients should know them.
    pub fn parameter_schema(&self) -> SchemaRef {
        let fields = self.prepared.parameters.fields().iter();
        let told = fields.map(|field| Field::new(field.name(), told(field.data_type()), true));
        wire_schema(&Schema::new(told.collect::<Vec<_>>()))
    }
}

/// The type that clients are told of a parameter. The JDBC driver binds by it, and would
/// bind nothing but NULL to the Null type; and it writes its milliseconds unconverted into
/// whatever unit a timestamp has.
fn told(parameter: &DataType) -> DataType {
    match parameter {
        DataType::Null => DataType::Utf8,
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Millisecond, zone.clone()),
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time32(TimeUnit::Millisecond),
        other => other.clone(),
    }
}

/// Reads the batches that follow a DoPut's descriptor; at most `limit` bytes of them.
pub(crate) async fn read_batches(
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    limit: usize,
) -> Result<Vec<RecordBatch>> {
    let mut size = 0;
    let limited = messages.map_err(FlightError::from).and_then(move |message| {
        size += message.data_body.len();
        future::ready(match size <= limit {
            true => Ok(message),
            false => Err(Status::resource_exhausted("too many parameters in one request").into()),
        })
    });
    // A statement without parameters comes as a descriptor alone.
    let data = limited.try_filter(|message| future::ready(!message.data_header.is_empty()));
    let batches = FlightRecordBatchStream::new_from_flight_data(data);
    batches.try_collect().await.map_err(Error::from)
}

/// The rows of the batches as values.
fn rows(batches: &[RecordBatch], parameters: &Schema) -> Result<Arc<[Row]>> {
    let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |at| (batch, at)));
    rows.map(|(batch, at)| row(batch, at, parameters)).collect()
}

fn row(batch: &RecordBatch, at: usize, parameters: &Schema) -> Result<Row> {
    let values = batch.columns().iter().zip(parameters.fields()).map(|(column, parameter)| {
        let value = plain(ScalarValue::try_from_array(column, at)?);
        Ok(match value.is_null() {
            true => ScalarValue::try_from(parameter.data_type()).unwrap_or(ScalarValue::Null),
            false => value,
        })
    });
    values.collect()
}

fn plain(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Dictionary(_, value) => plain(*value),
        ScalarValue::Union(Some((_, value)), _, _) => plain(*value),
        ScalarValue::Union(None, _, _) => ScalarValue::Null,
        other => other,
    }
}

fn counted(parameters: usize) -> String {
    match parameters {
        1 => "1 parameter".to_owned(),
        n => format!("{n} parameters"),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        ArrayRef, Float64Array, Int64Array, NullArray, StringArray, StringDictionaryBuilder,
        UnionArray,
    };
    use arrow::datatypes::{Int32Type, UnionFields};
    use arrow_flight::encode::FlightDataEncoderBuilder;
    use futures::stream;

    use super::*;

    fn parameters(types: &[DataType]) -> Schema {
        let fields = types.iter().enumerate();
        Schema::new(
            fields
                .map(|(n, t)| Field::new(format!("${}", n + 1), t.clone(), true))
                .collect::<Vec<_>>(),
        )
    }

    fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().enumerate().map(|(n, c)| (n.to_string(), c, true)),
        )
        .unwrap()
    }

    /// [7, 'x', 2.5] as flightsql-dbapi sends them.
    fn dense_union() -> UnionArray {
        let fields = UnionFields::from_fields(vec![
            Field::new("string", DataType::Utf8, true),
            Field::new("int", DataType::Int64, true),
            Field::new("float", DataType::Float64, true),
        ]);
        let children: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["x"])),
            Arc::new(Int64Array::from(vec![7])),
            Arc::new(Float64Array::from(vec![2.5])),
        ];
        let offsets = vec![0, 0, 0].into();
        UnionArray::try_new(fields, vec![1, 0, 2].into(), Some(offsets), children).unwrap()
    }

    #[test]
    fn a_dense_union_gives_the_value_of_each_row() {
        let batch = batch(vec![Arc::new(dense_union())]);
        let rows = rows(&[batch], &parameters(&[DataType::Null])).unwrap();
        let values: Vec<&ScalarValue> = rows.iter().map(|row| &row[0]).collect();
        assert_eq!(values[0], &ScalarValue::Int64(Some(7)));
        assert_eq!(values[1], &ScalarValue::from("x"));
        assert_eq!(values[2], &ScalarValue::Float64(Some(2.5)));
    }

    #[test]
    fn rows_of_all_batches_are_executions() {
        let mut tags = StringDictionaryBuilder::<Int32Type>::new();
        tags.extend([Some("a"), None]);
        let first = batch(vec![Arc::new(Int64Array::from(vec![1, 2])), Arc::new(tags.finish())]);
        let last = batch(vec![Arc::new(NullArray::new(1)), Arc::new(StringArray::from(vec!["b"]))]);
        let parameters = parameters(&[DataType::Int64, DataType::Utf8]);
        let rows = rows(&[first, last], &parameters).unwrap();
        assert_eq!(rows[0].as_slice(), [ScalarValue::Int64(Some(1)), ScalarValue::from("a")]);
        assert_eq!(rows[1].as_slice(), [ScalarValue::Int64(Some(2)), ScalarValue::Utf8(None)]);
        assert_eq!(rows[2].as_slice(), [ScalarValue::Int64(None), ScalarValue::from("b")]);
    }

    fn messages(batch: RecordBatch) -> Vec<Result<FlightData, Status>> {
        let encoder = FlightDataEncoderBuilder::new().build(stream::iter([Ok(batch)]));
        futures::executor::block_on_stream(encoder).map(|m| m.map_err(Status::from)).collect()
    }

    #[tokio::test]
    async fn parameters_survive_the_wire_and_have_a_limit() {
        let sent = batch(vec![Arc::new(dense_union())]);
        let read = read_batches(stream::iter(messages(sent.clone())), 1 << 20).await.unwrap();
        let parameters = parameters(&[DataType::Null]);
        assert_eq!(
            rows(&read, &parameters).unwrap(),
            rows(std::slice::from_ref(&sent), &parameters).unwrap()
        );
        let error = read_batches(stream::iter(messages(sent)), 8).await.unwrap_err();
        assert!(error.to_string().contains("too many parameters"), "{error}");
    }

    #[tokio::test]
    async fn a_descriptor_alone_binds_nothing() {
        let alone = stream::iter([Ok(FlightData::default())]);
        assert!(read_batches(alone, 1 << 20).await.unwrap().is_empty());
        assert!(read_batches(stream::empty(), 1 << 20).await.unwrap().is_empty());
    }
}
