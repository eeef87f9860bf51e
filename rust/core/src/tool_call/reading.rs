//! How a text is to be read.

use crate::schema::ToolSchema;

use super::formats::Formats;
use super::thinking::Thinking;

/// What counts as a call in a text.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'t> {
    /// The formats whose calls count.
    pub formats: Formats,
    /// Whether the text begins inside a thinking block.
    pub thinking: Thinking,
    /// The tools that the text may call: a call of one that needs no arguments may leave them out.
    pub tools: Option<&'t ToolSchema>,
}

impl Reading<'_> {
    /// Calls of these formats, without tools, in a text that begins outside of a thinking block.
    pub const fn new(formats: Formats) -> Self {
        Self { formats, thinking: Thinking::Closed, tools: None }
    }
}
