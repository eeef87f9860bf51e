//! Tool definitions compiled to JSON Schema validators, and what they say about a name and its arguments.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, TryLockError};

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value, json};

use crate::error::Issue;
use crate::json::Cursor;
use crate::json::flat::{FlatNode, read as read_flat};
use crate::{Error, Result};

mod compact;
mod flat;
mod older;

use compact::{Builder, Compact};
use flat::FlatJson;
pub use older::{modern_parameters, modernise};

/// How many compiled schemas [`ToolSchema::cached`] keeps; then it clears the cache.
const CACHE_ENTRIES: usize = 4096;

/// The longest message of an issue, in characters: some quote the whole instance.
const MESSAGE_LIMIT: usize = 300;

/// The compiled argument schemas of a set of tools.
#[derive(Debug)]
pub struct ToolSchema {
    /// Finds tools by name, and judges arguments of tools with a usual schema.
    compact: Compact,
    /// In the order of the definitions.
    names: Vec<String>,
    /// One for each of `names`.
    tools: Vec<Tool>,
    /// The forms of older drafts that were found, each with its tool and its place.
    notes: Vec<String>,
}

#[derive(Debug)]
struct Tool {
    definition: Value,
    /// In the forms of the draft that it names, or of 2020-12.
    parameters: Value,
    /// Whether arguments are valid; only for an unusual schema.
    quick: Option<Validator<FlatJson>>,
    /// What is wrong with arguments; also judges arguments that [`crate::json::flat`] refuses. Made when first needed.
    full: OnceLock<Validator>,
    required: Vec<String>,
}

impl Tool {
    fn full(&self) -> &Validator {
        self.full.get_or_init(|| {
            jsonschema::options().offline().build(&self.parameters).expect("compiled before, as `quick`")
        })
    }
}

impl ToolSchema {
    /// Compiles `tools`, a JSON array of `{name, description, parameters}`, or of `OpenAI`'s `{type, function}` around
    /// such objects.
    ///
    /// Missing or null `parameters` mean any object. A schema may refer to itself, never to a file or an address. The
    /// same name twice is an error unless both definitions are equal. Parameters without `$schema` may have forms of
    /// older drafts, see [`Self::notes`].
    pub fn new(tools: &str) -> Result<Self> {
        let parsed: Value = serde_json::from_str(tools)
            .map_err(|error| Error::schema(format!("tools: not JSON: {error}")))?;
        let Value::Array(definitions) = parsed else {
            return Err(Error::schema("tools: expected an array of tool definitions"));
        };
        let mut schema =
            Self { compact: Compact::default(), names: Vec::new(), tools: Vec::new(), notes: Vec::new() };
        let mut compact = Builder::default();
        for (index, definition) in definitions.iter().enumerate() {
            schema.add(index, definition, &mut compact)?;
        }
        schema.compact = compact.build().ok_or_else(|| Error::schema("tools: longer than 4 GiB"))?;
        Ok(schema)
    }

    /// The compiled schema of `tools`, from a cache keyed by the text's hash.
    ///
    /// The cache never blocks. While another thread holds its lock (or held it when this process was forked), the
    /// schema is compiled again.
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

    /// The forms of older drafts in the parameters, and how each is read ([`modernise`]).
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Everything that is wrong with a call of `name` with `arguments`, a JSON text; empty when it is valid.
    pub fn issues(&self, name: &str, arguments: &str) -> Vec<Issue> {
        let Some(tool) = self.tool(name) else {
            return vec![self.unknown(name)];
        };
        match serde_json::from_str::<Value>(arguments) {
            Ok(arguments) => tool.full().iter_errors(&arguments).map(|error| issue(&error)).collect(),
            Err(error) => vec![Issue {
                instance_path: "/arguments".to_owned(),
                schema_path: String::new(),
                message: format!("cannot be read: {error}"),
            }],
        }
    }

    /// Whether a call of `name` with `arguments`, a JSON text, is valid.
    pub fn is_valid(&self, name: &str, arguments: &str) -> bool {
        let mut entries = Vec::with_capacity(32);
        if read_flat(arguments, 0, &mut entries) == Some(arguments.len()) {
            return self.is_valid_flat(name, FlatNode { text: arguments, entries: &entries, index: 0 });
        }
        self.tool(name).is_some_and(|tool| {
            serde_json::from_str(arguments).is_ok_and(|arguments: Value| tool.full().is_valid(&arguments))
        })
    }

    /// [`Self::is_valid`] for arguments that are parsed already.
    pub(crate) fn is_valid_flat(&self, name: &str, arguments: FlatNode<'_>) -> bool {
        match self.compact.tool(name) {
            None => false,
            Some((_, Some(usual))) => usual.accepts(arguments),
            Some((index, None)) => {
                self.tools[index].quick.as_ref().is_some_and(|quick| quick.is_valid(arguments))
            }
        }
    }

    /// True when `arguments` (a JSON text) has every argument that the tool `name` requires, at its top level. False
    /// for an unknown tool.
    pub fn required_present(&self, name: &str, arguments: &str) -> bool {
        let mut present = HashSet::new();
        let scanned = Cursor::new(arguments, 0).object(|cursor, key| {
            present.insert(key.text().into_owned());
            cursor.value().map(drop)
        });
        scanned.is_ok() && self.requires_only(name, &present)
    }

    /// True when the tool `name` is known and every argument that it requires is in `present`.
    pub fn requires_only(&self, name: &str, present: &HashSet<String>) -> bool {
        self.tool(name).is_some_and(|tool| tool.required.iter().all(|name| present.contains(name)))
    }

    fn tool(&self, name: &str) -> Option<&Tool> {
        self.compact.tool(name).map(|(index, _)| &self.tools[index])
    }

    fn add(&mut self, index: usize, definition: &Value, compact: &mut Builder) -> Result<()> {
        let function = function(index, definition)?;
        let Some(Value::String(name)) = function.get("name") else {
            return Err(Error::schema(format!("tools[{index}]: no name")));
        };
        let mut parameters = match function.get("parameters") {
            None | Some(Value::Null) => json!({"type": "object"}),
            Some(parameters @ Value::Object(_)) => parameters.clone(),
            Some(other) => {
                let found = short(&other.to_string());
                return Err(Error::schema(format!(
                    "tool {name:?}: parameters must be an object, got {found}"
                )));
            }
        };
        if let Some(earlier) = self.names.iter().position(|earlier| earlier == name) {
            if self.tools[earlier].definition == *definition {
                return Ok(());
            }
            return Err(Error::schema(format!("tools[{index}]: a tool named {name:?} is already defined")));
        }
        let notes = modernise(&mut parameters);
        let options = jsonschema::options_for::<FlatJson>().offline();
        let validator = options.build(&parameters).map_err(|error| {
            let place = error.instance_path().as_str();
            let what = short(&error.to_string());
            Error::schema(format!("tool {name:?}: parameters{place}: not a valid JSON Schema: {what}"))
        })?;
        let usual = compact.add(name, &parameters);
        let quick = (!usual).then_some(validator);
        let required = parameters.get("required").and_then(Value::as_array).into_iter().flatten();
        let required = required.filter_map(|name| name.as_str().map(str::to_owned)).collect();
        self.notes.extend(notes.iter().map(|note| format!("tool {name:?}: parameters/{note}")));
        self.names.push(name.clone());
        let definition = definition.clone();
        self.tools.push(Tool { definition, parameters, quick, full: OnceLock::new(), required });
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
mod tests;
