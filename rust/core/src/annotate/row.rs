//! A row: an answer with its prompt, as tokens with spans.

use super::spans::{Span, Spans};
use crate::fields::TopK;

/// Whose answer a row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Teacher = 0,
    Truth = 1,
}

/// One row: whole and untruncated.
#[expect(clippy::struct_excessive_bools, reason = "the columns of a row")]
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub line: u64,
    pub source: Source,
    pub ids: Vec<u32>,
    /// The (last) answer, its turn end included.
    pub response: Span,
    /// What is learned: the response, or with `Supervise::All` every assistant turn.
    pub supervised: Vec<Span>,
    pub spans: Spans,
    /// Groups of turns in the middle of the conversation that may be dropped, oldest first. Each begins where the one
    /// before ends.
    pub drop_groups: Vec<Span>,
    pub teacher_prefix_ids: Vec<u32>,
    pub tool_should_be_used: bool,
    pub required_fields_present: bool,
    /// Every call of the answer satisfies its tool's schema; true without calls.
    pub call_valid: bool,
    /// As the record gives it, one entry for each token of the row; `None`: 1 on the response's tokens.
    pub teacher_attention_mask: Option<Vec<u8>>,
    pub teacher_length: u32,
    pub validated_arguments: Option<String>,
    pub finish_reason: Option<String>,
    pub tools: Option<String>,
    pub metadata: String,
    /// Control tokens in its messages or tools were encoded as text.
    pub escaped: bool,
    /// The answer came with its own turn end, which is learned once.
    pub ended_already: bool,
    /// Its prompt or its answer was given as text: whatever control tokens these have are tokens.
    pub raw_text: bool,
    /// The prompt's tokens do not give back all of its bytes.
    pub prompt_lossy: bool,
    /// The record's own log-probabilities, for the teacher store.
    pub topk: Option<TopK>,
}
