//! The fast way for calls in their plainest form, as nearly all are: an object with a name, arguments and nothing
//! unusual.
//!
//! `None` means that a call is not plain; the general reading then looks for it. That one also reads what comes to a
//! stream in pieces. The tests check that both give the same calls.

use std::ops::Range;

use crate::json::Kind as JsonKind;
use crate::json::flat::{self, Entry, FlatNode};
use crate::json::same;

use super::call::ToolCall;
use super::formats::{Format, Formats, Kind, Place, is_word};
use super::object::{ARGUMENTS_KEYS, Form, LIST_KEY, NAME_KEYS, Shape};

/// A call in a whole frame, not copied.
#[derive(Debug)]
pub(crate) struct Plain<'a> {
    text: &'a str,
    /// The call's object.
    entries: &'a [Entry],
    format: Format,
    span: Range<usize>,
    name: usize,
    arguments: usize,
}

/// The frame at byte `start` of `text`, if it is whole and has one plain call of a `chosen` format.
pub(super) fn frame<'a>(
    text: &'a str,
    start: usize,
    kind: Kind,
    chosen: Formats,
    entries: &'a mut Vec<Entry>,
) -> Option<Plain<'a>> {
    let bytes = text.as_bytes();
    let mut at = start + kind.opening().len();
    if kind.fence() {
        at += bytes[at..].iter().take_while(|&&byte| is_word(byte)).count();
    }
    at = space(bytes, at);
    let mut call = object(text, at, kind, chosen, entries)?;
    let mut end = call.span.end;
    if !kind.closing().is_empty() {
        end = space(bytes, end);
        if !bytes[end..].starts_with(kind.closing().as_bytes()) {
            return None;
        }
        end += kind.closing().len();
    }
    call.span = start..end;
    Some(call)
}

/// The object at byte `at` of `text`, if it is a plain call.
fn object<'a>(
    text: &'a str,
    at: usize,
    kind: Kind,
    chosen: Formats,
    entries: &'a mut Vec<Entry>,
) -> Option<Plain<'a>> {
    if text.as_bytes().get(at) != Some(&b'{') || !kind.object() {
        return None;
    }
    let end = flat::read(text, at, entries)?;
    let (mut name, mut arguments, mut others) = (None, None, false);
    let mut key = 1;
    while key < entries.len() {
        let value = key + 1;
        let Entry { kind, escaped, start, end, .. } = entries[value];
        let said = &text.as_bytes()[entries[key].start as usize..entries[key].end as usize];
        let one_of = |keys: &[&str]| keys.iter().position(|known| same(known.as_bytes(), said));
        if let Some(which) = one_of(&NAME_KEYS) {
            if kind != JsonKind::String || escaped || start == end || name.is_some() {
                return None;
            }
            name = Some((which, value));
        } else if let Some(which) = one_of(&ARGUMENTS_KEYS) {
            if kind != JsonKind::Object || arguments.is_some() {
                return None;
            }
            arguments = Some((which, value));
        } else if said == LIST_KEY.as_bytes() {
            return None;
        } else {
            others = true;
        }
        key = entries[value].after as usize;
    }
    let ((name_key, name), (arguments_key, arguments)) = (name?, arguments?);
    let llama = !others && NAME_KEYS[name_key] == "name" && ARGUMENTS_KEYS[arguments_key] == "parameters";
    let shape = if llama { Shape::NameAndParameters } else { Shape::Plain };
    let (format, true) = kind.label(Place::Alone, Form { shape, lenient: false }, chosen)? else {
        return None;
    };
    Some(Plain { text, entries, format, span: at..end, name, arguments })
}

