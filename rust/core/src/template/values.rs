//! JSON as template values that behave and print like Python's.

use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;
use minijinja::value::{Enumerator, Object, ObjectExt, ObjectRepr, Value};

use super::big_integer::BigInteger;
use super::python;
use crate::json::{Cursor, JsonError, Kind};
use crate::{Error, Result};

/// A JSON object: a `dict` in the order of the text.
#[derive(Debug)]
pub struct Dict(pub IndexMap<String, Value>);

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.0.get(key).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.mapped_rev_enumerator(|this| Box::new(this.0.keys().map(|key| Value::from(key.as_str()))))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.0.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&python::repr(&Value::from_dyn_object(self.clone())))
    }
}

/// A JSON array: a `list`.
#[derive(Debug)]
pub struct List(pub Vec<Value>);

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&python::repr(&Value::from_dyn_object(self.clone())))
    }
}

/// The value of the JSON text that was given as `name`.
pub fn parse(name: &str, json: &str) -> Result<Value> {
    let mut cursor = Cursor::new(json, 0);
    let value = value_at(&mut cursor).and_then(|value| cursor.end().map(|()| value));
    value.map_err(|error| not_json(name, &error))
}

/// The messages as `apply_chat_template` hands them to a template. Keys that are null are left out. Reasoning has the
/// names that transformers gives it: the first of `reasoning_content`, `thinking` and `reasoning` is copied to
/// `reasoning_content`, and to `thinking` if that is not there.
pub fn parse_messages(json: &str) -> Result<Value> {
    let mut messages = Vec::new();
    let mut cursor = Cursor::new(json, 0);
    let done = cursor.array(|cursor, index| {
        if cursor.peek()? != Kind::Object {
            let reason = format!("message {index} is not an object");
            return Err(cursor.error_at(cursor.position(), reason));
        }
        let mut message = dict_at(cursor)?;
        message.retain(|_, value| !value.is_none());
        messages.push(Value::from_object(Dict(with_reasoning(message))));
        Ok(())
    });
    done.and_then(|()| cursor.end()).map_err(|error| not_json("messages", &error))?;
    Ok(Value::from_object(List(messages)))
}

fn with_reasoning(message: IndexMap<String, Value>) -> IndexMap<String, Value> {
    let names = ["reasoning_content", "thinking", "reasoning"];
    let found = names.iter().find_map(|name| message.get(*name).filter(|value| !value.is_none()));
    let Some(reasoning) = found.cloned() else { return message };
    let mut aliased = IndexMap::from([("thinking".to_owned(), reasoning.clone())]);
    aliased.extend(message);
    aliased.insert("reasoning_content".to_owned(), reasoning);
    aliased
}

fn not_json(name: &str, error: &JsonError) -> Error {
    Error::data(format!("{name}: {} at byte {}", error.reason, error.offset))
}

fn value_at(cursor: &mut Cursor<'_>) -> std::result::Result<Value, JsonError> {
    Ok(match cursor.peek()? {
        Kind::Object => Value::from_object(Dict(dict_at(cursor)?)),
        Kind::Array => {
            let mut items = Vec::new();
            cursor.array(|cursor, _| {
                items.push(value_at(cursor)?);
                Ok::<_, JsonError>(())
            })?;
            Value::from_object(List(items))
        }
        Kind::String => Value::from(cursor.string()?.text().into_owned()),
        Kind::Number => number(cursor.number()?),
        Kind::Bool => {
            let span = cursor.value()?.span;
            Value::from(cursor.slice(span) == "true")
        }
        Kind::Null => {
            cursor.value()?;
            Value::from(())
        }
    })
}

fn dict_at(cursor: &mut Cursor<'_>) -> std::result::Result<IndexMap<String, Value>, JsonError> {
    let mut entries = IndexMap::new();
    cursor.object(|cursor, key| {
        // A repeated key keeps its first place and its last value, as in Python.
        entries.insert(key.text().into_owned(), value_at(cursor)?);
        Ok::<_, JsonError>(())
    })?;
    Ok(entries)
}

fn number(text: &str) -> Value {
    if text.contains(['.', 'e', 'E']) {
        return Value::from(text.parse::<f64>().unwrap_or(f64::NAN));
    }
    // Python has no negative zero among its integers.
    let text = if text == "-0" { "0" } else { text };
    match (text.parse::<i64>(), text.parse::<i128>()) {
        (Ok(small), _) => Value::from(small),
        (_, Ok(large)) => Value::from(large),
        _ => Value::from_object(BigInteger(text.to_owned())),
    }
}
