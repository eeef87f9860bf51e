//! The arguments of a call: where their object is written, and where its keys and values are.

use std::ops::Range;

use crate::json::{Cursor, JsonError};

/// The arguments object.
#[derive(Debug)]
pub(super) enum Arguments<'a> {
    /// Written in the text, from byte `start` on.
    Plain { text: &'a str, start: usize },
    /// Written inside a string, with escapes.
    Escaped(Box<Parts>),
    /// Left out: `null` or the inside of a blank string at `span`, or nothing at all.
    Nothing { span: Range<usize> },
}

/// The arguments object and its parts.
#[derive(Debug)]
pub(super) struct Parts {
    pub text: String,
    pub span: Range<usize>,
    pub keys: Vec<Range<usize>>,
    pub values: Vec<Range<usize>>,
}

impl Parts {
    /// Reads the arguments object at `cursor`.
    pub fn read(cursor: &mut Cursor<'_>) -> Result<Self, JsonError> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let start = cursor.position();
        cursor.object(|cursor, key| {
            keys.push(key.span);
            values.push(cursor.value()?.span);
            Ok::<_, JsonError>(())
        })?;
        let span = start..cursor.position();
        Ok(Self { text: cursor.slice(span.clone()).to_owned(), span, keys, values })
    }
}

impl Arguments<'_> {
    pub fn text(&self) -> &str {
        match self {
            Self::Plain { text, .. } => text,
            Self::Escaped(parts) => &parts.text,
            Self::Nothing { .. } => "{}",
        }
    }

    pub fn into_parts(self) -> Parts {
        match self {
            Self::Plain { text, start } => {
                let shift = |span: Range<usize>| span.start + start..span.end + start;
                let parts = Parts::read(&mut Cursor::new(text, 0)).expect("was read before");
                Parts {
                    span: shift(parts.span),
                    keys: parts.keys.into_iter().map(shift).collect(),
                    values: parts.values.into_iter().map(shift).collect(),
                    text: parts.text,
                }
            }
            Self::Escaped(parts) => *parts,
            Self::Nothing { span } => {
                Parts { text: "{}".to_owned(), span, keys: Vec::new(), values: Vec::new() }
            }
        }
    }
}
