//! Where the values of a batch lie in its bytes, and how a column is made of them.
//!
//! A format ([`super::json`], [`super::csv`]) looks at each record once and notes a
//! [`Span`] for each projected column. Then every column is decoded by itself,
//! over all rows, by a loop of its own type. A value that does not fit puts its row
//! into [`Excluded`]; such rows are filtered out of all columns at the end, so one
//! bad record costs what a good one costs.
//!
//! ```text
//! payloads  {"id":1,"city":"Ulm"}{"id":"x"}{"id":3,"city":null}
//! spans          ^      ^^^            ^         ^       ^^^^
//! columns   id   [1, 0, 3]   city [Ulm, NULL, NULL]
//! excluded  row 1: column "id": "x" is not a valid BIGINT
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use arrow::array::{ArrayRef, ArrowPrimitiveType, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, TimeUnit};

use crate::decode::TimestampUnit;
use crate::decode::nested::{ListColumn, MapColumn, StructColumn};
use crate::decode::number::{decimal_column, float_column, integer_column};
use crate::decode::text::{BinaryColumn, BooleanColumn, StringColumn};
use crate::decode::time::time_column;
use crate::error::{Error, Result};

/// What a value looks like where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The record has no such key.
    Missing,
    Null,
    True,
    False,
    Number,
    /// A string that means what it says.
    Text,
    /// A string with JSON escapes.
    Escaped,
    /// A string in which every quote is doubled (CSV).
    Doubled,
    Object,
    Array,
    /// Nothing is wanted here: the row is out already, or the parent is NULL.
    Masked,
}

/// A value's place: `text[start..end]`, of a string without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub start: u32,
    pub end: u32,
    pub kind: Kind,
}

impl Span {
    pub const MISSING: Span = Span { start: 0, end: 0, kind: Kind::Missing };
    pub const MASKED: Span = Span { start: 0, end: 0, kind: Kind::Masked };

    pub fn of<'a>(&self, text: &'a str) -> &'a str {
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    pub fn is_text(&self) -> bool {
        matches!(self.kind, Kind::Text | Kind::Escaped | Kind::Doubled)
    }
}

/// Rows that come to nothing: tombstones, which are decoded elsewhere, and records that can't be decoded.
#[derive(Debug, Default)]
pub(crate) struct Excluded {
    /// Row → why; None is a tombstone.
    pub rows: BTreeMap<usize, Option<String>>,
}

impl Excluded {
    pub fn skip(&mut self, row: usize) {
        self.rows.entry(row).or_insert(None);
    }

    /// Only the first reason is kept.
    pub fn reject(&mut self, row: usize, reason: impl FnOnce() -> String) {
        self.rows.entry(row).or_insert_with(|| Some(reason()));
    }
}

/// One span per value of a column, over the text of the whole batch.
#[derive(Clone, Copy)]
pub(crate) struct Cells<'a> {
    pub text: &'a str,
    pub spans: &'a [Span],
    /// The batch's row of each span; None: they are the rows.
    pub owners: Option<&'a [u32]>,
}

impl Cells<'_> {
    pub fn owner(&self, index: usize) -> usize {
        match self.owners {
            None => index,
            Some(owners) => owners.get(index).map_or(0, |row| *row as usize),
        }
    }
}

/// Makes one column of spans.
pub(crate) trait Column: Send {
    /// One value per span. What can't be one is NULL or a default, and its row is excluded.
    fn decode(&mut self, cells: Cells<'_>, excluded: &mut Excluded) -> Result<ArrayRef>;
}

/// Which column speaks, for its error messages and its nullability.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    /// `order.items[].price`
    pub path: String,
    pub data_type: DataType,
    pub nullable: bool,
}

impl Label {
    /// The value does not fit: `column "a": "x" is not a valid BIGINT`.
    #[cold]
    pub fn misfit(&self, cells: Cells<'_>, index: usize, excluded: &mut Excluded, fault: Fault) {
        excluded.reject(cells.owner(index), || {
            let value = excerpt(cells.text, cells.spans[index]);
            format!("column \"{}\": {value} {fault} {}", self.path, type_name(&self.data_type))
        });
    }

    /// NULL in a column that is NOT NULL.
    #[cold]
    fn absent(&self, cells: Cells<'_>, index: usize, excluded: &mut Excluded) {
        excluded.reject(cells.owner(index), || match cells.spans[index].kind {
            Kind::Missing => format!("column \"{}\" is NOT NULL and missing", self.path),
            _ => format!("column \"{}\" is NOT NULL and got null", self.path),
        });
    }
}

/// What is wrong with a value, to be read as `VALUE fault TYPE`.
pub(crate) type Fault = &'static str;
pub(crate) const NOT_A: Fault = "is not a valid";
pub(crate) const OUT_OF_RANGE: Fault = "is out of range for";

/// The validity of a column, made only when something is NULL.
pub(crate) struct Validity {
    valid: Option<Vec<bool>>,
    len: usize,
}

impl Validity {
    pub fn new(len: usize) -> Self {
        Self { valid: None, len }
    }

