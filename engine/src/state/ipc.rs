//! Segments as Arrow IPC files: packed for the warehouse, plain for mapping into memory.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{FileDecoder, read_footer_length};
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use arrow::ipc::{Block, CompressionType, root_as_footer};
use bytes::Bytes;
use memmap2::Mmap;
use uuid::Uuid;

use crate::error::{Error, Result};

/// The bytes of the footer's length and the magic word, at the end of a file.
const TRAILER: usize = 10;

/// A batch as the bytes of a compressed file.
pub(crate) fn pack(batch: &RecordBatch) -> Result<Vec<u8>> {
    let lz4 = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut bytes = Vec::new();
    let mut writer = FileWriter::try_new_with_options(&mut bytes, batch.schema_ref(), lz4)?;
    writer.write(batch)?;
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

/// The batch in the bytes of a file, compressed or not. Where it isn't, the arrays look
/// into `bytes`. They must be what was written: Arrow's reader finds a file cut short,
/// but garbled metadata may make it panic, so that files from elsewhere are checked by
/// their checksums first.
pub(crate) fn unpack(bytes: Buffer) -> Result<RecordBatch, ArrowError> {
    let broken = |message: &str| ArrowError::IpcError(message.to_owned());
    let end = bytes.len().checked_sub(TRAILER).ok_or_else(|| broken("the file is too short"))?;
    let trailer = bytes[end..].try_into().map_err(|_| broken("the file is too short"))?;
    let length = read_footer_length(trailer)?;
    let start = end.checked_sub(length).ok_or_else(|| broken("the footer is too long"))?;
    let footer = root_as_footer(&bytes[start..end])
        .map_err(|error| broken(&format!("the footer is broken: {error}")))?;
    let schema = fb_to_schema(footer.schema().ok_or_else(|| broken("the schema is missing"))?);
    let mut decoder = FileDecoder::new(Arc::new(schema), footer.version());
    for block in footer.dictionaries().iter().flatten() {
        decoder.read_dictionary(block, &slice(&bytes, block)?)?;
    }
    let batches = footer.recordBatches().filter(|batches| batches.len() == 1);
    let block = *batches.ok_or_else(|| broken("not one batch"))?.get(0);
    let batch = decoder.read_record_batch(&block, &slice(&bytes, &block)?)?;
    batch.ok_or_else(|| broken("the batch is missing"))
}

fn slice(bytes: &Buffer, block: &Block) -> Result<Buffer, ArrowError> {
    let start = usize::try_from(block.offset()).ok();
    let length = usize::try_from(block.metaDataLength()).ok();
    let length = length.zip(usize::try_from(block.bodyLength()).ok());
    let length = length.and_then(|(head, body)| head.checked_add(body));
    let range = start.zip(length).and_then(|(start, length)| {
        start.checked_add(length).filter(|end| *end <= bytes.len()).map(|_| (start, length))
    });
    match range {
        Some((start, length)) => Ok(bytes.slice_with_length(start, length)),
        None => Err(ArrowError::IpcError("a block lies outside the file".to_owned())),
    }
}

/// The batch under `schema`, whose types it must have.
pub(crate) fn under(schema: &SchemaRef, batch: &RecordBatch) -> Option<RecordBatch> {
    let types = |schema: &Schema| -> Vec<_> {
        schema.fields().iter().map(|field| field.data_type().clone()).collect()
    };
    if types(schema) != types(batch.schema_ref()) {
        return None;
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let columns = batch.columns().to_vec();
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).ok()
}

/// Moves a batch to a file in `folder` and maps it back. The file has no name any more
/// when this returns: it goes with its last user, however that ends.
pub(crate) fn map(folder: &Path, batch: &RecordBatch) -> Result<RecordBatch> {
    let path = folder.join(format!("{}.arrow", Uuid::new_v4()));
    let failed = |error: std::io::Error| Error::Spill { path: path.clone(), error };
    fs::create_dir_all(folder).map_err(failed)?;
    let file = File::options().read(true).write(true).create_new(true).open(&path);
    let file = file.map_err(failed)?;
    let written = write(&file, batch);
    // Unlinked where the system allows it while the file is open; else it stays behind.
    let unlinked = fs::remove_file(&path);
    written?;
    if cfg!(unix) {
        unlinked.map_err(failed)?;
    }
    // SAFETY: the file has no name, so that nobody else changes or truncates it.
    let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
    let mapped = unpack(Buffer::from(Bytes::from_owner(map)))?;
    under(&batch.schema(), &mapped)
        .ok_or_else(|| Error::internal("spilled state came back with other columns"))
}

fn write(file: &File, batch: &RecordBatch) -> Result<()> {
    let mut writer = FileWriter::try_new(BufWriter::new(file), batch.schema_ref())?;
    writer.write(batch)?;
    Ok(writer.finish()?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        ArrayRef, DictionaryArray, Float64Array, Int64Array, RecordBatchOptions, StringViewArray,
    };
    use arrow::datatypes::Int32Type;

    use super::*;

    fn batch() -> RecordBatch {
        let long = "a text that does not fit into a view";
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.5, f64::NAN, -0.0]));
        let texts: ArrayRef = Arc::new(StringViewArray::from(vec![Some(long), None, Some("b")]));
        let names = DictionaryArray::<Int32Type>::from_iter(["x", "y", "x"]);
        let names: ArrayRef = Arc::new(names);
        RecordBatch::try_from_iter([("n", numbers), ("f", floats), ("t", texts), ("d", names)])
            .unwrap()
    }

    #[test]
    fn a_batch_comes_back_packed_and_mapped() {
        let folder = tempfile::tempdir().unwrap();
        for batch in [batch(), batch().slice(1, 2)] {
            let same = |other: RecordBatch| assert_eq!(format!("{batch:?}"), format!("{other:?}"));
            same(unpack(pack(&batch).unwrap().into()).unwrap());
            same(map(folder.path(), &batch).unwrap());
        }
        assert_eq!(folder.path().read_dir().unwrap().count(), 0, "no file keeps its name");
        let schema = Arc::new(Schema::empty());
        let options = RecordBatchOptions::new().with_row_count(Some(7));
        let empty = RecordBatch::try_new_with_options(schema, vec![], &options).unwrap();
        assert_eq!(unpack(pack(&empty).unwrap().into()).unwrap().num_rows(), 7);
    }

    #[test]
    fn a_file_cut_short_is_an_error() {
        let bytes = pack(&batch()).unwrap();
        for length in 0..bytes.len() {
            assert!(unpack(bytes[..length].to_vec().into()).is_err(), "{length}");
        }
    }
}
