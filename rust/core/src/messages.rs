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
            "tool_calls" if kind != Kind::Null => {
                let reason = format!("{name}.tool_calls: expected an array of calls, got {}", kind.name());
                return Err(cursor.error_at(offset, reason));
            }
            "function_call" if kind == Kind::Object => {
                let name = format!("{name}.function_call");
                if !function_named(cursor, &name)? {
                    return Err(cursor.error_at(offset, format!("{name}: no name of a function")));
                }
                says_something = true;
            }
            "content" if kind == Kind::String => says_something |= !cursor.string()?.text().trim().is_empty(),
            "content" if kind == Kind::Array => says_something |= parts(cursor, name)?,
            "weight" if kind == Kind::Number => {
                let weight = cursor.number()?;
                if matches!(rule, Rule::Answer { .. }) && weight.parse() == Ok(0.0) {
                    let reason = format!(
                        "{name}.weight: 0 says that this answer is not to be learned: remove the record"
                    );
                    return Err(cursor.error_at(offset, reason));
                }
            }
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

/// Reads a list of content parts; whether they say something. Only text can be learned.
fn parts(cursor: &mut Cursor<'_>, name: &str) -> Result<bool, JsonError> {
    let mut says_something = false;
    cursor.array(|cursor, index| {
        let name = format!("{name}.content[{index}]");
        says_something |= part(cursor, &name)?;
        Ok::<_, JsonError>(())
    })?;
    Ok(says_something)
}

/// Reads a part: a string, or an object of type "text"; whether it says something.
fn part(cursor: &mut Cursor<'_>, name: &str) -> Result<bool, JsonError> {
    let (kind, start) = (cursor.peek()?, cursor.position());
    if kind == Kind::String {
        return Ok(!cursor.string()?.text().trim().is_empty());
    }
    if kind != Kind::Object {
        return Err(
            cursor.error_at(start, format!("{name}: expected a part (an object), got {}", kind.name()))
        );
    }
    let (mut type_, mut text) = (None, None);
    cursor.object(|cursor, key| {
        let kind = cursor.peek()?;
        match &*key.text() {
            "type" if kind == Kind::String => type_ = Some(cursor.string()?.text().into_owned()),
            "text" if kind == Kind::String => text = Some(!cursor.string()?.text().trim().is_empty()),
            _ => cursor.value().map(drop)?,
        }
        Ok::<_, JsonError>(())
    })?;
    match (type_.as_deref(), text) {
        (None | Some("text"), Some(says_something)) => Ok(says_something),
        (None | Some("text"), None) => Err(cursor.error_at(start, format!("{name}: a part without text"))),
        (Some("tool_use" | "tool_result"), _) => Err(cursor.error_at(
            start,
            format!("{name}: Anthropic's way to write calls and results: write tool_calls, and messages of role tool"),
        )),
        (Some(other), _) => Err(cursor.error_at(
            start,
            format!("{name}: a part of type {other:?} is no text, and kdfast learns text alone: remove it"),
        )),
    }
}

/// Checks arguments that are given as text: the JSON text of an object. A blank one stands for `{}`.
fn arguments_text(text: &str) -> Result<(), String> {
    const WANTED: &str = "give an object or its JSON text";
    if text.trim().is_empty() {
        return Ok(());
    }
    let mut cursor = Cursor::new(text, 0);
    let read = cursor.value().and_then(|value| cursor.end().map(|()| value.kind));
    match read {
        Ok(Kind::Object) => Ok(()),
        Ok(Kind::String) => Err(format!("the text is encoded twice: {WANTED}, got {}", excerpt(text))),
        Ok(kind) => {
            Err(format!("the text is JSON, but of type {}: {WANTED}, got {}", kind.name(), excerpt(text)))
        }
        Err(error) => Err(format!(
            "the text is no JSON ({} at its byte {}): {WANTED}, got {}",
            error.reason,
            error.offset,
            excerpt(text)
        )),
    }
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
            "arguments" if kind == Kind::String => {
                let text = cursor.string()?.text();
                if let Err(why) = arguments_text(&text) {
                    return Err(cursor.error_at(offset, format!("{name}.arguments: {why}")));
                }
            }
            "arguments" if !matches!(kind, Kind::Object | Kind::Null) => {
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
