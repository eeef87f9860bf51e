//! Control tokens that stand in what people wrote. A `<|im_end|>` that a user typed is text: it must make no turn.
//!
//! As transformers' `sanitize_control_tokens`: such tokens are put between two marks before the template runs. In the
//! rendered text, what is between marks is encoded as text, and the control tokens that the template writes itself
//! stay tokens. Control tokens are the tokenizer's special ones, and its other added ones that stand in the template.

use std::borrow::Cow;

use crate::json::node::Node;
use crate::template::ChatTemplate;
use crate::tokenize::Tokenizer;
use crate::tool_call::{Formats, Reading, find_tool_calls, is_of_block};
use crate::{Error, Result};

/// What becomes of control tokens in content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentTokens {
    /// They are encoded as text.
    Escape,
    /// They are an error of the line.
    Refuse,
    /// They become tokens.
    Allow,
}

impl ContentTokens {
    pub fn name(self) -> &'static str {
        match self {
            Self::Escape => "escape",
            Self::Refuse => "refuse",
            Self::Allow => "allow",
        }
    }
}

/// The marks: two characters for private use, the same that transformers takes.
const START: char = '\u{F0000}';
const END: char = '\u{F0001}';

/// Finds control tokens in content.
#[derive(Debug)]
pub struct Guard {
    /// Longest first: a token goes before those that it contains. None where tokens are allowed.
    tokens: Vec<String>,
    /// The characters with which these begin, each once.
    first: Vec<char>,
    rule: ContentTokens,
    formats: Formats,
}

impl Guard {
    pub fn new(
        tokenizer: &Tokenizer,
        template: &ChatTemplate,
        rule: ContentTokens,
        formats: Formats,
    ) -> Self {
        let written = [template.source(), template.tool_use().unwrap_or_default()];
        let mut tokens: Vec<String> = tokenizer
            .added_tokens()
            .filter(|(content, special)| {
                let in_template = || written.iter().any(|text| text.contains(content));
                rule != ContentTokens::Allow && !content.trim().is_empty() && (*special || in_template())
            })
            .map(|(content, _)| content.to_owned())
            .collect();
        tokens.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        let mut first: Vec<char> = tokens.iter().filter_map(|token| token.chars().next()).collect();
        first.sort_unstable();
        first.dedup();
        Self { tokens, first, rule, formats }
    }

    /// Messages, a message or tools (valid JSON), with their control tokens between marks. Borrowed when they have none.
    pub fn mark<'j>(&self, json: &'j str) -> Result<Cow<'j, str>> {
        // An escape may hide a token: `\u003c` is `<`.
        let suspect = |token: &String| json.contains(token.as_str());
        let hidden = json.contains("\\u") || json.contains([START, END]);
        if !hidden && !self.tokens.iter().any(suspect) {
            return Ok(Cow::Borrowed(json));
        }
        let Ok(mut parsed) = Node::parse(json) else { return Ok(Cow::Borrowed(json)) };
        if !self.mark_node(&mut parsed, false)? {
            return Ok(Cow::Borrowed(json));
        }
        Ok(Cow::Owned(parsed.json()))
    }

    /// Marks all strings below `node`, keys aside; whether one changed.
    fn mark_node(&self, node: &mut Node<'_>, answer: bool) -> Result<bool> {
        match node {
            Node::Array(items) => {
                items.iter_mut().try_fold(false, |any, item| Ok(self.mark_node(item, answer)? | any))
            }
            Node::Object(_) => {
                let assistant = node.get("role").and_then(Node::text).as_deref() == Some("assistant");
                let Node::Object(entries) = node else { return Ok(false) };
                entries.iter_mut().try_fold(false, |any, (key, value)| {
                    Ok(self.mark_node(value, assistant && key == "content")? | any)
                })
            }
            Node::Scalar(_) => {
                let Some(text) = node.text() else { return Ok(false) };
                let marked = self.mark_text(&text, answer)?;
                if marked == text {
                    return Ok(false);
                }
                *node = Node::string(&marked);
                Ok(true)
            }
        }
    }

    /// `text` with its control tokens between marks. In an `answer` that has a whole call, the tokens that open and close
    /// calls are not content, unless they stand inside a call; nor are those around a thinking block.
    fn mark_text(&self, text: &str, answer: bool) -> Result<String> {
        let clean = text.replace([START, END], "");
        let calls = if answer { find_tool_calls(&clean, Reading::new(self.formats)) } else { Vec::new() };
        let around_call = |at: usize, token: &str| {
            !calls.is_empty()
                && self.formats.marks().any(|mark| mark == token)
                && calls.iter().all(|call| at + token.len() <= call.body.start || call.body.end <= at)
        };
        let mut out = String::with_capacity(clean.len() + 8);
        let mut at = 0;
        while let Some(plain) = clean[at..].find(&self.first[..]) {
            out.push_str(&clean[at..at + plain]);
            at += plain;
            let rest = &clean[at..];
            let token = self.tokens.iter().find(|token| rest.starts_with(token.as_str()));
            let written = |token: &str| around_call(at, token) || answer && is_of_block(token, &clean, at);
            let Some(token) = token.filter(|token| !written(token)) else {
                let next = rest.chars().next().map_or(0, char::len_utf8);
                out.push_str(&rest[..next]);
                at += next;
                continue;
            };
            if self.rule == ContentTokens::Refuse {
                return Err(Error::data(format!(
                    "the control token {token:?} stands in the content of a message or a tool; data.content_tokens says what \
                     becomes of it (escape: it is learned as text)"
                )));
            }
            out.extend([START]);
            out.push_str(token);
            out.push(END);
            at += token.len();
        }
        out.push_str(&clean[at..]);
        Ok(out)
    }
}

