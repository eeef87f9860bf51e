//! Records' own log-probabilities (`teacher_topk`), written into a teacher store of their own.

use std::collections::HashSet;
use std::path::PathBuf;

use super::columns::{self, FLOOR, ScoredRow};
use super::header::{Header, KIND, RECORD_FINGERPRINT};
use crate::Result;
use crate::annotate::Row;
use crate::ipc;
use crate::row_key::{RowKey, row_key};

/// Writes that store while its token store is built. No file is made unless a record has log-probabilities.
pub struct RecordTeacher {
    path: PathBuf,
    header: Header,
    file: Option<ipc::Unfinished>,
    keys: HashSet<RowKey>,
}

impl RecordTeacher {
    pub fn new(path: PathBuf, k: usize, vocab_size: usize) -> Self {
        let fingerprint = RECORD_FINGERPRINT.to_owned();
        let header = Header { fingerprint, k, logprob_temperature: 1.0, vocab_size, samples: 0 };
        Self { path, header, file: None, keys: HashSet::new() }
    }

    pub fn append(&mut self, rows: &[Row]) -> Result<()> {
        let scored: Vec<ScoredRow> = rows.iter().filter_map(|row| self.scored(row)).collect();
        if scored.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let schema = columns::schema(ipc::header(KIND, self.header.entries()), 0);
                none.insert(ipc::Unfinished::create(&self.path, &schema)?)
            }
        };
        let batch = columns::batch(file.schema(), &scored)?;
        file.append(&batch)
    }

    pub fn finish(&mut self) -> Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let schema = file.schema().clone();
        file.finish(&schema)
    }

    /// The k likeliest ids of each token; the tail is 1 minus their probabilities.
    fn scored(&mut self, row: &Row) -> Option<ScoredRow> {
        let topk = row.topk.as_ref()?;
        let ids: Vec<i32> = row.ids.iter().map(|&id| id as i32).collect();
        let supervised: Vec<i32> =
            row.supervised.iter().flat_map(|s| [s.start as i32, s.end as i32]).collect();
        let key = row_key(&ids, &supervised, row.response.start as usize, RECORD_FINGERPRINT);
        if !self.keys.insert(key) {
            return None;
        }
        let mut scored = ScoredRow { key, ..ScoredRow::default() };
        for (ids, logprobs) in topk.ids.iter().zip(&topk.logprobs) {
            let mut classes: Vec<(i32, f32)> =
                ids.iter().map(|&id| id as i32).zip(logprobs.iter().copied()).collect();
            classes.sort_by(|a, b| b.1.total_cmp(&a.1));
            classes.truncate(self.header.k);
            let mass: f64 = classes.iter().map(|(_, logp)| f64::from(*logp).exp()).sum();
            scored.tail.push(((1.0 - mass).max(0.0).ln() as f32).max(FLOOR));
            classes.resize(self.header.k, (0, f32::NEG_INFINITY));
            scored.ids.extend(classes.iter().map(|(id, _)| *id));
            scored.logp.extend(classes.iter().map(|(_, logp)| *logp));
        }
        Some(scored)
    }
}
