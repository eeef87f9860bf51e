//! A call's object: which keys have its name and its arguments, in all shapes that models write.

use std::ops::Range;

use crate::json::{Cursor, JsonError, Kind, RawStr};

use super::arguments::Arguments;
use super::escaped;

/// The keys that may have a call's name. If an object has several, the first in this list counts.
pub(super) const NAME_KEYS: [&str; 3] = ["name", "tool", "function"];
/// The keys that may have a call's arguments. If an object has several, the first in this list counts.
pub(super) const ARGUMENTS_KEYS: [&str; 3] = ["arguments", "parameters", "args"];
/// The key of `OpenAI`'s list of calls.
pub(super) const LIST_KEY: &str = "tool_calls";
/// The index of `function` in [`NAME_KEYS`]. With an object as its value it wraps the call.
const WRAPPER: usize = 2;

/// The shape of a call's object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `{"name": ..., "arguments": {...}}`, with any of the keys.
    Plain,
    /// `name` and `parameters` and no other key.
    NameAndParameters,
    /// `{"type": "function", "function": {...}}`.
    Wrapped,
}

/// Which other shapes a call's object may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allow {
    /// [`Shape::Wrapped`].
    pub wrapped: bool,
    /// The arguments as a JSON text in a string. (A wrapped call may always have them so.)
    pub strings: bool,
}

/// A call's object, read. All ranges are byte offsets into the text that was read.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub shape: Shape,
    pub name: RawStr<'a>,
    pub arguments: Arguments<'a>,
    pub span: Range<usize>,
}

/// The last value of a key.
#[derive(Debug, Default)]
enum Given<T> {
    #[default]
    Nothing,
    Unusable,
    Value(T),
}

/// The entries of an object that may be a call.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    names: [Given<RawStr<'a>>; 3],
    arguments: [Given<Arguments<'a>>; 3],
    wrapped: Option<Box<Fields<'a>>>,
    others: bool,
}

impl<'a> Fields<'a> {
    /// Reads the value of `key`; `cursor` is at the value.
    pub fn entry(
        &mut self,
        cursor: &mut Cursor<'a>,
        key: &RawStr<'a>,
        allow: Allow,
    ) -> Result<(), JsonError> {
        let kind = cursor.peek()?;
        let key = key.text();
        if let Some(index) = NAME_KEYS.iter().position(|name| *name == key) {
            self.name_entry(cursor, index, kind, allow)
        } else if let Some(index) = ARGUMENTS_KEYS.iter().position(|name| *name == key) {
            self.arguments[index] = match kind {
                Kind::Object => {
                    let span = cursor.value()?.span;
                    Given::Value(Arguments::Plain { text: cursor.slice(span.clone()), start: span.start })
                }
                Kind::String if allow.strings => {
                    let string = cursor.string()?;
                    escaped::arguments(&string)
                        .map_or(Given::Unusable, |parts| Given::Value(Arguments::Escaped(Box::new(parts))))
                }
                _ => cursor.value().map(|_| Given::Unusable)?,
            };
            Ok(())
        } else {
            self.others = true;
            cursor.value().map(drop)
        }
    }

    fn name_entry(
        &mut self,
        cursor: &mut Cursor<'a>,
        index: usize,
        kind: Kind,
        allow: Allow,
    ) -> Result<(), JsonError> {
        if index == WRAPPER {
            self.wrapped = None;
        }
        self.names[index] = match kind {
            Kind::String => Given::Value(cursor.string()?),
            Kind::Object if index == WRAPPER && allow.wrapped => {
                let mut inner = Box::<Self>::default();
                let allow = Allow { wrapped: false, strings: true };
                cursor.object(|cursor, key| inner.entry(cursor, &key, allow))?;
                self.wrapped = Some(inner);
                Given::Nothing
            }
            _ => cursor.value().map(|_| Given::Unusable)?,
        };
        Ok(())
    }

