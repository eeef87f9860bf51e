//! How records become rows.

use super::content_tokens::ContentTokens;
use crate::tool_call::{Formats, Reading, Thinking};

/// Which assistant turns are targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supervise {
    Last,
    All,
}

impl Supervise {
    pub fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::All => "all",
        }
    }
}

/// What becomes of a record whose answer has a call that breaks its tool's schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidCalls {
    /// Its row says `call_valid: false`.
    Keep,
    /// It is an error of its line.
    Reject,
}

impl InvalidCalls {
    pub fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Reject => "reject",
        }
    }
}

/// The caller chooses each: the defaults are Python's (`kdfast.config.data`).
#[derive(Debug, Clone)]
pub struct Options {
    pub supervise: Supervise,
    /// How many ids of the first tool call `teacher_prefix_ids` has, if the record does not give them.
    pub prefix_tokens: usize,
    /// What counts as a tool call in an answer.
    pub formats: Formats,
    pub invalid_calls: InvalidCalls,
    pub content_tokens: ContentTokens,
}

impl Options {
    /// How the answer to `prompt` is read, without tools.
    pub fn reading(&self, prompt: &str) -> Reading<'static> {
        Reading { thinking: Thinking::after(prompt), ..Reading::new(self.formats) }
    }
}
