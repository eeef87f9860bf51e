//! Tool definitions compiled to JSON Schema validators.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, TryLockError};

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value, json};

use crate::error::Issue;
use crate::json::Cursor;
use crate::tool_call::{Formats, ToolCall, scan};
use crate::{Error, Result};

/// Compiled schemas that [`ToolSchema::cached`] keeps before it starts afresh.
const CACHE_ENTRIES: usize = 4096;

/// The longest message of an issue, in characters: some quote the whole instance.
const MESSAGE_LIMIT: usize = 300;

/// The compiled argument schemas of a set of tools.
#[derive(Debug)]
pub struct ToolSchema {
    /// In the order of the definitions.
    names: Vec<String>,
    tools: HashMap<String, Tool>,
}

#[derive(Debug)]
struct Tool {
    definition: Value,
    validator: Validator,
    required: Vec<String>,
}

impl ToolSchema {
    /// Compiles `tools`: JSON array of `{name, description, parameters}` or of `OpenAI`'s `{type: function, function: {...}}`.
    ///
    /// Missing or null `parameters` mean any object. A schema may refer to itself, never to a file or an address. The same
    /// name twice is an error unless both definitions are equal.
    pub fn new(tools: &str) -> Result<Self> {
        let parsed: Value = serde_json::from_str(tools)
            .map_err(|error| Error::schema(format!("tools: not JSON: {error}")))?;
        let Value::Array(definitions) = parsed else {
            return Err(Error::schema("tools: expected an array of tool definitions"));
        };
        let mut schema = Self { names: Vec::new(), tools: HashMap::new() };
        for (index, definition) in definitions.iter().enumerate() {
            schema.add(index, definition)?;
        }
        Ok(schema)
    }

    /// The compiled schema of `tools`, from a cache keyed by the text's hash.
    ///
    /// The cache never blocks: while another thread holds it (or held it when this process was forked) the schema is compiled anew.
    pub fn cached(tools: &str) -> Result<Arc<Self>> {
        static CACHE: LazyLock<Mutex<HashMap<[u8; 32], Arc<ToolSchema>>>> = LazyLock::new(Mutex::default);
        let lock = || match CACHE.try_lock() {
            Ok(cache) => Some(cache),
            Err(TryLockError::Poisoned(poisoned)) => Some(PoisonError::into_inner(poisoned)),
            Err(TryLockError::WouldBlock) => None,
        };
        let key = *blake3::hash(tools.as_bytes()).as_bytes();
        if let Some(found) = lock().and_then(|cache| cache.get(&key).cloned()) {
            return Ok(found);
        }
        let compiled = Arc::new(Self::new(tools)?);
        if let Some(mut cache) = lock() {
            if cache.len() >= CACHE_ENTRIES {
                cache.clear();
            }
            cache.insert(key, Arc::clone(&compiled));
        }
        Ok(compiled)
    }

    /// The tools' names, in the order of the definitions.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Everything that is wrong with `call`; empty when it is valid.
    pub fn issues(&self, call: &ToolCall) -> Vec<Issue> {
        let Some(tool) = self.tools.get(&call.name) else {
            return vec![self.unknown(&call.name)];
        };
        match serde_json::from_str::<Value>(&call.arguments) {
            Ok(arguments) => tool.validator.iter_errors(&arguments).map(|error| issue(&error)).collect(),
            Err(error) => vec![Issue {
                instance_path: "/arguments".to_owned(),
                schema_path: String::new(),
                message: format!("cannot be read: {error}"),
            }],
        }
    }

    pub fn is_valid(&self, call: &ToolCall) -> bool {
        self.tools.get(&call.name).is_some_and(|tool| {
            serde_json::from_str(&call.arguments)
                .is_ok_and(|arguments: Value| tool.validator.is_valid(&arguments))
        })
    }

    /// True when every `required` argument of the called tool is present (top level). False for an unknown tool.
    pub fn required_present(&self, call: &ToolCall) -> bool {
        let mut present = HashSet::new();
        let scanned = Cursor::new(&call.arguments, 0).object(|cursor, key| {
            present.insert(key.text().into_owned());
            cursor.value().map(drop)
        });
        scanned.is_ok() && self.requires_only(&call.name, &present)
    }

    /// True when the tool `name` is known and requires no argument but those `present`.
    pub fn requires_only(&self, name: &str, present: &HashSet<String>) -> bool {
        self.tools.get(name).is_some_and(|tool| tool.required.iter().all(|name| present.contains(name)))
    }

