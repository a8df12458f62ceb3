//! Deletion vectors: which rows of a data file are deleted, as the Delta protocol
//! stores it (PROTOCOL.md, "Deletion Vector Format").
//!
//! ```text
//! deletion_vector_<uuid>.bin    1 │ size │ vector │ crc │ size │ vector │ crc │ …
//! vector                        magic │ bitmaps: u64 │ key: u32 │ Roaring bitmap │ …
//! ```
//!
//! Sizes and checksums are big-endian, the rest little-endian. Small vectors lie in
//! the log itself. delta_kernel writes the same bytes, but keeps the path under which
//! they are found to itself and reads whole files, blocking; so both ways are here.

use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::array::BooleanBufferBuilder;
use bytes::Bytes;
use deltalake::kernel::{DeletionVectorDescriptor, StorageType};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use parquet::arrow::arrow_reader::RowSelection;
use roaring::{RoaringBitmap, RoaringTreemap};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::lake::layout::Place;

const MAGIC: u32 = 1_681_511_377;
/// A UUID in Z85.
const NAME: usize = 20;
/// Vectors of a commit that are no larger together go into the log.
const INLINE: usize = 512;

/// The deletion vector of one file.
pub(crate) struct Vector {
    pub descriptor: DeletionVectorDescriptor,
    rows: OnceCell<Arc<RoaringBitmap>>,
    live: OnceLock<RowSelection>,
}

impl fmt::Debug for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vector({} rows)", self.descriptor.cardinality)
    }
}

impl Vector {
    /// A vector that lies in storage.
    pub fn stored(descriptor: DeletionVectorDescriptor) -> Self {
        Self { descriptor, rows: OnceCell::new(), live: OnceLock::new() }
    }

    /// A vector whose rows are at hand.
    pub fn known(descriptor: DeletionVectorDescriptor, rows: Arc<RoaringBitmap>) -> Self {
        Self { descriptor, rows: OnceCell::new_with(Some(rows)), live: OnceLock::new() }
    }

    /// How many rows it deletes.
    pub fn deleted(&self) -> u64 {
        u64::try_from(self.descriptor.cardinality).unwrap_or(0)
    }

    /// Whether it lies where the table does.
    pub fn is_near(&self) -> bool {
        self.descriptor.storage_type != StorageType::AbsolutePath
    }

    /// The deleted rows, if they are at hand.
    pub fn get(&self) -> Option<&Arc<RoaringBitmap>> {
        self.rows.get()
    }

    /// The rows that are left of the file's `rows`, if the deleted ones are at hand.
    pub fn live(&self, rows: usize) -> Option<&RowSelection> {
        let deleted = self.get()?;
        Some(self.live.get_or_init(|| all_but(deleted, rows)))
    }

    /// The deleted rows, read from the table's folder the first time.
    pub async fn load(&self, place: &Place) -> Result<Arc<RoaringBitmap>> {
        let rows = self.rows.get_or_try_init(|| async {
            let rows = match self.descriptor.storage_type {
                StorageType::Inline => {
                    let bytes = z85::decode(&self.descriptor.path_or_inline_dv).ok();
                    bytes.and_then(|bytes| decode(&bytes))
                }
                StorageType::UuidRelativePath => self.read(place).await?,
                StorageType::AbsolutePath => None,
            };
            rows.filter(|rows| rows.len() == self.deleted()).map(Arc::new).ok_or_else(|| {
                Error::Corrupt {
                    path: format!("{}{}", place.url, self.descriptor.path_or_inline_dv),
                    message: "not the deletion vector that the log describes".into(),
                }
            })
        });
        rows.await.cloned()
    }

    async fn read(&self, place: &Place) -> Result<Option<RoaringBitmap>> {
        let Some(path) = file_of(&self.descriptor) else { return Ok(None) };
        let offset = u64::try_from(self.descriptor.offset.unwrap_or(1)).unwrap_or(1);
        let size = u64::try_from(self.descriptor.size_in_bytes).unwrap_or(0);
        let range = offset..offset + 4 + size + 4;
        let bytes = place.log.object_store(None).get_range(&path, range).await?;
        Ok(unframe(&bytes))
    }
}

/// All of a file's `rows` but some.
pub(crate) fn all_but(some: &RoaringBitmap, rows: usize) -> RowSelection {
    let mut left = BooleanBufferBuilder::new(rows);
    left.append_n(rows, true);
    for row in some.iter().map(|row| row as usize).take_while(|row| *row < rows) {
        left.set_bit(row, false);
    }
    RowSelection::from_boolean_buffer(left.finish())
}

/// The file that holds a vector, below the table's folder; `None` for other kinds.
pub(crate) fn file_of(descriptor: &DeletionVectorDescriptor) -> Option<Path> {
    if descriptor.storage_type != StorageType::UuidRelativePath {
        return None;
    }
    let encoded = &descriptor.path_or_inline_dv;
    let (prefix, name) = encoded.split_at_checked(encoded.len().checked_sub(NAME)?)?;
    let uuid = Uuid::from_slice(&z85::decode(name).ok()?).ok()?;
    let file = format!("deletion_vector_{uuid}.bin");
    Some(if prefix.is_empty() { Path::from(file) } else { Path::from(format!("{prefix}/{file}")) })
}

