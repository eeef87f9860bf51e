//! Strict JSON, one byte at a time. It accepts exactly what [`crate::json::Cursor`] accepts.
//!
//! It works on bytes, so a character may be split over two pieces of input.

use crate::json::{MAX_DEPTH, is_infinite};

/// Why the bytes cannot become JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Syntax,
    /// Brackets are nested deeper than [`MAX_DEPTH`].
    Depth,
}

/// What a byte did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Nothing,
    /// A string, number or literal began, as a value.
    Scalar,
    /// An object or array began.
    Opened,
    /// A key ended whose opening quote is at this place.
    Key(usize),
    /// An object or array ended that began at this place.
    Closed(usize),
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// A value comes; `first`: the array may end instead.
    Value {
        first: bool,
    },
    /// A key comes; `first`: the object may end instead.
    Key {
        first: bool,
    },
    Colon,
    /// A comma comes, or a closing bracket.
    After,
    String(Text),
    Number(Number),
    /// The rest of a literal.
    Literal(&'static [u8]),
}

/// Where in a string the machine is.
#[derive(Debug, Clone, Copy)]
enum Text {
    Plain,
    /// After a backslash.
    Escape,
    /// In `\uXXXX`; `low`: it must be the second half of a surrogate pair.
    Hex {
        digits: u8,
        unit: u16,
        low: bool,
    },
    /// After the first half of a surrogate pair: a backslash comes.
    PairBackslash,
    PairU,
    /// In a character of several bytes: `left` bytes are missing, the next one is in `low..=high`.
    Multi {
        left: u8,
        low: u8,
        high: u8,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    Power,
}

/// Reads one object or array.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    state: State,
    /// The open brackets: where they are, and whether they are square.
    open: Vec<(usize, bool)>,
    /// Where the current string began, and whether it is a key.
    string: (usize, bool),
    number: Vec<u8>,
}

impl Machine {
    pub fn new() -> Self {
        Self {
            state: State::Value { first: false },
            open: Vec::new(),
            string: (0, false),
            number: Vec::new(),
        }
    }

    /// How many objects and arrays are open.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// The places of the open brackets, ascending.
    pub fn open(&self) -> impl Iterator<Item = usize> {
        self.open.iter().map(|&(at, _)| at)
    }

    /// How many of the next `bytes` are plain characters inside a string: they may be skipped.
    pub fn plain(&self, bytes: &[u8]) -> usize {
        if !matches!(self.state, State::String(Text::Plain)) {
            return 0;
        }
        let ends = |&byte: &u8| byte < b' ' || byte == b'"' || byte == b'\\' || byte >= 0x80;
        bytes.iter().position(ends).unwrap_or(bytes.len())
    }

    /// Takes the byte at `at`. Not to be called again after a fault, or when the depth is back at 0.
    pub fn push(&mut self, byte: u8, at: usize) -> Result<Event, Fault> {
        match self.state {
            State::String(text) => self.text(text, byte),
            State::Number(number) => match number.next(byte) {
                Some(next) => {
                    self.number.push(byte);
                    self.state = State::Number(next);
                    Ok(Event::Nothing)
                }
                None if number.is_whole() && !self.number_is_infinite() => self.after(byte),
                None => Err(Fault::Syntax),
            },
            State::Literal([next, rest @ ..]) if *next == byte => {
                self.state = if rest.is_empty() { State::After } else { State::Literal(rest) };
                Ok(Event::Nothing)
            }
            State::Literal(_) => Err(Fault::Syntax),
            _ if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') => Ok(Event::Nothing),
            State::Value { first } => self.value(first, byte, at),
            State::Key { first: true } if byte == b'}' => Ok(self.close()),
            State::Key { .. } if byte == b'"' => {
                self.begin_string(at, true);
                Ok(Event::Nothing)
            }
            State::Colon if byte == b':' => {
                self.state = State::Value { first: false };
                Ok(Event::Nothing)
            }
            State::Key { .. } | State::Colon => Err(Fault::Syntax),
            State::After => self.after(byte),
        }
    }

