//! Chat templates, rendered as `transformers.apply_chat_template` renders them.
//!
//! The engine is minijinja. It is set up as transformers sets up Jinja2 (`trim_blocks`, `lstrip_blocks`, loop controls,
//! `tojson` without HTML escapes, `raise_exception`, `strftime_now`, `{% generation %}`) and prints values as Python
//! does.
//!
//! Known differences, all rare:
//! - `a.items` without a call is the key named `items`; in Jinja2 it is the method.
//! - A fraction beyond 1e16 that is joined with `~` is written in full; Python writes an exponent.
//! - Characters newer than Python's Unicode are not escaped inside a printed list or dict.

mod big_integer;
mod builtins;
mod methods;
mod python;
mod values;

use indexmap::IndexMap;
use minijinja::Environment;
use minijinja::value::Value;

use crate::{Error, Result};
use values::Dict;

const NAME: &str = "chat template";

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    environment: Environment<'static>,
    tokens: Vec<(&'static str, String)>,
}

impl ChatTemplate {
    /// Compiles `source` (Jinja). The template sees `bos_token` and `eos_token` under these names; an empty one is
    /// undefined, as for a tokenizer without it.
    pub fn new(source: &str, bos_token: &str, eos_token: &str) -> Result<Self> {
        let mut environment = builtins::environment();
        environment
            .add_template_owned(NAME, scope_generation_blocks(source))
            .map_err(|error| failure(&error))?;
        let tokens = [("bos_token", bos_token), ("eos_token", eos_token)];
        let tokens = tokens.into_iter().filter(|(_, token)| !token.is_empty());
        let tokens = tokens.map(|(name, token)| (name, token.to_owned())).collect();
        Ok(Self { source: source.to_owned(), environment, tokens })
    }

    /// Renders `messages` (JSON array) with `tools` (JSON array) as text.
    pub fn render(&self, messages: &str, tools: Option<&str>, add_generation_prompt: bool) -> Result<String> {
        let mut context: IndexMap<String, Value> = IndexMap::new();
        let tools = tools.map(|tools| values::parse("tools", tools)).transpose()?;
        context.insert("messages".into(), values::parse_messages(messages)?);
        context.insert("tools".into(), tools.unwrap_or(Value::from(())));
        context.insert("documents".into(), Value::from(()));
        context.insert("add_generation_prompt".into(), add_generation_prompt.into());
        context.extend(
            self.tokens.iter().map(|(name, token)| ((*name).to_owned(), Value::from(token.as_str()))),
        );
        let template = self.environment.get_template(NAME).map_err(|error| failure(&error))?;
        template.render(Value::from_object(Dict(context))).map_err(|error| failure(&error))
    }

    /// The Jinja text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Blake3, in hexadecimal, of all that the output depends on: the Jinja text and the two tokens.
    pub fn fingerprint(&self) -> String {
        blake3::hash(format!("{:?}", (&self.source, &self.tokens)).as_bytes()).to_hex().to_string()
    }
}

/// The error of a template: its own message (`raise_exception`), or what the engine found wrong and at which line.
fn failure(error: &minijinja::Error) -> Error {
    if let Some(message) = builtins::raised(error) {
        return Error::data(format!("the chat template refused the messages: {message}"));
    }
    let line = error.line().map_or(String::new(), |line| format!(", line {line}"));
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    Error::data(format!("the chat template failed{line}: {what}"))
}

/// Rewrites `{% generation %}` ... `{% endgeneration %}` (transformers marks the assistant's tokens with it) as a
/// `with` block. Like transformers' tag, `with` prints what is inside and gives it a scope of its own. `{%-` stays
/// `{%-`.
fn scope_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        let length = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let inner = tag[2..length].trim_end_matches("%}");
        let word = inner.trim_matches(|sign: char| sign.is_whitespace() || sign == '-' || sign == '+');
        let replacement = match word {
            "generation" => Some("with"),
            "endgeneration" => Some("endwith"),
            _ => None,
        };
        out.push_str(before);
        if let Some(new) = replacement {
            out.push_str(&tag[..length].replacen(word, new, 1));
            rest = &tag[length..];
        } else {
            // Go on right after `{%`: a string in the tag may contain `%}`.
            out.push_str("{%");
            rest = &tag[2..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &str) -> Result<String> {
        ChatTemplate::new(source, "<s>", "")?.render(messages, None, true)
    }

    #[test]
    fn values_print_as_in_python() {
        let messages = r#"[{"b": true, "n": null, "f": 1e22, "i": 123456789012345678901234567890123456789012, "l": ["it's", 1.0, {"é": "\n"}]}]"#;
        let printed = render("{{ messages[0] }}", messages).unwrap();
        assert_eq!(
            printed,
            "{'b': True, 'n': None, 'f': 1e+22, 'i': 123456789012345678901234567890123456789012, 'l': [\"it's\", 1.0, {'é': '\\n'}]}"
        );
        let json = render("{{ messages[0]|tojson }}", messages).unwrap();
        assert_eq!(
            json,
            r#"{"b": true, "n": null, "f": 1e+22, "i": 123456789012345678901234567890123456789012, "l": ["it's", 1.0, {"é": "\n"}]}"#
        );
    }

    #[test]
    fn blocks_are_trimmed_and_generation_is_transparent() {
        let source = "{% for m in messages %}\n  {% generation %}\n{{ m.c }}\n  {%- endgeneration -%}\n{% endfor %}\nend\n";
        assert_eq!(render(source, r#"[{"c": "x"}, {"c": "y"}]"#).unwrap(), "xyend");
    }

    #[test]
    fn tokens_tools_and_methods() {
        let source = "{{ bos_token }}{{ eos_token is defined }}{{ tools is none }}{{ messages[0].a.strip().split(',')[-1][1:] }}";
        assert_eq!(render(source, r#"[{"a": " x,yz "}]"#).unwrap(), "<s>FalseTruez");
    }

    #[test]
    fn failures_are_data_errors() {
        let raised = render("{{ raise_exception('roles must alternate') }}", "[]").unwrap_err();
        assert_eq!(raised.to_string(), "the chat template refused the messages: roles must alternate");
        assert!(ChatTemplate::new("{% if %}", "", "").unwrap_err().message.contains("line 1"));
        assert!(render("{{ messages.x.y }}", "[]").is_err());
        assert!(render("", "{").unwrap_err().message.starts_with("messages:"));
    }
}
