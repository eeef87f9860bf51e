//! A call that was found.

use std::ops::Range;

use super::formats::Format;
use super::object;

/// A call found in a text. All ranges are byte offsets into that text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    pub format: Format,
    /// Whether the frame around the call is whole.
    pub closed: bool,
    pub name: String,
    /// The arguments object, as its own JSON text.
    pub arguments: String,
    /// The whole frame, from opening to closing; for a call in a list its [`Self::body`].
    pub span: Range<usize>,
    /// The call's JSON object.
    pub body: Range<usize>,
    /// The function name's characters, without quotes.
    pub name_span: Range<usize>,
    /// The arguments object, braces included; where there are none: what stands for them, or an empty range.
    pub arguments_span: Range<usize>,
    /// The keys of the arguments object (top level, in order of the text, repeated ones too), without quotes.
    pub key_spans: Vec<Range<usize>>,
    /// The values of the arguments object (top level), quotes included; one for each key.
    pub value_spans: Vec<Range<usize>>,
}

impl ToolCall {
    /// The call that was read as `call` in a text that begins at byte `base`.
    pub(super) fn new(format: Format, call: object::Call<'_>, base: usize) -> Self {
        let shift = |span: Range<usize>| span.start + base..span.end + base;
        let arguments = call.arguments.into_parts();
        Self {
            format,
            closed: false,
            name: call.name.text().into_owned(),
            arguments: arguments.text,
            span: shift(call.span.clone()),
            body: shift(call.span),
            name_span: shift(call.name.span),
            arguments_span: shift(arguments.span),
            key_spans: arguments.keys.into_iter().map(shift).collect(),
            value_spans: arguments.values.into_iter().map(shift).collect(),
        }
    }
}
