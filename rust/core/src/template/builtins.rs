//! The functions, filters and tests that chat templates may use.

use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};

use super::big_integer::BigInteger;
use super::methods;
use super::python::{self, Dumps};
use super::source;

/// An environment like the one that transformers makes.
pub fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the delimiters are the standard ones"));
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(|out, _, value| out.write_str(&python::str_of(value)).map_err(Error::from));
    environment.add_filter("tojson", tojson);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter(source::ITERABLE, iterable);
    environment.add_filter("trim", methods::trim);
    environment.add_filter("string", |value: &Value| python::str_of(value));
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_iterable);
    environment.add_test("number", |value: &Value| {
        matches!(value.kind(), ValueKind::Number | ValueKind::Bool) || BigInteger::is(value)
    });
    environment.add_test("integer", |value: &Value| value.is_integer() || BigInteger::is(value));
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment
}

/// The message of `raise_exception`, if `error` comes from there.
pub fn raised(error: &minijinja::Error) -> Option<&str> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            return Some(message);
        }
        cause = current.source();
    }
    None
}

#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let message = python::str_of(message);
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// The local time now, as in transformers: a template that uses it gives another text each day.
fn strftime_now(format: &str) -> Result<String, Error> {
    use std::fmt::Write;
    let mut text = String::new();
    match write!(text, "{}", chrono::Local::now().naive_local().format(format)) {
        Ok(()) => Ok(text),
        Err(_) => {
            Err(Error::new(ErrorKind::InvalidOperation, format!("strftime_now: unknown format {format:?}")))
        }
    }
}

/// `value | default(other, boolean)`: both may be named.
#[expect(clippy::needless_pass_by_value, reason = "the engine hands named arguments over by value")]
fn default(
    value: &Value,
    other: Option<Value>,
    boolean: Option<bool>,
    named: Kwargs,
) -> Result<Value, Error> {
    let other = other.or(named.get("default_value")?).unwrap_or_else(|| Value::from(""));
    let boolean = boolean.or(named.get("boolean")?).unwrap_or(false);
    named.assert_all_used()?;
    Ok(if value.is_undefined() || (boolean && !value.is_true()) { other } else { value.clone() })
}

/// What a `for` loops over: anything but `none`.
fn iterable(value: &Value) -> Result<Value, Error> {
    if value.is_none() {
        return Err(Error::new(ErrorKind::InvalidOperation, "none is not iterable"));
    }
    Ok(value.clone())
}

/// As in Jinja2: everything with a length and an index, so dicts and strings too.
fn is_sequence(value: &Value) -> bool {
    value.is_undefined() || matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String)
}

/// As in Jinja2: `none` is not iterable.
fn is_iterable(value: &Value) -> bool {
    is_sequence(value) || value.kind() == ValueKind::Iterable
}

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
#[expect(clippy::needless_pass_by_value, reason = "the engine hands named arguments over by value")]
fn tojson(
    value: &Value,
    ensure_ascii: Option<bool>,
    indent: Option<Value>,
    separators: Option<Value>,
    named: Kwargs,
) -> Result<String, Error> {
    let indent = indent.or(named.get("indent")?).filter(|indent| !indent.is_none());
    let indent = indent.map(|width| match width.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(width.as_usize().unwrap_or(0)),
    });
    let separators: Option<Value> = separators.or(named.get("separators")?);
    let (item_separator, key_separator) = match separators.filter(|separators| !separators.is_none()) {
        Some(pair) => {
            (python::str_of(&pair.get_item_by_index(0)?), python::str_of(&pair.get_item_by_index(1)?))
        }
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let options = Dumps {
        ensure_ascii: ensure_ascii.or(named.get("ensure_ascii")?).unwrap_or(false),
        sort_keys: named.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        indent,
        item_separator,
        key_separator,
    };
    named.assert_all_used()?;
    options.dumps(value)
}
