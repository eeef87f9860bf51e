//! Arrow IPC *stream* files as append-only segments: framing, opening, appending, checksums.
//!
//! A file is a schema message followed by record-batch messages, each a multiple of 64 bytes long, so that all
//! columns are aligned when the file is mapped; a finished file ends with the end-of-stream marker.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::buffer::Buffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Float16Type, Int8Type, Int32Type, Int64Type, Schema, SchemaRef, UInt8Type,
    UInt64Type,
};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamEncoder;

use crate::{Error, Result, mmap};

/// Version of both stores' layout; a higher one is refused.
pub const SCHEMA_VERSION: u32 = 1;
pub const CHECKSUM_COLUMN: &str = "row_checksum";
pub const END_OF_STREAM: [u8; 8] = [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
const CONTINUATION: [u8; 4] = [0xFF; 4];

/// An opened file.
#[derive(Debug)]
pub struct Segment {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    /// Bytes up to the end of the last complete message.
    pub end: usize,
    /// Bytes behind that: what a writer that was killed left half-written.
    pub torn: usize,
    /// The end-of-stream marker is there.
    pub finished: bool,
}

/// Header values, all text. Keys get the prefix `kdfast.`.
pub fn header<'a>(
    kind: &str,
    entries: impl IntoIterator<Item = (&'a str, String)>,
) -> HashMap<String, String> {
    let mut map: HashMap<String, String> =
        entries.into_iter().map(|(key, value)| (format!("kdfast.{key}"), value)).collect();
    map.insert("kdfast.kind".to_owned(), kind.to_owned());
    map.insert("kdfast.schema_version".to_owned(), SCHEMA_VERSION.to_string());
    map
}

/// The header value `key`, or an error that says it is missing.
pub fn header_value<T: std::str::FromStr>(schema: &Schema, key: &str) -> Result<T> {
    let text = schema.metadata.get(&format!("kdfast.{key}"));
    text.and_then(|value| value.trim().parse().ok())
        .ok_or_else(|| Error::data(format!("damaged header, kdfast.{key} is missing or no valid value")))
}

/// Maps and decodes `path`, which must hold a store of `kind` with the columns of `expected`.
pub fn open(path: &Path, kind: &str, expected: &Schema) -> Result<Segment> {
    let buffer = mmap::map(path)?;
    let segment = decode(&buffer, kind).map_err(|e| e.in_file(path))?;
    if segment.schema.fields() != expected.fields() {
        return Err(Error::data(format!(
            "the columns are not those of a {kind} store of schema version {SCHEMA_VERSION}: build it again"
        ))
        .in_file(path));
    }
    Ok(segment)
}

fn decode(buffer: &Buffer, kind: &str) -> Result<Segment> {
    let messages = scan(buffer)?;
    let damaged =
        |e: &ArrowError| Error::data(format!("damaged {kind} store: {e}; delete it and build it again"));
    let mut decoder = StreamDecoder::new();
    let mut batches = Vec::new();
    // The schema alone first, so that a foreign or newer file is told apart from a damaged one.
    let schema = read_schema(buffer)?;
    check_header(&schema, kind)?;
    let mut rest = buffer.slice_with_length(0, messages.end);
    while !rest.is_empty() {
        match decoder.decode(&mut rest).map_err(|e| damaged(&e))? {
            Some(batch) => batches.push(batch),
            None => break,
        }
    }
    Ok(Segment {
        schema: Arc::new(schema),
        batches,
        end: messages.end,
        torn: buffer.len() - messages.end - if messages.finished { END_OF_STREAM.len() } else { 0 },
        finished: messages.finished,
    })
}

fn not_arrow() -> Error {
    Error::data("not an Arrow IPC stream file, so no kdfast store: give the directory that `kdfast` wrote")
}

fn check_header(schema: &Schema, kind: &str) -> Result<()> {
    let Some(found) = schema.metadata.get("kdfast.kind") else {
        return Err(Error::data(
            "an Arrow file, but not one of kdfast's stores (no kdfast.kind in its header)",
        ));
    };
    if found != kind {
        return Err(Error::data(format!("wrong kind of store: expected {kind}, found {found}")));
    }
    let version: u32 = header_value(schema, "schema_version")?;
    if version > SCHEMA_VERSION {
        return Err(Error::data(format!(
            "written by a newer kdfast (schema version {version}, this one reads up to {SCHEMA_VERSION}): \
             upgrade kdfast or build the store again"
        )));
    }
    Ok(())
}

/// The schema in the first message of a file that [`scan`] has walked.
fn read_schema(bytes: &[u8]) -> Result<Schema> {
    let message = arrow::ipc::root_as_message(&bytes[8..]).map_err(|_| not_arrow())?;
    let schema = message.header_as_schema().ok_or_else(not_arrow)?;
    arrow::ipc::convert::try_fb_to_schema(schema).map_err(|_| not_arrow())
}

struct Messages {
    /// End of the last complete message.
    end: usize,
    finished: bool,
}

/// Walks the framing: `FFFFFFFF`, u32 length of the metadata, metadata, body.
fn scan(bytes: &[u8]) -> Result<Messages> {
    let mut messages = Messages { end: 0, finished: false };
    while let Some(frame) = bytes.get(messages.end..messages.end + 8) {
        let broken = || {
            Error::data(format!(
                "damaged at byte {}: this is no Arrow message; restore the file or delete it and build it again",
                messages.end
            ))
        };
        let length = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]) as usize;
        if frame[..4] != CONTINUATION {
            // A machine that lost power may leave a tail of zeros behind what was synced; a writer that was killed, none.
            let zeros = messages.end > 0 && bytes[messages.end..].iter().all(|&byte| byte == 0);
            return if zeros {
                Ok(messages)
            } else if messages.end == 0 {
                Err(not_arrow())
            } else {
                Err(broken())
            };
        }
        if length == 0 {
            messages.finished = true;
            break;
        }
        let Some(metadata) = bytes.get(messages.end + 8..messages.end + 8 + length) else { break };
        let message = arrow::ipc::root_as_message(metadata).map_err(|_| broken())?;
        let body = usize::try_from(message.bodyLength()).map_err(|_| broken())?;
        let end = messages.end.checked_add(8 + length + body).ok_or_else(broken)?;
        if end > bytes.len() {
            break;
        }
        messages.end = end;
    }
    if messages.end == 0 { Err(not_arrow()) } else { Ok(messages) }
}

