//! An opened teacher store.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::columns::{self, TeacherRow};
use super::header::{Header, KIND};
use crate::row_key::RowKey;
use crate::{Error, Result, ipc};

/// The file of the teacher `fingerprint` in `directory`.
pub fn store_path(directory: &Path, fingerprint: &str) -> PathBuf {
    let name = blake3::hash(fingerprint.as_bytes()).to_hex();
    directory.join(format!("{}.teacher.arrow", &name[..16]))
}

/// A mapped teacher store.
#[derive(Debug)]
pub struct TeacherStore {
    path: PathBuf,
    header: Header,
    batches: Vec<RecordBatch>,
    index: HashMap<RowKey, (u32, u32)>,
    torn: usize,
}

impl TeacherStore {
    /// Opens a store file for reading.
    pub fn open(path: &Path) -> Result<Self> {
        let (segment, header) = open_segment(path)?;
        let mut index = HashMap::new();
        for (number, batch) in segment.batches.iter().enumerate() {
            check(batch, &header).map_err(|e| e.in_file(path))?;
            for (row, key) in columns::keys(batch).enumerate() {
                index.entry(key).or_insert((number as u32, row as u32));
            }
        }
        Ok(Self { path: path.to_owned(), header, batches: segment.batches, index, torn: segment.torn })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes of a half-written end, which are ignored.
    pub fn torn(&self) -> usize {
        self.torn
    }

    pub fn contains(&self, key: &RowKey) -> bool {
        self.index.contains_key(key)
    }

    pub fn get(&self, key: &RowKey) -> Option<TeacherRow<'_>> {
        let &(batch, row) = self.index.get(key)?;
        Some(columns::row(&self.batches[batch as usize], row as usize))
    }

    /// Recomputes the checksum of every row: the indices of damaged rows.
    pub fn audit(&self) -> Vec<u64> {
        ipc::audit(&self.batches)
    }
}

/// The file's batches and header.
pub(super) fn open_segment(path: &Path) -> Result<(ipc::Segment, Header)> {
    let expected = |found: &Schema| Ok(columns::schema(HashMap::new(), Header::read(found)?.samples));
    let segment = ipc::open(path, KIND, expected)?;
    let header = Header::read(&segment.schema).map_err(|e| e.in_file(path))?;
    Ok((segment, header))
}

fn check(batch: &RecordBatch, header: &Header) -> Result<()> {
    let sound = (0..batch.num_rows()).map(|index| columns::row(batch, index)).all(|row| {
        let n = row.tail.len();
        row.ids.len() == n * header.k
            && row.logp.len() == n * header.k
            && row.sample_ids.len() == n * header.samples
            && row.sample_counts.len() == n * header.samples
            && row.opening.is_none_or(|opening| opening.len() == n)
    });
    if sound {
        Ok(())
    } else {
        Err(Error::data(
            "damaged teacher store: a row's lists have unequal lengths; restore it or score again",
        ))
    }
}