    fn add(&mut self, index: usize, definition: &Value) -> Result<()> {
        let function = function(index, definition)?;
        let Some(Value::String(name)) = function.get("name") else {
            return Err(Error::schema(format!("tools[{index}]: no name")));
        };
        let parameters = match function.get("parameters") {
            None | Some(Value::Null) => json!({"type": "object"}),
            Some(parameters @ Value::Object(_)) => parameters.clone(),
            Some(other) => {
                let found = short(&other.to_string());
                return Err(Error::schema(format!(
                    "tool {name:?}: parameters must be an object, got {found}"
                )));
            }
        };
        if let Some(earlier) = self.tools.get(name) {
            if earlier.definition == *definition {
                return Ok(());
            }
            return Err(Error::schema(format!("tools[{index}]: a tool named {name:?} is already defined")));
        }
        let validator = jsonschema::options().offline().build(&parameters).map_err(|error| {
            let place = error.instance_path().as_str();
            let what = short(&error.to_string());
            Error::schema(format!("tool {name:?}: parameters{place}: not a valid JSON Schema: {what}"))
        })?;
        let required = parameters.get("required").and_then(Value::as_array).into_iter().flatten();
        let required = required.filter_map(|name| name.as_str().map(str::to_owned)).collect();
        self.names.push(name.clone());
        self.tools.insert(name.clone(), Tool { definition: definition.clone(), validator, required });
        Ok(())
    }

    fn unknown(&self, name: &str) -> Issue {
        let mut known = self.names.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
        if self.names.len() > 10 {
            known.push_str(", ...");
        }
        Issue {
            instance_path: "/name".to_owned(),
            schema_path: String::new(),
            message: format!("unknown tool {name:?}; known are: {known}"),
        }
    }
}

/// True when `text` holds calls, none of them broken, and all are valid under `schema` where one is given.
pub fn is_valid_text(text: &str, schema: Option<&ToolSchema>, formats: Formats) -> bool {
    let found = scan(text, formats);
    found.is_sound() && schema.is_none_or(|schema| found.calls.iter().all(|call| schema.is_valid(call)))
}

/// True when `text` holds calls, none of them broken, and every one has all arguments that its tool requires where a
/// `schema` is given.
pub fn required_present_in(text: &str, schema: Option<&ToolSchema>, formats: Formats) -> bool {
    let found = scan(text, formats);
    found.is_sound()
        && schema.is_none_or(|schema| found.calls.iter().all(|call| schema.required_present(call)))
}

