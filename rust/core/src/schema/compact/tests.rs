//! Verdicts against `jsonschema`'s.

use serde_json::{Value, json};

use super::Builder;
use crate::json::flat::{FlatNode, read};

/// Whether the schema is usual, and what it says about each of `values`, as `jsonschema` says it.
fn judged(schema: &Value, values: &[Value]) -> Option<Vec<bool>> {
    let mut builder = Builder::default();
    let usual = builder.add("other", &json!(true)) && builder.add("f", schema);
    let compact = builder.build().unwrap();
    assert!(compact.tool("g").is_none() && compact.tool("other").unwrap().1.is_some());
    let (index, found) = compact.tool("f").unwrap();
    assert_eq!((index, found.is_some()), (1, usual));
    let usual = found?;
    let verdicts = values.iter().map(|value| {
        let (text, mut entries) = (value.to_string(), Vec::new());
        assert_eq!(read(&text, 0, &mut entries), Some(text.len()));
        let verdict = usual.accepts(FlatNode { text: &text, entries: &entries, index: 0 });
        assert_eq!(verdict, jsonschema::validator_for(schema).unwrap().is_valid(value), "{schema} {value}");
        verdict
    });
    Some(verdicts.collect())
}

#[test]
fn verdicts_are_those_of_jsonschema() {
    let values = [
        json!(null),
        json!(true),
        json!(1),
        json!(-1.0),
        json!(1.5),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("a"),
        json!("a\"\\é\n"),
        json!("a choice that is longer than most are"),
        json!([]),
        json!([1, 2]),
        json!(["a", 1]),
        json!({}),
        json!({"a": 1}),
        json!({"b": "x", "a": 1}),
        json!({"a": 1, "b": "x", "c": [1]}),
        json!({"a": {"a": {"b": 1}}}),
    ];
    for schema in [
        json!(true),
        json!(false),
        json!({}),
        json!({"type": "number"}),
        json!({"type": "integer"}),
        json!({"type": ["integer", "null", "object"]}),
        json!({"enum": ["a", "a\"\\é\n", "a choice that is longer than most are"]}),
        json!({"enum": [1, 1.5, null, [1, 2], {"a": 1}, "a"], "title": "t"}),
        json!({"type": "string", "enum": ["a", 1]}),
        json!({"items": {"type": "integer"}}),
        json!({"type": "array", "items": {"anyOf": [{"type": "string"}, {"enum": [1]}]}}),
        json!({"anyOf": [{"type": "null"}, {"properties": {"a": {"type": "integer"}}, "required": ["a"]}]}),
        json!({"required": ["a"]}),
        json!({"required": ["c", "a"], "properties": {"a": {}, "b": {"type": "string"}}}),
        json!({"properties": {"a": true, "b": false}}),
        json!({"properties": {"a": {}}, "additionalProperties": false, "required": ["b"]}),
        json!({"properties": {"a": {}}, "additionalProperties": {"type": "string"}, "required": ["b"]}),
        json!({"properties": {"a": {"properties": {"a": {"additionalProperties": false}}}}}),
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "required": ["a"]}),
    ] {
        let verdicts = judged(&schema, &values).unwrap_or_else(|| panic!("{schema} is usual"));
        let many = verdicts.iter().filter(|&&verdict| verdict).count();
        assert!(many > 0 || schema == json!(false), "{schema}");
    }
}

#[test]
fn what_is_unusual_is_left_to_jsonschema() {
    for schema in [
        json!({"minimum": 1}),
        json!({"type": "string", "pattern": "a"}),
        json!({"properties": {"a": {"items": {"const": 1}}}}),
        json!({"anyOf": [{"not": {}}]}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {}}}),
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": {"format": "email"}}}),
        json!({"$schema": "http://json-schema.org/draft-04/schema#"}),
        json!({"properties": {"a": {"$schema": "https://json-schema.org/draft/2020-12/schema"}}}),
        json!({"properties": {"a".repeat(70_000): {}}}),
        json!({"enum": ["a".repeat(70_000)]}),
    ] {
        assert_eq!(judged(&schema, &[]), None, "{schema}");
    }
    assert!(judged(&json!({"format": "email"}), &[json!("a")]).is_some());
}
