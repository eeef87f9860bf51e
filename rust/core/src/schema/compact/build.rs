//! Packs the schemas of a set of tools.

use serde_json::{Map, Value};

use crate::json::Kind;

use super::code::{
    ALL, ANY_OF, ANYTHING, CHOICES, ITEMS, MEMBERS, NOTHING, Types, UNUSUAL, WHOLE, bit, put_long, put_short,
};
use super::judge::Compact;

/// Keywords that never make a value invalid.
const ANNOTATIONS: [&str; 10] = [
    "$comment",
    "default",
    "deprecated",
    "description",
    "example",
    "examples",
    "format",
    "readOnly",
    "title",
    "writeOnly",
];

/// Drafts that may be named. The usual keywords mean the same in all of them; only `format` differs.
const DRAFTS: [&str; 3] = [
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
];

/// A set of tools while it is packed.
#[derive(Debug, Default)]
pub(in crate::schema) struct Builder {
    tools: Vec<(String, Option<Vec<u8>>)>,
    values: Vec<Value>,
}

impl Builder {
    /// Adds the tool `name` with the schema of its arguments, which must be a valid one; true when it is usual.
    pub fn add(&mut self, name: &str, parameters: &Value) -> bool {
        let schema = self.root(parameters);
        let usual = schema.is_some();
        self.tools.push((name.to_owned(), schema));
        usual
    }

    /// `None`: the names or schemas are too long.
    pub fn build(self) -> Option<Compact> {
        let (mut names, mut schemas) = (Vec::new(), Vec::<u8>::new());
        for (name, schema) in &self.tools {
            put_long(&mut names, name.as_bytes())?;
            let place = if schema.is_some() { u32::try_from(schemas.len()).ok()? } else { UNUSUAL };
            names.extend(place.to_le_bytes());
            schemas.extend(schema.iter().flatten());
        }
        let mut code = Vec::new();
        put_long(&mut code, &names)?;
        code.extend(schemas);
        Some(Compact::new(code, self.values))
    }

    /// `parameters`, the outermost schema, packed; `None`: it is unusual.
    fn root(&mut self, parameters: &Value) -> Option<Vec<u8>> {
        let Some(draft) = parameters.get("$schema") else { return self.schema(parameters) };
        let known = draft.as_str().is_some_and(|draft| DRAFTS.contains(&draft));
        let mut rest = parameters.as_object()?.clone();
        rest.shift_remove("$schema");
        if known && !has_format(parameters) { self.object(&rest) } else { None }
    }

    fn schema(&mut self, schema: &Value) -> Option<Vec<u8>> {
        match schema {
            Value::Bool(true) => Some(ANYTHING.to_vec()),
            Value::Bool(false) => Some(NOTHING.to_vec()),
            Value::Object(schema) => self.object(schema),
            _ => None,
        }
    }

    fn object(&mut self, schema: &Map<String, Value>) -> Option<Vec<u8>> {
        let (mut types, mut parts) = (ALL, 0);
        for (keyword, value) in schema {
            match keyword.as_str() {
                "type" => types = types_named(value)?,
                "properties" | "required" | "additionalProperties" => parts |= MEMBERS,
                "items" => parts |= ITEMS,
                "enum" => parts |= CHOICES,
                "anyOf" => parts |= ANY_OF,
                annotation if ANNOTATIONS.contains(&annotation) => {}
                _ => return None,
            }
        }
        let mut out = vec![types, parts];
        if parts & MEMBERS != 0 {
            put_short(&mut out, &self.members(schema)?)?;
        }
        if parts & ITEMS != 0 {
            put_short(&mut out, &self.schema(&schema["items"])?)?;
        }
        if parts & CHOICES != 0 {
            put_short(&mut out, &self.choices(&schema["enum"])?)?;
        }
        if parts & ANY_OF != 0 {
            let mut schemas = Vec::new();
            for schema in schema["anyOf"].as_array()? {
                put_short(&mut schemas, &self.schema(schema)?)?;
            }
            put_short(&mut out, &schemas)?;
        }
        Some(out)
    }

    fn members(&mut self, schema: &Map<String, Value>) -> Option<Vec<u8>> {
        let others = schema.get("additionalProperties").unwrap_or(&Value::Bool(true));
        let others = self.schema(others)?;
        let required =
            schema.get("required").map_or(Some(&[][..]), |names| names.as_array().map(Vec::as_slice))?;
        let mut out = u16::try_from(required.len()).ok()?.to_le_bytes().to_vec();
        put_short(&mut out, &others)?;
        let mut put = |key: &str, required: bool, schema: &[u8]| {
            out.push(required.into());
            put_short(&mut out, key.as_bytes())?;
            put_short(&mut out, schema)
        };
        let none = Map::new();
        let properties = schema.get("properties").map_or(Some(&none), Value::as_object)?;
        for (key, value) in properties {
            put(key, required.iter().any(|name| name == key), &self.schema(value)?)?;
        }
        for name in required.iter().map(Value::as_str) {
            if !properties.contains_key(name?) {
                put(name?, true, &others)?;
            }
        }
        Some(out)
    }

    fn choices(&mut self, choices: &Value) -> Option<Vec<u8>> {
        let (strings, others): (Vec<_>, Vec<_>) =
            choices.as_array()?.iter().partition(|choice| choice.is_string());
        let mut out = u32::try_from(self.values.len()).ok()?.to_le_bytes().to_vec();
        self.values.extend(others.into_iter().cloned());
        out.extend(u32::try_from(self.values.len()).ok()?.to_le_bytes());
        for choice in strings {
            put_short(&mut out, choice.as_str()?.as_bytes())?;
        }
        Some(out)
    }
}

/// The types that `type` allows.
fn types_named(value: &Value) -> Option<Types> {
    let one = |name: &Value| {
        Some(match name.as_str()? {
            "null" => bit(Kind::Null),
            "boolean" => bit(Kind::Bool),
            "number" => bit(Kind::Number),
            "integer" => WHOLE,
            "string" => bit(Kind::String),
            "array" => bit(Kind::Array),
            "object" => bit(Kind::Object),
            _ => return None,
        })
    };
    match value {
        Value::Array(names) => names.iter().try_fold(0, |types, name| Some(types | one(name)?)),
        name => one(name),
    }
}

/// Whether `value` has a key `format`, at any depth.
fn has_format(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(key, value)| key == "format" || has_format(value)),
        Value::Array(elements) => elements.iter().any(has_format),
        _ => false,
    }
}
