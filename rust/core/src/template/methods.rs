//! String methods and filters that depend on what Python calls white space; minijinja's own would use Rust's.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
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
        "removeprefix" | "removesuffix" => {
            let (part,): (&str,) = from_args(args)?;
            let cut =
                if method == "removeprefix" { text.strip_prefix(part) } else { text.strip_suffix(part) };
            Ok(Value::from(cut.unwrap_or(text)))
        }
        "rsplit" => {
            let (separator, count): (&str, Option<i64>) = from_args(args)?;
            rsplit(text, separator, count.unwrap_or(-1))
        }
        "title" => {
            let () = from_args(args)?;
            Ok(Value::from(title(text)))
        }
        _ => pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// `str.rsplit(separator, count)`; a count below 0 is no limit.
fn rsplit(text: &str, separator: &str, count: i64) -> Result<Value, Error> {
    if separator.is_empty() {
        return Err(Error::new(ErrorKind::InvalidOperation, "rsplit: the separator is empty"));
    }
    let limit = usize::try_from(count).map_or(usize::MAX, |count| count.saturating_add(1));
    let mut parts: Vec<&str> = text.rsplitn(limit, separator).collect();
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect())
}

/// `str.title`: a letter is large where no letter stands before it.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for character in text.chars() {
        if inside {
            out.extend(character.to_lowercase());
        } else {
            out.extend(character.to_uppercase());
        }
        inside = character.is_lowercase() || character.is_uppercase();
    }
    out
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
