//! The manifest of a snapshot: the segments of every table, and their deleted rows.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::segment::Dead;
use crate::error::{Error, Result};

/// Version of the file formats.
pub(super) const FORMAT: u32 = 1;

/// What helps when a snapshot can't be read.
pub(super) const HINT: &str = "drop and create the view again to build its state anew";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub format: u32,
    pub epoch: u64,
    /// Fingerprint of the plan that the state belongs to.
    pub version: String,
    pub extra: serde_json::Value,
    pub tables: BTreeMap<String, Vec<SegmentEntry>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SegmentEntry {
    pub file: FileEntry,
    pub rows: usize,
    pub deleted: Option<DeletedEntry>,
}

/// A file beside the manifests, and how to tell that it is whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct FileEntry {
    pub name: String,
    pub bytes: u64,
    pub crc32: u32,
}

/// The deleted rows of a segment: a roaring bitmap within a file of many.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DeletedEntry {
    pub file: FileEntry,
    pub offset: usize,
    pub length: usize,
    pub rows: usize,
}

impl FileEntry {
    pub fn new(name: String, bytes: &[u8]) -> Self {
        Self { name, bytes: bytes.len() as u64, crc32: crc32fast::hash(bytes) }
    }

    /// # Errors
    /// [`Error::Corrupt`] unless these are the bytes that were written.
    pub fn check(&self, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 == self.bytes && crc32fast::hash(bytes) == self.crc32 {
            return Ok(());
        }
        Err(corrupt(&self.name, "its content is not what was written"))
    }
}

impl Manifest {
    /// # Errors
    /// [`Error::Corrupt`] if these bytes are none, or of a format that isn't known.
    pub fn parse(path: &str, bytes: &[u8]) -> Result<Self> {
        let broken = |error: serde_json::Error| corrupt(path, &error.to_string());
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(broken)?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {
                serde_json::from_value(value).map_err(broken)
            }
            Some(format) => Err(corrupt(
                path,
                &format!(
                    "format {format} is not known to this version (it reads {FORMAT}); run the \
                     version that wrote it"
                ),
            )),
            None => Err(corrupt(path, "it is no manifest of state")),
        }
    }

    /// The names of all files that the snapshot needs.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.tables.values().flatten().flat_map(|segment| {
            let deleted = segment.deleted.as_ref().map(|deleted| deleted.file.name.as_str());
            std::iter::once(segment.file.name.as_str()).chain(deleted)
        })
    }
}

pub(super) fn corrupt(path: &str, message: &str) -> Error {
    Error::Corrupt { path: path.to_owned(), message: format!("{message}; else {HINT}") }
}

pub(super) fn segment_name(id: Uuid) -> String {
    format!("{id}.arrow")
}

pub(super) fn segment_id(entry: &SegmentEntry) -> Result<Uuid> {
    let id = entry.file.name.strip_suffix(".arrow").and_then(|id| Uuid::parse_str(id).ok());
    id.ok_or_else(|| corrupt(&entry.file.name, "that is no name of a segment"))
}

/// Deleted rows as bytes.
pub(super) fn pack_deleted(dead: &Dead) -> Result<Vec<u8>> {
    let rows: RoaringBitmap = dead.rows().map(|row| row as u32).collect();
    let mut bytes = Vec::with_capacity(rows.serialized_size());
    rows.serialize_into(&mut bytes)
        .map_err(|error| Error::internal(format!("deleted rows can't be written: {error}")))?;
    Ok(bytes)
}

/// The deleted rows in the bytes of their file.
pub(super) fn unpack_deleted(entry: &DeletedEntry, file: &[u8]) -> Result<Dead> {
    let broken = || corrupt(&entry.file.name, "its deleted rows can't be read");
    let end = entry.offset.checked_add(entry.length).ok_or_else(broken)?;
    let bytes = file.get(entry.offset..end).ok_or_else(broken)?;
    let rows = RoaringBitmap::deserialize_from(bytes).map_err(|_| broken())?;
    if rows.len() != entry.rows as u64 || rows.max().is_some_and(|row| row >= 1 << 24) {
        return Err(broken());
    }
    let mut dead = Dead::default();
    for row in rows {
        dead.insert(row as usize);
    }
    Ok(dead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_format_says_what_to_do() {
        let error = Manifest::parse("a.json", br#"{"format": 9, "new": 1}"#).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("format 9") && text.contains("run the version"), "{text}");
        assert!(Manifest::parse("a.json", b"{").is_err());
        assert!(Manifest::parse("a.json", br#"{"format": 1}"#).is_err());
        assert!(Manifest::parse("a.json", b"[]").is_err());
    }

    #[test]
    fn deleted_rows_come_back() {
        let mut dead = Dead::default();
        for row in [3, 64, 100_000] {
            dead.insert(row);
        }
        let bytes = [vec![0; 5], pack_deleted(&dead).unwrap()].concat();
        let file = FileEntry::new("d".into(), &bytes);
        let entry = DeletedEntry { file, offset: 5, length: bytes.len() - 5, rows: 3 };
        assert_eq!(unpack_deleted(&entry, &bytes).unwrap(), dead);
        for length in 0..bytes.len() {
            assert!(unpack_deleted(&entry, &bytes[..length]).is_err());
        }
    }
}
