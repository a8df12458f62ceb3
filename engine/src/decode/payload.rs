//! The payloads of a batch as one text, with the bounds of each record.

use std::borrow::Cow;
use std::ops::Range;

use arrow::array::{Array, BinaryArray};

use crate::decode::value::Excluded;
use crate::error::{Error, Result};

/// Records of a batch, end to end. Validated as UTF-8 in one go; only when that fails
/// are the records looked at one by one, and the broken ones blanked.
pub(crate) struct Text<'a> {
    pub text: Cow<'a, str>,
    bounds: &'a [i32],
}

impl<'a> Text<'a> {
    /// Records that are not UTF-8 are excluded.
    pub fn new(payloads: &'a BinaryArray, excluded: &mut Excluded) -> Result<Self> {
        let bounds = payloads.value_offsets();
        let range = offset(bounds, 0)..offset(bounds, payloads.len());
        let bytes = payloads.value_data().get(range).unwrap_or_default();
        let text = match std::str::from_utf8(bytes) {
            Ok(text) if starts_are_whole(text, bounds) => Cow::Borrowed(text),
            _ => Cow::Owned(blanked(payloads, bytes, excluded)?),
        };
        Ok(Self { text, bounds })
    }

    /// Where in the text the record of `row` lies.
    pub fn record(&self, row: usize) -> Range<usize> {
        let base = offset(self.bounds, 0);
        offset(self.bounds, row) - base..offset(self.bounds, row + 1) - base
    }
}

fn offset(bounds: &[i32], index: usize) -> usize {
    bounds.get(index).and_then(|bound| usize::try_from(*bound).ok()).unwrap_or(0)
}

/// Whether no character lies across two records.
fn starts_are_whole(text: &str, bounds: &[i32]) -> bool {
    let base = offset(bounds, 0);
    text.is_ascii()
        || (0..bounds.len()).all(|row| text.is_char_boundary(offset(bounds, row) - base))
}

/// A copy in which what is not UTF-8 is blank.
fn blanked(payloads: &BinaryArray, bytes: &[u8], excluded: &mut Excluded) -> Result<String> {
    let mut copy = bytes.to_vec();
    let bounds = payloads.value_offsets();
    let base = offset(bounds, 0);
    for row in 0..payloads.len() {
        let range = offset(bounds, row) - base..offset(bounds, row + 1) - base;
        let Some(record) = copy.get_mut(range) else { continue };
        let Err(error) = std::str::from_utf8(record) else { continue };
        record.fill(b' ');
        if payloads.is_valid(row) {
            let at = error.valid_up_to();
            excluded.reject(row, || format!("the record is not valid UTF-8 (byte {at})"));
        }
    }
    String::from_utf8(copy).map_err(|_| Error::internal("a blanked batch is no UTF-8"))
}
