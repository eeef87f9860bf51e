//! A call's object: which keys have its name and its arguments, in all shapes that models write.

use std::ops::Range;

use crate::json::{Cursor, JsonError, Kind, RawStr};

use super::arguments::Arguments;
use super::escaped;
use crate::schema::ToolSchema;

/// The keys that may have a call's name. If an object has several, the first in this list counts.
pub(super) const NAME_KEYS: [&str; 3] = ["name", "tool", "function"];
/// The keys that may have a call's arguments. If an object has several, the first in this list counts.
pub(super) const ARGUMENTS_KEYS: [&str; 3] = ["arguments", "parameters", "args"];
/// Keys that a call may have besides.
const LABELS: [&str; 4] = ["id", "type", "index", "call_id"];
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

/// How a call is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub shape: Shape,
    /// Its arguments are a JSON text in a string, or there are none, in a shape where that is not usual.
    pub lenient: bool,
}

/// Which other forms a call's object may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allow {
    /// [`Shape::Wrapped`].
    pub wrapped: bool,
    /// The arguments as a JSON text in a string, or none. (A wrapped call may always have them so.)
    pub strings: bool,
    /// The object stands in one of `OpenAI`'s shapes, where that is usual.
    pub openai: bool,
}

/// A call's object, read. All ranges are byte offsets into the text that was read.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub form: Form,
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
    /// `null`, or a blank string.
    Empty(Range<usize>),
    Value(T),
}

/// The entries of an object that may be a call.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    names: [Given<RawStr<'a>>; 3],
    arguments: [Given<Arguments<'a>>; 3],
    wrapped: Option<Box<Fields<'a>>>,
    others: bool,
    /// There is a key that is no label of a call: perhaps an argument.
    strange: bool,
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
                Kind::Null => Given::Empty(cursor.value()?.span),
                Kind::String => {
                    let string = cursor.string()?;
                    if string.text().bytes().all(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')) {
                        Given::Empty(string.span)
                    } else if allow.strings {
                        escaped::arguments(&string).map_or(Given::Unusable, |parts| {
                            Given::Value(Arguments::Escaped(Box::new(parts)))
                        })
                    } else {
                        Given::Unusable
                    }
                }
                _ => cursor.value().map(|_| Given::Unusable)?,
            };
            Ok(())
        } else {
            self.others = true;
            self.strange |= !LABELS.contains(&&*key);
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
                let allow = Allow { wrapped: false, strings: true, openai: true };
                cursor.object(|cursor, key| inner.entry(cursor, &key, allow))?;
                self.wrapped = Some(inner);
                Given::Nothing
            }
            _ => cursor.value().map(|_| Given::Unusable)?,
        };
        Ok(())
    }

    /// Whether these are entries that only calls have: a name, and arguments or a list of calls.
    pub fn call_like(&self) -> bool {
        let named = self.names.iter().any(|given| !matches!(given, Given::Nothing));
        let wrapped = self.wrapped.as_ref().is_some_and(|inner| inner.call_like());
        wrapped || named && self.arguments.iter().any(|given| !matches!(given, Given::Nothing))
    }

    /// The call that these entries of an object at `span` make, if they do. Where it is not usual to leave the arguments
    /// out, that needs `tools` that say that the function needs none. Beside other keys they may not be missing: these
    /// are likely meant as arguments.
    pub fn call(self, span: Range<usize>, allow: Allow, tools: Option<&ToolSchema>) -> Option<Call<'a>> {
        let named = self.names.iter().any(|given| !matches!(given, Given::Nothing));
        if !named && let Some(inner) = self.wrapped {
            let allow = Allow { wrapped: false, strings: true, openai: true };
            let call = inner.call(span, allow, tools)?;
            return Some(Call { form: Form { shape: Shape::Wrapped, lenient: false }, ..call });
        }
        let llama = !self.others
            && self.wrapped.is_none()
            && matches!(self.names, [_, Given::Nothing, Given::Nothing])
            && matches!(self.arguments, [Given::Nothing, Given::Value(_) | Given::Empty(_), Given::Nothing]);
        let name = match first(self.names)? {
            Given::Value(name) if !name.raw.is_empty() => name,
            _ => return None,
        };
        let missing = Given::Empty(span.end - 1..span.end - 1);
        let missing_among_others =
            self.strange && self.arguments.iter().all(|given| matches!(given, Given::Nothing));
        let (arguments, usual) = match first(self.arguments).unwrap_or(missing) {
            Given::Value(plain @ Arguments::Plain { .. }) => (plain, true),
            Given::Value(text) => (text, allow.openai),
            Given::Empty(_) if missing_among_others => return None,
            Given::Empty(span) => {
                let none = || tools.is_some_and(|tools| tools.is_valid(&name.text(), "{}"));
                (Arguments::Nothing { span }, allow.openai || none())
            }
            _ => return None,
        };
        let form =
            Form { shape: if llama { Shape::NameAndParameters } else { Shape::Plain }, lenient: !usual };
        (usual || allow.strings).then_some(Call { form, name, arguments, span })
    }
}

