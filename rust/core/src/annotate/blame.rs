//! Which message a template fails at, and which of its keys.

use crate::json::node::Node;
use crate::template::ChatTemplate;
use crate::{Error, Result};

/// The rendered `messages` (the elements of a JSON array). A failure names the message, as `place` calls it, and its key.
pub fn render(
    template: &ChatTemplate,
    messages: &[&str],
    tools: Option<&str>,
    add_generation_prompt: bool,
    place: impl Fn(usize) -> String,
) -> Result<String> {
    let attempt = |messages: &[&str]| template.render(&joined(messages), tools, add_generation_prompt);
    attempt(messages).map_err(|error| {
        let Some(index) = (0..messages.len()).find(|&index| attempt(&messages[..=index]).is_err()) else {
            return error;
        };
        let key = blamed_key(messages, index, &attempt).map_or(String::new(), |key| format!(".{key}"));
        Error { message: format!("{}{key}: {}", place(index), error.message), ..error }
    })
}

/// The key without which the conversation up to message `index` renders.
fn blamed_key(
    messages: &[&str],
    index: usize,
    attempt: &dyn Fn(&[&str]) -> Result<String>,
) -> Option<String> {
    let Ok(Node::Object(entries)) = Node::parse(messages[index]) else { return None };
    entries.iter().map(|(key, _)| key).find_map(|key| {
        let others = entries.iter().filter(|(other, _)| other != key).cloned().collect();
        let without = Node::Object(others).json();
        let changed = [&messages[..index], &[without.as_str()]].concat();
        attempt(&changed).is_ok().then(|| key.to_string())
    })
}

/// The messages as one JSON array.
pub fn joined(messages: &[&str]) -> String {
    format!("[{}]", messages.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_and_its_key_are_named() {
        let source =
            "{% for m in messages %}{{ m.role }}{% if m.name %}{{ m.name + 1 }}{% endif %}{% endfor %}";
        let template = ChatTemplate::new(source, None, &[]).unwrap();
        let messages = [
            r#"{"role": "user"}"#,
            r#"{"role": "tool", "content": "x", "name": "f"}"#,
            r#"{"role": "user"}"#,
        ];
        let place = |index| format!("messages[{index}]");
        let error = render(&template, &messages, None, true, place).unwrap_err();
        assert!(error.message.starts_with("messages[1].name: the chat template failed, line 1"), "{error}");
        assert_eq!(render(&template, &messages[..1], None, true, place).unwrap(), "user");
    }
}
