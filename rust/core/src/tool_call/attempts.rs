//! Attempts at calls in a whole text, those included that no frame shows: marks of formats that are not read, broken
//! JSON, calls of known tools written as code.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use memchr::memmem;

use crate::schema::ToolSchema;

use super::attempt::{Attempt, Reason};
use super::find::{Scan, scan};
use super::formats::CALL_OPENINGS;
use super::object::{ARGUMENTS_KEYS, NAME_KEYS};
use super::reading::Reading;

const CLOSING: &str = "</tool_call>";

/// What models take for quotes.
const QUOTES: [char; 5] = ['"', '\'', '\u{201c}', '\u{201d}', '\u{201e}'];

/// What stands before an object that is the value of a key.
const OBJECT_VALUES: [&str; 6] = [": {", ":{", "= {", "={", ": \"{", ":\"{"];

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
/// Without the opening of a call, JSON of a format that does not count is an attempt only if it names a known tool, where
/// tools are known; and beside a call only if a closing follows it: else it may tell what was called. One attempt that no
/// frame shows is enough: a second one is not looked for.
pub fn find_attempts(text: &str, reading: Reading<'_>) -> Vec<Attempt> {
    let Scan { calls, mut attempts, passed, json } = scan(text, reading);
    let known = Known::new(reading.tools);
    // Each attempt is looked at up to the next one, so that each byte is read once.
    let mut limits =
        attempts.iter().skip(1).map(|next| next.at).chain([text.len()]).collect::<Vec<_>>().into_iter();
    attempts.retain(|&Attempt { at, chosen, .. }| {
        let limit = limits.next().unwrap_or(text.len());
        let end = end_of(&passed, at).or_else(|| end_of(&json, at));
        let marked = CALL_OPENINGS.iter().any(|opening| text[at..].starts_with(opening));
        let named = || known.is_in(&text[at..end.unwrap_or(limit)]);
        let closed = || closing_comes_first(&text[end.unwrap_or(at)..limit.max(end.unwrap_or(at))]);
        marked || chosen || if calls.is_empty() { named() } else { closed() }
    });
    if attempts.is_empty() {
        let none_found = calls.is_empty();
        let hidden = within(&(0..text.len()), &passed).find_map(|gap| {
            let found = other_mark(text, &gap, &known).or_else(|| spoken_call(text, &gap, &known));
            if none_found { found.or_else(|| loose_call(text, &gap, &json, &known)) } else { found }
        });
        attempts.extend(hidden);
    }
    attempts
}

/// The names of the tools that may be called; none where tools are not known.
struct Known<'t>(Option<AhoCorasick>, &'t [String]);

impl<'t> Known<'t> {
    fn new(tools: Option<&'t ToolSchema>) -> Self {
        let names = tools.map_or(&[][..], ToolSchema::names);
        let mut patterns = names.iter().filter(|name| !name.is_empty()).peekable();
        // The longest, so that the tool `get` does not hide `get_weather`.
        let mut builder = AhoCorasick::builder();
        builder.match_kind(MatchKind::LeftmostLongest);
        let any = patterns.peek().is_some();
        Self(any.then(|| builder.build(patterns).expect("names fit into memory")), names)
    }

    /// Whether `text` has the name of a tool; true where tools are not known.
    fn is_in(&self, text: &str) -> bool {
        self.1.is_empty() || self.places(text).next().is_some()
    }

    /// Whether `text` begins with the name of a tool; true where tools are not known.
    fn begins(&self, text: &str) -> bool {
        self.1.is_empty() || self.places(beginning(text)).next().is_some_and(|place| place.start == 0)
    }

    /// Where in `text` the name of a tool stands, as a word.
    fn places<'x>(&'x self, text: &'x str) -> impl Iterator<Item = Range<usize>> + 'x {
        let found = self.0.iter().flat_map(move |names| names.find_iter(text));
        found.map(|found| found.range()).filter(move |place| {
            let of_word =
                |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
            !of_word(text.as_bytes()[..place.start].last()) && !of_word(text.as_bytes().get(place.end))
        })
    }
}

/// As much of `text` as the name of a tool and what stands before it may take.
fn beginning(text: &str) -> &str {
    let longest = text.len().min(256);
    let end = (0..=longest).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

/// The end of the range that begins at `at`; `ranges` are ascending.
fn end_of(ranges: &[Range<usize>], at: usize) -> Option<usize> {
    ranges.binary_search_by_key(&at, |range| range.start).ok().map(|index| ranges[index].end)
}

/// What of `whole` is in none of the `ranges` (ascending).
fn within<'r>(
    whole: &Range<usize>,
    ranges: &'r [Range<usize>],
) -> impl Iterator<Item = Range<usize>> + use<'r> {
    let (start, end) = (whole.start, whole.end);
    let first = ranges.partition_point(|range| range.start < start);
    let last = ranges.partition_point(|range| range.end <= end);
    let inside = &ranges[first..last.max(first)];
    let starts = std::iter::once(start).chain(inside.iter().map(|range| range.end));
    let ends = inside.iter().map(|range| range.start).chain(std::iter::once(end));
    starts.zip(ends).map(|(start, end)| start..end).filter(|gap| !gap.is_empty())
}

fn closing_comes_first(rest: &str) -> bool {
    rest.find(CLOSING).is_some_and(|closing| !CALL_OPENINGS.iter().any(|mark| rest[..closing].contains(mark)))
}

fn attempt(at: usize, reason: Reason) -> Attempt {
    Attempt { at, reason, chosen: false, open: false }
}

