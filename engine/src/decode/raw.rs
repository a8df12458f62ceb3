//! `format = 'raw'`: the payload as it is, in the source's only payload column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, SchemaRef};

use crate::decode::payload::Text;
use crate::decode::value::{Excluded, type_name};
use crate::decode::{Decoder, Layout, RawBatch, is_payload};
use crate::error::{Error, Result};
use crate::source::{Chunk, Rejected};

pub(crate) struct RawDecoder {
    layout: Layout,
    /// Of the payload column, if it is projected.
    wanted: Option<DataType>,
}

impl RawDecoder {
    pub fn new(schema: &SchemaRef, projection: &[usize]) -> Result<Self> {
        let columns: Vec<&FieldRef> = schema.fields().iter().filter(|f| is_payload(f)).collect();
        let [column] = columns.as_slice() else {
            return Err(Error::invalid_hint(
                format!("format 'raw' fills one column, {} are declared", columns.len()),
                "declare one VARCHAR or BYTEA column beside the metadata columns",
            ));
        };
        use DataType::{Binary, LargeBinary, LargeUtf8, Utf8};
        if !matches!(column.data_type(), Binary | LargeBinary | Utf8 | LargeUtf8) {
            return Err(Error::invalid_hint(
                format!(
                    "column \"{}\" can't hold a raw payload as {}",
                    column.name(),
                    type_name(column.data_type())
                ),
                "declare it VARCHAR or BYTEA and convert it in the query",
            ));
        }
        let layout = Layout::new(schema, projection)?;
        let wanted = layout.payload_fields().next().map(|field| field.data_type().clone());
        Ok(Self { layout, wanted })
    }
}

impl Decoder for RawDecoder {
    fn decode(&mut self, raw: RawBatch) -> Result<(Chunk, Vec<Rejected>)> {
        let mut excluded = Excluded::default();
        for row in (0..raw.len()).filter(|row| raw.payloads.is_null(*row)) {
            excluded.skip(row);
        }
        let array = match &self.wanted {
            None => None,
            Some(wanted) if matches!(wanted, DataType::Binary | DataType::LargeBinary) => {
                Some(cast(&raw.payloads, wanted)?)
            }
            Some(wanted) => Some(cast(&texts(&raw.payloads, &mut excluded)?, wanted)?),
        };
        self.layout.assemble(raw, array.as_slice(), excluded)
    }
}

/// The payloads as strings, without a copy where all are UTF-8.
fn texts(payloads: &BinaryArray, excluded: &mut Excluded) -> Result<ArrayRef> {
    if let Ok(texts) = StringArray::try_from_binary(payloads.clone()) {
        return Ok(Arc::new(texts));
    }
    let text = Text::new(payloads, excluded)?;
    let record = |row| {
        let valid = payloads.is_valid(row);
        valid.then(|| text.text.get(text.record(row)).unwrap_or_default())
    };
    Ok(Arc::new((0..payloads.len()).map(record).collect::<StringArray>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Format, decoder};
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{Field, Schema};

    fn raw(payloads: Vec<Option<&[u8]>>) -> RawBatch {
        RawBatch {
            origin: "t".into(),
            partition: 0,
            offsets: Int64Array::from_iter_values(0..payloads.len() as i64),
            timestamps: None,
            payloads: BinaryArray::from_opt_vec(payloads),
            keys: None,
            headers: None,
        }
    }

    fn schema(data_type: DataType) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("line", data_type, true)]))
    }

    #[test]
    fn text_and_bytes() {
        let records = || raw(vec![Some(b"a"), None, Some(b"\xff"), Some(b"")]);
        let mut text = decoder(&Format::Raw, &schema(DataType::Utf8), &[0]).unwrap();
        let (chunk, rejected) = text.decode(records()).unwrap();
        let lines: Vec<_> = chunk.batch.column(0).as_string::<i32>().iter().collect();
        assert_eq!(lines, [Some("a"), Some("")]);
        assert_eq!(rejected.iter().map(|r| r.offset).collect::<Vec<_>>(), [1, 2]);
        let mut bytes = decoder(&Format::Raw, &schema(DataType::Binary), &[0]).unwrap();
        let (chunk, rejected) = bytes.decode(records()).unwrap();
        assert_eq!(chunk.batch.column(0).as_binary::<i32>().value(1), b"\xff");
        assert_eq!(rejected.len(), 1);
    }

    #[test]
    fn other_columns_are_refused() {
        let error = decoder(&Format::Raw, &schema(DataType::Int64), &[0]).err().unwrap();
        assert!(error.to_string().contains("BIGINT"), "{error}");
    }
}