/// Stores `vectors`, all in one file, and answers how the log describes each.
pub(crate) async fn store(
    place: &Place,
    vectors: &[Arc<RoaringBitmap>],
) -> Result<Vec<DeletionVectorDescriptor>> {
    let blobs: Vec<Vec<u8>> = vectors.iter().map(|rows| encode(rows)).collect::<Result<_>>()?;
    if blobs.iter().map(Vec::len).sum::<usize>() <= INLINE {
        let each = blobs.iter().zip(vectors);
        return Ok(each.map(|(blob, rows)| inline(blob, rows.len())).collect());
    }
    let uuid = Uuid::new_v4();
    let mut file = vec![1u8];
    let mut descriptors = Vec::with_capacity(blobs.len());
    for (blob, rows) in blobs.iter().zip(vectors) {
        let too_large = |_| Error::internal("deletion vectors of one commit past 2 GiB");
        descriptors.push(DeletionVectorDescriptor {
            storage_type: StorageType::UuidRelativePath,
            path_or_inline_dv: z85::encode(uuid.as_bytes()),
            offset: Some(i32::try_from(file.len()).map_err(too_large)?),
            size_in_bytes: i32::try_from(blob.len()).map_err(too_large)?,
            cardinality: rows.len() as i64,
        });
        file.extend((blob.len() as u32).to_be_bytes());
        file.extend(blob);
        file.extend(crc32fast::hash(blob).to_be_bytes());
    }
    let path = Path::from(format!("deletion_vector_{uuid}.bin"));
    place.log.object_store(None).put(&path, PutPayload::from(file)).await?;
    Ok(descriptors)
}

fn inline(blob: &[u8], deleted: u64) -> DeletionVectorDescriptor {
    let mut padded = blob.to_vec();
    padded.resize(blob.len().next_multiple_of(4), 0);
    DeletionVectorDescriptor {
        storage_type: StorageType::Inline,
        path_or_inline_dv: z85::encode(padded),
        offset: None,
        size_in_bytes: blob.len() as i32,
        cardinality: deleted as i64,
    }
}

fn encode(rows: &RoaringBitmap) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(16 + rows.serialized_size());
    bytes.extend(MAGIC.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    rows.serialize_into(&mut bytes).map_err(|error| Error::internal(error.to_string()))?;
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Option<RoaringBitmap> {
    let (magic, rest) = bytes.split_first_chunk()?;
    if u32::from_le_bytes(*magic) != MAGIC {
        return None;
    }
    let rows = RoaringTreemap::deserialize_from(rest).ok()?;
    // No Parquet file that can be read has more rows than a u32 counts.
    match rows.bitmaps().next() {
        None => Some(RoaringBitmap::new()),
        Some((0, first)) if first.len() == rows.len() => Some(first.clone()),
        Some(_) => None,
    }
}

fn unframe(bytes: &Bytes) -> Option<RoaringBitmap> {
    let (size, rest) = bytes.split_first_chunk()?;
    let (blob, crc) = rest.split_last_chunk()?;
    let whole = u32::from_be_bytes(*size) as usize == blob.len();
    (whole && u32::from_be_bytes(*crc) == crc32fast::hash(blob)).then(|| decode(blob))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocols_own_example_is_read() {
        // A path, and rows 3, 4, 7, 11, 18, 29 in the portable format.
        let path = DeletionVectorDescriptor {
            storage_type: StorageType::UuidRelativePath,
            path_or_inline_dv: "ab^-aqEH.-t@S}K{vb[*k^".into(),
            offset: Some(4),
            size_in_bytes: 40,
            cardinality: 6,
        };
        assert_eq!(
            file_of(&path).unwrap().as_ref(),
            "ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin"
        );
        let bytes = z85::decode("^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L").unwrap();
        assert_eq!(decode(&bytes).unwrap().iter().collect::<Vec<_>>(), [3, 4, 7, 11, 18, 29]);
    }

    #[test]
    fn what_is_written_is_read_and_damage_is_seen() {
        let rows: RoaringBitmap = (0..100_000).step_by(3).chain([1 << 31]).collect();
        let blob = encode(&rows).unwrap();
        assert_eq!(decode(&blob).as_ref(), Some(&rows));
        let mut framed = (blob.len() as u32).to_be_bytes().to_vec();
        framed.extend(&blob);
        framed.extend(crc32fast::hash(&blob).to_be_bytes());
        assert_eq!(unframe(&framed.clone().into()), Some(rows.clone()));
        framed[40] ^= 1;
        assert_eq!(unframe(&framed.into()), None);
        assert_eq!(unframe(&Bytes::from_static(b"short")), None);
        let small: RoaringBitmap = [1, 7].into_iter().collect();
        let inline = inline(&encode(&small).unwrap(), 2);
        let bytes = z85::decode(inline.path_or_inline_dv).unwrap();
        assert_eq!(decode(&bytes), Some(small));
    }
}
