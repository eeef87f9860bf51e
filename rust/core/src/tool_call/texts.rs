//! Whole texts judged by the calls in them.

use rayon::prelude::*;

use crate::error::Issue;
use crate::schema::ToolSchema;
use crate::{Result, threads};

use super::attempt::Attempt;
use super::find::{scan, walk};
use super::reading::Reading;
use super::seen::{Seen, Visit};

/// With fewer texts, starting threads takes longer than judging them.
const PARALLEL_TEXTS: usize = 512;

/// True when `text` has calls, none is broken, and all are valid under `schema` if there is one.
pub fn is_valid_text(text: &str, schema: Option<&ToolSchema>, reading: Reading<'_>) -> bool {
    let mut verdict = Verdict { schema, any: false, sound: true };
    walk(text, reading, &mut verdict);
    verdict.any && verdict.sound
}

/// What is known about a text so far.
struct Verdict<'s> {
    schema: Option<&'s ToolSchema>,
    any: bool,
    sound: bool,
}

impl Visit for Verdict<'_> {
    fn call(&mut self, seen: Seen<'_>) {
        self.any = true;
        self.sound = self.sound && self.schema.is_none_or(|schema| accepts(schema, &seen));
    }

    fn attempt(&mut self, attempt: Attempt) {
        self.sound &= !attempt.chosen;
    }
}

/// [`is_valid_text`] for each text and its schema, on `threads` threads (0: one a core).
pub fn are_valid_texts(
    texts: &[(&str, Option<&ToolSchema>)],
    reading: Reading<'_>,
    threads: usize,
) -> Result<Vec<bool>> {
    let judge = |&(text, schema): &(&str, Option<&ToolSchema>)| {
        is_valid_text(text, schema, Reading { tools: schema, ..reading })
    };
    let pool = if texts.len() < PARALLEL_TEXTS { None } else { threads::pool(threads)? };
    Ok(match pool {
        None => texts.iter().map(judge).collect(),
        Some(pool) => pool.install(|| texts.par_iter().with_min_len(PARALLEL_TEXTS / 8).map(judge).collect()),
    })
}

/// True when `text` has calls, none is broken and, if there is a `schema`, each has all arguments that its tool
/// requires.
pub fn required_present_in(text: &str, schema: Option<&ToolSchema>, reading: Reading<'_>) -> bool {
    let found = scan(text, reading);
    found.is_sound()
        && schema.is_none_or(|schema| {
            found.calls.iter().all(|call| schema.required_present(&call.name, &call.arguments))
        })
}

/// Everything that is wrong with the calls in `text`; empty exactly when [`is_valid_text`].
///
/// The paths start with the call's index (`/0/arguments/city`).
pub fn text_issues(text: &str, schema: &ToolSchema, reading: Reading<'_>) -> Vec<Issue> {
    let found = scan(text, reading);
    let mut issues = Vec::new();
    for (index, call) in found.calls.iter().enumerate() {
        issues.extend(schema.issues(&call.name, &call.arguments).into_iter().map(|mut issue| {
            issue.instance_path = format!("/{index}{}", issue.instance_path);
            issue
        }));
    }
    if !found.is_sound() {
        let message = if found.calls.is_empty() {
            "no complete tool call"
        } else {
            "a tool call is cut off or malformed"
        };
        issues.push(Issue {
            instance_path: String::new(),
            schema_path: String::new(),
            message: message.to_owned(),
        });
    }
    issues
}

fn accepts(schema: &ToolSchema, seen: &Seen<'_>) -> bool {
    match seen {
        Seen::Plain(call) => schema.is_valid_flat(call.name(), call.arguments()),
        Seen::Whole(call) => schema.is_valid(&call.name(), call.arguments()),
        Seen::Other(call) => schema.is_valid(&call.name, &call.arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::super::formats::Formats;
    use super::*;
    use crate::schema::tool_call_error;

    const ALL: Reading<'static> = Reading::new(Formats::ALL);

    const TOOLS: &str = r#"[{"name": "f", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}},
        "required": ["n"], "additionalProperties": false}}]"#;

    #[test]
    fn texts_are_judged_whole() {
        let schema = ToolSchema::new(TOOLS).unwrap();
        let good = "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": 1}}</tool_call>";
        let bad = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
        let judged = |text: &str| {
            let issues = text_issues(text, &schema, ALL);
            assert_eq!(is_valid_text(text, Some(&schema), ALL), issues.is_empty());
            issues.into_iter().map(|issue| issue.instance_path + " " + &issue.message).collect::<Vec<_>>()
        };
        assert!(judged(good).is_empty() && is_valid_text(bad, None, ALL));
        assert_eq!(judged(&format!("{good} {bad}")), ["/1/arguments the argument \"n\" is missing"]);
        assert_eq!(judged("no"), [" no complete tool call"]);
        assert_eq!(judged(&format!("{good}<tool_call>{{")), [" a tool call is cut off or malformed"]);
        let complete = |text: &str| required_present_in(text, Some(&schema), ALL);
        assert!(complete(good) && !complete(bad) && !complete(""));
        assert!(!complete(&format!("{good}{bad}")) && !complete(&format!("{good}<tool_call>{{")));
        assert!(required_present_in(bad, None, ALL) && !required_present_in("", None, ALL));
        let error = tool_call_error(text_issues(&(bad.to_owned() + bad), &schema, ALL));
        assert_eq!(
            error.message,
            "the tool call is not valid (and 1 more): /0/arguments: the argument \"n\" is missing"
        );
    }
}
