//! Attempts at calls in a whole text, those included that no frame shows: marks of formats that are not read, broken
//! JSON, calls of known tools written as code.

use std::ops::Range;

use memchr::memmem;

use super::attempt::{Attempt, Reason};
use super::find::{Scan, scan};
use super::formats::CALL_OPENINGS;
use super::object::{ARGUMENTS_KEYS, NAME_KEYS};
use super::reading::Reading;

const CLOSING: &str = "</tool_call>";

/// Marks with which other models open calls (Qwen-Coder, `LFM2`, Phi-4, Gemma, `DeepSeek`, Kimi, gpt-oss, `MiniMax`...).
const OTHER_MARKS: [&str; 14] = [
    "<function=",
    "<function_call>",
    "<tool_calls>",
    "<invoke name=",
    "<|tool_call_start|>",
    "<|tool_call|>",
    "<|tool_call>",
    "<|tool_call_begin|>",
    "<|tool_calls_section_begin|>",
    "<start_function_call>",
    "<\u{ff5c}tool\u{2581}call",
    "<minimax:tool_call>",
    "functools[",
    "to=functions.",
];

/// Every attempt in `text` at a call that counts: what opens like one and gives none.
///
/// Beside a call, JSON of a format that does not count is none, unless a closing follows it: it may tell what was called.
/// One attempt that no frame shows is enough: a second one is not looked for.
pub fn find_attempts(text: &str, reading: Reading<'_>) -> Vec<Attempt> {
    let Scan { calls, mut attempts, passed, json } = scan(text, reading);
    if !calls.is_empty() {
        attempts.retain(|attempt| attempt.chosen || is_marked(text, attempt.at, &passed));
    }
    if attempts.is_empty() {
        let none_found = calls.is_empty();
        let hidden = gaps(text, &passed).find_map(|gap| {
            let loose = || gaps_within(&gap, &json).find_map(|gap| loose_call(text, gap));
            let mark = other_mark(text, &gap);
            if none_found { mark.or_else(loose).or_else(|| named_tool(text, &gap, reading)) } else { mark }
        });
        attempts.extend(hidden);
    }
    attempts
}

/// Whether what opens at `at` has the opening of a call, or the closing of one after it.
fn is_marked(text: &str, at: usize, passed: &[Range<usize>]) -> bool {
    let frame = passed.binary_search_by_key(&at, |range| range.start).map(|index| &passed[index]);
    let closed = |range: &Range<usize>| text[range.end..].trim_start().starts_with(CLOSING);
    CALL_OPENINGS.iter().any(|opening| text[at..].starts_with(opening)) || frame.is_ok_and(closed)
}

/// What of `text` is in none of `ranges` (ascending).
fn gaps<'r>(text: &str, ranges: &'r [Range<usize>]) -> impl Iterator<Item = Range<usize>> + 'r {
    gaps_within(&(0..text.len()), ranges)
}

/// What of `whole` is in none of `ranges` (ascending).
fn gaps_within<'r>(
    whole: &Range<usize>,
    ranges: &'r [Range<usize>],
) -> impl Iterator<Item = Range<usize>> + use<'r> {
    let (start, end) = (whole.start, whole.end);
    let inside = ranges.iter().filter(move |range| start <= range.start && range.end <= end);
    let starts = std::iter::once(start).chain(inside.clone().map(|range| range.end));
    let ends = inside.map(|range| range.start).chain(std::iter::once(end));
    starts.zip(ends).map(|(start, end)| start..end).filter(|gap| !gap.is_empty())
}

fn attempt(at: usize, reason: Reason) -> Attempt {
    Attempt { at, reason, chosen: false, open: false }
}

fn other_mark(text: &str, gap: &Range<usize>) -> Option<Attempt> {
    let first = OTHER_MARKS.iter().filter_map(|mark| text[gap.clone()].find(mark)).min();
    first.map(|at| attempt(gap.start + at, Reason::Format))
}

/// A brace with a name and arguments after it, in text that is no JSON.
fn loose_call(text: &str, gap: Range<usize>) -> Option<Attempt> {
    let at = gap.start + text[gap.clone()].find('{')?;
    let after = &text[at..gap.end];
    let has = |keys: [&str; 3]| keys.iter().any(|key| has_key(after, key));
    (has(NAME_KEYS) && has(ARGUMENTS_KEYS)).then(|| attempt(at, Reason::Malformed))
}

/// Whether `text` has `key` with a colon after it. Its quotes may be there or not.
fn has_key(text: &str, key: &str) -> bool {
    memmem::find_iter(text.as_bytes(), key).any(|at| {
        let before = text.as_bytes()[..at].last();
        let after = text[at + key.len()..].trim_start_matches(['"', '\'', '\\', ' ']);
        !before.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') && after.starts_with(':')
    })
}

/// A known tool, named as the value of a key after a brace, or called as a function in code.
fn named_tool(text: &str, gap: &Range<usize>, reading: Reading<'_>) -> Option<Attempt> {
    let said = &text[gap.clone()];
    let brace = said.find('{');
    let place_of = |name: &str| {
        memmem::find_iter(said.as_bytes(), name).find_map(|at| {
            let (before, after) = (&said[..at], &said[at + name.len()..]);
            let value = brace.filter(|&brace| {
                let quoted = before.ends_with('"') && after.starts_with('"');
                brace < at && quoted && before[..at - 1].trim_end().ends_with(':')
            });
            let line = before.trim_end_matches(' ');
            let begins = line.is_empty() || line.ends_with(['\n', '[', ',', '`', '(', '=']);
            value.or_else(|| (begins && after.starts_with('(')).then_some(at))
        })
    };
    let tools = reading.tools?.names();
    let first = tools.iter().filter(|name| !name.is_empty()).filter_map(|name| place_of(name)).min();
    first.map(|at| attempt(gap.start + at, Reason::Format))
}

