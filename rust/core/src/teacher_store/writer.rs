//! Appends to a teacher store. There is one writer at a time, and each batch is synced to the disk.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;

use super::columns::{self, ScoredRow};
use super::header::{Header, KIND};
use super::store::{open_segment, store_path};
use crate::row_key::RowKey;
use crate::{Error, Result, ipc};

/// The one writer of a store file.
pub struct TeacherWriter {
    path: PathBuf,
    header: Header,
    schema: SchemaRef,
    encoder: ipc::Encoder,
    file: File,
    keys: HashSet<RowKey>,
    end: u64,
    recovered: usize,
    /// Locked as long as this lives.
    _lock: File,
}

impl TeacherWriter {
    /// Opens the store of `header.fingerprint` in `directory`, or begins it. A half-written end that an earlier
    /// writer left is cut off.
    pub fn open(directory: &Path, header: &Header) -> Result<Self> {
        std::fs::create_dir_all(directory).map_err(|e| Error::io("create the directory", directory, &e))?;
        let path = store_path(directory, &header.fingerprint);
        let lock = ipc::open_lock(&path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message =
                    "another process is writing this teacher store: wait for it, or use another directory";
                return Err(Error::data(message).in_file(&path));
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", &path, &e)),
        }
        let schema = columns::schema(ipc::header(KIND, header.entries()), header.samples);
        if !path.exists() {
            create(&path, &schema)?;
        }
        let (segment, found) = open_segment(&path)?;
        if found != *header {
            return Err(Error::data(format!(
                "this teacher's store was made with {}; asked for {}: use another directory",
                found.settings(),
                header.settings()
            ))
            .in_file(&path));
        }
        let file = OpenOptions::new().write(true).open(&path).map_err(|e| Error::io("open", &path, &e))?;
        let end = segment.end as u64;
        // This also cuts off the end-of-stream marker, if the store has one.
        file.set_len(end).map_err(|e| Error::io("cut the torn tail of", &path, &e))?;
        let keys = segment.batches.iter().flat_map(columns::keys).collect();
        Ok(Self {
            encoder: ipc::Encoder::new(&segment.schema)?,
            schema: segment.schema,
            header: found,
            file,
            keys,
            end,
            recovered: segment.torn,
            path,
            _lock: lock,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Bytes of a half-written end that were cut off on opening.
    pub fn recovered(&self) -> usize {
        self.recovered
    }

    pub fn contains(&self, key: &RowKey) -> bool {
        self.keys.contains(key)
    }

    /// Stores the rows that are not there yet and returns how many; they are on the disk when this returns.
    pub fn append(&mut self, rows: Vec<ScoredRow>) -> Result<usize> {
        for (index, row) in rows.iter().enumerate() {
            row.check(&self.header, index)?;
        }
        let mut seen = HashSet::new();
        let fresh: Vec<ScoredRow> =
            rows.into_iter().filter(|row| !self.keys.contains(&row.key) && seen.insert(row.key)).collect();
        if fresh.is_empty() {
            return Ok(0);
        }
        let bytes = self.encoder.encode(&columns::batch(&self.schema, &fresh)?)?;
        if let Err(error) = self.write(&bytes) {
            // Cut off what was written of the batch. If that fails too, the next writer does it.
            let _ = self.file.set_len(self.end);
            return Err(Error::io("write", &self.path, &error));
        }
        self.end += bytes.len() as u64;
        self.keys.extend(seen);
        Ok(fresh.len())
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(bytes)?;
        self.file.sync_data()
    }
}

/// Writes the header under another name and renames it: a store that exists has a whole header.
fn create(path: &Path, schema: &SchemaRef) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let written = File::create(&temporary).and_then(|mut file| {
        let head = ipc::schema_message(schema).map_err(std::io::Error::other)?;
        file.write_all(&head)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    });
    if let Err(error) = written {
        let _ = std::fs::remove_file(&temporary);
        return Err(Error::io("write", path, &error));
    }
    ipc::sync_directory(path)
}
