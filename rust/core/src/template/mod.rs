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
mod source;
mod values;

use std::io::{self, Write};

use indexmap::IndexMap;
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind};

use crate::{Error, Result};
use values::Dict;

const NAME: &str = "chat template";
const TOOL_USE: &str = "tool_use";

/// Templates come from strangers. One that takes more steps of the engine than this (seconds) has run away.
const MAX_STEPS: u64 = 50_000_000;

/// The longest text, in bytes, that a template may write.
const MAX_OUTPUT: usize = 64 * 1024 * 1024;

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    /// The template for conversations with tools, if the model has one of its own for these.
    tool_use: Option<String>,
    environment: Environment<'static>,
    tokens: Vec<(String, String)>,
}

impl ChatTemplate {
    /// Compiles `source` (Jinja), and `tool_use`, which is rendered instead where there are tools. The template sees each
    /// of `tokens` (`bos_token`, ...) under its name; an empty one is undefined, as for a tokenizer without it.
    pub fn new(source: &str, tool_use: Option<&str>, tokens: &[(&str, &str)]) -> Result<Self> {
        let mut environment = builtins::environment();
        environment.set_fuel(Some(MAX_STEPS));
        for (name, source) in [(NAME, Some(source)), (TOOL_USE, tool_use)] {
            if let Some(source) = source {
                let compiled = environment.add_template_owned(name, source::prepare(source));
                compiled.map_err(|error| failure(&error))?;
            }
        }
        let tokens = tokens.iter().filter(|(_, token)| !token.is_empty());
        let tokens = tokens.map(|&(name, token)| (name.to_owned(), token.to_owned())).collect();
        Ok(Self { source: source.to_owned(), tool_use: tool_use.map(str::to_owned), environment, tokens })
    }

    /// Renders `messages` (JSON array) with `tools` (JSON array) as text.
    pub fn render(&self, messages: &str, tools: Option<&str>, add_generation_prompt: bool) -> Result<String> {
        let mut context: IndexMap<String, Value> = IndexMap::new();
        let with_tools = tools.is_some();
        let tools = tools.map(|tools| values::parse("tools", tools)).transpose()?;
        context.insert("messages".into(), values::parse_messages(messages)?);
        context.insert("tools".into(), tools.unwrap_or(Value::from(())));
        context.insert("documents".into(), Value::from(()));
        context.insert("add_generation_prompt".into(), add_generation_prompt.into());
        context.extend(self.tokens.iter().map(|(name, token)| (name.clone(), Value::from(token.as_str()))));
        let name = if self.tool_use.is_some() && with_tools { TOOL_USE } else { NAME };
        let template = self.environment.get_template(name).map_err(|error| failure(&error))?;
        let mut text = Capped(Vec::new());
        let done = template.render_captured_to(Value::from_object(Dict(context)), &mut text);
        done.map_err(|error| failure(&error))?;
        String::from_utf8(text.0).map_err(|_| Error::data("the chat template writes text that is not UTF-8"))
    }

    /// The Jinja text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The template for conversations with tools, where that is another one.
    pub fn tool_use(&self) -> Option<&str> {
        self.tool_use.as_deref()
    }

    /// Blake3, in hexadecimal, of all that the output depends on: the Jinja texts and the tokens.
    pub fn fingerprint(&self) -> String {
        let all = format!("{:?}", (&self.source, &self.tool_use, &self.tokens));
        blake3::hash(all.as_bytes()).to_hex().to_string()
    }
}

/// Takes text up to [`MAX_OUTPUT`].
struct Capped(Vec<u8>);

impl Write for Capped {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.0.len() + text.len() > MAX_OUTPUT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The error of a template: its own message (`raise_exception`), or what the engine found wrong and at which line.
fn failure(error: &minijinja::Error) -> Error {
    if let Some(message) = builtins::raised(error) {
        return Error::data(format!("the chat template refused the messages: {message}"));
    }
    let line = error.line().map_or(String::new(), |line| format!(", line {line}"));
    if error.kind() == ErrorKind::OutOfFuel {
        return Error::data(format!(
            "the chat template ran away{line}: it takes more than {MAX_STEPS} steps"
        ));
    }
    if error.kind() == ErrorKind::WriteFailure {
        return Error::data(format!(
            "the chat template ran away{line}: it writes more than {MAX_OUTPUT} bytes"
        ));
    }
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    Error::data(format!("the chat template failed{line}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &str) -> Result<String> {
        ChatTemplate::new(source, None, &[("bos_token", "<s>"), ("eos_token", "")])?
            .render(messages, None, true)
    }

    #[test]
    fn values_print_as_in_python() {
        let messages = r#"[{"m": {"b": true, "n": null, "f": 1e22, "i": 123456789012345678901234567890123456789012, "l": ["it's", 1.0, {"é": "\n"}]}}]"#;
        let printed = render("{{ messages[0].m }}", messages).unwrap();
        assert_eq!(
            printed,
            "{'b': True, 'n': None, 'f': 1e+22, 'i': 123456789012345678901234567890123456789012, 'l': [\"it's\", 1.0, {'é': '\\n'}]}"
        );
        let json = render("{{ messages[0].m|tojson }}", messages).unwrap();
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
    fn a_template_that_runs_away_ends_with_an_error() {
        let nested =
            "{% for a in range(9999) %}{% for b in range(9999) %}{% set c = a %}{% endfor %}{% endfor %}";
        assert!(render(nested, "[]").unwrap_err().message.contains("ran away, line 1"));
        let long = "{% set x = 'abcdefgh' * 99999 %}{% for a in range(99) %}{{ x }}{% endfor %}";
        assert!(render(long, "[]").unwrap_err().message.contains("more than"));
    }

    #[test]
    fn the_template_for_tools_is_taken_where_there_are_tools() {
        let template = ChatTemplate::new("plain", Some("with {{ tools | length }}"), &[]).unwrap();
        assert_eq!(template.render("[]", None, true).unwrap(), "plain");
        assert_eq!(template.render("[]", Some("[]"), true).unwrap(), "with 0");
    }

    #[test]
    fn failures_are_data_errors() {
        let raised = render("{{ raise_exception('roles must alternate') }}", "[]").unwrap_err();
        assert_eq!(raised.to_string(), "the chat template refused the messages: roles must alternate");
        assert!(ChatTemplate::new("{% if %}", None, &[]).unwrap_err().message.contains("line 1"));
        assert!(render("{{ messages.x.y }}", "[]").is_err());
        assert!(render("", "{").unwrap_err().message.starts_with("messages:"));
    }
}