/// A mark of another format that opens something, and is not only spoken of.
fn other_mark(text: &str, gap: &Range<usize>, known: &Known<'_>) -> Option<Attempt> {
    let said = &text[gap.clone()];
    let opens = |mark: &str| {
        memmem::find_iter(said.as_bytes(), mark).find(|at| {
            let after = &said[at + mark.len()..];
            let next = after.trim_start();
            let quoted = || next.trim_start_matches(QUOTES);
            next.is_empty()
                || next.starts_with(['{', '[', '<'])
                || next.starts_with(QUOTES) && (quoted().starts_with('{') || known.begins(quoted()))
                || after.starts_with(|next: char| next.is_alphanumeric()) && known.is_in(beginning(after))
        })
    };
    let first = OTHER_MARKS.iter().filter_map(|mark| opens(mark)).min();
    first.map(|at| attempt(gap.start + at, Reason::Format))
}

/// An opening of a call that a scan takes for prose, and a known tool or an object before the closing; or a known tool
/// right after it.
fn spoken_call(text: &str, gap: &Range<usize>, known: &Known<'_>) -> Option<Attempt> {
    let said = &text[gap.clone()];
    let mut openings =
        said.match_indices('<').chain(said.match_indices('[')).map(|(at, _)| at).filter_map(|at| {
            let opening = CALL_OPENINGS.into_iter().find(|opening| said[at..].starts_with(opening))?;
            Some((at, opening))
        });
    let opens = |&(at, opening): &(usize, &str)| {
        let after = &said[at + opening.len()..];
        // Up to the next opening, so that each byte is read once.
        let end = after.match_indices(['<', '[']).map(|(at, _)| at);
        let mut end = end.filter(|&at| CALL_OPENINGS.iter().any(|opening| after[at..].starts_with(opening)));
        let own = &after[..end.next().unwrap_or(after.len())];
        let inside = own.find(CLOSING).map_or("", |closing| &own[..closing]);
        let empty = said.trim().strip_prefix(opening).is_some_and(|rest| rest.trim() == CLOSING);
        let named = !known.1.is_empty() && known.begins(own.trim_start());
        empty || named || inside.contains('{') || !inside.is_empty() && known.places(inside).next().is_some()
    };
    openings.find(opens).map(|(at, _)| attempt(gap.start + at, Reason::Malformed))
}

/// A call in text that is no frame: broken JSON, JSON with keys of other kinds, code.
fn loose_call(text: &str, gap: &Range<usize>, json: &[Range<usize>], known: &Known<'_>) -> Option<Attempt> {
    if known.1.is_empty() {
        let mut parts = within(gap, json);
        return parts.find_map(|part| {
            let said = &text[part.clone()];
            let keys = has_key(said, NAME_KEYS) && has_key(said, ARGUMENTS_KEYS);
            said.find('{').filter(|_| keys).map(|at| attempt(part.start + at, Reason::Malformed))
        });
    }
    let said = &text[gap.clone()];
    let first_brace = said.find('{');
    let last_object = OBJECT_VALUES.iter().filter_map(|value| said.rfind(value)).max();
    let keys = first_brace.is_some() && has_key(said, ARGUMENTS_KEYS);
    let one_line = said.trim_end().ends_with([')', ']']) && !said.trim().contains("\n\n");
    known.places(said).find_map(|place| {
        let (before, after) = (&said[..place.start], &said[place.end..]);
        let quoted = before.ends_with(QUOTES) && after.starts_with(QUOTES);
        let value = before.trim_end_matches(QUOTES).trim_end().ends_with([':', '=']);
        let brace = first_brace.filter(|&brace| brace < place.start).unwrap_or(place.start);
        let (at, reason) = match () {
            () if quoted && keys => (brace, Reason::Malformed),
            () if quoted && value && last_object >= Some(place.end) => (brace, Reason::Format),
            () if is_code(before, after, one_line) => (place.start, Reason::Format),
            () => return None,
        };
        Some(attempt(gap.start + at, reason))
    })
}

/// Whether the name of a tool between `before` and `after` is called as other models do: `[f(x=1)]`, `f[ARGS]{...}`,
/// `call:f{...}`, or, if the text is `one_line`, `f(x=1)` and nothing else.
fn is_code(before: &str, after: &str, one_line: bool) -> bool {
    let path = |byte: char| byte.is_alphanumeric() || byte == '_' || byte == '.';
    let line = before.trim_end_matches(path).trim_end();
    let list = line.ends_with('[') && after.trim_start().starts_with('(');
    let alone = one_line && line.is_empty() && after.starts_with('(');
    list || alone || after.starts_with("[ARGS]") || before.ends_with("call:")
}

/// Whether one of `keys` stands in `text` as a key: in quotes, or with a colon after it.
fn has_key(text: &str, keys: [&str; 3]) -> bool {
    keys.iter().any(|key| {
        memmem::find_iter(text.as_bytes(), key).any(|at| {
            let (before, after) = (&text[..at], &text[at + key.len()..]);
            let word = !before.ends_with(|next: char| next.is_alphanumeric() || next == '_');
            let colon =
                after.trim_start_matches(QUOTES).trim_start_matches(['\\', ' ']).starts_with([':', '=']);
            word && (colon || before.ends_with(QUOTES) && after.starts_with(QUOTES))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::Formats;
    use super::*;
    use crate::schema::ToolSchema;

    fn reasons(text: &str) -> Vec<(usize, &'static str)> {
        let tools = ToolSchema::cached(
            r#"[{"name": "tide", "parameters": {"required": ["port"]}}, {"name": "tides"}]"#,
        )
        .unwrap();
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
            (r#"{"name" "tides", "arguments": {}}"#.to_owned(), 0, "malformed"),
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
