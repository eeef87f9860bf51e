//! The teacher store: per supervised token the k likeliest ids with their log-probabilities, keyed row by row.
//!
//! Rows are found by a hash of what the teacher saw, so reordering, filtering or adding data loses nothing. A store
//! only grows; a tail torn by a kill is ignored by readers and cut off by the next writer.

mod columns;
mod record;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use half::f16;

pub use columns::{ScoredRow, TeacherRow};
pub use record::RecordTeacher;
pub use writer::TeacherWriter;

use crate::token_store::RowKey;
use crate::{Error, Result, ipc};

pub(crate) const KIND: &str = "teacher_store";

/// Fingerprint of a store that records brought along.
pub const RECORD_FINGERPRINT: &str = "record";

/// What a store holds and whose.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Of the teacher: part of every row's key.
    pub fingerprint: String,
    pub k: usize,
    /// The temperature the log-probabilities were computed at.
    pub logprob_temperature: f64,
    pub vocab_size: usize,
}

impl Header {
    fn entries(&self) -> [(&'static str, String); 4] {
        [
            ("teacher_fingerprint", self.fingerprint.clone()),
            ("k", self.k.to_string()),
            ("logprob_temperature", format!("{:?}", self.logprob_temperature)),
            ("vocab_size", self.vocab_size.to_string()),
        ]
    }

    fn read(schema: &Schema) -> Result<Self> {
        Ok(Self {
            fingerprint: ipc::header_value(schema, "teacher_fingerprint")?,
            k: ipc::header_value(schema, "k")?,
            logprob_temperature: ipc::header_value(schema, "logprob_temperature")?,
            vocab_size: ipc::header_value(schema, "vocab_size")?,
        })
    }

    /// Bytes a token: k ids (int32) and log-probabilities (fp16), tail and call opening (fp16).
    pub fn bytes_per_token(&self) -> usize {
        self.k * 6 + 4
    }
}

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
        let segment = ipc::open(path, KIND, &columns::schema(HashMap::new()))?;
        let header = Header::read(&segment.schema).map_err(|e| e.in_file(path))?;
        let mut index = HashMap::new();
        for (number, batch) in segment.batches.iter().enumerate() {
            check(batch, header.k).map_err(|e| e.in_file(path))?;
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

    /// Bytes of a half-written tail that were ignored.
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

fn check(batch: &RecordBatch, k: usize) -> Result<()> {
    let sound = (0..batch.num_rows()).map(|index| columns::row(batch, index)).all(|row| {
        let n = row.tail.len();
        row.ids.len() == n * k
            && row.logp.len() == n * k
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

/// The k + 1 classes of one token, renormalised in fp32: writes k log-probabilities and returns the tail's.
/// `None` when no class has any mass: no distribution is known there.
pub fn renormalise(logp: &[f16], tail: f16, out: &mut [f32]) -> Option<f32> {
    for (out, value) in out.iter_mut().zip(logp) {
        *out = value.to_f32();
    }
    let tail = tail.to_f32();
    // The tail alone says nothing about any token.
    let highest = out.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if highest == f32::NEG_INFINITY {
        return None;
    }
    let highest = highest.max(tail);
    let mass: f32 = out.iter().map(|value| (value - highest).exp()).sum::<f32>() + (tail - highest).exp();
    let norm = highest + mass.ln();
    for value in out {
        *value -= norm;
    }
    Some(tail - norm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_sum_to_one() {
        let logp = [-0.1_f32, -3.0, f32::NEG_INFINITY].map(f16::from_f32);
        let mut out = [0.0; 3];
        let tail = renormalise(&logp, f16::from_f32(-2.0), &mut out).unwrap();
        let mass: f32 = out.iter().map(|value| value.exp()).sum::<f32>() + tail.exp();
        assert!((mass - 1.0).abs() < 1e-6);
        assert!(out[2].is_infinite() && out[2] < 0.0);
        assert_eq!(renormalise(&[f16::NEG_INFINITY; 3], f16::ZERO, &mut out), None);
    }
}
