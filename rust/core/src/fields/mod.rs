//! The record: which keys it has and what each must be.

mod reader;
mod record;

use std::borrow::Cow;
use std::collections::HashSet;

use crate::dialects;
use crate::json::{Cursor, JsonError, Kind, quote};
use crate::messages::{self, Rule};
use reader::Reader;
pub use record::{Record, TopK};

/// What is wrong with a line, and at which byte if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    pub offset: Option<usize>,
    pub reason: String,
}

impl From<JsonError> for FieldError {
    fn from(error: JsonError) -> Self {
        Self { offset: Some(error.offset), reason: error.reason }
    }
}

type Read = fn(&mut Reader<'_, '_>, &mut Record) -> Result<(), JsonError>;

/// The keys of a record, one row each. A value of `null` counts as an absent key (that is how table exports write one).
const FIELDS: &[(&str, Read)] = &[
    ("prompt", |reader, record| reader.text().map(|text| record.prompt = Some(text))),
    ("messages", |reader, record| reader.messages().map(|json| record.messages = Some(json))),
    ("tools", take_tools),
    // OpenAI's name for tools before there were other kinds than functions.
    ("functions", take_tools),
    ("teacher_text", |reader, record| reader.text().map(|text| record.teacher_text = Some(text))),
    ("teacher_message", |reader, record| reader.answer().map(|json| record.teacher_message = Some(json))),
    ("truth_text", |reader, record| reader.text().map(|text| record.truth_text = Some(text))),
    ("truth_message", |reader, record| reader.answer().map(|json| record.truth_message = Some(json))),
    ("tool_should_be_used", |reader, record| {
        reader.flag().map(|flag| record.tool_should_be_used = Some(flag))
    }),
    ("teacher_prefix_ids", |reader, record| reader.ids().map(|ids| record.teacher_prefix_ids = Some(ids))),
    ("required_fields_present", |reader, record| {
        reader.flag().map(|flag| record.required_fields_present = Some(flag))
    }),
    ("teacher_attention_mask", |reader, record| {
        reader.mask().map(|mask| record.teacher_attention_mask = Some(mask))
    }),
    ("validated_arguments", |reader, record| {
        reader.object().map(|json| record.validated_arguments = Some(json))
    }),
    ("teacher_topk", |reader, record| reader.topk().map(|topk| record.teacher_topk = Some(topk))),
    ("finish_reason", |reader, record| reader.text().map(|text| record.finish_reason = Some(text))),
];

fn take_tools(reader: &mut Reader<'_, '_>, record: &mut Record) -> Result<(), JsonError> {
    if record.tools.is_some() {
        let offset = reader.cursor.position();
        return Err(reader.cursor.error_at(offset, "both tools and functions: give one of them"));
    }
    record.tools = Some(reader.tools()?);
    Ok(())
}

const HEADER: &str = "__header__";
const METADATA: &str = "metadata";
const REASONING: &str = "teacher_reasoning_content";

/// The keys that a record or a header may have.
pub fn known_keys() -> Vec<&'static str> {
    FIELDS.iter().map(|(name, _)| *name).chain([METADATA, REASONING, HEADER]).collect()
}

/// What the lines of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// Records to learn from; each has an answer.
    Records,
    /// What a teacher will be asked. There may be a ground truth, but no teacher's answer yet.
    Prompts,
}

/// The keys of a prompt. The other keys of a record describe an answer.
const PROMPT_KEYS: [&str; 7] =
    ["prompt", "messages", "tools", "functions", "truth_text", "truth_message", "tool_should_be_used"];