#[cfg(test)]
mod tests {
    use super::super::Formats;
    use super::*;
    use crate::schema::ToolSchema;

    fn reasons(text: &str) -> Vec<(usize, &'static str)> {
        let tools =
            ToolSchema::cached(r#"[{"name": "tide", "parameters": {"required": ["port"]}}]"#).unwrap();
        let reading = Reading { tools: Some(&tools), ..Reading::new(Formats::HERMES) };
        find_attempts(text, reading).into_iter().map(|attempt| (attempt.at, attempt.reason.name())).collect()
    }

    #[test]
    fn what_opens_like_a_call_is_seen() {
        const CALL: &str = r#"{"name": "tide", "arguments": {"port": "Brest"}}"#;
        let cut = CALL.len() - 9;
        for (text, at, reason) in [
            (format!("<tool_call>{}", &CALL[..cut]), 0, "cut"),
            ("<tool_call>".to_owned(), 0, "cut"),
            ("So: <tool_c".to_owned(), 4, "cut"),
            (format!("<tool_call>{CALL}"), 0, "unclosed"),
            (format!("<tool_call>{CALL}</tool_c"), 0, "unclosed"),
            (format!("<tool_call>{CALL}<tool_call>"), 0, "unclosed"),
            (format!("<tool_call>{},}}</tool_call>", &CALL[..CALL.len() - 1]), 0, "malformed"),
            (format!("<tool_call>{CALL}{CALL}</tool_call>"), 0, "malformed"),
            (format!("<tool_call>[{CALL}]</tool_call>"), 0, "malformed"),
            (r#"<tool_call>{"name": "tide"}</tool_call>"#.to_owned(), 0, "arguments"),
            (r#"<tool_call>{"name": "tide", "arguments": "{}"}</tool_call>"#.to_owned(), 0, "arguments"),
            (r#"<tool_call>{"name": "tide", "arguments": 3}</tool_call>"#.to_owned(), 0, "arguments"),
            ("<tool_call>\n<function=tide>\n</function></tool_call>".to_owned(), 0, "malformed"),
            ("<tool_call>tide(port='x')</tool_call>".to_owned(), 0, "malformed"),
            (format!("[TOOL_CALLS][{CALL}]"), 0, "format"),
            (format!("Sure. {CALL}"), 6, "format"),
            (format!("```json\n{CALL}\n```"), 0, "format"),
            (CALL[..cut].to_owned(), 0, "cut"),
            (format!("[1, {CALL}]"), 0, "malformed"),
            ("<function=tide><parameter=port>Brest</parameter></function>".to_owned(), 0, "format"),
            (CALL.replacen('"', "", 1), 0, "malformed"),
            (r#"{"tool_name": "tide", "input": {"port": "Brest"}}"#.to_owned(), 0, "format"),
            ("[tide(port='Brest')]".to_owned(), 1, "format"),
        ] {
            assert_eq!(reasons(&text).first(), Some(&(at, reason)), "{text}");
        }
    }

    #[test]
    fn prose_is_no_attempt() {
        for text in [
            "",
            "No tool can do that.",
            "The <tool_call> tag opens a call.",
            "Write `<tool_call>` twice: <tool_call>, then JSON.",
            r#"{"name": "Alice", "age": 3}"#,
            r#"{"person": {"name": "x"}, "config": {"args": [1]}}"#,
            r#"The "tide" tool needs a port: ask tide (the tool)."#,
            "<think>I could write <tool_call>{\"name\": \"tide\"}</tool_call></think>No.",
            "<think>{\"name\": \"tide\", \"arguments\": {",
            "Use a {name} here, with [1] and <b>.",
        ] {
            assert_eq!(reasons(text), [], "{text}");
        }
    }

    #[test]
    fn prose_around_a_call_is_no_attempt() {
        const CALL: &str = r#"<tool_call>{"name": "tide", "arguments": {"port": "Brest"}}</tool_call>"#;
        for text in [
            format!("The <tool_call> tag: {CALL}"),
            format!("{CALL} I called {{\"tool\": \"tide\"}}."),
            format!("{CALL}\n{CALL}"),
            format!("{CALL} So I called {}.", &CALL[11..CALL.len() - 12]),
            format!("{CALL} {{\"name\": \"tide\", \"arguments\": {{}},"),
            format!("<think>{{\"name\": 1, \"args\": }}</think>{CALL}"),
        ] {
            assert_eq!(reasons(&text), [], "{text}");
        }
        assert_eq!(reasons(&format!("{CALL}<tool_call>{{")), [(71, "cut")]);
        assert_eq!(reasons(&format!("{CALL}[TOOL_CALLS]{}", &CALL[11..CALL.len() - 12])), [(71, "format")]);
        assert_eq!(reasons(&format!("{CALL}tool_call>{}", &CALL[11..])), [(81, "format")]);
    }
}