impl<'a> Plain<'a> {
    pub fn name(&self) -> &'a str {
        &self.text[self.place(self.name)]
    }

    pub fn arguments(&self) -> FlatNode<'a> {
        FlatNode { text: self.text, entries: self.entries, index: self.arguments }
    }

    pub fn end(&self) -> usize {
        self.span.end
    }

    /// Copies the call; its text begins at byte `base` of the input.
    pub fn into_call(self, base: usize) -> ToolCall {
        let shift = |span: Range<usize>| span.start + base..span.end + base;
        let (mut key_spans, mut value_spans) = (Vec::new(), Vec::new());
        let mut key = self.arguments + 1;
        while key < self.entries[self.arguments].after as usize {
            key_spans.push(shift(self.place(key)));
            let value = self.place(key + 1);
            let quotes = usize::from(self.entries[key + 1].kind == JsonKind::String);
            value_spans.push(shift(value.start - quotes..value.end + quotes));
            key = self.entries[key + 1].after as usize;
        }
        ToolCall {
            format: self.format,
            closed: true,
            name: self.name().to_owned(),
            arguments: self.text[self.place(self.arguments)].to_owned(),
            body: shift(self.place(0)),
            name_span: shift(self.place(self.name)),
            arguments_span: shift(self.place(self.arguments)),
            key_spans,
            value_spans,
            span: shift(self.span),
        }
    }

    fn place(&self, index: usize) -> Range<usize> {
        self.entries[index].start as usize..self.entries[index].end as usize
    }
}

/// The index of the first byte from `at` on that is no white space.
fn space(bytes: &[u8], at: usize) -> usize {
    at + bytes[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count()
}

#[cfg(test)]
mod tests {
    use crate::tool_call::find::{scan, walk};
    use crate::tool_call::seen::{Seen, Visit};
    use crate::tool_call::{Attempt, Formats, Options, Reading, ToolCall, ToolCallStream};

    /// Whether a call was read the fast way.
    struct AnyPlain(bool);

    impl Visit for AnyPlain {
        fn call(&mut self, seen: Seen<'_>) {
            self.0 |= matches!(seen, Seen::Plain(_));
        }

        fn attempt(&mut self, _: Attempt) {}
    }

    /// The calls of the general reading.
    fn streamed(text: &str) -> Vec<ToolCall> {
        let mut stream = ToolCallStream::new(Options::new(Formats::ALL));
        text.as_bytes().chunks(1).for_each(|byte| stream.feed(byte));
        stream.calls().to_vec()
    }

    #[test]
    fn only_what_is_plain_is_read_so_and_the_calls_are_the_same() {
        const CALL: &str = r#"{"name": "f", "arguments": {"a": [1, "}"], "é": "\u00e9"}}"#;
        for (text, plain) in [
            (format!("<tool_call>\n{CALL}\n</tool_call>"), true),
            (format!("<tool_call>\n{CALL}\n</tool_calls>"), false),
            (format!("é {CALL} é"), true),
            (format!("```json\n{CALL}```"), true),
            (format!("```json {CALL} x```"), false),
            (format!("[TOOL_CALLS]{CALL}"), true),
            (format!("[TOOL_CALLS][{CALL}]"), false),
            (format!("[{CALL}]"), false),
            (format!("{{\"tool_calls\": [{CALL}]}}"), false),
            (r#"{"parameters": {}, "name": "f"}"#.to_owned(), true),
            (r#"<|python_tag|>{"tool": "f", "id": 3, "args": {}}"#.to_owned(), true),
            (r#"{"name": "f", "tool": "g", "arguments": {}}"#.to_owned(), false),
            (r#"{"name": "f", "arguments": {}, "args": 1}"#.to_owned(), false),
            (r#"{"name": "f", "arguments": {"a": 1, "a": 2}}"#.to_owned(), false),
            (r#"{"n\u0061me": "f", "arguments": {}}"#.to_owned(), false),
            (r#"{"name": "\u0066", "arguments": {}}"#.to_owned(), false),
            (r#"{"name": "", "arguments": {}}"#.to_owned(), false),
            (r#"{"name": "f", "arguments": "{}"}"#.to_owned(), false),
            (r#"{"function": {"name": "f", "arguments": {}}}"#.to_owned(), false),
            (r#"{"city": "Rome"}"#.to_owned(), false),
            (r#"{"name": "f", "arguments": {}"#.to_owned(), false),
        ] {
            let mut any = AnyPlain(false);
            walk(&text, Reading::new(Formats::ALL), &mut any);
            assert_eq!(any.0, plain, "{text}");
            assert_eq!(scan(&text, Reading::new(Formats::ALL)).calls, streamed(&text), "{text}");
        }
    }
}
