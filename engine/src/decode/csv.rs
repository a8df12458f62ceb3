//! `format = 'csv'`: records after RFC 4180.
//!
//! Fields belong to columns by the header's names where there is a header (a
//! column that it does not name is NULL), else by position among the source's
//! payload columns. An empty field is NULL, `""` is the empty string. A line with more or
//! fewer fields than there are columns is rejected, as a cut line is. A record may hold line
//! breaks in quoted fields; files are cut into records at every line break, so that both
//! halves are rejected, unless they are read with `csv.multiline`.
//! What each type takes is as in JSON strings.

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::SchemaRef;

use crate::decode::payload::Text;
use crate::decode::value::{Cells, Column, Excluded, Kind, Span, column, cut};
use crate::decode::{Decoder, Layout, RawBatch, TimestampUnit, is_payload};
use crate::error::Result;
use crate::source::{Chunk, Rejected};

pub(crate) struct CsvDecoder {
    layout: Layout,
    delimiter: u8,
    /// For each field of a line the projected column that it belongs to.
    columns_of: Vec<Option<usize>>,
    columns: Vec<Box<dyn Column>>,
    spans: Vec<Span>,
}

impl CsvDecoder {
    /// `header` names the fields of a line; without it they are the payload columns of `schema`.
    pub fn new(
        schema: &SchemaRef,
        projection: &[usize],
        delimiter: u8,
        header: Option<&[String]>,
        unit: TimestampUnit,
    ) -> Result<Self> {
        let layout = Layout::new(schema, projection)?;
        let wanted: Vec<&str> =
            layout.payload_fields().map(|field| field.name().as_str()).collect();
        let place = |name: &str| wanted.iter().position(|wanted| *wanted == name);
        let columns_of = match header {
            Some(names) => names.iter().map(|name| place(name)).collect(),
            None => {
                let fields = schema.fields().iter().filter(|field| is_payload(field));
                fields.map(|field| place(field.name())).collect()
            }
        };
        let columns = layout
            .payload_fields()
            .map(|field| column(field.name(), field, unit))
            .collect::<Result<_>>()?;
        Ok(Self { layout, delimiter, columns_of, columns, spans: Vec::new() })
    }

    fn scan(&mut self, raw: &RawBatch, text: &Text<'_>, excluded: &mut Excluded) {
        let rows = raw.len();
        self.spans.clear();
        self.spans.resize(rows * self.columns.len(), Span::MISSING);
        for row in 0..rows {
            if raw.payloads.is_null(row) {
                excluded.skip(row);
            } else if excluded.rows.is_empty() || !excluded.rows.contains_key(&row) {
                let record = text.record(row);
                let line = text.text.get(record.clone()).unwrap_or_default();
                match self.line(line, record.start, row, rows) {
                    Ok(()) => continue,
                    Err(fault) => excluded.reject(row, || format!("{fault}: {}", cut(line))),
                }
            }
            self.spans.iter_mut().skip(row).step_by(rows).for_each(|span| *span = Span::MASKED);
        }
    }

    /// Notes the spans of one line, which starts at `start` of the text.
    fn line(&mut self, line: &str, start: usize, row: usize, rows: usize) -> Result<(), String> {
        let mut fields = Fields::new(line, self.delimiter);
        let mut count = 0;
        while let Some(span) = fields.next_field()? {
            if let Some(Some(column)) = self.columns_of.get(count) {
                let (from, to) = (span.start as usize + start, span.end as usize + start);
                let span = Span { start: from as u32, end: to as u32, kind: span.kind };
                self.spans[column * rows + row] = span;
            }
            count += 1;
        }
        let wanted = self.columns_of.len();
        if count == wanted {
            return Ok(());
        }
        Err(format!("the line has {count} fields where {wanted} are expected"))
    }
}

impl Decoder for CsvDecoder {
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

const UNENDED: &str =
    "a quoted field does not end (files with line breaks in fields need csv.multiline = 'true')";

/// The fields of one line.
struct Fields<'a> {
    line: &'a [u8],
    delimiter: u8,
    /// Where the next field starts; None after the last.
    next: Option<usize>,
}

impl<'a> Fields<'a> {
    fn new(line: &'a str, delimiter: u8) -> Self {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let line = line.strip_suffix('\r').unwrap_or(line);
        Self { line: line.as_bytes(), delimiter, next: Some(0) }
    }

