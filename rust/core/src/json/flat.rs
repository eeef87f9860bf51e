//! JSON read into a flat list: one entry for each key and value, with its place in the text. Nothing is copied.
//!
//! Only for usual JSON. Escaped or repeated keys, objects with many keys and deep nesting are refused; the caller then
//! reads them with the slower [`Cursor`].

use std::borrow::Cow;

use super::cursor::{Cursor, Kind};
use super::strings::{plain_length, same, unescape};

/// Objects with more keys are refused: looking for a repeated key compares it with each key before.
const MAX_KEYS: usize = 32;

/// Deeper values are refused. (`serde_json` has a limit of 128.)
const MAX_DEPTH: usize = 100;

/// A whole number with at most this many digits is finite.
const FINITE_DIGITS: usize = 300;

/// A key or a value. A key comes right before its value; what an object or array holds comes right after it.
///
/// `{"a": [1, 2]}` has the entries: object, "a", array, 1, 2. `after` of the array is 5, of the 1 it is 4.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub kind: Kind,
    /// A string with at least one escape.
    pub escaped: bool,
    /// Where it is in the text; a string without its quotes.
    pub start: u32,
    pub end: u32,
    /// Number of members or elements.
    pub count: u32,
    /// Index of the first entry that is not inside this value.
    pub after: u32,
}

/// One value of a text that was read: `entries[index]`.
#[derive(Clone, Copy)]
pub(crate) struct FlatNode<'a> {
    pub text: &'a str,
    pub entries: &'a [Entry],
    pub index: usize,
}

impl<'a> FlatNode<'a> {
    #[inline]
    pub fn entry(self) -> &'a Entry {
        &self.entries[self.index]
    }

    /// The value as it is written; a string without its quotes.
    #[inline]
    pub fn raw(self) -> &'a str {
        &self.text[self.entry().start as usize..self.entry().end as usize]
    }

    /// The string, escapes resolved; `None` for any other value.
    #[inline]
    pub fn string(self) -> Option<Cow<'a, str>> {
        let entry = self.entry();
        let raw = || if entry.escaped { Cow::Owned(unescape(self.raw())) } else { Cow::Borrowed(self.raw()) };
        (entry.kind == Kind::String).then(raw)
    }
}

/// Clears `entries`, reads the value at byte `at` of `text` into it and returns where the value ends.
///
/// `None`: the value is unusual, or no JSON.
pub(crate) fn read(text: &str, at: usize, entries: &mut Vec<Entry>) -> Option<usize> {
    u32::try_from(text.len()).ok()?;
    entries.clear();
    Reader { text, bytes: text.as_bytes(), entries }.value(at, 0)
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    entries: &'a mut Vec<Entry>,
}

