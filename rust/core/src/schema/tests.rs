//! What is said about calls.

use super::*;

const TOOLS: &str = r#"[
    {"name": "f", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false}},
    {"type": "function", "function": {"name": "g"}}
]"#;

#[test]
fn issues_say_what_and_where() {
    let schema = ToolSchema::new(TOOLS).unwrap();
    let said = |name, arguments| {
        let issues = schema.issues(name, arguments);
        assert_eq!(schema.is_valid(name, arguments), issues.is_empty());
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
    assert!(schema.required_present("f", r#"{"\u006e": "not an integer"}"#));
    assert!(!schema.required_present("f", r#"{"m": {"n": 1}}"#));
    assert!(schema.required_present("g", "{}"));
    assert!(!schema.required_present("h", "{}"));
    assert!(Arc::ptr_eq(&schema, &ToolSchema::cached(TOOLS).unwrap()));
}

#[test]
fn forms_of_older_drafts_are_read_and_noted() {
    let tools = r#"[{"name": "f", "parameters": {"properties": {"n": {"minimum": 3, "exclusiveMinimum": true},
        "m": {"required": true}}}}, {"name": "g"}, {"name": "g"}]"#;
    let schema = ToolSchema::new(tools).unwrap();
    assert!(schema.is_valid("f", r#"{"n": 3.5, "m": 1}"#));
    assert!(!schema.is_valid("f", r#"{"n": 3, "m": 1}"#));
    assert!(!schema.is_valid("f", r#"{"n": 4}"#));
    assert!(!schema.required_present("f", "{}"));
    assert_eq!(
        schema.notes(),
        [
            "tool \"f\": parameters/properties/m/required: true is a form of draft 3; read as required: [\"m\"] beside \
             properties",
            "tool \"f\": parameters/properties/n/exclusiveMinimum: true is a form of draft 4; read as exclusiveMinimum: 3",
        ]
    );
    assert!(ToolSchema::new(TOOLS).unwrap().notes().is_empty());
}

#[test]
fn bad_definitions_are_schema_errors() {
    for (tools, says) in [
        ("{}", "expected an array"),
        ("[", "not JSON"),
        ("[1]", "tools[0]: expected an object"),
        ("[{}]", "tools[0]: no name"),
        (r#"[{"name": "f", "parameters": 1}]"#, "parameters must be an object"),
        (r#"[{"name": "f", "parameters": {"type": "dict"}}]"#, "parameters/type: not a valid JSON Schema"),
        (r#"[{"name": "f", "parameters": {"$ref": "http://localhost/x"}}]"#, "tool \"f\""),
        (r#"[{"name": "f", "parameters": {"$ref": "file:///etc/passwd"}}]"#, "tool \"f\""),
        (r#"[{"name": "f"}, {"name": "f", "parameters": {}}]"#, "already defined"),
    ] {
        let error = ToolSchema::new(tools).unwrap_err();
        assert!(error.message.contains(says), "{tools}: {}", error.message);
    }
}
