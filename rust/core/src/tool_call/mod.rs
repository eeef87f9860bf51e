//! Finding tool calls in text: in whole texts ([`find_tool_calls`]) and while they are written ([`ToolCallStream`]).
//!
//! A *call* is a JSON object with a name (`name`, `tool` or `function`: a string, not empty) and arguments
//! (`arguments`, `parameters` or `args`: an object; `{}` for none). Other keys are allowed. Of a repeated key the last
//! one counts, of several keys for one thing the first in the order above. In `OpenAI`'s shapes the call is under
//! `function` or in the list `tool_calls`. There, and in the formats whose row in the table says so, the arguments may be
//! a JSON text in a string, and may be missing, null or blank: `{}`. In any format they may be left out if the tool
//! needs none ([`Reading::tools`]). Beside keys that may be meant as arguments they may not be missing.
//!
//! A call is inside a *frame*: an opening, JSON (the call, or a list of calls and nothing else), a closing. Bare JSON
//! is a frame without opening and closing. [`Format`] has the table. JSON is strict (RFC 8259; nesting to
//! [`MAX_DEPTH`](crate::json::MAX_DEPTH)): braces, quotes and tags inside its strings are just characters.
//!
//! A call is *complete* at the closing brace of its object: from there on a consumer can act. It is *closed* when its
//! whole frame is well-formed. [`find_tool_calls`] gives closed calls only, [`scan`] and [`ToolCallStream`] all
//! complete ones. A frame is not closed if the text ends, or a further frame opens, where its closing must stand. If
//! anything else stands there (a second object), its call is none.
//!
//! Frames are read alike whichever formats are chosen; the choice decides which calls count.
//!
//! A *thinking block* ([`Thinking`]) holds no call, and none follows it until it ends.
//!
//! An *attempt* ([`Attempt`]) opens like a call and gives none that counts. An opening that is followed by prose is only
//! spoken of: no attempt.
//!
//! The text is scanned from left to right:
//! - After a well-formed frame the scan resumes at the frame's end. Calls inside other JSON are not looked for.
//! - A byte that cannot belong to the frame breaks it. In a frame with opening and closing nothing counts then up to its
//!   closing, or to the opening of a further frame. In others the scan resumes after the frame's last call, or one byte
//!   after the frame's start if it has no call. The brackets that were open are not tried as openings again.
//! - After a bare bracket that is nested too deep the scan resumes right after that bracket.
//! - If the text ends inside a frame, the scan ends: the rest may still come.
//!
//! So every complete call is known at its last byte, and only what follows in its own frame can take it back. The time is
//! linear in the text: after a break, only openings are tried that the broken frame took for part of a string. The second
//! reading takes the quotes the other way round, so no opening is part of a string in both, and there is no third reading.

mod arguments;
mod attempt;
mod attempts;
mod call;
mod escaped;
mod failed;
mod find;
mod formats;
mod frame;
mod machine;
mod object;
mod plain;
mod progress;
mod reading;
mod seen;
mod spoken;
mod starts;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod texts;
mod thinking;
mod whole;

pub use attempt::{Attempt, Reason};
pub use attempts::find_attempts;
pub use call::ToolCall;
pub use find::{Scan, complete_calls, could_become, find_tool_calls, scan};
pub use formats::{Format, Formats};
pub use reading::Reading;
pub use state::{Mark, Options, State};
pub use stream::ToolCallStream;
pub use texts::{are_valid_texts, is_valid_text, required_present_in, text_issues};
pub use thinking::{Thinking, closing_after, is_of_block};
