//! What a scan of a text shows.

use std::borrow::Cow;
use std::ops::Range;

use super::attempt::Attempt;
use super::call::ToolCall;
use super::formats::Format;
use super::object::Call;
use super::plain::Plain;

/// Takes what [`super::find::walk`] finds, in order.
pub(crate) trait Visit {
    fn call(&mut self, seen: Seen<'_>);
    fn attempt(&mut self, attempt: Attempt);
    /// A whole frame with calls, or a thinking block.
    fn passed(&mut self, _: Range<usize>) {}
    /// A whole frame without calls.
    fn json(&mut self, _: Range<usize>) {}
}

/// A call that [`super::find::walk`] has found.
#[derive(Debug)]
pub(crate) enum Seen<'a> {
    /// In the plainest form, alone in a whole frame.
    Plain(Plain<'a>),
    /// In a whole frame.
    Whole(Item<'a>),
    /// In a frame that may be broken.
    Other(ToolCall),
}

/// A call, not copied.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    pub(super) format: Format,
    pub(super) call: Call<'a>,
    pub(super) span: Range<usize>,
    pub(super) closed: bool,
}

impl Item<'_> {
    pub fn name(&self) -> Cow<'_, str> {
        self.call.name.text()
    }

    /// The arguments object's JSON text.
    pub fn arguments(&self) -> &str {
        self.call.arguments.text()
    }
}

impl Seen<'_> {
    pub fn into_call(self) -> ToolCall {
        match self {
            Self::Plain(plain) => plain.into_call(0),
            Self::Whole(Item { format, call, span, closed }) => {
                ToolCall { closed, span, ..ToolCall::new(format, call, 0) }
            }
            Self::Other(call) => call,
        }
    }
}
