//! Writing store files: whole ones under another name, and messages to append.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamEncoder;

use super::layout::END_OF_STREAM;
use crate::{Error, Result};

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
        // Its first output has the schema message in front: throw that one away.
        encoder.encode(&RecordBatch::new_empty(schema.clone())).map_err(|e| encoding(&e))?;
        Ok(Self(encoder))
    }

    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<u8>> {
        Ok(joined(&self.0.encode(batch).map_err(|e| encoding(&e))?))
    }
}

/// A store file while it is written under another name. [`Unfinished::finish`] gives it its own.
pub struct Unfinished {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    schema: SchemaRef,
    encoder: Encoder,
    head: usize,
}

impl Unfinished {
    /// Begins the file. The caller must hold the lock of [`open_lock`]: then nobody else writes it.
    pub fn create(path: &Path, schema: &SchemaRef) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.tmp"));
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

    /// Ends the stream, overwrites the header with that of `schema` and gives the file its name.
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
        // After `finish` there is no such file any more; without it the half-written file goes.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

/// The lock file beside `path`, not locked yet. It is never deleted: then two writers could lock two files.
pub fn open_lock(path: &Path) -> Result<File> {
    let path = path.with_extension("lock");
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    opened.map_err(|e| Error::io("open", &path, &e))
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
