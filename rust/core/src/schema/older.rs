//! Forms of drafts 3 to 7 in a schema that names no draft, rewritten to draft 2020-12.
//!
//! Many tools come from `OpenAPI` documents and from old generators: they write these forms and no `$schema`.

use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// Keywords whose value is an object of schemas.
const NAMED: [&str; 6] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"];

/// Keywords whose value is a list of schemas.
const LISTED: [&str; 5] = ["prefixItems", "items", "allOf", "anyOf", "oneOf"];

/// Keywords whose value is a schema.
const SINGLE: [&str; 11] = [
    "items",
    "additionalItems",
    "unevaluatedItems",
    "contains",
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
];

/// The bounds that are booleans in draft 4, and the numbers that these make exclusive.
const BOUNDS: [(&str, &str); 2] = [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")];

/// [`modernise`] on a JSON text; the same text when nothing in it is of an older draft.
pub fn modern_parameters(parameters: &str) -> Result<String> {
    let mut schema: Value = serde_json::from_str(parameters)
        .map_err(|error| Error::schema(format!("parameters: not JSON: {error}")))?;
    let unchanged = modernise(&mut schema).is_empty();
    Ok(if unchanged { parameters.to_owned() } else { schema.to_string() })
}

/// Rewrites the forms of older drafts in `schema` to draft 2020-12. Returns a note for each: its place, and how it is
/// read. A schema that names its draft (`$schema`) is left as it is.
pub fn modernise(schema: &mut Value) -> Vec<String> {
    let mut notes = Vec::new();
    rewrite(schema, "", &mut notes);
    notes
}

fn rewrite(schema: &mut Value, place: &str, notes: &mut Vec<String>) {
    let Value::Object(keywords) = schema else { return };
    if keywords.contains_key("$schema") {
        return;
    }
    leave_out_required(keywords, place, notes);
    lift_required(keywords, place, notes);
    rewrite_bounds(keywords, place, notes);
    // Before anything is moved: a note names the place where the user wrote it.
    for (keyword, value) in keywords.iter_mut() {
        let place = join(place, keyword);
        match value {
            Value::Object(schemas) if NAMED.contains(&keyword.as_str()) => {
                for (name, schema) in schemas {
                    rewrite(schema, &join(&place, name), notes);
                }
            }
            Value::Array(schemas) if LISTED.contains(&keyword.as_str()) => {
                for (index, schema) in schemas.iter_mut().enumerate() {
                    rewrite(schema, &join(&place, &index.to_string()), notes);
                }
            }
            schema if SINGLE.contains(&keyword.as_str()) => rewrite(schema, &place, notes),
            _ => {}
        }
    }
    move_positions(keywords, place, notes);
    split_dependencies(keywords, place, notes);
}

/// Removes a boolean `required` that no property has. [`lift_required`] has taken those of properties.
fn leave_out_required(keywords: &mut Map<String, Value>, place: &str, notes: &mut Vec<String>) {
    let Some(&Value::Bool(given)) = keywords.get("required") else { return };
    keywords.shift_remove("required");
    let place = join(place, "required");
    notes.push(format!("{place}: {given} is a form of draft 3; left out, as no property has it"));
}

/// Moves each boolean `required` of a property into the list of the object around it.
fn lift_required(keywords: &mut Map<String, Value>, place: &str, notes: &mut Vec<String>) {
    let Some(Value::Object(properties)) = keywords.get_mut("properties") else { return };
    let place = join(place, "properties");
    let mut names = Vec::new();
    for (name, property) in properties {
        let Value::Object(property) = property else { continue };
        let Some(&Value::Bool(given)) = property.get("required") else { continue };
        property.shift_remove("required");
        let form = format!("{}: {given} is a form of draft 3", join(&join(&place, name), "required"));
        let name = Value::String(name.clone());
        if given {
            notes.push(format!("{form}; read as required: [{name}] beside properties"));
            names.push(name);
        } else {
            notes.push(format!("{form}; left out"));
        }
    }
    if !names.is_empty() {
        add_names(keywords, "required", names);
    }
}

fn rewrite_bounds(keywords: &mut Map<String, Value>, place: &str, notes: &mut Vec<String>) {
    for (exclusive, bound) in BOUNDS {
        let Some(&Value::Bool(given)) = keywords.get(exclusive) else { continue };
        let form = format!("{}: {given} is a form of draft 4", join(place, exclusive));
        let limit = keywords.get(bound).filter(|limit| given && limit.is_number()).cloned();
        if let Some(limit) = limit {
            notes.push(format!("{form}; read as {exclusive}: {limit}"));
            keywords.insert(exclusive.to_owned(), limit);
            keywords.shift_remove(bound);
        } else {
            notes.push(format!("{form}; left out"));
            keywords.shift_remove(exclusive);
        }
    }
}

/// Moves `items` with a schema for each position. An empty list stays: no draft allows it.
fn move_positions(keywords: &mut Map<String, Value>, place: &str, notes: &mut Vec<String>) {
    let positions = keywords.get("items").and_then(Value::as_array);
    if positions.is_none_or(Vec::is_empty) || keywords.contains_key("prefixItems") {
        return;
    }
    rename(keywords, "items", "prefixItems");
    let rest =
        if rename(keywords, "additionalItems", "items") { ", and additionalItems as items" } else { "" };
    let place = join(place, "items");
    notes.push(format!("{place}: a list is a form before draft 2020-12; read as prefixItems{rest}"));
}

/// `dependencies` has both: lists of names, and schemas.
fn split_dependencies(keywords: &mut Map<String, Value>, place: &str, notes: &mut Vec<String>) {
    if !keywords.get("dependencies").is_some_and(Value::is_object) {
        return;
    }
    let Some(Value::Object(dependencies)) = keywords.shift_remove("dependencies") else { return };
    let place = join(place, "dependencies");
    notes.push(format!(
        "{place}: a form before draft 2019-09; read as dependentRequired and dependentSchemas"
    ));
    for (name, needed) in dependencies {
        if let Value::Array(names) = needed {
            if let Some(lists) = object_at(keywords, "dependentRequired") {
                add_names(lists, &name, names);
            }
        } else if let Some(schemas) = object_at(keywords, "dependentSchemas") {
            let both = schemas.get(&name).map(|other| json!({"allOf": [other, &needed]}));
            schemas.insert(name, both.unwrap_or(needed));
        }
    }
}

/// The object at `key`, made if there is none; `None`: something else is there, which makes the schema invalid.
fn object_at<'m>(keywords: &'m mut Map<String, Value>, key: &str) -> Option<&'m mut Map<String, Value>> {
    keywords.entry(key).or_insert_with(|| Value::Object(Map::new())).as_object_mut()
}

