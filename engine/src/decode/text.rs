//! Strings, bytes and booleans.
//!
//! A VARCHAR takes any value: a string as what it says, a number, `true` or `false`
//! as it is written, an array or an object as its JSON text, so that it can be taken
//! apart in the query. A BYTEA takes base64. A BOOLEAN takes `true` and `false`, also in quotes.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, LargeBinaryArray, LargeStringArray, StringArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use crate::decode::scan::unescape;
use crate::decode::value::{
    Cell, Cells, Column, Excluded, Fault, Kind, Label, NOT_A, Span, Validity, cell,
};
use crate::error::{Error, Result};

pub(crate) struct BooleanColumn {
    label: Label,
}

impl BooleanColumn {
    pub fn new(label: Label) -> Self {
        Self { label }
    }
}

impl Column for BooleanColumn {
    fn decode(&mut self, cells: Cells<'_>, excluded: &mut Excluded) -> Result<ArrayRef> {
        let mut values = vec![false; cells.spans.len()];
        let mut validity = Validity::new(cells.spans.len());
        for (index, value) in values.iter_mut().enumerate() {
            if let Cell::Value = cell(&self.label, cells, index, &mut validity, excluded) {
                match boolean(cells.text, cells.spans[index]) {
                    Some(parsed) => *value = parsed,
                    None => self.label.misfit(cells, index, excluded, NOT_A),
                }
            }
        }
        Ok(Arc::new(BooleanArray::new(BooleanBuffer::from(values), validity.finish())))
    }
}

fn boolean(text: &str, span: Span) -> Option<bool> {
    match span.kind {
        Kind::True => Some(true),
        Kind::False => Some(false),
        Kind::Text if span.of(text).eq_ignore_ascii_case("true") => Some(true),
        Kind::Text if span.of(text).eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

pub(crate) struct StringColumn {
    label: Label,
}

impl StringColumn {
    pub fn new(label: Label) -> Self {
        Self { label }
    }
}

impl Column for StringColumn {
    fn decode(&mut self, cells: Cells<'_>, excluded: &mut Excluded) -> Result<ArrayRef> {
        let (offsets, data, nulls) = bytes(&self.label, cells, excluded, append_text)?;
        let large = self.label.data_type == DataType::LargeUtf8;
        Ok(if large {
            Arc::new(LargeStringArray::try_new(widen(&offsets), data, nulls)?)
        } else {
            Arc::new(StringArray::try_new(offsets, data, nulls)?)
        })
    }
}

pub(crate) struct BinaryColumn {
    label: Label,
}

impl BinaryColumn {
    pub fn new(label: Label) -> Self {
        Self { label }
    }
}

impl Column for BinaryColumn {
    fn decode(&mut self, cells: Cells<'_>, excluded: &mut Excluded) -> Result<ArrayRef> {
        let (offsets, data, nulls) = bytes(&self.label, cells, excluded, append_base64)?;
        let large = self.label.data_type == DataType::LargeBinary;
        Ok(if large {
            Arc::new(LargeBinaryArray::try_new(widen(&offsets), data, nulls)?)
        } else {
            Arc::new(BinaryArray::try_new(offsets, data, nulls)?)
        })
    }
}

type Bytes = (OffsetBuffer<i32>, Buffer, Option<arrow::buffer::NullBuffer>);

/// The parts of a string or binary array; `append` writes one value.
fn bytes(
    label: &Label,
    cells: Cells<'_>,
    excluded: &mut Excluded,
    append: impl Fn(&str, Span, &mut Vec<u8>) -> Result<(), Fault>,
) -> Result<Bytes> {
    let wanted = cells.spans.iter().map(|span| (span.end - span.start) as usize).sum();
    let mut data = Vec::with_capacity(wanted);
    let mut offsets = Vec::with_capacity(cells.spans.len() + 1);
    let mut validity = Validity::new(cells.spans.len());
    offsets.push(0_i32);
    for index in 0..cells.spans.len() {
        if let Cell::Value = cell(label, cells, index, &mut validity, excluded) {
            let before = data.len();
            if let Err(fault) = append(cells.text, cells.spans[index], &mut data) {
                data.truncate(before);
                label.misfit(cells, index, excluded, fault);
            }
        }
        offsets.push(i32::try_from(data.len()).map_err(|_| too_long(label))?);
    }
    Ok((OffsetBuffer::new(ScalarBuffer::from(offsets)), Buffer::from_vec(data), validity.finish()))
}

fn too_long(label: &Label) -> Error {
    Error::internal(format!("column \"{}\" has more than 2 GiB in one batch", label.path))
}

fn widen(offsets: &OffsetBuffer<i32>) -> OffsetBuffer<i64> {
    OffsetBuffer::new(offsets.iter().map(|offset| i64::from(*offset)).collect())
}

#[inline]
fn append_text(text: &str, span: Span, out: &mut Vec<u8>) -> Result<(), Fault> {
    let value = span.of(text);
    match span.kind {
        Kind::Escaped => return unescape(value, out),
        Kind::Doubled => undouble(value, out),
        _ => out.extend_from_slice(value.as_bytes()),
    }
    Ok(())
}

/// `say ""hi""` as `say "hi"`.
fn undouble(value: &str, out: &mut Vec<u8>) {
    let mut after_quote = false;
    for byte in value.bytes() {
        after_quote = byte == b'"' && !after_quote;
        if !after_quote {
            out.push(byte);
        }
    }
}

/// Standard alphabet, padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn append_base64(text: &str, span: Span, out: &mut Vec<u8>) -> Result<(), Fault> {
    let fault = "is no base64 and not a valid";
    if !span.is_text() {
        return Err(NOT_A);
    }
    // "\/" is a slash: some JSON writers escape it.
    let mut plain = Vec::new();
    let encoded = match span.kind {
        Kind::Text => span.of(text).as_bytes(),
        _ => {
            append_text(text, span, &mut plain)?;
            &plain
        }
    };
    BASE64.decode_vec(encoded, out).map_err(|_| fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubled_quotes_become_single() {
        for (from, to) in [("a\"\"b", "a\"b"), ("\"\"", "\""), ("\"\"\"\"", "\"\""), ("x", "x")] {
            let mut out = Vec::new();
            undouble(from, &mut out);
            assert_eq!(out, to.as_bytes());
        }
    }

    #[test]
    fn base64_with_or_without_padding() {
        for text in ["aGk=", "aGk"] {
            let mut out = Vec::new();
            let span = Span { start: 0, end: text.len() as u32, kind: Kind::Text };
            append_base64(text, span, &mut out).unwrap();
            assert_eq!(out, b"hi");
        }
    }
}