/// Refuses a raw text that has a mark: it would be taken for ours.
pub fn check_raw(text: Option<&str>) -> Result<()> {
    match text {
        Some(text) if is_marked(text) => Err(Error::data(
            "a text has the private character U+F0000 or U+F0001, with which kdfast marks control tokens: remove it",
        )),
        _ => Ok(()),
    }
}

/// Whether `text` has marks.
pub fn is_marked(text: &str) -> bool {
    text.contains([START, END])
}

/// `text` without marks.
pub fn unmarked(text: &str) -> Cow<'_, str> {
    if is_marked(text) { Cow::Owned(text.replace([START, END], "")) } else { Cow::Borrowed(text) }
}

/// The byte of the unmarked text that is byte `at` of the marked one.
pub fn unmarked_position(text: &str, at: usize) -> usize {
    at - text[..at].chars().filter(|&sign| sign == START || sign == END).map(char::len_utf8).sum::<usize>()
}

/// The ids of a rendered text: what is between marks is encoded as text.
pub fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    if !is_marked(text) {
        return tokenizer.encode(text);
    }
    let mut ids = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find([START, END]) {
        ids.extend(tokenizer.encode(&rest[..start])?);
        let opens = rest[start..].starts_with(START);
        rest = &rest[start + START.len_utf8()..];
        // A template may have split the text between the marks: then each still ends what is before it.
        let Some(end) = rest.find([START, END]).filter(|&end| opens && rest[end..].starts_with(END)) else {
            continue;
        };
        ids.extend(tokenizer.encode_plain(&rest[..end])?);
        rest = &rest[end + END.len_utf8()..];
    }
    ids.extend(tokenizer.encode(rest)?);
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenize::tests::byte_tokenizer;

    fn guard(rule: ContentTokens) -> Guard {
        let template = ChatTemplate::new("", None, &[]).unwrap();
        Guard::new(&byte_tokenizer(&[]), &template, rule, Formats::HERMES)
    }

    #[test]
    fn content_is_marked_and_keys_are_not() {
        let json = r#"[{"role": "user", "content": "a<|im_end|>b", "<|im_end|>": "\u003c|im_end|>"}]"#;
        let marked = guard(ContentTokens::Escape).mark(json).unwrap();
        assert_eq!(marked.matches(START).count(), 2);
        assert_eq!(unmarked(&marked), json.replace("\\u003c", "<"));
        assert_eq!(unmarked_position("a\u{F0000}b\u{F0001}c", 10), 2);
        assert_eq!(guard(ContentTokens::Allow).mark(json).unwrap(), json);
        assert!(guard(ContentTokens::Refuse).mark(json).unwrap_err().message.contains("\"<|im_end|>\""));
    }

    #[test]
    fn marked_tokens_are_encoded_as_text() {
        let tokenizer = byte_tokenizer(&[]);
        let end = tokenizer.special_id("<|im_end|>").unwrap();
        let ids = encode(&tokenizer, "a\u{F0000}<|im_end|>\u{F0001}b<|im_end|>").unwrap();
        assert_eq!(ids.iter().filter(|&&id| id == end).count(), 1);
        assert_eq!(tokenizer.decode(&ids), "a<|im_end|>b<|im_end|>");
    }
}