/// Adds to the list at `key` the names that are not in it.
fn add_names(keywords: &mut Map<String, Value>, key: &str, names: Vec<Value>) {
    let list = keywords.entry(key).or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(list) = list {
        for name in names {
            if !list.contains(&name) {
                list.push(name);
            }
        }
    }
}

/// Whether there was something to rename.
fn rename(keywords: &mut Map<String, Value>, from: &str, to: &str) -> bool {
    let Some(value) = keywords.shift_remove(from) else { return false };
    keywords.insert(to.to_owned(), value);
    true
}

/// A JSON pointer without its first slash, one step longer.
fn join(place: &str, step: &str) -> String {
    let step = step.replace('~', "~0").replace('/', "~1");
    if place.is_empty() { step } else { format!("{place}/{step}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rewritten schema and the notes.
    fn modern(mut schema: Value) -> (Value, Vec<String>) {
        let notes = modernise(&mut schema);
        (schema, notes)
    }

    #[test]
    fn bounds_of_draft_4() {
        let schema = json!({"properties": {
            "a": {"minimum": 3, "exclusiveMinimum": true, "maximum": 9.5, "exclusiveMaximum": true},
            "b": {"minimum": 3, "exclusiveMinimum": false, "exclusiveMaximum": true},
            "c": {"minimum": 3, "exclusiveMaximum": 5}
        }});
        let (found, notes) = modern(schema);
        assert_eq!(
            found,
            json!({"properties": {
                "a": {"exclusiveMinimum": 3, "exclusiveMaximum": 9.5},
                "b": {"minimum": 3},
                "c": {"minimum": 3, "exclusiveMaximum": 5}
            }})
        );
        assert_eq!(
            notes,
            [
                "properties/a/exclusiveMinimum: true is a form of draft 4; read as exclusiveMinimum: 3",
                "properties/a/exclusiveMaximum: true is a form of draft 4; read as exclusiveMaximum: 9.5",
                "properties/b/exclusiveMinimum: false is a form of draft 4; left out",
                "properties/b/exclusiveMaximum: true is a form of draft 4; left out",
            ]
        );
    }

    #[test]
    fn lists_of_items() {
        let (found, notes) = modern(json!({"anyOf": [
            {"items": [{"items": [true]}, false], "additionalItems": {"items": [{}]}},
            {"items": {"items": [{}]}, "additionalItems": false}
        ]}));
        assert_eq!(
            found,
            json!({"anyOf": [
                {"prefixItems": [{"prefixItems": [true]}, false], "items": {"prefixItems": [{}]}},
                {"items": {"prefixItems": [{}]}, "additionalItems": false}
            ]})
        );
        let list = "a list is a form before draft 2020-12; read as prefixItems";
        assert_eq!(
            notes,
            [
                format!("anyOf/0/items/0/items: {list}"),
                format!("anyOf/0/additionalItems/items: {list}"),
                format!("anyOf/0/items: {list}, and additionalItems as items"),
                format!("anyOf/1/items/items: {list}"),
            ]
        );
        for invalid in [json!({"items": []}), json!({"items": [{}], "prefixItems": [{}]})] {
            assert_eq!(modern(invalid.clone()), (invalid, vec![]));
        }
    }

    #[test]
    fn booleans_that_require() {
        let (found, notes) = modern(json!({
            "required": ["z", "b"],
            "properties": {
                "c": {"required": true, "type": "integer"},
                "b": {"required": true},
                "a/d": {"required": false, "properties": {"e": {"required": true}}, "items": {"required": true}}
            }
        }));
        assert_eq!(
            found,
            json!({
                "required": ["z", "b", "c"],
                "properties": {
                    "c": {"type": "integer"},
                    "b": {},
                    "a/d": {"properties": {"e": {}}, "required": ["e"], "items": {}}
                }
            })
        );
        assert_eq!(
            notes,
            [
                "properties/c/required: true is a form of draft 3; read as required: [\"c\"] beside properties",
                "properties/b/required: true is a form of draft 3; read as required: [\"b\"] beside properties",
                "properties/a~1d/required: false is a form of draft 3; left out",
                "properties/a~1d/properties/e/required: true is a form of draft 3; read as required: [\"e\"] beside \
                 properties",
                "properties/a~1d/items/required: true is a form of draft 3; left out, as no property has it",
            ]
        );
        let (found, notes) = modern(json!({"required": true}));
        assert_eq!(found, json!({}));
        assert_eq!(notes, ["required: true is a form of draft 3; left out, as no property has it"]);
    }

    #[test]
    fn dependencies_of_both_kinds() {
        let (found, notes) = modern(json!({
            "dependencies": {"a": ["b", "c"], "d": {"properties": {"e": {"required": true}}}, "f": false},
            "dependentRequired": {"a": ["c"]},
            "dependentSchemas": {"f": {"minProperties": 2}}
        }));
        assert_eq!(
            found,
            json!({
                "dependentRequired": {"a": ["c", "b"]},
                "dependentSchemas": {
                    "f": {"allOf": [{"minProperties": 2}, false]},
                    "d": {"properties": {"e": {}}, "required": ["e"]}
                }
            })
        );
        assert_eq!(
            notes,
            [
                "dependencies/d/properties/e/required: true is a form of draft 3; read as required: [\"e\"] beside \
                 properties",
                "dependencies: a form before draft 2019-09; read as dependentRequired and dependentSchemas",
            ]
        );
    }

    #[test]
    fn what_is_no_keyword_or_names_its_draft_stays() {
        for schema in [
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{}], "required": true}),
            json!({"properties": {"items": {}, "required": true, "dependencies": {"type": "string"}}}),
            json!({"enum": [{"items": [{}]}], "const": {"required": true}, "default": {"items": [{}]}}),
            json!({"examples": [{"required": true}], "not": {"enum": [{"exclusiveMinimum": true}]}}),
            json!({"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{}]}}}),
            json!(true),
        ] {
            assert_eq!(modern(schema.clone()), (schema, vec![]));
        }
    }

    #[test]
    fn a_text_without_older_forms_stays_as_it_is() {
        let text = r#"{ "properties": {"b": {"minimum": 1.50}, "a": {}} }"#;
        assert_eq!(modern_parameters(text).unwrap(), text);
        let text = r#"{"properties": {"b": {"required": true}, "a": {"items": [{}]}}}"#;
        let expected = r#"{"properties":{"b":{},"a":{"prefixItems":[{}]}},"required":["b"]}"#;
        assert_eq!(modern_parameters(text).unwrap(), expected);
        assert!(modern_parameters("{").unwrap_err().message.starts_with("parameters: not JSON"));
    }
}
