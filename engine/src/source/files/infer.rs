//! Which columns a file has, for a source that declares none.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::csv::reader::Format as CsvFormat;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::json::reader::infer_json_schema;
use object_store::{ObjectMeta, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};

use crate::decode::{Format, key_order};
use crate::error::{Error, Result};
use crate::source::files::FileFormat;
use crate::source::files::listing::Place;
use crate::source::files::parquet::StoredFile;

/// Lines and bytes looked at.
const LINES: usize = 1000;
const BYTES: u64 = 4 << 20;

pub(super) async fn schema(
    place: &Place,
    file: &ObjectMeta,
    format: &FileFormat,
) -> Result<SchemaRef> {
    let name = place.display(&file.location);
    let fault = |what: &dyn std::fmt::Display| {
        Error::invalid_hint(
            format!("can't read columns from {name}: {what}"),
            "declare the columns",
        )
    };
    let fields = match format {
        FileFormat::Parquet => {
            let store = Arc::clone(place.store());
            let mut file = StoredFile { store, location: file.location.clone(), size: file.size };
            let loaded =
                ArrowReaderMetadata::load_async(&mut file, ArrowReaderOptions::new()).await;
            loaded.map_err(|error| fault(&error))?.schema().fields().clone()
        }
        FileFormat::Text(format) => {
            let bytes = place.store().get_range(&file.location, 0..file.size.min(BYTES)).await?;
            let cut = match bytes.len() as u64 == file.size {
                true => bytes.len(),
                false => bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1),
            };
            let text = bytes[..cut].strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes[..cut]);
            let schema = text_schema(text, format).map_err(|error| fault(&error))?;
            schema.fields().clone()
        }
    };
    let plain = |field: &Arc<Field>| {
        Field::new(field.name(), plain_type(field.data_type()), field.is_nullable())
    };
    Ok(Arc::new(Schema::new(fields.iter().map(plain).collect::<Vec<_>>())))
}

fn text_schema(text: &[u8], format: &Format) -> Result<Schema> {
    match format {
        Format::Csv { delimiter, header, .. } => {
            let csv = CsvFormat::default().with_header(*header).with_delimiter(*delimiter);
            Ok(csv.infer_schema(text, Some(LINES))?.0)
        }
        Format::Json { .. } => {
            let (schema, _) = infer_json_schema(text, Some(LINES))?;
            // arrow-json has no order; columns come as the keys do.
            let mut order = HashMap::new();
            for key in text.split(|byte| *byte == b'\n').take(LINES).flat_map(key_order) {
                let next = order.len();
                order.entry(key).or_insert(next);
            }
            let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
            fields.sort_by_key(|field| order.get(field.name()).copied().unwrap_or(usize::MAX));
            Ok(Schema::new(fields))
        }
        Format::Raw => Ok(Schema::new(vec![Field::new("line", DataType::Utf8, false)])),
    }
}

/// The type without what only an encoding needs: views, large offsets, dictionaries;
/// timestamps in microseconds, as the lake has them.
fn plain_type(data_type: &DataType) -> DataType {
    let plain = |field: &Arc<Field>| {
        let data_type = plain_type(field.data_type());
        Arc::new(field.as_ref().clone().with_data_type(data_type))
    };
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Date64 => DataType::Date32,
        DataType::Null => DataType::Utf8,
        DataType::List(item) | DataType::LargeList(item) => DataType::List(plain(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain).collect()),
        DataType::Map(entries, sorted) => DataType::Map(plain(entries), *sorted),
        other => other.clone(),
    }
}