/// Reads the object at `cursor`; the call, if it is one, else whether it looks like one.
pub(super) fn read<'a>(
    cursor: &mut Cursor<'a>,
    allow: Allow,
    tools: Option<&ToolSchema>,
) -> Result<Result<Call<'a>, bool>, JsonError> {
    cursor.skip_space();
    let start = cursor.position();
    let mut fields = Fields::default();
    cursor.object(|cursor, key| fields.entry(cursor, &key, allow))?;
    let like = fields.call_like();
    Ok(fields.call(start..cursor.position(), allow, tools).ok_or(like))
}

/// What the first key that is there has.
fn first<T>(given: [Given<T>; 3]) -> Option<Given<T>> {
    given.into_iter().find(|given| !matches!(given, Given::Nothing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(text: &str, allow: Allow) -> Option<(String, String)> {
        let tools =
            ToolSchema::cached(r#"[{"name": "none"}, {"name": "some", "parameters": {"required": ["a"]}}]"#);
        let found = read(&mut Cursor::new(text, 0), allow, Some(&tools.unwrap())).unwrap().ok()?;
        assert_eq!(found.span, 0..text.len());
        Some((found.name.text().into_owned(), found.arguments.text().to_owned()))
    }

    const PLAIN: Allow = Allow { wrapped: false, strings: false, openai: false };
    const TEXT: Allow = Allow { wrapped: false, strings: true, openai: false };
    const WIDE: Allow = Allow { wrapped: true, strings: true, openai: true };

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
    fn no_arguments_are_an_empty_object_where_text_is_allowed_or_the_tool_takes_none() {
        for nothing in ["", r#", "arguments": null"#, r#", "arguments": """#, r#", "args": " ""#] {
            let written = |name: &str| format!(r#"{{"name": "{name}"{nothing}}}"#);
            let empty = |name: &str| Some((name.to_owned(), "{}".to_owned()));
            assert_eq!(call(&written("none"), PLAIN), empty("none"), "{nothing}");
            assert_eq!(call(&written("some"), PLAIN), None, "{nothing}");
            assert_eq!(call(&written("some"), TEXT), empty("some"), "{nothing}");
            let wrapped = format!(r#"{{"function": {}}}"#, written("some"));
            assert_eq!(call(&wrapped, WIDE), empty("some"), "{nothing}");
        }
        assert_eq!(call(r#"{"name": "none", "a": 1}"#, TEXT), None);
        assert!(call(r#"{"name": "none", "id": "c1", "type": "function"}"#, TEXT).is_some());
        let text = r#"{"name": "f", "arguments": null, "x": 1}"#;
        let found = read(&mut Cursor::new(text, 0), TEXT, None).unwrap().unwrap();
        assert!(found.form.lenient);
        assert_eq!(&text[found.arguments.into_parts().span], "null");
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
            r#"{"function": {"function": {"name": "f", "arguments": {}}}}"#,
            r#"{"function": {"name": "f", "arguments": {}}, "name": null}"#,
            r#"{"function": {"name": "f", "arguments": {}}, "function": 1}"#,
        ] {
            assert_eq!(call(text, WIDE), None, "{text}");
        }
    }
}
