//! Finding tool calls in text.

use std::ops::Range;

/// A call found in a text. All ranges are byte offsets into that text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    pub name: String,
    /// The arguments object, as its own JSON text.
    pub arguments: String,
    /// From the first byte of the opening to the last of the closing.
    pub span: Range<usize>,
    /// The JSON object between opening and closing.
    pub body: Range<usize>,
    /// The function name's characters, without quotes.
    pub name_span: Range<usize>,
    /// The arguments object, braces included.
    pub arguments_span: Range<usize>,
    /// The keys of the arguments object (top level), without quotes.
    pub key_spans: Vec<Range<usize>>,
    /// The values of the arguments object (top level), quotes included.
    pub value_spans: Vec<Range<usize>>,
}

/// Every complete call in `text`, in order (Hermes format: `<tool_call>{...}</tool_call>`).
pub fn find_tool_calls(_text: &str) -> Vec<ToolCall> {
    todo!()
}
