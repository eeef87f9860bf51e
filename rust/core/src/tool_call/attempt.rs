//! What opens like a call and gives none that counts.

/// Why there is no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The text ends inside it.
    Cut,
    /// The call is complete, but what must close its frame is missing.
    Unclosed,
    /// What follows the opening is not what its format asks for.
    Malformed,
    /// The arguments are no JSON object.
    Arguments,
    /// It is written in a format that does not count.
    Format,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Unclosed => "unclosed",
            Self::Malformed => "malformed",
            Self::Arguments => "arguments",
            Self::Format => "format",
        }
    }
}

/// Something that opens like a call and gives none that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The byte at which it opens.
    pub at: usize,
    pub reason: Reason,
    /// Its opening is one of a chosen format: then the text is broken.
    pub chosen: bool,
    /// The text ends inside it, and what may follow can still make it a call.
    pub open: bool,
}