/// Everything that is wrong with the calls in `text`; empty exactly when [`is_valid_text`].
///
/// The paths start with the call's index (`/0/arguments/city`).
pub fn text_issues(text: &str, schema: &ToolSchema, formats: Formats) -> Vec<Issue> {
    let found = scan(text, formats);
    let mut issues = Vec::new();
    for (index, call) in found.calls.iter().enumerate() {
        issues.extend(schema.issues(call).into_iter().map(|mut issue| {
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

/// The error that says what `issues` (not empty) are.
pub fn tool_call_error(issues: Vec<Issue>) -> Error {
    let more = match issues.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    let first = issues.first().map(|issue| format!("{}: {}", issue.instance_path, issue.message));
    let first = first.unwrap_or_default();
    Error::tool_call(format!("the tool call is not valid{more}: {}", first.trim_start_matches(": ")), issues)
}

/// The function's definition, taken out of `OpenAI`'s wrapper where it has one.
fn function(index: usize, definition: &Value) -> Result<&Map<String, Value>> {
    let object = definition.as_object();
    let inner = object.and_then(|object| match object.get("function") {
        Some(function) => function.as_object(),
        None => Some(object),
    });
    inner.ok_or_else(|| {
        let found = short(&definition.to_string());
        Error::schema(format!("tools[{index}]: expected an object with name and parameters, got {found}"))
    })
}

fn issue(error: &jsonschema::ValidationError<'_>) -> Issue {
    let message = match error.kind() {
        ValidationErrorKind::Required { property } => format!("the argument {property} is missing"),
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            format!("unexpected arguments: {}", unexpected.join(", "))
        }
        _ => short(&error.to_string()),
    };
    Issue {
        instance_path: format!("/arguments{}", error.instance_path().as_str()),
        schema_path: error.schema_path().as_str().to_owned(),
        message,
    }
}

fn short(text: &str) -> String {
    if text.chars().count() <= MESSAGE_LIMIT {
        return text.to_owned();
    }
    text.chars().take(MESSAGE_LIMIT).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOLS: &str = r#"[
        {"name": "f", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false}},
        {"type": "function", "function": {"name": "g"}}
    ]"#;

    fn call(name: &str, arguments: &str) -> ToolCall {
        let text = format!("<tool_call>{{\"name\": \"{name}\", \"arguments\": {arguments}}}</tool_call>");
        scan(&text, Formats::ALL).calls.remove(0)
    }

    #[test]
    fn issues_say_what_and_where() {
        let schema = ToolSchema::new(TOOLS).unwrap();
        let said = |name, arguments| {
            let call = call(name, arguments);
            let issues = schema.issues(&call);
            assert_eq!(schema.is_valid(&call), issues.is_empty());
            issues
                .into_iter()
                .map(|issue| format!("{}: {}", issue.instance_path, issue.message))
                .collect::<Vec<_>>()
        };
        assert!(said("f", r#"{"n": 1}"#).is_empty());
        assert!(said("g", r#"{"anything": [1]}"#).is_empty());
        assert_eq!(said("f", "{}"), ["/arguments: the argument \"n\" is missing"]);
        assert_eq!(said("f", r#"{"n": 1, "x": 2}"#), ["/arguments: unexpected arguments: x"]);
        assert_eq!(said("f", r#"{"n": "1"}"#), ["/arguments/n: \"1\" is not of type \"integer\""]);
        assert_eq!(said("h", "{}"), ["/name: unknown tool \"h\"; known are: f, g"]);
    }

    #[test]
    fn required_arguments_are_looked_for_at_the_top() {
        let schema = ToolSchema::cached(TOOLS).unwrap();
        assert!(schema.required_present(&call("f", r#"{"\u006e": "not an integer"}"#)));
        assert!(!schema.required_present(&call("f", r#"{"m": {"n": 1}}"#)));
        assert!(schema.required_present(&call("g", "{}")));
        assert!(!schema.required_present(&call("h", "{}")));
        assert!(Arc::ptr_eq(&schema, &ToolSchema::cached(TOOLS).unwrap()));
    }

    #[test]
    fn texts_are_judged_whole() {
        let schema = ToolSchema::new(TOOLS).unwrap();
        let good = "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": 1}}</tool_call>";
        let bad = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
        let judged = |text: &str| {
            let issues = text_issues(text, &schema, Formats::ALL);
            assert_eq!(is_valid_text(text, Some(&schema), Formats::ALL), issues.is_empty());
            issues.into_iter().map(|issue| issue.instance_path + " " + &issue.message).collect::<Vec<_>>()
        };
        assert!(judged(good).is_empty() && is_valid_text(bad, None, Formats::ALL));
        assert_eq!(judged(&format!("{good} {bad}")), ["/1/arguments the argument \"n\" is missing"]);
        assert_eq!(judged("no"), [" no complete tool call"]);
        assert_eq!(judged(&format!("{good}<tool_call>{{")), [" a tool call is cut off or malformed"]);
        let complete = |text: &str| required_present_in(text, Some(&schema), Formats::ALL);
        assert!(complete(good) && !complete(bad) && !complete(""));
        assert!(!complete(&format!("{good}{bad}")) && !complete(&format!("{good}<tool_call>{{")));
        assert!(required_present_in(bad, None, Formats::ALL) && !required_present_in("", None, Formats::ALL));
        let error = tool_call_error(text_issues(&(bad.to_owned() + bad), &schema, Formats::ALL));
        assert_eq!(
            error.message,
            "the tool call is not valid (and 1 more): /0/arguments: the argument \"n\" is missing"
        );
    }

    #[test]
    fn bad_definitions_are_schema_errors() {
        for (tools, says) in [
            ("{}", "expected an array"),
            ("[", "not JSON"),
            ("[1]", "tools[0]: expected an object"),
            ("[{}]", "tools[0]: no name"),
            (r#"[{"name": "f", "parameters": 1}]"#, "parameters must be an object"),
            (
                r#"[{"name": "f", "parameters": {"type": "dict"}}]"#,
                "parameters/type: not a valid JSON Schema",
            ),
            (r#"[{"name": "f", "parameters": {"$ref": "http://localhost/x"}}]"#, "tool \"f\""),
            (r#"[{"name": "f", "parameters": {"$ref": "file:///etc/passwd"}}]"#, "tool \"f\""),
            (r#"[{"name": "f"}, {"name": "f", "parameters": {}}]"#, "already defined"),
        ] {
            let error = ToolSchema::new(tools).unwrap_err();
            assert!(error.message.contains(says), "{tools}: {}", error.message);
        }
    }
}
