//! Rows for programs: CSV with a header, a JSON array, a JSON object a line.
//!
//! Nothing is held back: memory does not grow with the result.

use std::io::Write;
use std::sync::Arc;

use anyhow::Result;
use arrow::array::{Array, ArrayRef, RecordBatch, StringBuilder};
use arrow::csv::WriterBuilder as CsvBuilder;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::json::writer::{
    EncoderOptions, LineDelimited, WriterBuilder as JsonBuilder, make_encoder,
};

use super::RowWriter;

pub struct Csv {
    schema: SchemaRef,
    header_written: bool,
}

impl Csv {
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, header_written: false }
    }

    fn write(&mut self, out: &mut dyn Write, batch: &RecordBatch) -> Result<()> {
        let header = !std::mem::replace(&mut self.header_written, true);
        let mut writer = CsvBuilder::new().with_header(header).build(out);
        Ok(writer.write(&flat(batch)?)?)
    }
}

impl RowWriter for Csv {
    fn batch(&mut self, out: &mut dyn Write, batch: &RecordBatch) -> Result<()> {
        self.write(out, batch)
    }

    fn flush(&mut self, _out: &mut dyn Write) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<()> {
        if self.header_written {
            return Ok(());
        }
        let empty = RecordBatch::new_empty(self.schema.clone());
        self.write(out, &empty)
    }
}

/// CSV has no nested values: they are written as JSON.
fn flat(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema();
    if !schema.fields().iter().any(|field| field.data_type().is_nested()) {
        return Ok(batch.clone());
    }
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if field.data_type().is_nested() {
            fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
            columns.push(as_json(field, column)?);
        } else {
            fields.push(field.clone());
            columns.push(column.clone());
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn as_json(field: &FieldRef, column: &ArrayRef) -> Result<ArrayRef> {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(field, column.as_ref(), &options)?;
    let mut texts = StringBuilder::with_capacity(column.len(), 0);
    let mut buffer = Vec::new();
    for row in 0..column.len() {
        if encoder.is_null(row) {
            texts.append_null();
            continue;
        }
        buffer.clear();
        encoder.encode(row, &mut buffer);
        texts.append_value(String::from_utf8_lossy(&buffer));
    }
    Ok(Arc::new(texts.finish()))
}

/// An object a row: one a line, or as the elements of one array.
pub struct Json {
    array: bool,
    rows: u64,
}

impl Json {
    pub fn array() -> Self {
        Self { array: true, rows: 0 }
    }

    pub fn lines() -> Self {
        Self { array: false, rows: 0 }
    }
}

impl RowWriter for Json {
    fn batch(&mut self, out: &mut dyn Write, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let mut lines = Vec::new();
        let builder = JsonBuilder::new().with_explicit_nulls(true);
        builder.build::<_, LineDelimited>(&mut lines).write(batch)?;
        if !self.array {
            self.rows += batch.num_rows() as u64;
            return Ok(out.write_all(&lines)?);
        }
        // A raw newline can't stand inside a JSON text: every one ends a row.
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            out.write_all(if self.rows == 0 { b"[\n  " } else { b",\n  " })?;
            out.write_all(line)?;
            self.rows += 1;
        }
        Ok(())
    }

    fn flush(&mut self, _out: &mut dyn Write) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<()> {
        match (self.array, self.rows) {
            (false, _) => Ok(()),
            (true, 0) => Ok(out.write_all(b"[]\n")?),
            (true, _) => Ok(out.write_all(b"\n]\n")?),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, ListArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn batch() -> RecordBatch {
        let lists =
            ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
        RecordBatch::try_from_iter_with_nullable([
            ("id", Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef, true),
            ("list", Arc::new(lists) as ArrayRef, true),
        ])
        .unwrap()
    }

    fn printed(mut writer: impl RowWriter, batches: &[RecordBatch]) -> String {
        let mut out = Vec::new();
        for batch in batches {
            writer.batch(&mut out, batch).unwrap();
        }
        writer.finish(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn csv_has_one_header_and_nested_values_as_json() {
        let text = printed(Csv::new(batch().schema()), &[batch(), batch()]);
        assert_eq!(text, "id,list\n1,\"[1,null]\"\n,\n1,\"[1,null]\"\n,\n");
        assert_eq!(printed(Csv::new(batch().schema()), &[]), "id,list\n");
    }

    #[test]
    fn json_is_one_array_over_all_batches() {
        let text = printed(Json::array(), &[batch(), batch()]);
        let rows: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[1], serde_json::json!({"id": null, "list": null}));
        assert_eq!(printed(Json::array(), &[]), "[]\n");
    }

    #[test]
    fn ndjson_is_an_object_a_line() {
        let text = printed(Json::lines(), &[batch()]);
        assert_eq!(text, "{\"id\":1,\"list\":[1,null]}\n{\"id\":null,\"list\":null}\n");
    }
}
