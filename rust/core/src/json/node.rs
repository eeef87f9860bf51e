//! A JSON text as a tree that can be changed and written again. What is not changed keeps its spelling: `1.0` stays
//! `1.0`, and an escape stays an escape.

use std::borrow::Cow;

use super::cursor::{Cursor, JsonError, Kind};
use super::strings::{quote, unescape};

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node<'a> {
    /// Null, a boolean, a number or a string, as its JSON text.
    Scalar(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    /// Keys (resolved) and values, in the order of the text. Of a repeated key, only the last value, as everywhere.
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

impl<'a> Node<'a> {
    pub fn parse(text: &'a str) -> Result<Self, JsonError> {
        let mut cursor = Cursor::new(text, 0);
        let node = Self::read(&mut cursor)?;
        cursor.end().map(|()| node)
    }

    fn read(cursor: &mut Cursor<'a>) -> Result<Self, JsonError> {
        match cursor.peek()? {
            Kind::Object => {
                let mut entries: Vec<(Cow<'a, str>, Self)> = Vec::new();
                cursor.object(|cursor, key| {
                    let (key, value) = (key.text(), Self::read(cursor)?);
                    match entries.iter_mut().find(|(known, _)| *known == key) {
                        Some((_, old)) => *old = value,
                        None => entries.push((key, value)),
                    }
                    Ok::<_, JsonError>(())
                })?;
                Ok(Self::Object(entries))
            }
            Kind::Array => {
                let mut items = Vec::new();
                cursor.array(|cursor, _| {
                    items.push(Self::read(cursor)?);
                    Ok::<_, JsonError>(())
                })?;
                Ok(Self::Array(items))
            }
            _ => {
                let span = cursor.value()?.span;
                Ok(Self::Scalar(Cow::Borrowed(cursor.slice(span))))
            }
        }
    }

    /// A string with this text.
    pub fn string(text: &str) -> Self {
        let mut json = String::new();
        quote(text, &mut json);
        Self::Scalar(Cow::Owned(json))
    }

    /// The string's text, if it is a string.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        let Self::Scalar(json) = self else { return None };
        let inner = json.strip_prefix('"')?.strip_suffix('"')?;
        Some(if inner.contains('\\') { Cow::Owned(unescape(inner)) } else { Cow::Borrowed(inner) })
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Scalar(json) if json == "null")
    }

    /// The value under `key`, if it is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Object(entries) = self else { return None };
        entries.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        self.entry(key).map(|(_, value)| value)
    }

    /// The key and the value under `key`.
    pub fn entry(&mut self, key: &str) -> Option<&mut (Cow<'a, str>, Self)> {
        let Self::Object(entries) = self else { return None };
        entries.iter_mut().find(|(known, _)| known == key)
    }

    /// The items, if it is an array.
    pub fn items(&self) -> &[Self] {
        if let Self::Array(items) = self { items } else { &[] }
    }

    pub fn items_mut(&mut self) -> &mut [Self] {
        if let Self::Array(items) = self { items } else { &mut [] }
    }

    /// The JSON text, with `, ` and `: ` between things.
    pub fn json(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Scalar(json) => out.push_str(json),
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { ", " });
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(entries) => {
                out.push('{');
                for (index, (key, value)) in entries.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { ", " });
                    quote(key, out);
                    out.push_str(": ");
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// Whether two values are equal as data: spelling, and the order of keys, do not matter; `1` and `1.0` are equal.
pub(crate) fn same(a: &Node<'_>, b: &Node<'_>) -> bool {
    match (a, b) {
        (Node::Array(a), Node::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Node::Object(a), Node::Object(_)) => {
            let Node::Object(other) = b else { return false };
            a.len() == other.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|b| same(value, b)))
        }
        (Node::Scalar(one), Node::Scalar(two)) => {
            one == two
                || match (a.text(), b.text()) {
                    (Some(a), Some(b)) => a == b,
                    (None, None) => same_number(one, two),
                    _ => false,
                }
        }
        _ => false,
    }
}

fn same_number(a: &str, b: &str) -> bool {
    let exact = |text: &str| !text.contains(['.', 'e', 'E']);
    match (a.parse::<f64>(), b.parse::<f64>()) {
        // Two different spellings of integers are equal only as -0 and 0: fractions lose digits of long ones.
        (Ok(one), Ok(two)) => one - two == 0.0 && (!(exact(a) && exact(b)) || one == 0.0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node<'_> {
        Node::parse(text).unwrap()
    }

    #[test]
    fn what_is_not_changed_keeps_its_spelling() {
        let mut tree = node(r#"{"a": [1.0, 1e5, "\u00e9"], "b": null, "a2": {}}"#);
        *tree.get_mut("b").unwrap() = Node::string("x\"y");
        assert_eq!(tree.json(), r#"{"a": [1.0, 1e5, "\u00e9"], "b": "x\"y", "a2": {}}"#);
    }

    #[test]
    fn equal_as_data() {
        for (a, b) in
            [("1", "1.0"), ("-0", "0"), (r#""\u00e9""#, "\"é\""), (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#)]
        {
            assert!(same(&node(a), &node(b)), "{a} {b}");
        }
        for (a, b) in [
            ("1", "2"),
            ("9007199254740993", "9007199254740992"),
            ("null", "\"null\""),
            ("[1]", "[1,1]"),
            ("true", "false"),
        ] {
            assert!(!same(&node(a), &node(b)), "{a} {b}");
        }
    }
}