/// The schema message that begins a file.
pub fn schema_message(schema: &Schema) -> Result<Vec<u8>> {
    let encoder = StreamEncoder::try_new(schema).map_err(|e| encoding(&e))?;
    let mut bytes = joined(&encoder.finish().map_err(|e| encoding(&e))?);
    bytes.truncate(bytes.len() - END_OF_STREAM.len());
    Ok(bytes)
}

/// Encodes record batches for a file whose schema message is written already.
pub struct Encoder(StreamEncoder);

impl Encoder {
    pub fn new(schema: &SchemaRef) -> Result<Self> {
        let mut encoder = StreamEncoder::try_new(schema).map_err(|e| encoding(&e))?;
        // Its first output carries the schema message: taken off here.
        encoder.encode(&RecordBatch::new_empty(schema.clone())).map_err(|e| encoding(&e))?;
        Ok(Self(encoder))
    }

    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<u8>> {
        Ok(joined(&self.0.encode(batch).map_err(|e| encoding(&e))?))
    }
}

/// A store file while it is written beside its place; it appears, whole, with [`Unfinished::finish`].
pub struct Unfinished {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    schema: SchemaRef,
    encoder: Encoder,
    head: usize,
}

impl Unfinished {
    pub fn create(path: &Path, schema: &SchemaRef) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        let file = File::create(&temporary).map_err(|e| Error::io("create", &temporary, &e))?;
        let head = schema_message(schema)?;
        let encoder = Encoder::new(schema)?;
        let mut unfinished = Self {
            path: path.to_owned(),
            temporary,
            file,
            schema: schema.clone(),
            encoder,
            head: head.len(),
        };
        unfinished.write(&head)?;
        Ok(unfinished)
    }

    pub fn append(&mut self, batch: &RecordBatch) -> Result<()> {
        let bytes = self.encoder.encode(batch)?;
        self.write(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| Error::io("write", &self.path, &e))
    }

    /// Ends the stream, puts `schema` with its final header over the first one and gives the file its name.
    pub fn finish(mut self, schema: &Schema) -> Result<()> {
        let head = schema_message(schema)?;
        assert_eq!(head.len(), self.head, "header entries that change have a fixed width");
        self.write(&END_OF_STREAM)?;
        let io = |e: &std::io::Error| Error::io("write", &self.path, e);
        self.file.seek(SeekFrom::Start(0)).map_err(|e| io(&e))?;
        self.file.write_all(&head).map_err(|e| io(&e))?;
        self.file.sync_all().map_err(|e| io(&e))?;
        std::fs::rename(&self.temporary, &self.path).map_err(|e| io(&e))?;
        sync_directory(&self.path)
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone already when it was finished; nothing half-written is left when it was not.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

/// Makes a new name in the directory of `path` survive a power failure.
pub fn sync_directory(path: &Path) -> Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|e| Error::io("sync the directory", directory, &e))
}

