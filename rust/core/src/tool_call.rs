//! Finding tool calls in text, by scanning JSON where a call opens. No regular expressions: braces, quotes and even the
//! closing tag may stand inside the arguments' strings.

use std::ops::Range;

use memchr::memmem;

use crate::json::{Cursor, JsonError, Kind, RawStr};

/// What opens a call.
pub const OPENING: &str = "<tool_call>";
/// What closes a call.
pub const CLOSING: &str = "</tool_call>";

/// A call found in a text. All ranges are byte offsets into that text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    pub name: String,
    /// The arguments object, as its own JSON text.
    pub arguments: String,
    /// From the first byte of the opening to the last of the closing.
    pub span: Range<usize>,
    /// The JSON object between opening and closing.
    pub body: Range<usize>,
    /// The function name's characters, without quotes.
    pub name_span: Range<usize>,
    /// The arguments object, braces included.
    pub arguments_span: Range<usize>,
    /// The keys of the arguments object (top level, in order of the text, repeated ones too), without quotes.
    pub key_spans: Vec<Range<usize>>,
    /// The values of the arguments object (top level), quotes included; one for each key.
    pub value_spans: Vec<Range<usize>>,
}

/// Every complete call in `text`, in order (Hermes format: `<tool_call>{...}</tool_call>`).
///
/// A call is a JSON object with a string `name` that is not empty and an object `arguments` (`{}` for none: a call without
/// the key is not complete); other keys are allowed, and of a repeated key the last counts. White space may surround
/// the object. What opens like a call and is none is passed over. Takes time linear in the text: two attempts
/// that overlap read the same quotes with opposite meaning, so a third cannot be alive with them.
pub fn find_tool_calls(text: &str) -> Vec<ToolCall> {
    let opening = memmem::Finder::new(OPENING);
    let mut calls = Vec::new();
    let mut from = 0;
    while let Some(at) = opening.find(&text.as_bytes()[from..]) {
        let start = from + at;
        let call = call_at(text, start);
        from = call.as_ref().map_or(start + OPENING.len(), |call| call.span.end);
        calls.extend(call);
    }
    calls
}

/// True when `text` holds at least one call and nothing that opens like a call but is none (cut off, malformed).
pub fn only_complete_calls(text: &str, calls: &[ToolCall]) -> bool {
    let gap_starts = std::iter::once(0).chain(calls.iter().map(|call| call.span.end));
    let gap_ends = calls.iter().map(|call| call.span.start).chain([text.len()]);
    !calls.is_empty() && gap_starts.zip(gap_ends).all(|(start, end)| !text[start..end].contains(OPENING))
}

/// The call whose opening stands at byte `start`.
fn call_at(text: &str, start: usize) -> Option<ToolCall> {
    let mut cursor = Cursor::new(text, start + OPENING.len());
    cursor.skip_space();
    let body_start = cursor.position();
    let mut name: Option<RawStr<'_>> = None;
    let mut arguments: Option<Arguments> = None;
    cursor.object(|cursor, key| entry(cursor, &key, &mut name, &mut arguments)).ok()?;
    let body = body_start..cursor.position();
    cursor.skip_space();
    if !text[cursor.position()..].starts_with(CLOSING) {
        return None;
    }
    let name = name.filter(|name| !name.raw.is_empty())?;
    let arguments = arguments?;
    Some(ToolCall {
        name: name.text().into_owned(),
        arguments: text[arguments.span.clone()].to_owned(),
        span: start..cursor.position() + CLOSING.len(),
        body,
        name_span: name.span,
        arguments_span: arguments.span,
        key_spans: arguments.keys,
        value_spans: arguments.values,
    })
}

#[derive(Default)]
struct Arguments {
    span: Range<usize>,
    keys: Vec<Range<usize>>,
    values: Vec<Range<usize>>,
}

/// Takes one entry of the call's object. A later `name` or `arguments` replaces an earlier one, whatever its type.
fn entry<'a>(
    cursor: &mut Cursor<'a>,
    key: &RawStr<'a>,
    name: &mut Option<RawStr<'a>>,
    arguments: &mut Option<Arguments>,
) -> Result<(), JsonError> {
    let kind = cursor.peek()?;
    match (&*key.text(), kind) {
        ("name", Kind::String) => *name = Some(cursor.string()?),
        ("arguments", Kind::Object) => *arguments = Some(arguments_at(cursor)?),
        ("name", _) => *name = cursor.value().map(|_| None)?,
        ("arguments", _) => *arguments = cursor.value().map(|_| None)?,
        _ => cursor.value().map(drop)?,
    }
    Ok(())
}

fn arguments_at(cursor: &mut Cursor<'_>) -> Result<Arguments, JsonError> {
    let mut found = Arguments::default();
    let start = cursor.position();
    cursor.object(|cursor, key| {
        found.keys.push(key.span);
        found.values.push(cursor.value()?.span);
        Ok::<_, JsonError>(())
    })?;
    found.span = start..cursor.position();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        find_tool_calls(text).into_iter().map(|call| call.name).collect()
    }

    #[test]
    fn spans_are_those_of_the_text() {
        let text = "Sure.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}</tool_call>\", \"b\": [1]}}\n</tool_call> done";
        let calls = find_tool_calls(text);
        assert_eq!(calls.len(), 1);
        let call = &calls[0];
        assert_eq!(&text[call.span.start..call.span.start + 11], OPENING);
        assert!(text[..call.span.end].ends_with("\n</tool_call>"));
        assert_eq!(&text[call.name_span.clone()], "f");
        assert_eq!(&text[call.arguments_span.clone()], "{\"a\": \"}</tool_call>\", \"b\": [1]}");
        let keys: Vec<_> = call.key_spans.iter().map(|span| &text[span.clone()]).collect();
        let values: Vec<_> = call.value_spans.iter().map(|span| &text[span.clone()]).collect();
        assert_eq!((keys, values), (vec!["a", "b"], vec!["\"}</tool_call>\"", "[1]"]));
    }

    #[test]
    fn parallel_calls_and_broken_ones() {
        let call = |name: &str| format!("<tool_call>{{\"name\":\"{name}\",\"arguments\":{{}}}}</tool_call>");
        assert_eq!(names(&(call("a") + &call("b"))), ["a", "b"]);
        assert_eq!(names(&("<tool_call>".to_owned() + &call("a"))), ["a"]);
        assert_eq!(names(&("<tool_call>{\"name\": ".to_owned() + &call("a"))), ["a"]);
        for broken in [
            "<tool_call>{\"name\":\"f\"}</tool_call>",
            "<tool_call>{\"name\":\"\",\"arguments\":{}}</tool_call>",
            "<tool_call>{\"name\":\"f\",\"arguments\":{}}",
            "<tool_call>{\"name\":\"f\",\"arguments\":{},}</tool_call>",
            "<tool_call>{\"name\":1,\"arguments\":{}}</tool_call>",
            "{\"name\":\"f\",\"arguments\":{}}",
        ] {
            assert!(names(broken).is_empty(), "{broken}");
            let after = call("a") + broken;
            assert_eq!(only_complete_calls(&after, &find_tool_calls(&after)), broken.starts_with('{'));
        }
    }

    #[test]
    fn the_last_of_repeated_keys_counts() {
        let text = "<tool_call>{\"name\":\"a\",\"n\\u0061me\":\"b\",\"arguments\":1,\"arguments\":{\"x\":1,\"x\":2}}</tool_call>";
        let calls = find_tool_calls(text);
        assert_eq!((calls[0].name.as_str(), calls[0].key_spans.len()), ("b", 2));
    }
}
