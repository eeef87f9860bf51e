//! Finding tool calls in text: in whole texts ([`find_tool_calls`]) and while they are written ([`ToolCallStream`]).
//!
//! A *call* is a JSON object with a name (`name`, `tool` or `function`: a string, not empty) and arguments
//! (`arguments`, `parameters` or `args`: an object; `{}` for none). Other keys are allowed. Of a repeated key the last
//! one counts, of several keys for one thing the first in the order above. In `OpenAI`'s shapes the call is under
//! `function` or in the list `tool_calls`, and the arguments may be a JSON text in a string.
//!
//! A call is inside a *frame*: an opening, JSON (the call, or a list of calls and nothing else), a closing. Bare JSON
//! is a frame without opening and closing. [`Format`] has the table. JSON is strict (RFC 8259; nesting to
//! [`MAX_DEPTH`](crate::json::MAX_DEPTH)): braces, quotes and tags inside its strings are just characters.
//!
//! A call is *complete* at the closing brace of its object: from there on a consumer can act. It is *closed* when its
//! whole frame is well-formed. [`find_tool_calls`] gives closed calls only, [`scan`] and [`ToolCallStream`] all
//! complete ones.
//!
//! The text is scanned from left to right:
//! - After a well-formed frame the scan resumes at the frame's end. Calls inside other JSON are not looked for.
//! - A byte that cannot belong to the frame breaks it. The scan resumes after the frame's last call, or one byte after
//!   the frame's start if it has no call. The brackets that were open are not tried as openings again.
//! - After a bracket that is nested too deep the scan resumes right after that bracket.
//! - If the text ends inside a frame, the scan ends: the rest may still come.
//!
//! So every complete call is known at its last byte, whatever follows. The time is linear in the text: after a break,
//! only brackets are tried that the broken frame took for part of a string. The second reading takes the quotes the
//! other way round, so no bracket is part of a string in both, and there is no third reading.

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
