//! An opened token store.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;

use super::columns::{self, Columns};
use super::cut::CutRow;
use super::row::{self, RowView};
use crate::row_key::RowKey;
use crate::{Error, Result, ipc};

/// The kind of store, as its header names it.
pub(super) const KIND: &str = "token_store";

/// The header entries that stores must share to be read as one.
const IDENTITY: [&str; 5] = ["tokenizer", "template", "supervise", "formats", "turn_end_ids"];

/// The file beside a token store that holds its records' own log-probabilities.
pub(super) fn record_teacher_path(store: &Path) -> PathBuf {
    store.with_extension("").with_extension("record-teacher.arrow")
}

/// A mapped token store.
#[derive(Debug)]
pub struct TokenStore {
    path: PathBuf,
    schema: SchemaRef,
    batches: Vec<Columns>,
    /// The index of each batch's first row; at the end the number of rows.
    starts: Vec<usize>,
    /// The index of the first row of each file; at the end the number of rows.
    file_starts: Vec<usize>,
}

impl TokenStore {
    /// Opens several stores as one, whose rows follow each other. They must be of the same tokenizer, template and
    /// settings: only their contents may differ.
    pub fn open_all(paths: &[PathBuf]) -> Result<Self> {
        let [first, others @ ..] = paths else {
            return Err(Error::data("no token store was named"));
        };
        let mut all = Self::open(first)?;
        for path in others {
            let other = Self::open(path)?;
            for key in IDENTITY {
                let (mine, theirs): (String, String) = (all.header(key)?, other.header(key)?);
                if mine != theirs {
                    let what =
                        format!("the token stores differ in {key} ({mine}, {theirs}): build both anew");
                    return Err(Error::data(what).in_file(path));
                }
            }
            if all.header::<u64>("record_teacher_rows")? + other.header::<u64>("record_teacher_rows")? > 0 {
                return Err(Error::data(
                    "records with teacher_topk must stand in one file: join the files of data.train",
                )
                .in_file(path));
            }
            let rows = all.len();
            all.starts.extend(other.starts[1..].iter().map(|start| rows + start));
            all.file_starts.push(rows + other.len());
            all.batches.extend(other.batches);
        }
        Ok(all)
    }

    /// Which of the files row `index` is in.
    pub fn file(&self, index: usize) -> usize {
        self.file_starts.partition_point(|&start| start <= index) - 1
    }

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
            let columns = Columns::new(batch);
            row::check(&columns).map_err(|e| e.in_file(path))?;
            batches.push(columns);
        }
        let file_starts = vec![0, starts[starts.len() - 1]];
        let store = Self { path: path.to_owned(), schema: segment.schema, batches, starts, file_starts };
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
        Ok(RowView::new(&self.batches[batch], index - self.starts[batch]))
    }

    pub fn rows(&self) -> impl Iterator<Item = RowView<'_>> {
        self.batches.iter().flat_map(|batch| (0..batch.len()).map(|index| RowView::new(batch, index)))
    }

    /// The number of tokens of each row.
    pub fn lengths(&self) -> Vec<i32> {
        self.rows().map(|row| row.ids().len() as i32).collect()
    }

    /// The number of tokens of each row after it is cut to at most `max_length`; -1 for a row that cannot be.
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

    /// The file with the records' own log-probabilities.
    pub fn record_teacher_path(&self) -> Result<Option<PathBuf>> {
        let rows: u64 = self.header("record_teacher_rows")?;
        Ok((rows > 0).then(|| record_teacher_path(&self.path)))
    }
}
