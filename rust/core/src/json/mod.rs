//! Strict JSON (RFC 8259): what is wrong with a text, and at which byte.
//!
//! [`Cursor`] walks any text and names its faults. [`flat`] reads usual texts faster and only says whether it could.

mod cursor;
pub(crate) mod flat;
pub(crate) mod node;
mod strings;
#[cfg(test)]
mod tests;

pub(crate) use cursor::is_infinite;
pub use cursor::{Cursor, JsonError, Kind, MAX_DEPTH, RawStr, Value, validate};
pub use strings::quote;
pub(crate) use strings::same;