impl Reader<'_> {
    fn value(&mut self, at: usize, depth: usize) -> Option<usize> {
        match *self.bytes.get(at)? {
            b'"' => self.string(at),
            b'{' if depth < MAX_DEPTH => self.object(at, depth),
            b'[' if depth < MAX_DEPTH => self.array(at, depth),
            b'-' | b'0'..=b'9' => self.number(at),
            b't' => self.literal(at, "true", Kind::Bool),
            b'f' => self.literal(at, "false", Kind::Bool),
            b'n' => self.literal(at, "null", Kind::Null),
            _ => None,
        }
    }

    fn object(&mut self, at: usize, depth: usize) -> Option<usize> {
        let index = self.add(Kind::Object, at, at);
        let mut count = 0;
        let mut marks = 0;
        let mut at = self.space(at + 1);
        if *self.bytes.get(at)? != b'}' {
            loop {
                if *self.bytes.get(at)? != b'"' || count == MAX_KEYS {
                    return None;
                }
                let key = self.entries.len();
                at = self.string(at)?;
                let mark = self.mark(key);
                if self.entries[key].escaped || (marks & mark != 0 && self.is_repeated(index, key)) {
                    return None;
                }
                marks |= mark;
                count += 1;
                at = self.space(at);
                if *self.bytes.get(at)? != b':' {
                    return None;
                }
                at = self.value(self.space(at + 1), depth + 1)?;
                at = self.space(at);
                match *self.bytes.get(at)? {
                    b',' => at = self.space(at + 1),
                    b'}' => break,
                    _ => return None,
                }
            }
        }
        Some(self.close(index, count, at + 1))
    }

    fn array(&mut self, at: usize, depth: usize) -> Option<usize> {
        let index = self.add(Kind::Array, at, at);
        let mut count = 0;
        let mut at = self.space(at + 1);
        if *self.bytes.get(at)? != b']' {
            loop {
                count += 1;
                at = self.value(at, depth + 1)?;
                at = self.space(at);
                match *self.bytes.get(at)? {
                    b',' => at = self.space(at + 1),
                    b']' => break,
                    _ => return None,
                }
            }
        }
        Some(self.close(index, count, at + 1))
    }

    #[inline]
    fn string(&mut self, at: usize) -> Option<usize> {
        let start = at + 1;
        if let Some(length) = plain_length(&self.bytes[start..])
            && self.bytes[start + length] == b'"'
        {
            self.add(Kind::String, start, start + length);
            return Some(start + length + 1);
        }
        self.other_string(at)
    }

    /// A string that is long or has an escape.
    #[inline(never)]
    fn other_string(&mut self, at: usize) -> Option<usize> {
        let mut cursor = Cursor::new(self.text, at);
        let string = cursor.string().ok()?;
        let index = self.add(Kind::String, string.span.start, string.span.end);
        self.entries[index].escaped = string.escaped;
        Some(cursor.position())
    }

    #[inline]
    fn number(&mut self, start: usize) -> Option<usize> {
        let digits = start + usize::from(self.bytes[start] == b'-');
        let more = self.bytes[digits..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut end = digits + more;
        let whole = !matches!(self.bytes.get(end), Some(b'.' | b'e' | b'E')) && more <= FINITE_DIGITS;
        if !whole || more == 0 || (more > 1 && self.bytes[digits] == b'0') {
            end = self.other_number(start)?;
        }
        self.add(Kind::Number, start, end);
        Some(end)
    }

    /// The end of a number with a fraction, an exponent or very many digits; `None` when it is no number.
    #[inline(never)]
    fn other_number(&mut self, start: usize) -> Option<usize> {
        let mut cursor = Cursor::new(self.text, start);
        cursor.number().ok()?;
        Some(cursor.position())
    }

    fn literal(&mut self, at: usize, word: &str, kind: Kind) -> Option<usize> {
        let end = at + word.len();
        (self.bytes.get(at..end)? == word.as_bytes()).then(|| {
            self.add(kind, at, end);
            end
        })
    }

    /// The first byte from `at` on that is no white space.
    #[inline]
    fn space(&self, mut at: usize) -> usize {
        while matches!(self.bytes.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            at += 1;
        }
        at
    }

    #[inline]
    fn add(&mut self, kind: Kind, start: usize, end: usize) -> usize {
        let index = self.entries.len();
        let after = index as u32 + 1;
        let (start, end) = (start as u32, end as u32);
        self.entries.push(Entry { kind, escaped: false, start, end, count: 0, after });
        index
    }

    fn close(&mut self, index: usize, count: usize, end: usize) -> usize {
        let after = self.entries.len() as u32;
        let entry = &mut self.entries[index];
        (entry.end, entry.count, entry.after) = (end as u32, count as u32, after);
        end
    }

    /// One of 64 bits, by the key's first byte, last byte and length. Equal keys have equal bits; other keys seldom do.
    #[inline]
    fn mark(&self, key: usize) -> u64 {
        let Entry { start, end, .. } = self.entries[key];
        let (first, last) = (self.bytes[start as usize], self.bytes[end as usize - 1]);
        1 << ((u32::from(first) * 5 + u32::from(last) * 3 + (end - start)) % 64)
    }

    /// Whether the object at `index` has the key at `key` once more, before it.
    fn is_repeated(&self, index: usize, key: usize) -> bool {
        let says = |entry: Entry| &self.bytes[entry.start as usize..entry.end as usize];
        let last = says(self.entries[key]);
        let mut earlier = index + 1;
        while earlier < key {
            if same(says(self.entries[earlier]), last) {
                return true;
            }
            earlier = self.entries[earlier + 1].after as usize;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::validate;

    /// The entries, with a key's depth-first order kept: kind and text.
    fn entries(text: &str) -> Option<Vec<(Kind, String)>> {
        let mut entries = Vec::new();
        let end = read(text, 0, &mut entries)?;
        assert_eq!(end, text.len());
        assert_eq!(entries[0].after as usize, entries.len());
        Some(entries.iter().map(|e| (e.kind, text[e.start as usize..e.end as usize].to_owned())).collect())
    }

    #[test]
    fn every_key_and_value_has_its_entry() {
        let text = r#"{"a": [1, -2.5e3, ""], "long enough to be read many bytes at once é": {"b": null}, "c": "\u00e9"}"#;
        let said: Vec<_> = entries(text).unwrap().into_iter().map(|(_, said)| said).collect();
        let long = "long enough to be read many bytes at once é";
        let array = r#"[1, -2.5e3, ""]"#;
        let inner = r#"{"b": null}"#;
        assert_eq!(said, [text, "a", array, "1", "-2.5e3", "", long, inner, "b", "null", "c", "\\u00e9"]);
    }

    #[test]
    fn accepts_nothing_that_the_cursor_refuses() {
        for text in [
            "",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "{,}",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "[,]",
            "\"",
            "\"a",
            "\"\u{1}\"",
            "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\u{1}\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "01",
            "-",
            "-01",
            "1.",
            "1e",
            "1e400",
            "tru",
            "nulL",
            "truE",
            "+1",
            ".5",
            "{1: 2}",
            "{\"a\" 1}",
            "[1 2]",
            "NaN",
            "-Infinity",
            "'a'",
        ] {
            let mut entries = Vec::new();
            let end = read(text, 0, &mut entries);
            assert!(end.is_none_or(|end| end < text.len()), "{text}");
            assert!(validate(text).is_err(), "{text}");
        }
        let huge = "9".repeat(400);
        assert_eq!(read(&huge, 0, &mut Vec::new()), None);
        assert!(validate(&huge).is_err());
    }

    #[test]
    fn what_is_unusual_is_left_to_others() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        let many = |count| {
            let members: Vec<_> = (0..count).map(|n| format!("\"{n}\": 0")).collect();
            format!("{{{}}}", members.join(", "))
        };
        for (text, usual) in [
            (r#"{"a": 1, "a": 2}"#.to_owned(), false),
            (r#"{"a": {"a": {"a": 1}}, "b": {"a": 2}}"#.to_owned(), true),
            (r#"{"\u0061": 1}"#.to_owned(), false),
            (r#"{"a": "\u0061"}"#.to_owned(), true),
            (nested(100), true),
            (nested(101), false),
            (many(32), true),
            (many(33), false),
        ] {
            assert_eq!(entries(&text).is_some(), usual, "{text}");
            assert!(validate(&text).is_ok());
        }
    }
}
