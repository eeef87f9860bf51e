//! The token store: whole token rows with their spans, in one finished Arrow IPC stream file.
//!
//! Shapes and length limits are applied on reading ([`TokenStore::cut`]), so changing them costs nothing.

mod build;
mod columns;
mod raw_lines;
mod row;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;

pub use build::{BuildOptions, BuildReport};
pub use columns::{List, SPANS};
pub use row::RowView;

use crate::{Error, Result, ipc};
use columns::Columns;

pub(crate) const KIND: &str = "token_store";

/// The key of a row in a teacher store.
pub type RowKey = [u8; 16];

/// A mapped token store.
#[derive(Debug)]
pub struct TokenStore {
    path: PathBuf,
    schema: SchemaRef,
    batches: Vec<Columns>,
    /// The index of each batch's first row, and the number of rows.
    starts: Vec<usize>,
}

impl TokenStore {
    /// Opens a store file.
    pub fn open(path: &Path) -> Result<Self> {
        let segment = ipc::open(path, KIND, |_| Ok(columns::schema(HashMap::new())))?;
        let damaged = |what: &str| {
            Error::data(format!("damaged token store: {what}; delete it and build it again")).in_file(path)
        };
        if !segment.finished || segment.torn > 0 {
            return Err(damaged("it ends before its end-of-stream marker or goes on behind it"));
        }
        let mut starts = vec![0];
        let mut batches = Vec::with_capacity(segment.batches.len());
        for batch in segment.batches {
            starts.push(starts[starts.len() - 1] + batch.num_rows());
            batches.push(Columns::new(batch).map_err(|e| e.in_file(path))?);
        }
        let store = Self { path: path.to_owned(), schema: segment.schema, batches, starts };
        let rows: usize = store.header("rows")?;
        if rows == store.len() { Ok(store) } else { Err(damaged(&format!("{} rows of {rows}", store.len()))) }
    }

    /// A value of the header, without its `kdfast.`.
    pub fn header<T: std::str::FromStr>(&self, key: &str) -> Result<T> {
        ipc::header_value(&self.schema, key).map_err(|e| e.in_file(&self.path))
    }

    /// All of the header.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.schema.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn len(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row `index`.
    pub fn row(&self, index: usize) -> Result<RowView<'_>> {
        if index >= self.len() {
            return Err(
                Error::data(format!("row must be below {}, got {index}", self.len())).in_file(&self.path)
            );
        }
        let batch = self.starts.partition_point(|&start| start <= index) - 1;
        Ok(self.batches[batch].row(index - self.starts[batch]))
    }

    pub fn rows(&self) -> impl Iterator<Item = RowView<'_>> {
        self.batches.iter().flat_map(|batch| (0..batch.len()).map(|index| batch.row(index)))
    }

    /// The tokens of each row.
    pub fn lengths(&self) -> Vec<i32> {
        self.rows().map(|row| row.ids().len() as i32).collect()
    }

    /// The tokens of each row once cut to at most `max_length`; -1 for a row that cannot be cut so far.
    pub fn fit(&self, max_length: usize) -> Vec<i32> {
        self.rows().map(|row| CutRow::new(row, max_length).map_or(-1, |cut| cut.len() as i32)).collect()
    }

    /// The key of each row in the teacher store of `fingerprint`.
    pub fn row_keys(&self, fingerprint: &str) -> Vec<RowKey> {
        self.rows().map(|row| row.key(fingerprint)).collect()
    }

    /// The keys of `rows` alone.
    pub fn row_keys_of(&self, rows: &[i64], fingerprint: &str) -> Result<Vec<RowKey>> {
        rows.iter().map(|&row| Ok(self.row(row as usize)?.key(fingerprint))).collect()
    }

    /// Recomputes the checksum of every row: the indices of damaged rows.
    pub fn audit(&self) -> Vec<u64> {
        let batches: Vec<_> = self.batches.iter().map(|columns| columns.batch().clone()).collect();
        ipc::audit(&batches)
    }

    /// The file with the log-probabilities that the records brought along.
    pub fn record_teacher_path(&self) -> Result<Option<PathBuf>> {
        let rows: u64 = self.header("record_teacher_rows")?;
        Ok((rows > 0).then(|| build::record_teacher_path(&self.path)))
    }
}

/// The first 16 bytes of blake3 over the ids (u32), the flat supervised ranges (u32), the response's start (u64),
/// each list led by its length (u64), all little-endian, and the teacher's fingerprint.
pub(crate) fn row_key(ids: &[i32], supervised: &[i32], response_start: usize, fingerprint: &str) -> RowKey {
    let mut hasher = blake3::Hasher::new();
    for list in [ids, supervised] {
        hasher.update(&(list.len() as u64).to_le_bytes());
        let bytes: Vec<u8> = list.iter().flat_map(|value| value.to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    hasher.update(&(response_start as u64).to_le_bytes());
    hasher.update(fingerprint.as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    key
}

/// A row with the oldest groups of its conversation's middle dropped, as few as make it fit.
#[derive(Debug, Clone)]
pub struct CutRow<'a> {
    pub row: RowView<'a>,
    /// The tokens left out: groups follow each other, so it is one range.
    dropped: Range<usize>,
}

impl<'a> CutRow<'a> {
    /// `None` when the row does not fit into `max_length` even without all its droppable groups.
    pub fn new(row: RowView<'a>, max_length: usize) -> Option<Self> {
        let length = row.ids().len();
        let mut dropped = 0..0;
        for group in row.spans(List::DropGroups) {
            if length - dropped.len() <= max_length {
                break;
            }
            let start = if dropped.is_empty() { group.start } else { dropped.start };
            dropped = start..group.end;
        }
        (length - dropped.len() <= max_length).then_some(Self { row, dropped })
    }

    pub fn len(&self) -> usize {
        self.row.ids().len() - self.dropped.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is kept of a list with one entry a token: before and behind the gap.
    pub fn kept<'b, T>(&self, values: &'b [T]) -> [&'b [T]; 2] {
        [&values[..self.dropped.start], &values[self.dropped.end..]]
    }

    /// Where token `index` of the whole row stands now; `None` when it is left out.
    pub fn position(&self, index: usize) -> Option<usize> {
        (!self.dropped.contains(&index)).then(|| self.shift(index))
    }

    fn shift(&self, index: usize) -> usize {
        if index >= self.dropped.end { index - self.dropped.len() } else { index.min(self.dropped.start) }
    }

    /// The ranges of a span column where they stand now; those left out are missing.
    pub fn spans(&self, list: List) -> impl Iterator<Item = Range<usize>> {
        self.row
            .spans(list)
            .map(|span| self.shift(span.start)..self.shift(span.end))
            .filter(|span| !span.is_empty())
    }

    pub fn response(&self) -> Range<usize> {
        let response = self.row.response();
        self.shift(response.start)..self.shift(response.end)
    }
}
