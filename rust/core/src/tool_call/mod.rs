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

mod arguments;
mod call;
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
mod texts;

pub use call::ToolCall;
pub use find::{Scan, could_become, find_tool_calls, scan};
pub use formats::{Format, Formats};
pub use stream::{Mark, Options, State, ToolCallStream};
pub use texts::{are_valid_texts, is_valid_text, required_present_in, text_issues};
