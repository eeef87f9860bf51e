//! Arrow IPC *stream* files that only grow: opening, appending, checksums.
//!
//! A file is a schema message, then record-batch messages. Each is a multiple of 64 bytes long, so that all columns are
//! aligned when the file is mapped. A finished file ends with the end-of-stream marker.

mod checksum;
mod layout;
mod write;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;

pub use checksum::{audit, row_checksum, with_checksums};
pub use layout::{CHECKSUM_COLUMN, END_OF_STREAM, SCHEMA_VERSION};
pub(crate) use write::encoding;
pub use write::{Encoder, Unfinished, open_lock, schema_message, sync_directory};

use crate::{Error, Result, mmap};

/// The first bytes of every message.
const CONTINUATION: [u8; 4] = [0xFF; 4];

/// An opened file.
#[derive(Debug)]
pub struct Segment {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
    /// Bytes up to the end of the last complete message.
    pub end: usize,
    /// Bytes after that: a message that a killed writer left half-written.
    pub torn: usize,
    /// Whether the file has its end-of-stream marker.
    pub finished: bool,
}

/// A header of `entries`, all text. Each key gets the prefix `kdfast.`.
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

/// The header value `key`, or `default` where the header lacks the entry.
pub fn header_value_or<T: std::str::FromStr>(schema: &Schema, key: &str, default: T) -> Result<T> {
    if schema.metadata.contains_key(&format!("kdfast.{key}")) {
        header_value(schema, key)
    } else {
        Ok(default)
    }
}

/// Maps and decodes `path`, which must hold a store of `kind` with the columns that `expected` makes of its header.
pub fn open(path: &Path, kind: &str, expected: impl FnOnce(&Schema) -> Result<SchemaRef>) -> Result<Segment> {
    let buffer = mmap::map(path)?;
    let segment = decode(&buffer, kind).map_err(|e| e.in_file(path))?;
    if segment.schema.fields() != expected(&segment.schema).map_err(|e| e.in_file(path))?.fields() {
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
    // Read the schema alone first: a foreign or newer file must not be called damaged.
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
            // A power failure may leave zeros after the synced part. (A killed writer leaves none.)
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
