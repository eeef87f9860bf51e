//! A strict JSON scanner (RFC 8259): validates as it goes and knows the byte at which a text goes wrong.
//!
//! It builds no tree. A caller walks objects and arrays entry by entry and keeps the spans it wants.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr2;

use super::strings::{plain_length, unescape};

/// How deep objects and arrays may be nested; one level more is an error.
pub const MAX_DEPTH: usize = 128;

/// Where (byte offset into the text) and why a text is not JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    pub offset: usize,
    pub reason: String,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

impl Kind {
    /// The kind's name in error messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "boolean",
            Self::Number => "number",
            Self::String => "string",
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

/// A validated value: its kind and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    pub kind: Kind,
    pub span: Range<usize>,
}

/// A validated string as it is written, without its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawStr<'a> {
    pub raw: &'a str,
    pub span: Range<usize>,
    pub(super) escaped: bool,
}

impl<'a> RawStr<'a> {
    /// The string with its escapes resolved.
    pub fn text(&self) -> Cow<'a, str> {
        if self.escaped { Cow::Owned(unescape(self.raw)) } else { Cow::Borrowed(self.raw) }
    }
}

/// A position in a JSON text.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    text: &'a str,
    position: usize,
    depth: usize,
}

type Scan<T> = Result<T, JsonError>;

impl<'a> Cursor<'a> {
    /// Starts at byte `position`, which must be a character boundary of `text`.
    pub fn new(text: &'a str, position: usize) -> Self {
        Self { text, position, depth: 0 }
    }

    pub fn position(&self) -> usize {
        self.position
    }

