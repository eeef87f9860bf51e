//! Finding tool calls in text: in whole texts ([`find_tool_calls`]) and while they are written ([`ToolCallStream`]).
//!
//! A *call* is a JSON object with a name (`name`, `tool` or `function`: a string, not empty) and arguments (`arguments`,
//! `parameters` or `args`: an object; `{}` for none). Other keys are allowed; of a repeated key the last counts, of
//! different keys for one thing the first in the order given here. In `OpenAI`'s shapes the call stands under `function`
//! or in the list `tool_calls`, and the arguments may be a JSON text in a string.
//!
//! A call stands in a *frame*: an opening, JSON (the call, or a list of nothing but calls), a closing. Bare JSON is a
//! frame without opening and closing. See [`Format`] for the table. JSON is strict (RFC 8259; nesting to
//! [`MAX_DEPTH`](crate::json::MAX_DEPTH)): braces, quotes and tags inside its strings are nothing but characters.
//!
//! A call is *complete* with the closing brace of its object: from there on a consumer can act. It is *closed* when its
//! whole frame is well-formed: [`find_tool_calls`] gives closed calls only, [`scan`] and [`ToolCallStream`] all complete ones.
//!
//! The text is scanned from left to right. At a frame that is well-formed the scan goes on behind it (calls inside other
//! JSON are not looked for). At a byte that cannot belong to the frame the frame is broken, and the scan goes on
//! behind its last call, or where it has none one byte behind its start; brackets that were open where it broke are not
//! tried again. At a bracket too deep the scan goes on behind that bracket. Where the text ends inside a frame
//! nothing more is looked for: the rest may still come. So every complete call is known at its last byte, whatever
//! follows, and the time is linear in the text: two readings that overlap read the same quotes with opposite meaning,
//! so a third cannot be alive with them.

mod escaped;
mod find;
mod formats;
mod frame;
mod machine;
mod object;
mod plain;
mod stream;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use find::{Scan, could_become, find_tool_calls, scan};
pub(crate) use find::{Seen, walk};
pub use formats::{Format, Formats};
pub(crate) use plain::Plain;
pub use stream::{Mark, Options, State, ToolCallStream};

/// A call found in a text. All ranges are byte offsets into that text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    pub format: Format,
    /// The frame that the call stands in is whole.
    pub closed: bool,
    pub name: String,
    /// The arguments object, as its own JSON text.
    pub arguments: String,
    /// From the first byte of the opening to the last of the closing; for one of a list of calls its [`Self::body`].
    pub span: Range<usize>,
    /// The call's JSON object.
    pub body: Range<usize>,
    /// The function name's characters, without quotes.
    pub name_span: Range<usize>,
    /// The arguments object, braces included.
    pub arguments_span: Range<usize>,
    /// The keys of the arguments object (top level, in order of the text, repeated ones too), without quotes.
    pub key_spans: Vec<Range<usize>>,
    /// The values of the arguments object (top level), quotes included; one for each key.
    pub value_spans: Vec<Range<usize>>,
}

impl ToolCall {
    /// `call` was read from a text that begins at byte `base`.
    fn new(format: Format, call: object::Call<'_>, base: usize) -> Self {
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
