//! What a teacher store's header says.

use arrow::datatypes::Schema;

use crate::{Result, ipc};

/// The kind of store, as a header names it.
pub(super) const KIND: &str = "teacher_store";

/// The fingerprint of a store with records' own log-probabilities.
pub const RECORD_FINGERPRINT: &str = "record";

/// Which teacher's scores a store has, and in which form.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// The teacher's fingerprint, a part of every row's key.
    pub fingerprint: String,
    pub k: usize,
    /// The temperature at which the log-probabilities were computed.
    pub logprob_temperature: f64,
    pub vocab_size: usize,
    /// Ids drawn for each token; 0: the store has no columns for them.
    pub samples: usize,
}

impl Header {
    pub(super) fn entries(&self) -> Vec<(&'static str, String)> {
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

    pub(super) fn read(schema: &Schema) -> Result<Self> {
        Ok(Self {
            fingerprint: ipc::header_value(schema, "teacher_fingerprint")?,
            k: ipc::header_value(schema, "k")?,
            logprob_temperature: ipc::header_value(schema, "logprob_temperature")?,
            vocab_size: ipc::header_value(schema, "vocab_size")?,
            samples: ipc::header_value_or(schema, "samples", 0)?,
        })
    }

    /// The settings in which two stores of one teacher may differ, in words.
    pub(super) fn settings(&self) -> String {
        let Self { k, logprob_temperature, vocab_size, samples, .. } = self;
        format!("k {k}, temperature {logprob_temperature}, vocabulary {vocab_size}, samples {samples}")
    }

    /// Bytes that a token takes: k ids (int32) and log-probabilities (fp16), tail and call opening (fp16), drawn ids
    /// (int32) and how often each was drawn (u16).
    pub fn bytes_per_token(&self) -> usize {
        (self.k + self.samples) * 6 + 4
    }
}
