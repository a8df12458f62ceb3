//! STRUCT, ARRAY and MAP: their spans are taken apart once more, then their children
//! are columns like any other.
//!
//! A struct of a JSON object is as a record: missing fields are NULL, others are ignored.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, LargeListArray, ListArray, MapArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, FieldRef, Fields};

use crate::decode::TimestampUnit;
use crate::decode::scan::{Keys, Scanner};
use crate::decode::value::{
    Cell, Cells, Column, Excluded, Kind, Label, NOT_A, Span, Validity, cell, column, unsupported,
};
use crate::error::{Error, Result};

pub(crate) struct StructColumn {
    label: Label,
    fields: Fields,
    keys: Keys,
    children: Vec<Box<dyn Column>>,
}

impl StructColumn {
    pub fn new(label: Label, fields: Fields, unit: TimestampUnit) -> Result<Self> {
        let keys = Keys::new(fields.iter().map(|field| field.name().as_str()));
        let child =
            |field: &FieldRef| column(&format!("{}.{}", label.path, field.name()), field, unit);
        let children = fields.iter().map(child).collect::<Result<_>>()?;
        Ok(Self { label, fields, keys, children })
    }
}

impl Column for StructColumn {
    fn decode(&mut self, cells: Cells<'_>, excluded: &mut Excluded) -> Result<ArrayRef> {
        let rows = cells.spans.len();
        let mut spans = vec![Span::MISSING; rows * self.fields.len()];
        let mut validity = Validity::new(rows);
        for index in 0..rows {
            let value = cell(&self.label, cells, index, &mut validity, excluded);
            let whole = match value {
                Cell::Value if cells.spans[index].kind == Kind::Object => {
                    let set = |child: usize, span| spans[child * rows + index] = span;
                    at(cells, index).object(&mut self.keys, set).is_ok()
                }
                Cell::Value => {
                    self.label.misfit(cells, index, excluded, NOT_A);
                    false
                }
                Cell::Empty => false,
            };
            if !whole {
                spans.iter_mut().skip(index).step_by(rows).for_each(|span| *span = Span::MASKED);
            }
        }
        let mut arrays = Vec::with_capacity(self.children.len());
        for (child, spans) in self.children.iter_mut().zip(spans.chunks(rows.max(1))) {
            arrays.push(child.decode(Cells { spans, ..cells }, excluded)?);
        }
        if arrays.len() < self.children.len() {
            return Ok(arrow::array::new_empty_array(&self.label.data_type));
        }
        let nulls = validity.finish();
        Ok(Arc::new(StructArray::try_new_with_length(self.fields.clone(), arrays, nulls, rows)?))
    }
}

pub(crate) struct ListColumn {
    label: Label,
    item: FieldRef,
    child: Box<dyn Column>,
}

impl ListColumn {
    pub fn new(label: Label, item: FieldRef, unit: TimestampUnit) -> Result<Self> {
        let child = column(&format!("{}[]", label.path), &item, unit)?;
        Ok(Self { label, item, child })
    }
}

impl Column for ListColumn {
    fn decode(&mut self, cells: Cells<'_>, excluded: &mut Excluded) -> Result<ArrayRef> {
        let (mut spans, mut owners) = (Vec::new(), Vec::new());
        let mut lengths = Vec::with_capacity(cells.spans.len());
        let mut validity = Validity::new(cells.spans.len());
        for index in 0..cells.spans.len() {
            let before = spans.len();
            match cell(&self.label, cells, index, &mut validity, excluded) {
                Cell::Value if cells.spans[index].kind == Kind::Array => {
                    // The record was scanned already: this can't fail.
                    let _ = at(cells, index).elements(|span| spans.push(span));
                }
                Cell::Value => self.label.misfit(cells, index, excluded, NOT_A),
                Cell::Empty => {}
            }
            owners.resize(spans.len(), cells.owner(index) as u32);
            lengths.push(spans.len() - before);
        }
        let elements = Cells { text: cells.text, spans: &spans, owners: Some(&owners) };
        let values = self.child.decode(elements, excluded)?;
        let (item, nulls) = (Arc::clone(&self.item), validity.finish());
        Ok(match self.label.data_type {
            DataType::LargeList(_) => {
                let offsets = OffsetBuffer::from_lengths(lengths);
                Arc::new(LargeListArray::try_new(item, offsets, values, nulls)?)
            }
            _ => {
                let offsets = OffsetBuffer::from_lengths(lengths);
                Arc::new(ListArray::try_new(item, offsets, values, nulls)?)
            }
        })
    }
}

/// A JSON object as a map; of a key that comes twice the last value counts.
pub(crate) struct MapColumn {
    label: Label,
    entries: FieldRef,
    fields: Fields,
    keys: Box<dyn Column>,
    values: Box<dyn Column>,
}

impl MapColumn {
    pub fn new(label: Label, entries: FieldRef, unit: TimestampUnit) -> Result<Self> {
        let DataType::Struct(fields) = entries.data_type() else { return Err(unsupported(&label)) };
        let [key, value] = fields.as_ref() else { return Err(unsupported(&label)) };
        let keys = column(&format!("{}.key", label.path), key, unit)?;
        let values = column(&format!("{}[]", label.path), value, unit)?;
        let fields = fields.clone();
        Ok(Self { label, entries, fields, keys, values })
    }
}

impl Column for MapColumn {
    fn decode(&mut self, cells: Cells<'_>, excluded: &mut Excluded) -> Result<ArrayRef> {
        let (mut keys, mut values, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        let mut lengths = Vec::with_capacity(cells.spans.len());
        let mut validity = Validity::new(cells.spans.len());
        let mut seen = HashMap::new();
        for index in 0..cells.spans.len() {
            let before = keys.len();
            match cell(&self.label, cells, index, &mut validity, excluded) {
                Cell::Value if cells.spans[index].kind == Kind::Object => {
                    seen.clear();
                    let entry = |key: Span, value| match seen.entry(key.of(cells.text)) {
                        std::collections::hash_map::Entry::Occupied(at) => {
                            values[*at.get()] = value
                        }
                        std::collections::hash_map::Entry::Vacant(slot) => {
                            slot.insert(values.len());
                            keys.push(key);
                            values.push(value);
                        }
                    };
                    let _ = at(cells, index).entries(entry);
                }
                Cell::Value => self.label.misfit(cells, index, excluded, NOT_A),
                Cell::Empty => {}
            }
            owners.resize(keys.len(), cells.owner(index) as u32);
            lengths.push(keys.len() - before);
        }
        let (text, owners) = (cells.text, Some(owners.as_slice()));
        let keys = self.keys.decode(Cells { text, spans: &keys, owners }, excluded)?;
        let values = self.values.decode(Cells { text, spans: &values, owners }, excluded)?;
        let entries = StructArray::try_new(self.fields.clone(), vec![keys, values], None)?;
        let offsets = OffsetBuffer::from_lengths(lengths);
        let sorted = matches!(self.label.data_type, DataType::Map(_, true));
        if sorted && !entries.is_empty() {
            return Err(Error::unsupported("a MAP with sorted keys", "declare a plain MAP"));
        }
        let entry = Arc::clone(&self.entries);
        Ok(Arc::new(MapArray::try_new(entry, offsets, entries, validity.finish(), sorted)?))
    }
}

fn at<'a>(cells: Cells<'a>, index: usize) -> Scanner<'a> {
    let span = cells.spans[index];
    let bytes = cells.text.as_bytes().get(..span.end as usize).unwrap_or_default();
    Scanner::new(bytes, span.start as usize)
}