    /// The text that was scanned.
    pub fn slice(&self, span: Range<usize>) -> &'a str {
        &self.text[span]
    }

    /// Skips white space.
    pub fn skip_space(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.position += 1;
        }
    }

    /// Skips white space and tells the kind of the next value by its first character.
    pub fn peek(&mut self) -> Scan<Kind> {
        self.skip_space();
        match self.byte() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(b'0'..=b'9') => Ok(Kind::Number),
            Some(b'-') if !self.rest().starts_with("-Inf") => Ok(Kind::Number),
            _ => Err(self.unexpected("a value")),
        }
    }

    /// Validates one value and moves past it.
    pub fn value(&mut self) -> Scan<Value> {
        let kind = self.peek()?;
        let start = self.position;
        match kind {
            Kind::Object => self.object(|cursor, _| cursor.value().map(drop))?,
            Kind::Array => self.array(|cursor, _| cursor.value().map(drop))?,
            Kind::String => self.string().map(drop)?,
            Kind::Number => self.number().map(drop)?,
            Kind::Bool if self.byte() == Some(b't') => self.literal("true")?,
            Kind::Bool => self.literal("false")?,
            Kind::Null => self.literal("null")?,
        }
        Ok(Value { kind, span: start..self.position })
    }

    /// Reads an object. `entry` is called with each key, when the cursor is at its value; it must read the value.
    pub fn object<E: From<JsonError>>(
        &mut self,
        mut entry: impl FnMut(&mut Self, RawStr<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.open(b'{', "'{'")?;
        if !self.closes(b'}') {
            loop {
                self.skip_space();
                if self.byte() != Some(b'"') {
                    return Err(self.unexpected("a key in double quotes").into());
                }
                let key = self.string()?;
                self.skip_space();
                self.expect(b':', "':' after the key")?;
                entry(self, key)?;
                if self.separated(b'}', "',' or '}'")? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads an array. `item` is called with each index, when the cursor is at the value; it must read the value.
    pub fn array<E: From<JsonError>>(
        &mut self,
        mut item: impl FnMut(&mut Self, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        self.open(b'[', "'['")?;
        if !self.closes(b']') {
            for index in 0.. {
                item(self, index)?;
                if self.separated(b']', "',' or ']'")? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads a string.
    pub fn string(&mut self) -> Scan<RawStr<'a>> {
        self.skip_space();
        self.expect(b'"', "a string")?;
        let start = self.position;
        let mut escaped = false;
        loop {
            let rest = &self.text.as_bytes()[self.position..];
            let short = plain_length(rest);
            let Some(plain) = short.or_else(|| memchr2(b'"', b'\\', rest)) else {
                self.no_control(rest.len())?;
                return Err(self.error_at(self.text.len(), "the text ends inside a string"));
            };
            if short.is_none() {
                self.no_control(plain)?;
            }
            self.position += plain;
            if self.byte().is_some_and(|byte| byte < b' ') {
                self.no_control(1)?;
            }
            if self.text.as_bytes()[self.position] == b'"' {
                break;
            }
            escaped = true;
            self.escape()?;
        }
        let span = start..self.position;
        self.position += 1;
        Ok(RawStr { raw: &self.text[span.clone()], span, escaped })
    }

    /// Reads a number and returns its text.
    pub fn number(&mut self) -> Scan<&'a str> {
        self.skip_space();
        let start = self.position;
        if self.byte() == Some(b'-') {
            self.position += 1;
        }
        if self.byte() == Some(b'0') {
            self.position += 1;
            if self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
                return Err(self.error_at(start, "a number must not have leading zeros"));
            }
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.position += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.position += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.position += 1;
            }
            self.digits()?;
        }
        let number = &self.text[start..self.position];
        if is_infinite(number) {
            return Err(self.error_at(start, "the number is too large"));
        }
        Ok(number)
    }

    /// Nothing but white space may follow.
    pub fn end(&mut self) -> Scan<()> {
        self.skip_space();
        if self.position == self.text.len() { Ok(()) } else { Err(self.unexpected("the end of the text")) }
    }

    /// An error at `offset`.
    pub fn error_at(&self, offset: usize, reason: impl Into<String>) -> JsonError {
        JsonError { offset, reason: reason.into() }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }

    fn open(&mut self, bracket: u8, name: &str) -> Scan<()> {
        self.skip_space();
        let offset = self.position;
        self.expect(bracket, name)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error_at(offset, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }

    fn closes(&mut self, bracket: u8) -> bool {
        self.skip_space();
        let closed = self.byte() == Some(bracket);
        self.position += usize::from(closed);
        closed
    }

    /// After an entry: true at the closing bracket, false at a comma.
    fn separated(&mut self, bracket: u8, names: &str) -> Scan<bool> {
        if self.closes(bracket) {
            return Ok(true);
        }
        self.expect(b',', names)?;
        Ok(false)
    }

    fn expect(&mut self, byte: u8, name: &str) -> Scan<()> {
        if self.byte() != Some(byte) {
            return Err(self.unexpected(name));
        }
        self.position += 1;
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Scan<()> {
        if !self.rest().starts_with(word) {
            return Err(self.unexpected("a value"));
        }
        self.position += word.len();
        Ok(())
    }

    fn digits(&mut self) -> Scan<()> {
        let start = self.position;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.position += 1;
        }
        if self.position == start { Err(self.unexpected("a digit")) } else { Ok(()) }
    }

    fn escape(&mut self) -> Scan<()> {
        let backslash = self.position;
        match self.text.as_bytes().get(backslash + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.position += 2,
            Some(b'u') => {
                let unit = self.hex4(backslash)?;
                let paired = match unit {
                    0xD800..=0xDBFF if self.rest().starts_with("\\u") => {
                        matches!(self.hex4(self.position)?, 0xDC00..=0xDFFF)
                    }
                    0xD800..=0xDFFF => false,
                    _ => true,
                };
                if !paired {
                    return Err(self.error_at(backslash, format!("lone surrogate \\u{unit:04x}")));
                }
            }
            Some(_) => return Err(self.error_at(backslash, "unknown escape in a string")),
            None => return Err(self.error_at(self.text.len(), "the text ends inside a string")),
        }
        Ok(())
    }

    /// The code unit of the `\uXXXX` at `backslash`; moves past it.
    fn hex4(&mut self, backslash: usize) -> Scan<u16> {
        let digits = self.text.as_bytes().get(backslash + 2..backslash + 6);
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let unit = digits.and_then(|digits| u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        self.position = backslash + 6;
        unit.ok_or_else(|| self.error_at(backslash, "\\u needs four hexadecimal digits"))
    }

    /// The next `length` bytes of a string hold no control character.
    fn no_control(&self, length: usize) -> Scan<()> {
        let part = &self.text.as_bytes()[self.position..self.position + length];
        let mut found = false;
        for &byte in part {
            // No early exit, so that the compiler makes vector code of the loop.
            found |= byte < 0x20;
        }
        if found {
            let at = part.iter().position(|&byte| byte < 0x20).unwrap_or(0);
            let reason = format!("control character U+{:04X} in a string must be escaped", part[at]);
            return Err(self.error_at(self.position + at, reason));
        }
        Ok(())
    }

    /// The error for what is here instead of `wanted`.
    fn unexpected(&self, wanted: &str) -> JsonError {
        let rest = self.rest();
        let constant = ["NaN", "Infinity", "-Infinity"].into_iter().find(|name| rest.starts_with(name));
        let reason = match (constant, rest.chars().next()) {
            (Some(name), _) => format!("{name} is not a JSON number"),
            (None, Some(found)) => format!("expected {wanted}, found {found:?}"),
            (None, None) => format!("expected {wanted}, found the end of the text"),
        };
        self.error_at(self.position, reason)
    }
}

/// Validates that `text` is one JSON value.
pub fn validate(text: &str) -> Result<Value, JsonError> {
    let mut cursor = Cursor::new(text, 0);
    let value = cursor.value()?;
    cursor.end()?;
    Ok(value)
}

/// Whether a valid number is too large for a double, such as 1e400. (Python and others read it as infinity and say
/// nothing.)
pub(crate) fn is_infinite(number: &str) -> bool {
    // The largest double has 309 digits.
    let suspicious = number.len() > 308 || number.contains(['e', 'E']);
    suspicious && number.parse::<f64>().is_ok_and(f64::is_infinite)
}