    fn next_field(&mut self) -> Result<Option<Span>, String> {
        let Some(start) = self.next else { return Ok(None) };
        if self.line.get(start) == Some(&b'"') {
            return self.quoted(start + 1).map(Some);
        }
        let rest = self.line.get(start..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == self.delimiter || *byte == b'"');
        if length.is_some_and(|length| rest.get(length) == Some(&b'"')) {
            // It may be the second half of a line that a quoted line break cut: not to be guessed.
            return Err("there is a quote in a field that is not quoted".into());
        }
        let end = start + length.unwrap_or(rest.len());
        self.next = length.map(|_| end + 1);
        let kind = if end == start { Kind::Null } else { Kind::Text };
        Ok(Some(Span { start: start as u32, end: end as u32, kind }))
    }

    /// A field whose opening quote is just before `start`.
    fn quoted(&mut self, start: usize) -> Result<Span, String> {
        let (mut at, mut kind) = (start, Kind::Text);
        loop {
            let rest = self.line.get(at..).unwrap_or_default();
            at += rest.iter().position(|byte| *byte == b'"').ok_or(UNENDED)?;
            if self.line.get(at + 1) != Some(&b'"') {
                break;
            }
            kind = Kind::Doubled;
            at += 2;
        }
        self.next = match self.line.get(at + 1) {
            None => None,
            Some(byte) if *byte == self.delimiter => Some(at + 2),
            Some(_) => return Err("there is text behind a quoted field".into()),
        };
        Ok(Span { start: start as u32, end: at as u32, kind })
    }
}

/// The names in a header line.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn header_names(line: &str, delimiter: u8) -> Result<Arc<[String]>, String> {
    let line = line.strip_prefix('\u{feff}').unwrap_or(line);
    let mut fields = Fields::new(line, delimiter);
    let mut names = Vec::new();
    while let Some(span) = fields.next_field()? {
        names.push(span.of(line).replace("\"\"", "\"").trim().to_string());
    }
    Ok(names.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, BinaryArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    fn decode(header: Option<&[String]>, lines: &[&str]) -> (Chunk, Vec<Rejected>) {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8, true),
            Field::new("note", DataType::Utf8, true),
        ]));
        let unit = TimestampUnit::default();
        let mut decoder = CsvDecoder::new(&schema, &[1, 0], b',', header, unit).unwrap();
        let raw = RawBatch {
            origin: "f".into(),
            partition: 0,
            offsets: Int64Array::from_iter_values(0..lines.len() as i64),
            timestamps: None,
            payloads: lines.iter().map(|line| Some(line.as_bytes())).collect::<BinaryArray>(),
            keys: None,
            headers: None,
        };
        decoder.decode(raw).unwrap()
    }

    #[test]
    fn fields_by_position() {
        let lines = ["1,a,", "2,\"a \"\"b\"\", c\",x\r\n", "3,,\"\"", "4,\"\",é"];
        let (chunk, rejected) = decode(None, &lines);
        assert!(rejected.is_empty(), "{rejected:?}");
        let names: Vec<_> = chunk.batch.column(0).as_string::<i32>().iter().collect();
        assert_eq!(names, [Some("a"), Some("a \"b\", c"), None, Some("")]);
        assert_eq!(chunk.batch.column(1).as_primitive::<Int64Type>().values(), &[1, 2, 3, 4]);
    }

    #[test]
    fn fields_by_header() {
        let header = header_names("\u{feff}other,\"id\", name\r\n", b',').unwrap();
        let (chunk, _) = decode(Some(&header), &["x,7,n"]);
        assert_eq!(chunk.batch.column(0).as_string::<i32>().value(0), "n");
        assert_eq!(chunk.batch.column(1).as_primitive::<Int64Type>().values(), &[7]);
    }

    #[test]
    fn bad_lines_are_rejected_and_named() {
        let lines =
            ["1,a", "2,a,b,c", "3,\"a,b", "4,\"a\"b,c", "4,a\"b,c", "x,a,b", ",a,b", "5,a,b"];
        let (chunk, rejected) = decode(None, &lines);
        assert_eq!(chunk.batch.num_rows(), 1);
        let errors: Vec<&str> = rejected.iter().map(|record| record.error.as_str()).collect();
        for (error, wanted) in errors.iter().zip([
            "has 2 fields where 3 are",
            "has 4 fields where 3 are",
            "does not end",
            "behind a quoted field",
            "a quote in a field",
            "column \"id\": \"x\" is not a valid BIGINT",
            "column \"id\" is NOT NULL",
        ]) {
            assert!(error.contains(wanted), "{error}");
        }
        assert_eq!(errors.len(), 7);
    }
}
