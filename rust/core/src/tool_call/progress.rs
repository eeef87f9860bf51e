//! What a frame is read from, and how far it is.

use super::reading::Reading;

/// The state of a frame after a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Going,
    /// The byte was its last.
    Closed,
    /// A further frame begins at `resume`, and this one was not closed.
    Unclosed {
        resume: usize,
    },
    /// The byte does not belong to it: the scan resumes at `resume`.
    Broken {
        resume: usize,
    },
    /// The same, and from `rest` on nothing counts up to the frame's closing.
    Void {
        rest: usize,
    },
    /// The opening is only spoken of: the scan resumes after it.
    Spoken,
}

/// The text that a machine's positions refer to: bytes from position `base` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'a> {
    pub bytes: &'a [u8],
    pub base: usize,
    pub reading: Reading<'a>,
}

impl<'a> Window<'a> {
    /// The text from `start` to `end`, which the machine has checked to be UTF-8.
    pub fn text(self, start: usize, end: usize) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(start, end)).ok()
    }

    pub fn bytes(self, start: usize, end: usize) -> &'a [u8] {
        &self.bytes[start - self.base..end - self.base]
    }
}