pub(crate) fn encoding(error: &ArrowError) -> Error {
    Error::data(format!("cannot write these rows as Arrow: {error}"))
}

fn joined(buffers: &[Buffer]) -> Vec<u8> {
    buffers.iter().flat_map(Buffer::as_slice).copied().collect()
}

/// The checksum of row `index`: the first 8 bytes, little-endian, of blake3 over its columns in order without
/// `row_checksum`. Per column: 0 for null, else 1; for lists and text the number of elements or bytes as u64; then
/// the values, little-endian (booleans one byte).
pub fn row_checksum(batch: &RecordBatch, index: usize) -> u64 {
    let mut hasher = blake3::Hasher::new();
    let schema = batch.schema_ref();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if field.name() != CHECKSUM_COLUMN {
            hash_value(&mut hasher, column.as_ref(), index);
        }
    }
    let hash = hasher.finalize();
    let mut head = [0; 8];
    head.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(head)
}

fn hash_value(hasher: &mut blake3::Hasher, column: &dyn Array, index: usize) {
    if column.is_null(index) {
        hasher.update(&[0]);
        return;
    }
    hasher.update(&[1]);
    match column.data_type() {
        DataType::List(_) => {
            let values = column.as_list::<i32>().value(index);
            hasher.update(&(values.len() as u64).to_le_bytes());
            hash_values(hasher, values.as_ref(), 0, values.len());
        }
        DataType::Utf8 => {
            let text = column.as_string::<i32>().value(index);
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        DataType::FixedSizeBinary(_) => {
            hasher.update(column.as_fixed_size_binary().value(index));
        }
        DataType::Boolean => {
            hasher.update(&[u8::from(column.as_boolean().value(index))]);
        }
        _ => hash_values(hasher, column, index, 1),
    }
}

fn hash_values(hasher: &mut blake3::Hasher, values: &dyn Array, start: usize, count: usize) {
    fn raw<T: ArrowPrimitiveType>(
        hasher: &mut blake3::Hasher,
        values: &dyn Array,
        start: usize,
        count: usize,
    ) {
        let width = size_of::<T::Native>();
        let bytes = values.as_primitive::<T>().values().inner().as_slice();
        hasher.update(&bytes[start * width..(start + count) * width]);
    }
    match values.data_type() {
        DataType::Int8 => raw::<Int8Type>(hasher, values, start, count),
        DataType::UInt8 => raw::<UInt8Type>(hasher, values, start, count),
        DataType::Int32 => raw::<Int32Type>(hasher, values, start, count),
        DataType::Int64 => raw::<Int64Type>(hasher, values, start, count),
        DataType::UInt64 => raw::<UInt64Type>(hasher, values, start, count),
        DataType::Float16 => raw::<Float16Type>(hasher, values, start, count),
        other => unreachable!("no store has a column of {other}"),
    }
}

/// A batch of `columns`, all of `schema` but the last, which is filled with the rows' checksums.
pub fn with_checksums(schema: &SchemaRef, mut columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    let fields: Vec<_> = schema.fields()[..columns.len()].to_vec();
    let plain =
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.clone()).map_err(|e| encoding(&e))?;
    let sums = (0..plain.num_rows()).map(|row| row_checksum(&plain, row));
    columns.push(Arc::new(UInt64Array::from_iter_values(sums)));
    RecordBatch::try_new(schema.clone(), columns).map_err(|e| encoding(&e))
}

/// Compares every stored checksum with its row: the indices of the rows that do not match.
pub fn audit(batches: &[RecordBatch]) -> Vec<u64> {
    let mut damaged = Vec::new();
    let mut first = 0;
    for batch in batches {
        let stored = batch.column_by_name(CHECKSUM_COLUMN).and_then(|c| c.as_primitive_opt::<UInt64Type>());
        for index in 0..batch.num_rows() {
            if stored.map(|column| column.value(index)) != Some(row_checksum(batch, index)) {
                damaged.push(first + index as u64);
            }
        }
        first += batch.num_rows() as u64;
    }
    damaged
}