    /// The call that these entries of an object at `span` make, if they do.
    pub fn call(self, span: Range<usize>) -> Option<Call<'a>> {
        let named = self.names.iter().any(|given| !matches!(given, Given::Nothing));
        if !named && let Some(inner) = self.wrapped {
            return inner.call(span).map(|call| Call { shape: Shape::Wrapped, ..call });
        }
        let llama = !self.others
            && self.wrapped.is_none()
            && matches!(self.names, [_, Given::Nothing, Given::Nothing])
            && matches!(self.arguments, [Given::Nothing, _, Given::Nothing]);
        let name = first(self.names)?;
        let arguments = first(self.arguments)?;
        (!name.raw.is_empty()).then_some(Call {
            shape: if llama { Shape::NameAndParameters } else { Shape::Plain },
            name,
            arguments,
            span,
        })
    }
}

/// Reads the object at `cursor`; the call, if it is one.
pub(super) fn read<'a>(cursor: &mut Cursor<'a>, allow: Allow) -> Result<Option<Call<'a>>, JsonError> {
    cursor.skip_space();
    let start = cursor.position();
    let mut fields = Fields::default();
    cursor.object(|cursor, key| fields.entry(cursor, &key, allow))?;
    Ok(fields.call(start..cursor.position()))
}

/// The value of the first key that has one; `None` if that value cannot be used.
fn first<T>(given: [Given<T>; 3]) -> Option<T> {
    match given.into_iter().find(|given| !matches!(given, Given::Nothing))? {
        Given::Value(value) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(text: &str, allow: Allow) -> Option<(String, String)> {
        let found = read(&mut Cursor::new(text, 0), allow).unwrap()?;
        assert_eq!(found.span, 0..text.len());
        Some((found.name.text().into_owned(), found.arguments.text().to_owned()))
    }

    const PLAIN: Allow = Allow { wrapped: false, strings: false };
    const WIDE: Allow = Allow { wrapped: true, strings: true };

    #[test]
    fn any_of_the_keys_will_do_and_the_first_counts() {
        for text in [
            r#"{"name": "f", "arguments": {}}"#,
            r#"{"parameters": {}, "tool": "f"}"#,
            r#"{"function": "f", "args": {}, "id": 3}"#,
            r#"{"function": "g", "tool": "h", "name": "f", "args": {"x": 1}, "arguments": {}}"#,
            r#"{"name": "g", "n\u0061me": "f", "arguments": 1, "arguments": {}}"#,
        ] {
            assert_eq!(call(text, PLAIN), Some(("f".into(), "{}".into())), "{text}");
        }
    }

    #[test]
    fn what_lacks_a_part_is_no_call() {
        for text in [
            r#"{"name": "f"}"#,
            r#"{"arguments": {}}"#,
            r#"{"name": "", "arguments": {}}"#,
            r#"{"name": 1, "tool": "f", "arguments": {}}"#,
            r#"{"name": "f", "arguments": [], "args": {}}"#,
            r#"{"name": "f", "arguments": "{}"}"#,
            r#"{"function": {"name": "f", "arguments": {}}}"#,
        ] {
            assert_eq!(call(text, PLAIN), None, "{text}");
        }
    }

    #[test]
    fn wrapped_calls_and_arguments_in_strings() {
        let wrapped =
            r#"{"type": "function", "function": {"name": "f", "arguments": "{\"a\": \"\\u00e9\"}"}}"#;
        assert_eq!(call(wrapped, WIDE), Some(("f".into(), "{\"a\": \"\\u00e9\"}".into())));
        let object = r#"{"function": {"name": "f", "arguments": {}}}"#;
        assert_eq!(call(object, WIDE), Some(("f".into(), "{}".into())));
        for text in [
            r#"{"function": {"name": "f", "arguments": "[]"}}"#,
            r#"{"function": {"name": "f", "arguments": "{} x"}}"#,
            r#"{"function": {"name": "f", "arguments": ""}}"#,
            r#"{"function": {"function": {"name": "f", "arguments": {}}}}"#,
            r#"{"function": {"name": "f", "arguments": {}}, "name": null}"#,
            r#"{"function": {"name": "f", "arguments": {}}, "function": 1}"#,
        ] {
            assert_eq!(call(text, WIDE), None, "{text}");
        }
    }
}
