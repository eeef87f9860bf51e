//! Values written as Python writes them: `str`, `repr` and `json.dumps`.

use std::fmt::Write;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::big_integer::BigInteger;
use crate::json::quote;

/// `str(value)`; nothing for an undefined one.
pub fn str_of(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_undefined() => String::new(),
        None => repr(value),
    }
}

/// `repr(value)`.
pub fn repr(value: &Value) -> String {
    let mut out = String::new();
    write_repr(value, &mut out);
    out
}

fn write_repr(value: &Value, out: &mut String) {
    match value.kind() {
        ValueKind::String => repr_of_text(value.as_str().unwrap_or_default(), out),
        ValueKind::Number => out.push_str(&number(value, "inf", "nan")),
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::Seq => {
            let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
            out.push(open);
            for (index, item) in items(value).into_iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_repr(&item, out);
            }
            out.push_str(if value.is_tuple() && value.len() == Some(1) { "," } else { "" });
            out.push(close);
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in items(value).into_iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_repr(&key, out);
                out.push_str(": ");
                write_repr(&value.get_item(&key).unwrap_or_default(), out);
            }
            out.push('}');
        }
        _ => drop(write!(out, "{value}")),
    }
}

fn items(value: &Value) -> Vec<Value> {
    value.try_iter().map(Iterator::collect).unwrap_or_default()
}

fn repr_of_text(text: &str, out: &mut String) {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            quote if quote == mark => drop(write!(out, "\\{quote}")),
            plain if is_printable(plain) => out.push(plain),
            hidden => drop(match hidden as u32 {
                code @ 0..=0xff => write!(out, "\\x{code:02x}"),
                code @ 0x100..=0xffff => write!(out, "\\u{code:04x}"),
                code => write!(out, "\\U{code:08x}"),
            }),
        }
    }
    out.push(mark);
}

/// Python's `str.isprintable`. Rust's `escape_debug` escapes by the same rule, except that it also escapes a
/// combining mark at the start of a text: hence the letter before it.
fn is_printable(character: char) -> bool {
    matches!(character, ' '..='~') || !format!("a{character}").escape_debug().any(|escaped| escaped == '\\')
}

/// A number as Python prints it; `infinity` and `nan` are the words for those.
fn number(value: &Value, infinity: &str, nan: &str) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let float = f64::try_from(value.clone()).unwrap_or(f64::NAN);
    if float.is_nan() {
        nan.to_owned()
    } else if float.is_infinite() {
        format!("{}{infinity}", if float < 0.0 { "-" } else { "" })
    } else {
        finite(float)
    }
}

/// The shortest digits that read back as `float`; with an exponent below 1e-4 and from 1e16 on.
fn finite(float: f64) -> String {
    let scientific = format!("{float:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{float}");
        if plain.contains('.') { plain } else { plain + ".0" }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exponent.abs())
    }
}

/// The options of `json.dumps`.
#[derive(Debug)]
pub struct Dumps {
    pub ensure_ascii: bool,
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
    pub sort_keys: bool,
}

impl Dumps {
    /// `json.dumps(value)`.
    pub fn dumps(&self, value: &Value) -> Result<String, Error> {
        let mut out = String::new();
        self.write(value, 0, &mut out)?;
        Ok(out)
    }

    fn write(&self, value: &Value, level: usize, out: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value, "Infinity", "NaN")),
            ValueKind::String => self.quote(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq => {
                let items = items(value).into_iter().map(|item| (None, item)).collect();
                self.container(['[', ']'], items, level, out)?;
            }
            ValueKind::Map => self.container(['{', '}'], self.entries(value)?, level, out)?,
            _ => match value.downcast_object_ref::<BigInteger>() {
                Some(integer) => out.push_str(&integer.0),
                None => return Err(refused(value)),
            },
        }
        Ok(())
    }

    fn container(
        &self,
        brackets: [char; 2],
        entries: Vec<(Option<String>, Value)>,
        level: usize,
        out: &mut String,
    ) -> Result<(), Error> {
        out.push(brackets[0]);
        let filled = !entries.is_empty();
        for (index, (key, value)) in entries.into_iter().enumerate() {
            out.push_str(if index == 0 { "" } else { &self.item_separator });
            self.new_line(level + 1, out);
            if let Some(key) = key {
                self.quote(&key, out);
                out.push_str(&self.key_separator);
            }
            self.write(&value, level + 1, out)?;
        }
        if filled {
            self.new_line(level, out);
        }
        out.push(brackets[1]);
        Ok(())
    }

    fn new_line(&self, level: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.push_str(&indent.repeat(level));
        }
    }

    fn entries(&self, map: &Value) -> Result<Vec<(Option<String>, Value)>, Error> {
        let mut entries = Vec::new();
        for key in items(map) {
            let text = match key.kind() {
                ValueKind::String => str_of(&key),
                ValueKind::None | ValueKind::Bool | ValueKind::Number => self.dumps(&key)?,
                _ => return Err(refused(&key)),
            };
            entries.push((Some(text), map.get_item(&key)?));
        }
        if self.sort_keys {
            entries.sort_by(|left, right| left.0.cmp(&right.0));
        }
        Ok(entries)
    }

    fn quote(&self, text: &str, out: &mut String) {
        let start = out.len();
        quote(text, out);
        // Python escapes the delete character here too.
        if self.ensure_ascii && text.contains(|character| character >= '\x7f') {
            let quoted = out.split_off(start);
            for unit in quoted.encode_utf16() {
                match u8::try_from(unit) {
                    Ok(byte) if byte < 0x7f => out.push(char::from(byte)),
                    _ => drop(write!(out, "\\u{unit:04x}")),
                }
            }
        }
    }
}

fn refused(value: &Value) -> Error {
    let message = format!("tojson: a value of type {} has no JSON form", value.kind());
    Error::new(ErrorKind::InvalidOperation, message)
}