/// Parses and checks one line.
///
/// Unknown keys are added to `metadata` unchanged. If `metadata` has the key too, both values must be equal. With
/// `allow_reasoning` a teacher's reasoning is accepted (into `metadata`).
pub fn parse(text: &str, line: u64, lines: Lines, allow_reasoning: bool) -> Result<Record, FieldError> {
    let mut record = Record { line, ..Record::default() };
    let mut cursor = Cursor::new(text, 0);
    let mut keys: HashSet<Cow<'_, str>> = HashSet::new();
    let mut own: Option<&str> = None;
    let mut unknown: Vec<(Cow<'_, str>, &str)> = Vec::new();
    if cursor.peek()? != Kind::Object {
        let reason = format!("expected an object, got {}", cursor.peek()?.name());
        return Err(cursor.error_at(cursor.position(), reason).into());
    }
    cursor.object(|cursor, key| -> Result<(), FieldError> {
        let name = key.text();
        if keys.contains(&name) {
            return Err(cursor.error_at(key.span.start - 1, format!("duplicate key {name:?}")).into());
        }
        keys.insert(name.clone());
        if name == HEADER {
            let reason = "a header may stand on the first line only, alone in its object";
            return Err(cursor.error_at(key.span.start - 1, reason).into());
        }
        let field = FIELDS.iter().find(|(field, _)| *field == name);
        if cursor.peek()? == Kind::Null && (field.is_some() || name == METADATA || name == REASONING) {
            cursor.value()?;
            return Ok(());
        }
        if let Some((name, read)) = field {
            if lines == Lines::Prompts && !PROMPT_KEYS.contains(name) {
                let reason = format!(
                    "{name} belongs to an answer, and a prompt for a teacher has none yet: remove the key, or train \
                     on this file as it is (data.train)"
                );
                return Err(cursor.error_at(key.span.start - 1, reason).into());
            }
            return Ok(read(&mut Reader { cursor, name, allow_reasoning }, &mut record)?);
        }
        if name == REASONING && !allow_reasoning {
            return Err(cursor.error_at(key.span.start - 1, messages::refused_reasoning(REASONING)).into());
        }
        if name == METADATA {
            own = Some(Reader { cursor, name: METADATA, allow_reasoning }.object_slice()?);
        } else {
            let span = cursor.value()?.span;
            unknown.push((name, cursor.slice(span)));
        }
        Ok(())
    })?;
    cursor.end()?;
    take_last_answer(&mut record, allow_reasoning)?;
    check_together(&record, lines, unknown.iter().map(|(name, _)| &**name))?;
    record.metadata = merge_metadata(own.unwrap_or("{}"), &unknown)?;
    Ok(record)
}

/// The header's JSON object, if `text` is a header line.
pub fn header(text: &str) -> Result<Option<String>, FieldError> {
    let mut found = None;
    let mut others = false;
    let mut cursor = Cursor::new(text, 0);
    if cursor.peek()? != Kind::Object {
        return Ok(None);
    }
    cursor.object(|cursor, key| -> Result<(), FieldError> {
        if key.text() == HEADER {
            found = Some(Reader { cursor, name: HEADER, allow_reasoning: false }.object()?);
        } else {
            others = true;
            cursor.value()?;
        }
        Ok(())
    })?;
    cursor.end()?;
    // With other keys it is a record: the parser then says that a header does not belong there.
    Ok(found.filter(|_| !others))
}

fn fault(reason: impl Into<String>) -> FieldError {
    FieldError { offset: None, reason: reason.into() }
}

/// A conversation that ends with an assistant's message holds its own answer, as `OpenAI`'s training files do.
fn take_last_answer(record: &mut Record, allow_reasoning: bool) -> Result<(), FieldError> {
    let Some((before, answer)) = record.messages.as_deref().and_then(dialects::last_answer) else {
        return Ok(());
    };
    let given = [
        ("teacher_text", record.teacher_text.is_some()),
        ("teacher_message", record.teacher_message.is_some()),
        ("truth_text", record.truth_text.is_some()),
        ("truth_message", record.truth_message.is_some()),
    ];
    if let Some((name, _)) = given.iter().find(|(_, given)| *given) {
        return Err(fault(format!(
            "messages already end with an assistant's turn, and {name} would follow it: remove one of the two"
        )));
    }
    let rule = Rule::Answer { allow_reasoning };
    messages::check(&mut Cursor::new(&answer, 0), "messages: the last one, which is the answer", rule)
        .map_err(|error| fault(error.reason))?;
    if before == "[]" {
        return Err(fault("messages hold an answer and no question: put the turns before it there too"));
    }
    record.messages = Some(before);
    record.truth_message = Some(answer);
    Ok(())
}

/// Keys of other houses' records, and what such a record is.
const OTHER_HOUSES: [(&str, &str); 5] = [
    ("conversations", "ShareGPT (turns with from and value): write them as messages with role and content"),
    ("conversation", "a conversation under a key of its own: name the key messages"),
    ("instruction", "Alpaca (instruction, input, output): write them as prompt and truth_text"),
    ("question", "question and answer: write them as prompt and truth_text"),
    ("chosen", "preferences (chosen, rejected): write the chosen answer as truth_text or truth_message"),
];

/// The rules between keys; `unknown` are the record's keys that kdfast does not know.
fn check_together<'k>(
    record: &Record,
    lines: Lines,
    mut unknown: impl Iterator<Item = &'k str>,
) -> Result<(), FieldError> {
    let wrong = |reason: &str| Err(fault(reason));
    let answers = [
        ("teacher_text", "teacher_message", record.teacher_text.is_some(), record.teacher_message.is_some()),
        ("truth_text", "truth_message", record.truth_text.is_some(), record.truth_message.is_some()),
    ];
    match (record.prompt.is_some(), record.messages.is_some()) {
        (false, false) => {
            let house = unknown.find_map(|key| OTHER_HOUSES.iter().find(|(name, _)| *name == key));
            let hint = house.map_or(String::new(), |(_, what)| format!("; this looks like {what}"));
            return wrong(&format!("no prompt: one of prompt and messages is required{hint}"));
        }
        (true, true) => return wrong("both prompt and messages: give one of them"),
        _ => {}
    }
    if let Some((text, message, ..)) = answers.iter().find(|(.., text, message)| *text && *message) {
        return wrong(&format!("both {text} and {message}: give one of them"));
    }
    if lines == Lines::Records && !answers.iter().any(|(.., text, message)| *text || *message) {
        return wrong(
            "no answer: one of teacher_text, teacher_message, truth_text and truth_message is required, or messages \
             that end with the assistant's; if a teacher shall answer, name the file as teacher.prompts and run \
             kdfast teach",
        );
    }
    Ok(())
}

