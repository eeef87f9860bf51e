//! What other houses write in another way, put into ours before anything else looks at it.
//!
//! - Tools: MCP's `inputSchema` and Anthropic's `input_schema` are `parameters`; a `null` that a table export put under
//!   a key is left out.
//! - Messages: `OpenAI`'s old `function_call` is a list of one `tool_calls`, and its role `function` is `tool`; the role
//!   `human` is `user`, and `gpt` and `model` are `assistant`.
//! - Answers: the last message of an `OpenAI` training file is the answer.

use std::borrow::Cow;

use crate::json::node::Node;

/// The keys of a JSON Schema under which `null` is a value.
const NULL_HAS_MEANING: [&str; 3] = ["default", "const", "examples"];

/// Tool definitions (a valid JSON array) with their schemas under `parameters`.
pub fn tools(json: &str) -> Cow<'_, str> {
    if !["null", "inputSchema", "input_schema"].iter().any(|word| json.contains(word)) {
        return Cow::Borrowed(json);
    }
    let Ok(mut tools) = Node::parse(json) else { return Cow::Borrowed(json) };
    drop_nulls(&mut tools);
    for tool in tools.items_mut() {
        rename_schema(tool);
        if let Some(function) = tool.get_mut("function") {
            rename_schema(function);
        }
    }
    Cow::Owned(tools.json())
}

fn rename_schema(tool: &mut Node<'_>) {
    if tool.get("parameters").is_some() {
        return;
    }
    for name in ["inputSchema", "input_schema"] {
        if let Some((key, _)) = tool.entry(name) {
            *key = Cow::Borrowed("parameters");
            return;
        }
    }
}

/// Leaves out what is null in objects: a table (Parquet, Arrow) gives every row all the keys that any row has.
fn drop_nulls(node: &mut Node<'_>) {
    match node {
        Node::Object(entries) => {
            entries.retain(|(key, value)| !value.is_null() || NULL_HAS_MEANING.contains(&&**key));
            for (key, value) in entries {
                if !NULL_HAS_MEANING.contains(&&**key) {
                    drop_nulls(value);
                }
            }
        }
        Node::Array(items) => items.iter_mut().for_each(drop_nulls),
        Node::Scalar(_) => {}
    }
}

/// Roles of other houses, and what they are called here.
const ROLES: [(&str, &str); 4] =
    [("function", "tool"), ("human", "user"), ("gpt", "assistant"), ("model", "assistant")];

/// A message or an array of messages (valid JSON) without `OpenAI`'s old function calls and other houses' roles.
pub fn messages(json: &str) -> Cow<'_, str> {
    let old = json.contains("function_call") || json.split("\"role\"").skip(1).any(has_other_role);
    let parsed = if old { Node::parse(json).ok() } else { None };
    let Some(mut parsed) = parsed else { return Cow::Borrowed(json) };
    if let Node::Array(items) = &mut parsed {
        items.iter_mut().for_each(modernise);
    } else {
        modernise(&mut parsed);
    }
    Cow::Owned(parsed.json())
}

/// Whether another house's role is the value of the key that `rest` follows.
fn has_other_role(rest: &str) -> bool {
    let value = rest.trim_start().strip_prefix(':').map(str::trim_start);
    let text = value.and_then(|value| value.strip_prefix('"'));
    text.is_some_and(|text| {
        ROLES.iter().any(|(other, _)| text.strip_prefix(other).is_some_and(|rest| rest.starts_with('"')))
    })
}

fn modernise(message: &mut Node<'_>) {
    if let Some(role) = message.get_mut("role")
        && let Some((_, ours)) = ROLES.iter().find(|(other, _)| role.text().as_deref() == Some(other))
    {
        *role = Node::string(ours);
    }
    let calls = message.get("tool_calls").is_some_and(|calls| !calls.items().is_empty());
    let Node::Object(entries) = message else { return };
    if !calls && entries.iter().any(|(key, value)| key == "function_call" && !value.is_null()) {
        entries.retain(|(key, _)| key != "tool_calls");
        for (key, value) in entries {
            if key == "function_call" {
                *key = Cow::Borrowed("tool_calls");
                let function = std::mem::replace(value, Node::Array(Vec::new()));
                let call = vec![
                    (Cow::Borrowed("type"), Node::string("function")),
                    (Cow::Borrowed("function"), function),
                ];
                *value = Node::Array(vec![Node::Object(call)]);
            }
        }
    }
}

/// A conversation whose last message is an assistant's, as the messages before it and that message.
pub fn last_answer(messages: &str) -> Option<(String, String)> {
    let Ok(Node::Array(mut items)) = Node::parse(messages) else { return None };
    let answer = items.pop()?;
    let is_answer = answer.get("role")?.text()? == "assistant";
    is_answer.then(|| (Node::Array(items).json(), answer.json()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_under_another_key_is_the_parameters() {
        for key in ["inputSchema", "input_schema"] {
            let flat = format!(r#"[{{"name": "f", "{key}": {{"type": "object"}}}}]"#);
            assert_eq!(tools(&flat), r#"[{"name": "f", "parameters": {"type": "object"}}]"#);
            let wrapped = format!(r#"[{{"function": {{"name": "f", "parameters": null, "{key}": {{}}}}}}]"#);
            assert_eq!(tools(&wrapped), r#"[{"function": {"name": "f", "parameters": {}}}]"#);
        }
        let both = r#"[{"name": "f", "parameters": {"x": 1}, "inputSchema": {}}]"#;
        assert_eq!(tools(both), both);
    }

    #[test]
    fn nulls_of_a_table_go_and_nulls_of_a_schema_stay() {
        let table = r#"[{"name": "f", "strict": null, "parameters": {"properties": {"a": {"enum": [1, null], "default": null}, "b": null}}}]"#;
        let clean =
            r#"[{"name": "f", "parameters": {"properties": {"a": {"enum": [1, null], "default": null}}}}]"#;
        assert_eq!(tools(table), clean);
    }

    #[test]
    fn an_old_function_call_is_a_tool_call() {
        let old = r#"[{"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}}, {"role": "function", "name": "f", "content": "1"}]"#;
        let new = r#"[{"role": "assistant", "content": null, "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]}, {"role": "tool", "name": "f", "content": "1"}]"#;
        assert_eq!(messages(old), new);
        assert!(matches!(messages(new), Cow::Borrowed(_)));
        let none = r#"{"role": "assistant", "content": "x", "function_call": null}"#;
        assert_eq!(messages(none), none);
    }

    #[test]
    fn the_last_message_is_the_answer_if_it_is_an_assistants() {
        let user = r#"{"role": "user", "content": "q"}"#;
        let answer = r#"{"role": "assistant", "content": "a"}"#;
        assert_eq!(
            last_answer(&format!("[{user}, {answer}]")),
            Some((format!("[{user}]"), answer.to_owned()))
        );
        assert_eq!(last_answer(&format!("[{user}]")), None);
    }
}
