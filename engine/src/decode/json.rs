//! `format = 'json'`: one JSON object a record.
//!
//! The rules, so that nobody needs to guess:
//!
//! - Keys are matched with column names exactly, case included. A missing key is
//!   NULL, a further key is ignored, of a key that comes twice the last value counts.
//! - The whole record must be strict JSON (RFC 8259), also where no column is wanted:
//!   no trailing commas, no bare `NaN`, nothing after the object, nesting up to 128.
//! - `null`, an empty record, an array or a scalar is no row: it is rejected. A NULL payload
//!   is a tombstone: [`super::tombstone`].
//! - What each type takes: [`super::number`], [`super::text`], [`super::time`], [`super::nested`].

use arrow::array::Array;
use arrow::datatypes::SchemaRef;

use crate::decode::payload::Text;
use crate::decode::scan::{Keys, Scanner, Syntax};
use crate::decode::value::{Cells, Column, Excluded, Span, column, cut};
use crate::decode::{Decoder, Layout, RawBatch, TimestampUnit};
use crate::error::Result;
use crate::source::{Chunk, Rejected};

pub(crate) struct JsonDecoder {
    layout: Layout,
    keys: Keys,
    columns: Vec<Box<dyn Column>>,
    /// Column after column, a span for each row; kept for its memory.
    spans: Vec<Span>,
}

impl JsonDecoder {
    pub fn new(schema: &SchemaRef, projection: &[usize], unit: TimestampUnit) -> Result<Self> {
        let layout = Layout::new(schema, projection)?;
        let keys = Keys::new(layout.payload_fields().map(|field| field.name().as_str()));
        let columns = layout
            .payload_fields()
            .map(|field| column(field.name(), field, unit))
            .collect::<Result<_>>()?;
        Ok(Self { layout, keys, columns, spans: Vec::new() })
    }

    /// Fills the spans; records that are no JSON objects are excluded.
    fn scan(&mut self, raw: &RawBatch, text: &Text<'_>, excluded: &mut Excluded) {
        let rows = raw.len();
        self.spans.clear();
        self.spans.resize(rows * self.columns.len(), Span::MISSING);
        let Self { spans, keys, .. } = self;
        for row in 0..rows {
            if raw.payloads.is_null(row) {
                excluded.skip(row);
            } else if excluded.rows.is_empty() || !excluded.rows.contains_key(&row) {
                let record = text.record(row);
                let bytes = text.text.as_bytes().get(..record.end).unwrap_or_default();
                let set = |column: usize, span| spans[column * rows + row] = span;
                match Scanner::new(bytes, record.start).record(keys, set) {
                    Ok(()) => continue,
                    Err(fault) => {
                        let whole = text.text.get(record.clone()).unwrap_or_default();
                        excluded.reject(row, || no_json(whole, record.start, fault));
                    }
                }
            }
            spans.iter_mut().skip(row).step_by(rows).for_each(|span| *span = Span::MASKED);
        }
    }
}

impl Decoder for JsonDecoder {
    fn decode(&mut self, raw: RawBatch) -> Result<(Chunk, Vec<Rejected>)> {
        let rows = raw.len();
        let mut excluded = Excluded::default();
        let text = Text::new(&raw.payloads, &mut excluded)?;
        self.scan(&raw, &text, &mut excluded);
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (nth, column) in self.columns.iter_mut().enumerate() {
            let spans = &self.spans[nth * rows..(nth + 1) * rows];
            let cells = Cells { text: &text.text, spans, owners: None };
            arrays.push(column.decode(cells, &mut excluded)?);
        }
        drop(text);
        self.layout.assemble(raw, &arrays, excluded)
    }
}

#[cold]
fn no_json(record: &str, start: usize, fault: Syntax) -> String {
    if record.trim().is_empty() {
        return "the record is empty, not a JSON object".into();
    }
    let at = fault.at.saturating_sub(start);
    let record = cut(record);
    format!("the record is not a JSON object: expected {} at byte {at} of {record}", fault.expected)
}

#[cfg(test)]
mod tests;
