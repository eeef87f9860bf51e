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
    /// Ids drawn a token; 0: the store has no columns for them.
    pub samples: usize,
}

impl Header {
    fn entries(&self) -> Vec<(&'static str, String)> {
        let mut entries = vec![
            ("teacher_fingerprint", self.fingerprint.clone()),
            ("k", self.k.to_string()),
            ("logprob_temperature", format!("{:?}", self.logprob_temperature)),
            ("vocab_size", self.vocab_size.to_string()),
        ];
        if self.samples > 0 {
            entries.push(("samples", self.samples.to_string()));
        }
        entries
    }

    fn read(schema: &Schema) -> Result<Self> {
        Ok(Self {
            fingerprint: ipc::header_value(schema, "teacher_fingerprint")?,
            k: ipc::header_value(schema, "k")?,
            logprob_temperature: ipc::header_value(schema, "logprob_temperature")?,
            vocab_size: ipc::header_value(schema, "vocab_size")?,
            samples: ipc::header_value_or(schema, "samples", 0)?,
        })
    }

    /// What two stores of one teacher may differ in, in words.
    fn settings(&self) -> String {
        let Self { k, logprob_temperature, vocab_size, samples, .. } = self;
        format!("k {k}, temperature {logprob_temperature}, vocabulary {vocab_size}, samples {samples}")
    }

    /// Bytes a token: k ids (int32) and log-probabilities (fp16), tail and call opening (fp16), drawn ids (int32) and
    /// how often each was drawn (u16).
    pub fn bytes_per_token(&self) -> usize {
        (self.k + self.samples) * 6 + 4
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

/// The file's batches and header.
fn open_segment(path: &Path) -> Result<(ipc::Segment, Header)> {
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

    fn header(samples: usize) -> Header {
        Header { fingerprint: "t".to_owned(), k: 1, logprob_temperature: 1.0, vocab_size: 9, samples }
    }

    fn scored(key: u8, sample_ids: &[i32], sample_counts: &[u16]) -> ScoredRow {
        ScoredRow {
            key: [key; 16],
            ids: vec![5, 6],
            logp: vec![-0.5, -1.0],
            tail: vec![-0.9, -0.5],
            opening: None,
            sample_ids: sample_ids.to_vec(),
            sample_counts: sample_counts.to_vec(),
        }
    }

    #[test]
    fn drawn_ids_come_back_and_a_torn_tail_is_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let header = header(3);
        assert_eq!(header.bytes_per_token(), 4 + 6 + 18);
        let rows = |key| vec![scored(key, &[1, 5, 0, 8, 0, 0], &[2, 1, 0, 3, 0, 0])];
        let mut writer = TeacherWriter::open(directory.path(), &header).unwrap();
        writer.append(rows(1)).unwrap();
        let path = writer.path().to_owned();
        let whole = std::fs::metadata(&path).unwrap().len();
        writer.append(rows(2)).unwrap();
        drop(writer);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(std::fs::metadata(&path).unwrap().len() - 3).unwrap();

        let store = TeacherStore::open(&path).unwrap();
        assert_eq!((store.header(), store.len()), (&header, 1));
        let row = store.get(&[1; 16]).unwrap();
        assert_eq!((row.ids, row.sample_ids), (&[5, 6][..], &[1, 5, 0, 8, 0, 0][..]));
        assert_eq!(row.sample_counts, [2, 1, 0, 3, 0, 0]);
        assert!(store.torn() > 0 && store.audit().is_empty());

        let mut writer = TeacherWriter::open(directory.path(), &header).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), whole);
        assert_eq!(writer.append(rows(2)).unwrap(), 1);
        assert_eq!(TeacherStore::open(&path).unwrap().len(), 2);
    }

    #[test]
    fn a_store_without_samples_is_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = TeacherWriter::open(directory.path(), &header(0)).unwrap();
        writer.append(vec![scored(1, &[], &[])]).unwrap();
        let segment = ipc::open(writer.path(), KIND, |_| Ok(columns::schema(HashMap::new(), 0))).unwrap();
        assert_eq!(segment.schema.fields().len(), 7);
        assert!(!segment.schema.metadata.contains_key("kdfast.samples"));
        let store = TeacherStore::open(writer.path()).unwrap();
        assert_eq!(store.header().samples, 0);
        assert!(store.get(&[1; 16]).unwrap().sample_ids.is_empty());
        drop(writer);
        let error = TeacherWriter::open(directory.path(), &header(3)).err().unwrap();
        assert!(error.message.contains("samples 0; asked for"), "{}", error.message);
    }

    #[test]
    fn drawn_ids_that_cannot_be_are_refused() {
        let refused =
            |ids: &[i32], counts: &[u16]| scored(1, ids, counts).check(&header(2), 0).unwrap_err().message;
        assert!(scored(1, &[1, 2, 8, 0], &[1, 1, 2, 0]).check(&header(2), 0).is_ok());
        assert!(refused(&[1, 2], &[1, 1]).contains("2 tokens need 4 drawn ids and counts, found 2 and 2"));
        assert!(refused(&[1, 2, 9, 0], &[1, 1, 2, 0]).contains("outside the vocabulary of 9: 9"));
        assert!(refused(&[1, 2, -1, 0], &[1, 1, 2, 0]).contains("outside the vocabulary of 9: -1"));
        assert!(refused(&[1, 2, 3, 0], &[1, 1, 1, 0]).contains("of token 1 must add up to 2, got 1"));
        assert!(refused(&[1, 2, 0, 3], &[1, 1, 0, 2]).contains("of token 1 must not have a 0 before"));
    }
}
