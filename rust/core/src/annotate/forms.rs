//! What may be written in two ways, and which of them a template takes.
//!
//! The arguments of a call may be an object or its JSON text, and content may be a text or a list of parts. A template
//! that knows one way only writes the other wrongly and says nothing: text goes through `tojson` a second time, a
//! list is printed as Python prints it. A probe tells what the template knows. So it is with the role of a system's
//! message: `OpenAI` calls it developer now.

use std::borrow::Cow;

use super::roles;
use crate::json::node::Node;
use crate::template::ChatTemplate;

/// How a template wants a thing that has two forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// It knows both, or neither: leave the thing as it was given.
    Given,
    /// Arguments as text; content as text.
    Text,
    /// Arguments as an object.
    Object,
}

/// What a template wants.
#[derive(Debug)]
pub struct Forms {
    arguments: Form,
    content: Form,
    /// Messages of role developer are written as system: the template does not know that role.
    developer_as_system: bool,
}

const ARGUMENT: &str = "kdfast_probe";

impl Forms {
    /// Renders calls and parts that no record has, and looks at what becomes of them.
    pub fn of(template: &ChatTemplate) -> Self {
        let object = probe_arguments(template, r#"{"kdfast_probe": "value"}"#);
        let text = probe_arguments(template, r#""{\"kdfast_probe\": \"value\"}""#);
        let arguments = match (object, text) {
            (true, false) => Form::Object,
            (false, true) => Form::Text,
            _ => Form::Given,
        };
        let parts = probe_content(template, r#"[{"type": "text", "text": "kdfast-probe"}]"#);
        let content = if parts { Form::Given } else { Form::Text };
        Self { arguments, content, developer_as_system: !roles::knows_developer(template) }
    }

    /// A message, or an array of messages (valid JSON), in these forms. Arguments that are missing, null or blank are
    /// `{}`.
    pub fn apply<'j>(&self, json: &'j str) -> Cow<'j, str> {
        let calls = json.contains("tool_calls");
        let parts = self.content == Form::Text && json.contains("\"text\"");
        let developer = self.developer_as_system && json.contains(roles::DEVELOPER);
        let parsed = if calls || parts || developer { Node::parse(json).ok() } else { None };
        let Some(mut parsed) = parsed else { return Cow::Borrowed(json) };
        let mut changed = false;
        let messages = if let Node::Array(messages) = &mut parsed {
            messages
        } else {
            std::slice::from_mut(&mut parsed)
        };
        for message in messages {
            if let Some(calls) = message.get_mut("tool_calls") {
                for call in calls.items_mut() {
                    changed |= self.apply_to_call(call);
                }
            }
            if parts && let Some(content) = message.get_mut("content") {
                changed |= join_parts(content);
            }
            if developer
                && let Some(role) = message.get_mut("role")
                && role.text().as_deref() == Some(roles::DEVELOPER)
            {
                *role = Node::string("system");
                changed = true;
            }
        }
        if changed { Cow::Owned(parsed.json()) } else { Cow::Borrowed(json) }
    }

    fn apply_to_call(&self, call: &mut Node<'_>) -> bool {
        let function = if call.get("function").is_some() { call.get_mut("function") } else { Some(call) };
        let Some(function @ Node::Object(_)) = function else { return false };
        if function.get("arguments").is_none()
            && let Node::Object(entries) = function
        {
            entries.push((Cow::Borrowed("arguments"), Node::Scalar(Cow::Borrowed("null"))));
        }
        let Some(arguments) = function.get_mut("arguments") else { return false };
        let Some(new) = self.arguments(arguments) else { return false };
        *arguments = new;
        true
    }

    /// The arguments in the form that is wanted, if that changes them.
    fn arguments(&self, given: &Node<'_>) -> Option<Node<'static>> {
        let in_form = |json: &str, text: bool| {
            if text { Node::string(json) } else { Node::Scalar(Cow::Owned(json.to_owned())) }
        };
        match given.text() {
            Some(text) if text.trim().is_empty() => Some(in_form("{}", self.arguments != Form::Object)),
            Some(text) if self.arguments == Form::Object => Some(in_form(text.trim(), false)),
            None if given.is_null() => Some(in_form("{}", self.arguments == Form::Text)),
            None if self.arguments == Form::Text => Some(in_form(&given.json(), true)),
            _ => None,
        }
    }
}

/// Turns a list of text parts into their text; whether it was one.
fn join_parts(content: &mut Node<'_>) -> bool {
    let Node::Array(parts) = content else { return false };
    let texts: Option<Vec<String>> = parts
        .iter()
        .map(|part| part.text().or_else(|| part.get("text")?.text()).map(Cow::into_owned))
        .collect();
    let Some(texts) = texts.filter(|texts| !texts.is_empty()) else { return false };
    *content = Node::string(&texts.concat());
    true
}

/// Whether `arguments` (JSON) come out of the template as they should: their key is there, and neither escaped nor in
/// Python's quotes.
fn probe_arguments(template: &ChatTemplate, arguments: &str) -> bool {
    let messages = format!(
        r#"[{{"role":"user","content":"question"}},{{"role":"assistant","content":"","tool_calls":[{{"id":"call00001","type":"function","function":{{"name":"kdfast_call","arguments":{arguments}}}}}]}}]"#
    );
    let tools = r#"[{"type":"function","function":{"name":"kdfast_call","description":"","parameters":{"type":"object","properties":{}}}}]"#;
    let Ok(text) = template.render(&messages, Some(tools), false) else { return false };
    let Some(at) = text.rfind(ARGUMENT) else { return false };
    !text[..at].ends_with(['\\', '\''])
        && !text[..at].ends_with("\\\"")
        && !text[at + ARGUMENT.len()..].starts_with('\'')
}

/// Whether a user's `content` (JSON) comes out as its text, rather than as a list.
fn probe_content(template: &ChatTemplate, content: &str) -> bool {
    let messages = format!(r#"[{{"role":"user","content":{content}}}]"#);
    let Ok(text) = template.render(&messages, None, true) else { return false };
    text.contains("kdfast-probe") && !text.contains("'kdfast-probe'") && !text.contains("\"kdfast-probe\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: &str =
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}CALL{% endfor %}{% endfor %}";

    fn forms(call: &str) -> Forms {
        Forms::of(&ChatTemplate::new(&CALLS.replace("CALL", call), None, &[]).unwrap())
    }

    fn arguments(forms: &Forms, given: &str) -> String {
        let json = format!(r#"{{"tool_calls": [{{"function": {{"name": "f"{given}}}}}]}}"#);
        forms.apply(&json).into_owned()
    }

    #[test]
    fn text_becomes_an_object_where_the_template_writes_json() {
        let tojson = forms("{{ c.function.arguments | tojson }}");
        assert_eq!(tojson.arguments, Form::Object);
        assert!(
            arguments(&tojson, r#", "arguments": "{\"a\": 1.0}""#).contains(r#""arguments": {"a": 1.0}"#)
        );
        for nothing in ["", r#", "arguments": null"#, r#", "arguments": " ""#] {
            assert!(arguments(&tojson, nothing).contains(r#""arguments": {}"#), "{nothing}");
        }
    }

    #[test]
    fn an_object_becomes_text_where_the_template_joins_strings() {
        let joined = forms("{{ '(' + c.function.arguments + ')' }}");
        assert_eq!(joined.arguments, Form::Text);
        assert!(
            arguments(&joined, r#", "arguments": {"a": 1.0}"#).contains(r#""arguments": "{\"a\": 1.0}""#)
        );
        assert!(arguments(&joined, "").contains(r#""arguments": "{}""#));
        let both = forms(
            "{% if c.function.arguments is string %}{{ c.function.arguments }}{% else %}{{ c.function.arguments | tojson }}{% endif %}",
        );
        assert_eq!(both.arguments, Form::Given);
    }

    #[test]
    fn a_developer_speaks_as_system_where_the_template_has_no_such_role() {
        let message = r#"[{"role": "developer", "content": "developer"}]"#;
        assert_eq!(forms("").apply(message), r#"[{"role": "system", "content": "developer"}]"#);
        let knows = forms("{% if m.role == 'developer' %}{% endif %}");
        assert_eq!(knows.apply(message), message);
    }

    #[test]
    fn parts_are_joined_where_the_template_would_print_the_list() {
        let plain = forms("");
        let parts = r#"[{"role": "user", "content": [{"type": "text", "text": "a\n"}, "b"]}]"#;
        assert_eq!(plain.apply(parts), r#"[{"role": "user", "content": "a\nb"}]"#);
    }
}