/// `own` (a JSON object) with the `unknown` entries added at its end.
fn merge_metadata(own: &str, unknown: &[(Cow<'_, str>, &str)]) -> Result<String, FieldError> {
    let mut clash = None;
    let mut same: HashSet<&str> = HashSet::new();
    let mut empty = true;
    Cursor::new(own, 0).object(|cursor, key| -> Result<(), JsonError> {
        empty = false;
        let span = cursor.value()?.span;
        if let Some((name, value)) = unknown.iter().find(|(name, _)| *name == key.text()) {
            same.insert(name);
            if cursor.slice(span) != *value {
                clash = Some(name.clone());
            }
        }
        Ok(())
    })?;
    if let Some(name) = clash {
        let reason = format!("{name:?} stands both in the record and in its metadata, with different values");
        return Err(FieldError { offset: None, reason });
    }
    let mut merged = own.trim_end().strip_suffix('}').unwrap_or(own).trim_end().to_owned();
    for (name, value) in unknown.iter().filter(|(name, _)| !same.contains(&**name)) {
        merged.push_str(if empty { "" } else { ", " });
        empty = false;
        quote(name, &mut merged);
        merged.push_str(": ");
        merged.push_str(value);
    }
    merged.push('}');
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str) -> String {
        parse(text, 1, Lines::Records, false).unwrap_err().reason
    }

    fn with(entries: &str) -> String {
        format!(r#"{{"prompt": "p", "teacher_text": "t", {entries}}}"#)
    }

    #[test]
    fn every_field_is_read() {
        let text = r#"{"messages": [{"role": "user", "content": "é"}], "tools": [{"name": "f"}],
            "teacher_message": {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
            "truth_text": "x", "tool_should_be_used": true, "teacher_prefix_ids": [1, 2], "required_fields_present": false,
            "teacher_attention_mask": [0, 1], "validated_arguments": {"a": 1}, "finish_reason": "stop", "prompt": null,
            "teacher_topk": {"ids": [[5], [6, 7]], "logprobs": [[-0.5], [-1, -2]]}}"#;
        let record = parse(text, 7, Lines::Records, false).unwrap();
        assert_eq!(record.line, 7);
        assert_eq!(record.messages.as_deref(), Some(r#"[{"role": "user", "content": "é"}]"#));
        assert_eq!(record.teacher_prefix_ids, Some(vec![1, 2]));
        assert_eq!(record.teacher_attention_mask, Some(vec![0, 1]));
        assert_eq!(record.teacher_topk.unwrap().logprobs, [vec![-0.5], vec![-1.0, -2.0]]);
        assert_eq!((record.prompt, record.metadata.as_str()), (None, "{}"));
    }

    #[test]
    fn unknown_keys_join_the_metadata_untouched() {
        let record = parse(
            &with(r#""big": 1e-400, "metadata": { "a": 1 }, "id": 123456789012345678901234567890, "a": 1"#),
            1,
            Lines::Records,
            false,
        );
        assert_eq!(
            record.unwrap().metadata,
            r#"{ "a": 1, "big": 1e-400, "id": 123456789012345678901234567890}"#
        );
        assert!(
            reason(&with(r#""metadata": {"a": 1}, "a": 2"#))
                .contains("both in the record and in its metadata")
        );
    }

    #[test]
    fn errors_name_the_key_and_its_place() {
        let error = parse(r#"{"prompt": "p", "teacher_text": 5}"#, 1, Lines::Records, false).unwrap_err();
        assert_eq!(error.offset, Some(32));
        assert_eq!(error.reason, "teacher_text: expected a string that is not blank, got number");
        for (entries, says) in [
            (r#""prompt": "q""#, "duplicate key \"prompt\""),
            (r#""\u0070rompt": "q""#, "duplicate key \"prompt\""),
            (
                r#""teacher_message": {"role": "assistant", "content": "x"}"#,
                "both teacher_text and teacher_message",
            ),
            (r#""messages": []"#, "got an empty one"),
            (r#""messages": [{"content": "x"}]"#, "messages[0]: no role"),
            (r#""truth_text": " \n""#, "got a blank one"),
            (r#""truth_message": {"role": "user", "content": "x"}"#, "role must be \"assistant\""),
            (r#""truth_message": {"role": "assistant", "content": ""}"#, "says nothing"),
            (r#""tools": [1]"#, "tools[0]: expected an object, got number"),
            (r#""teacher_prefix_ids": [1, 18446744073709551616]"#, "got 18446744073709551616"),
            (r#""teacher_prefix_ids": [-1]"#, "got -1"),
            (r#""teacher_attention_mask": [2]"#, "zeros and ones, got 2"),
            (r#""teacher_topk": {"ids": [[1]], "logprobs": []}"#, "lists of equal lengths"),
            (r#""teacher_topk": {"ids": [[1]], "logprobs": [[1.5]]}"#, "got 1.5"),
            (r#""teacher_reasoning_content": "hm""#, "terms of service"),
            (r#""metadata": []"#, "metadata: expected an object, got array"),
            (r#""__header__": {}"#, "first line only"),
        ] {
            assert!(reason(&with(entries)).contains(says), "{entries}: {}", reason(&with(entries)));
        }
        assert_eq!(reason("[1]"), "expected an object, got array");
        assert!(reason(r#"{"teacher_text": "t"}"#).starts_with("no prompt"));
        assert!(reason(r#"{"prompt": "t"}"#).starts_with("no answer"));
    }

    #[test]
    fn reasoning_passes_where_it_is_allowed() {
        let text = with(r#""teacher_reasoning_content": "hm""#);
        assert_eq!(
            parse(&text, 1, Lines::Records, true).unwrap().metadata,
            r#"{"teacher_reasoning_content": "hm"}"#
        );
    }

    #[test]
    fn a_prompt_has_no_answer_of_a_teacher() {
        let prompt = |text| parse(text, 1, Lines::Prompts, false);
        let record = prompt(r#"{"prompt": "p", "tools": [{"name": "f"}], "tool_choice": "auto"}"#).unwrap();
        assert_eq!(record.metadata, r#"{"tool_choice": "auto"}"#);
        assert!(prompt(r#"{"prompt": "p", "teacher_text": null, "truth_text": "t"}"#).is_ok());
        let error = prompt(r#"{"prompt": "p", "teacher_text": "t"}"#).unwrap_err();
        assert!(error.reason.starts_with("teacher_text belongs to an answer") && error.offset == Some(16));
        assert!(prompt(r#"{"truth_text": "t"}"#).unwrap_err().reason.starts_with("no prompt"));
        let talk =
            r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#;
        assert_eq!(
            prompt(talk).unwrap().truth_message.as_deref(),
            Some(r#"{"role": "assistant", "content": "a"}"#)
        );
    }

    #[test]
    fn headers_stand_alone() {
        assert_eq!(header(r#"{"__header__": {"a": 1}}"#).unwrap().as_deref(), Some(r#"{"a": 1}"#));
        assert_eq!(header(r#"{"__header__": {}, "prompt": "p"}"#).unwrap(), None);
        assert_eq!(header(r#"{"prompt": "p"}"#).unwrap(), None);
    }
}
