//! What a message says must be what is found in its rendered text: the same calls, no more and no fewer.

use crate::json::node::{Node, same};
use crate::tool_call::{Formats, Reading, Thinking, ToolCall, find_tool_calls};
use crate::{Error, Result};

/// Checks that `text`, the rendered content of `message`, has the calls of its `tool_calls`. A message without any says
/// nothing about calls: its content may hold them as text.
pub fn check(message: &str, text: &str, reading: Reading<'_>) -> Result<()> {
    if !message.contains("tool_calls") {
        return Ok(());
    }
    let Ok(parsed) = Node::parse(message) else { return Ok(()) };
    let said = parsed.get("tool_calls").map_or(&[][..], Node::items);
    if said.is_empty() {
        return Ok(());
    }
    let found = find_tool_calls(text, reading);
    let wrong =
        said.iter().zip(&found).enumerate().find_map(|(index, (said, found))| difference(index, said, found));
    let reason = match wrong {
        Some(reason) => reason,
        None if found.len() == said.len() => return Ok(()),
        None => number(said.len(), text, &found, reading),
    };
    Err(Error::data(format!(
        "what the message says is not what would be learned: {reason}; give tool_calls that the chat template can write \
         and data.tool_call_format ({}) can read, or another template",
        names(reading.formats)
    )))
}

fn names(formats: Formats) -> String {
    formats.names().collect::<Vec<_>>().join(", ")
}

/// Why another number of calls is found than the message has.
fn number(said: usize, text: &str, found: &[ToolCall], reading: Reading<'_>) -> String {
    let others = find_tool_calls(text, Reading { formats: Formats::ALL, ..reading });
    let answered = find_tool_calls(text, Reading { thinking: Thinking::Closed, ..reading });
    if found.is_empty() && answered.len() == said {
        return format!(
            "the prompt opens a thinking block, and the answer does not end it before its {said} call(s): {}",
            start(text)
        );
    }
    if found.is_empty() && others.len() == said {
        return format!("its {said} call(s) are written in the format {}", others[0].format.name());
    }
    if found.is_empty() && said == 1 {
        return format!(
            "its call is not found in the text that the chat template makes of it: {}",
            start(text)
        );
    }
    format!(
        "it has {said} call(s), and {} are found in the text that the chat template makes of it: {}",
        found.len(),
        start(text)
    )
}

/// How a call that was found differs from the one that the message has.
fn difference(index: usize, said: &Node<'_>, found: &ToolCall) -> Option<String> {
    let function = said.get("function").unwrap_or(said);
    let name = function.get("name")?.text()?;
    if name != found.name {
        return Some(format!("its call {index} is of {name:?}, and is read as one of {:?}", found.name));
    }
    let given = function.get("arguments")?;
    let text = given.text();
    let given = match &text {
        Some(text) => Node::parse(text).ok()?,
        None => given.clone(),
    };
    let equal = Node::parse(&found.arguments).is_ok_and(|read| same(&given, &read));
    let differ = || {
        let (given, read) = (given.json(), &found.arguments);
        format!(
            "the arguments of its call {index} ({name}) are {}, and are read as {}",
            start(&given),
            start(read)
        )
    };
    (!equal).then(differ)
}

fn start(text: &str) -> String {
    let mut start: String = text.chars().take(120).collect();
    if start.len() < text.len() {
        start.push_str("...");
    }
    format!("{start:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str =
        r#"{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}"#;

    fn reason(text: &str) -> String {
        check(MESSAGE, text, Reading::new(Formats::HERMES))
            .map_or_else(|error| error.message, |()| "equal".to_owned())
    }

    #[test]
    fn every_difference_has_its_words() {
        let call = |json: &str| format!("<tool_call>{json}</tool_call>");
        let right = call(r#"{"name": "f", "arguments": {"a": 1.0}}"#);
        assert_eq!(reason(&right), "equal");
        for (text, words) in [
            (String::new(), "its call is not found"),
            (right.repeat(2), "it has 1 call(s), and 2 are found"),
            (right.replace("\"f\"", "\"g\""), "is read as one of \"g\""),
            (right.replace("1.0", "2"), "are read as \"{\\\"a\\\": 2}\""),
            (format!("[TOOL_CALLS]{}", r#"[{"name": "f", "arguments": {"a": 1}}]"#), "in the format mistral"),
        ] {
            assert!(reason(&text).contains(words), "{}", reason(&text));
        }
        assert!(
            check(
                r#"{"role": "assistant", "content": "x", "tool_calls": []}"#,
                "x",
                Reading::new(Formats::HERMES)
            )
            .is_ok()
        );
    }
}