    pub fn set_null(&mut self, index: usize) {
        if let Some(slot) = self.valid.get_or_insert_with(|| vec![true; self.len]).get_mut(index) {
            *slot = false;
        }
    }

    pub fn finish(self) -> Option<NullBuffer> {
        self.valid.map(NullBuffer::from)
    }
}

/// What a loop over spans does at an index.
pub(crate) enum Cell {
    /// A value to look at.
    Value,
    /// No value: append a default.
    Empty,
}

/// Sorts NULLs out: what every column does with a span before it looks at the value.
#[inline]
pub(crate) fn cell(
    label: &Label,
    cells: Cells<'_>,
    index: usize,
    validity: &mut Validity,
    excluded: &mut Excluded,
) -> Cell {
    match cells.spans[index].kind {
        Kind::Missing | Kind::Null if label.nullable => validity.set_null(index),
        Kind::Missing | Kind::Null => label.absent(cells, index, excluded),
        Kind::Masked if label.nullable => validity.set_null(index),
        Kind::Masked => {}
        _ => return Cell::Value,
    }
    Cell::Empty
}

/// A column of fixed-width values, each made by `parse`.
pub(crate) struct PrimitiveColumn<T, F> {
    label: Label,
    parse: F,
    marker: std::marker::PhantomData<fn() -> T>,
}

impl<T, F> PrimitiveColumn<T, F>
where
    T: ArrowPrimitiveType,
    F: Fn(&str, Span) -> Result<T::Native, Fault> + Send,
{
    pub fn new(label: Label, parse: F) -> Self {
        Self { label, parse, marker: std::marker::PhantomData }
    }
}

impl<T, F> Column for PrimitiveColumn<T, F>
where
    T: ArrowPrimitiveType,
    F: Fn(&str, Span) -> Result<T::Native, Fault> + Send,
{
    fn decode(&mut self, cells: Cells<'_>, excluded: &mut Excluded) -> Result<ArrayRef> {
        let mut values = vec![T::Native::default(); cells.spans.len()];
        let mut validity = Validity::new(cells.spans.len());
        for (index, value) in values.iter_mut().enumerate() {
            if let Cell::Value = cell(&self.label, cells, index, &mut validity, excluded) {
                match (self.parse)(cells.text, cells.spans[index]) {
                    Ok(parsed) => *value = parsed,
                    Err(fault) => self.label.misfit(cells, index, excluded, fault),
                }
            }
        }
        let array = PrimitiveArray::<T>::try_new(values.into(), validity.finish())?;
        Ok(std::sync::Arc::new(array.with_data_type(self.label.data_type.clone())))
    }
}

/// A column for `field`, named `path` in errors.
pub(crate) fn column(path: &str, field: &Field, unit: TimestampUnit) -> Result<Box<dyn Column>> {
    let data_type = field.data_type().clone();
    let label = Label { path: path.into(), data_type, nullable: field.is_nullable() };
    Ok(match field.data_type() {
        DataType::Boolean => Box::new(BooleanColumn::new(label)),
        DataType::Utf8 | DataType::LargeUtf8 => Box::new(StringColumn::new(label)),
        DataType::Binary | DataType::LargeBinary => Box::new(BinaryColumn::new(label)),
        DataType::Struct(fields) => Box::new(StructColumn::new(label, fields.clone(), unit)?),
        DataType::List(item) | DataType::LargeList(item) => {
            Box::new(ListColumn::new(label, item.clone(), unit)?)
        }
        DataType::Map(entries, _) => Box::new(MapColumn::new(label, entries.clone(), unit)?),
        other if other.is_integer() => integer_column(label)?,
        other if other.is_floating() => float_column(label)?,
        other if other.is_decimal() => decimal_column(label)?,
        other if other.is_temporal() => time_column(label, unit)?,
        _ => return Err(unsupported(&label)),
    })
}

/// The column's type has no decoder.
pub(crate) fn unsupported(label: &Label) -> Error {
    Error::invalid_hint(
        format!(
            "column \"{}\" is of type {}, which can't be decoded",
            label.path,
            type_name(&label.data_type)
        ),
        "declare it VARCHAR and convert it in the query",
    )
}

/// The value as it stands in the record, cut to about 100 characters.
pub(crate) fn excerpt(text: &str, span: Span) -> String {
    let value = cut(span.of(text));
    if span.is_text() { format!("\"{value}\"") } else { value }
}

/// The first 100 characters.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(100) {
        None => text.to_string(),
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
    }
}

/// The SQL name of a type.
pub(crate) fn type_name(data_type: &DataType) -> String {
    let plain = match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INT",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INT UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Utf8 | DataType::LargeUtf8 => "VARCHAR",
        DataType::Binary | DataType::LargeBinary => "BYTEA",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Timestamp(
            TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond,
            None,
        ) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        DataType::Struct(_) => "STRUCT",
        DataType::List(_) | DataType::LargeList(_) => "ARRAY",
        DataType::Map(_, _) => "MAP",
        _ => "",
    };
    let mut name = plain.to_string();
    match data_type {
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => {
            let _ = write!(name, "DECIMAL({p},{s})");
        }
        other if name.is_empty() => {
            let _ = write!(name, "{other}");
        }
        _ => {}
    }
    name
}
