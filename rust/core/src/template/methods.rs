//! String methods and filters that depend on what Python calls white space; minijinja's own would use Rust's.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, State};
use minijinja_contrib::pycompat;

use super::python;

/// `str.isspace`: Rust's white space and four separators.
fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\x1c'..='\x1f')
}

/// The `trim` filter.
pub fn trim(value: &Value, characters: Option<&str>) -> String {
    let text = python::str_of(value);
    strip(&text, characters, true, true).to_owned()
}

/// Python's methods; minijinja calls this before it looks for its own.
pub fn call(state: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str().filter(|_| value.kind() == ValueKind::String) else {
        return pycompat::unknown_method_callback(state, value, method, args);
    };
    match method {
        "strip" | "lstrip" | "rstrip" => {
            let (characters,): (Option<&str>,) = from_args(args)?;
            Ok(Value::from(strip(text, characters, method != "rstrip", method != "lstrip")))
        }
        "split" if args.iter().all(Value::is_none) => {
            let words = text.split(is_space).filter(|word| !word.is_empty());
            Ok(words.map(Value::from).collect())
        }
        "splitlines" => {
            let (keep,): (Option<bool>,) = from_args(args)?;
            Ok(split_lines(text, keep.unwrap_or(false)))
        }
        _ => pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn strip<'t>(text: &'t str, characters: Option<&str>, left: bool, right: bool) -> &'t str {
    let goes =
        |character: char| characters.map_or_else(|| is_space(character), |set| set.contains(character));
    let text = if left { text.trim_start_matches(goes) } else { text };
    if right { text.trim_end_matches(goes) } else { text }
}

fn split_lines(text: &str, keep_ends: bool) -> Value {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|character| {
            matches!(
                character,
                '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
            )
        });
        let end = end.unwrap_or(rest.len());
        let mark = if rest[end..].starts_with("\r\n") {
            2
        } else {
            rest[end..].chars().next().map_or(0, char::len_utf8)
        };
        lines.push(Value::from(&rest[..if keep_ends { end + mark } else { end }]));
        rest = &rest[end + mark..];
    }
    Value::from(lines)
}
