//! What a stream is told, and what it says.

use std::sync::Arc;

use crate::schema::ToolSchema;

use super::formats::Formats;
use super::thinking::Thinking;

#[derive(Debug, Clone)]
pub struct Options {
    /// A call counts if it is valid under this schema; without a schema every call counts.
    pub schema: Option<Arc<ToolSchema>>,
    /// The tools that may be called, for [`Reading::tools`]; without them the schema's.
    pub tools: Option<Arc<ToolSchema>>,
    pub formats: Formats,
    /// Whether the text begins inside a thinking block.
    pub thinking: Thinking,
    /// The longest frame, in bytes. After a longer one the stream gives up ([`State::Impossible`]).
    pub max_call_bytes: usize,
}

impl Options {
    /// Calls of these formats, in any text of calls of at most 1 MiB.
    pub const fn new(formats: Formats) -> Self {
        Self { schema: None, tools: None, formats, thinking: Thinking::Closed, max_call_bytes: 1 << 20 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Outside of frames, and no valid call is complete.
    Prose,
    /// A call may be under way.
    Inside,
    /// A valid call is complete, and no further one has begun.
    Complete,
    /// A limit was reached: nothing more is read.
    Impossible,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Prose => "prose",
            Self::Inside => "inside",
            Self::Complete => "complete",
            Self::Impossible => "impossible",
        }
    }
}

/// A place in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// 0-based, over all input.
    pub byte: usize,
    /// The token that the byte belongs to, 0-based over all tokens; `None` if it was not fed as part of a token.
    pub token: Option<usize>,
}
