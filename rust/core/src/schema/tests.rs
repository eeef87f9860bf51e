//! What is said about calls and texts.

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
        (r#"[{"name": "f", "parameters": {"type": "dict"}}]"#, "parameters/type: not a valid JSON Schema"),
        (r#"[{"name": "f", "parameters": {"$ref": "http://localhost/x"}}]"#, "tool \"f\""),
        (r#"[{"name": "f", "parameters": {"$ref": "file:///etc/passwd"}}]"#, "tool \"f\""),
        (r#"[{"name": "f"}, {"name": "f", "parameters": {}}]"#, "already defined"),
    ] {
        let error = ToolSchema::new(tools).unwrap_err();
        assert!(error.message.contains(says), "{tools}: {}", error.message);
    }
}