    fn value(&mut self, first: bool, byte: u8, at: usize) -> Result<Event, Fault> {
        self.state = match byte {
            b'{' | b'[' => {
                if self.open.len() == MAX_DEPTH {
                    return Err(Fault::Depth);
                }
                let square = byte == b'[';
                self.open.push((at, square));
                self.state = if square { State::Value { first: true } } else { State::Key { first: true } };
                return Ok(Event::Opened);
            }
            b']' if first => return Ok(self.close()),
            b'"' => {
                self.begin_string(at, false);
                return Ok(Event::Scalar);
            }
            b't' => State::Literal(b"rue"),
            b'f' => State::Literal(b"alse"),
            b'n' => State::Literal(b"ull"),
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Whole),
            _ => return Err(Fault::Syntax),
        };
        self.number.clear();
        self.number.push(byte);
        Ok(Event::Scalar)
    }

    fn after(&mut self, byte: u8) -> Result<Event, Fault> {
        let square = self.open.last().is_some_and(|&(_, square)| square);
        self.state = match (byte, square) {
            (b' ' | b'\n' | b'\r' | b'\t', _) => State::After,
            (b',', true) => State::Value { first: false },
            (b',', false) => State::Key { first: false },
            (b']', true) | (b'}', false) => return Ok(self.close()),
            _ => return Err(Fault::Syntax),
        };
        Ok(Event::Nothing)
    }

    fn close(&mut self) -> Event {
        self.state = State::After;
        self.open.pop().map_or(Event::Nothing, |(at, _)| Event::Closed(at))
    }

    fn begin_string(&mut self, at: usize, key: bool) {
        self.string = (at, key);
        self.state = State::String(Text::Plain);
    }

    fn text(&mut self, text: Text, byte: u8) -> Result<Event, Fault> {
        if let (Text::Plain, b'"') = (text, byte) {
            let (at, key) = self.string;
            self.state = if key { State::Colon } else { State::After };
            return Ok(if key { Event::Key(at) } else { Event::Nothing });
        }
        self.state = State::String(text.next(byte).ok_or(Fault::Syntax)?);
        Ok(Event::Nothing)
    }

    fn number_is_infinite(&self) -> bool {
        std::str::from_utf8(&self.number).is_ok_and(is_infinite)
    }
}

impl Text {
    /// `None`: the string is broken. (The caller handles the closing quote.)
    fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Plain, b'\\') => Self::Escape,
            (Self::Plain, b' '..=0x7F)
            | (Self::Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Self::Plain,
            (Self::Plain, 0xC2..=0xDF) => Self::Multi { left: 1, low: 0x80, high: 0xBF },
            (Self::Plain, 0xE0) => Self::Multi { left: 2, low: 0xA0, high: 0xBF },
            (Self::Plain, 0xED) => Self::Multi { left: 2, low: 0x80, high: 0x9F },
            (Self::Plain, 0xE1..=0xEF) => Self::Multi { left: 2, low: 0x80, high: 0xBF },
            (Self::Plain, 0xF0) => Self::Multi { left: 3, low: 0x90, high: 0xBF },
            (Self::Plain, 0xF1..=0xF3) => Self::Multi { left: 3, low: 0x80, high: 0xBF },
            (Self::Plain, 0xF4) => Self::Multi { left: 3, low: 0x80, high: 0x8F },
            (Self::Multi { left, low, high }, _) if (low..=high).contains(&byte) => match left {
                1 => Self::Plain,
                _ => Self::Multi { left: left - 1, low: 0x80, high: 0xBF },
            },
            (Self::Escape, b'u') => Self::Hex { digits: 0, unit: 0, low: false },
            (Self::Hex { digits, unit, low }, _) => {
                let unit = unit << 4 | char::from(byte).to_digit(16)? as u16;
                match (digits, unit, low) {
                    (0..3, ..) => Self::Hex { digits: digits + 1, unit, low },
                    (_, 0xD800..=0xDBFF, false) => Self::PairBackslash,
                    (_, 0xDC00..=0xDFFF, low) => low.then_some(Self::Plain)?,
                    (.., low) => (!low).then_some(Self::Plain)?,
                }
            }
            (Self::PairBackslash, b'\\') => Self::PairU,
            (Self::PairU, b'u') => Self::Hex { digits: 0, unit: 0, low: true },
            _ => return None,
        })
    }
}

impl Number {
    /// `None`: the number has ended before `byte`, or is broken.
    fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Whole, b'0'..=b'9') => Self::Whole,
            (Self::Zero | Self::Whole, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Self::Exponent,
            (Self::Exponent, b'+' | b'-') => Self::ExponentSign,
            (Self::Exponent | Self::ExponentSign | Self::Power, b'0'..=b'9') => Self::Power,
            _ => return None,
        })
    }

    fn is_whole(self) -> bool {
        matches!(self, Self::Zero | Self::Whole | Self::Fraction | Self::Power)
    }
}

#[cfg(test)]
mod tests;
