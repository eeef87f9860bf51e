//! What a chat message must be.

use crate::json::{Cursor, JsonError, Kind};

/// Which kind of message a place needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Any turn of a conversation: an object with a role.
    AnyTurn,
    /// An assistant's answer: content or tool calls.
    Answer { allow_reasoning: bool },
}

/// The keys under which other software puts a message's reasoning.
const REASONING: [&str; 3] = ["reasoning_content", "reasoning", "thinking"];

/// Longest part of a value that an error quotes, in characters.
const EXCERPT: usize = 60;

/// Reads a message and checks it; `name` is its name in errors.
pub fn check(cursor: &mut Cursor<'_>, name: &str, rule: Rule) -> Result<(), JsonError> {
    let kind = cursor.peek()?;
    let start = cursor.position();
    if kind != Kind::Object {
        return Err(cursor.error_at(start, format!("{name}: expected an object, got {}", kind.name())));
    }
    let mut speaker = None;
    let mut says_something = false;
    cursor.object(|cursor, key| {
        let kind = cursor.peek()?;
        let offset = cursor.position();
        match &*key.text() {
            "role" if kind == Kind::String => speaker = Some(cursor.string()?.text()),
            "role" => {
                return Err(
                    cursor.error_at(offset, format!("{name}.role: expected a string, got {}", kind.name()))
                );
            }
            "tool_calls" if kind == Kind::Array => says_something |= calls(cursor, name)? > 0,
            "content" if kind == Kind::String => says_something |= !cursor.string()?.text().trim().is_empty(),
            "content" => {
                cursor.value()?;
                says_something |= kind != Kind::Null;
            }
            other if refuses(rule, other) && kind != Kind::Null => {
                let name = format!("{name}.{other}");
                return Err(cursor.error_at(offset, refused_reasoning(&name)));
            }
            _ => cursor.value().map(drop)?,
        }
        Ok(())
    })?;
    let fault = |what: &str| Err(cursor.error_at(start, format!("{name}: {what}")));
    match (rule, speaker.as_deref()) {
        (_, None) => fault("no role"),
        (Rule::Answer { .. }, Some(other)) if other != "assistant" => {
            fault(&format!("its role must be \"assistant\", got {other:?}"))
        }
        (Rule::Answer { .. }, _) if !says_something => {
            fault("says nothing: content and tool_calls are both empty")
        }
        _ => Ok(()),
    }
}

/// Why a teacher's reasoning is not taken.
pub fn refused_reasoning(name: &str) -> String {
    format!(
        "{name}: refused, since the terms of service of teacher APIs commonly forbid training on a model's reasoning; \
         remove the key, or set data.allow_reasoning to true if you have the right to use it"
    )
}

/// The start of `text`, for an error.
pub fn excerpt(text: &str) -> String {
    if text.chars().count() <= EXCERPT {
        return text.to_owned();
    }
    text.chars().take(EXCERPT).chain("...".chars()).collect()
}

fn refuses(rule: Rule, key: &str) -> bool {
    rule == (Rule::Answer { allow_reasoning: false }) && REASONING.contains(&key)
}

/// Reads tool calls and returns their number. Each is an object with a `name`, its own or that of its `function`.
fn calls(cursor: &mut Cursor<'_>, name: &str) -> Result<usize, JsonError> {
    let mut count = 0;
    cursor.array(|cursor, index| {
        count += 1;
        let name = format!("{name}.tool_calls[{index}]");
        let offset = cursor.position();
        if function_named(cursor, &name)? {
            return Ok(());
        }
        Err(cursor.error_at(offset, format!("{name}: no name of a function")))
    })?;
    Ok(count)
}

/// Reads a call (or its `function`); whether it has a name.
fn function_named(cursor: &mut Cursor<'_>, name: &str) -> Result<bool, JsonError> {
    let kind = cursor.peek()?;
    if kind != Kind::Object {
        let reason = format!("{name}: expected an object, got {}", kind.name());
        return Err(cursor.error_at(cursor.position(), reason));
    }
    let mut named = false;
    cursor.object(|cursor, key| {
        let kind = cursor.peek()?;
        let offset = cursor.position();
        match &*key.text() {
            "name" => {
                cursor.value()?;
                named |= kind == Kind::String;
            }
            "function" => named |= function_named(cursor, &format!("{name}.function"))?,
            "arguments" if !matches!(kind, Kind::Object | Kind::String | Kind::Null) => {
                let reason =
                    format!("{name}.arguments: expected an object or its JSON text, got {}", kind.name());
                return Err(cursor.error_at(offset, reason));
            }
            _ => cursor.value().map(drop)?,
        }
        Ok(())
    })?;
    Ok(named)
}
