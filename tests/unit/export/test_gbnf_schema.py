"""JSON Schema as rules of a grammar: what is held, and what is said not to be; llama.cpp's matcher decides."""

import json

import pytest

from kdfast.export.gbnf import tool_grammar
from kdfast.export.gbnf_schema import SchemaRules

pytest.importorskip("xllamacpp")
from llama_grammar import LlamaGrammar


def text_of(name, arguments):
    call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{call}\n</tool_call>"


def holds(schema, value):
    """Whether the grammar takes this value, written as a chat template writes it."""
    tool = {"name": "f", "parameters": {"properties": {"a": schema}, "required": ["a"]}}
    return LlamaGrammar(tool_grammar([tool])).accepts(text_of("f", {"a": value}))


SCHEMAS = [
    ({"type": "number"}, [0, -1.5, 1e-7, 2.5e20], ["1", None]),
    ({"type": ["integer", "null"]}, [4, None], ["4", 1.5]),
    ({"type": "boolean"}, [True, False], [0, "true"]),
    ({"const": {"x": [1, "é"]}}, [{"x": [1, "é"]}], [{"x": [1, "e"]}]),
    ({"type": "string", "enum": ["a", None, 'q"\\\n']}, ["a", 'q"\\\n'], [None, "b"]),
    (
        {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "boolean"}}]},
        [1, [True]],
        [[1], ""],
    ),
    ({"allOf": [{"type": "integer"}]}, [1], ["1"]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "é\nc"], ["a", "abcd"]),
    ({"type": "array", "minItems": 2}, [[1, "a"], [{}, None, []]], [[1], []]),
    ({"type": "array", "maxItems": 2, "items": {"type": "integer"}}, [[], [1], [1, 2]], [[1, 2, 3]]),
    ({"type": "array", "minItems": 2, "maxItems": 2}, [[1, 2]], [[1], [1, 2, 3]]),
    ({"type": "array", "maxItems": 0}, [[]], [[1]]),
    ({"type": "object"}, [{}, {"x": {"y": [1]}}], [[], 1]),
    ({"type": "object", "additionalProperties": False}, [{}], [{"x": 1}]),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, [{}, {"x": 1, "y": 2}], [{"x": "1"}]),
    ({"properties": {"x": {"type": "integer"}}}, [{}, {"x": 1}], [{"x": "1"}, 3]),
    ({"required": ["x"], "type": "object"}, [{"x": "any"}], [{}, {"y": 1}]),
    ({"properties": {"x": False, "y": {}}, "type": "object"}, [{}, {"y": 1}], [{"x": 1}]),
    (True, [1, None, {"x": [1.5]}], []),
]


@pytest.mark.parametrize(("schema", "right", "wrong"), SCHEMAS, ids=lambda value: json.dumps(value)[:40])
def test_schemas_are_held(schema, right, wrong):
    for value in right:
        assert holds(schema, value), value
    for value in wrong:
        assert not holds(schema, value), value


def test_a_recursive_reference_becomes_a_recursive_rule():
    tree = {
        "type": "object",
        "properties": {"left": {"$ref": "#/$defs/node"}},
        "required": ["left"],
        "$defs": {
            "node": {
                "anyOf": [{"type": "null"}, {"type": "object", "properties": {"n": {"$ref": "#/$defs/node"}}}]
            }
        },
    }
    text = tool_grammar([{"name": "f", "parameters": tree}])
    grammar = LlamaGrammar(text)
    assert "Not held" not in text
    assert grammar.accepts(text_of("f", {"left": {"n": {"n": None}}}))
    assert not grammar.begins(text_of("f", {"left": {"n": {"n": 1}}}))


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "string", "pattern": "^a"}, "f: arguments.a: pattern"),
        ({"type": "integer", "minimum": 3}, "f: arguments.a: minimum"),
        ({"$ref": "#/$defs/none"}, 'f: arguments.a: $ref "#/$defs/none"'),
        ({"$ref": "other.json"}, 'f: arguments.a: $ref "other.json"'),
        ({"$ref": "#/properties/a"}, 'f: arguments.a: $ref "#/properties/a"'),
        ({"type": "array", "maxItems": 10**9}, "f: arguments.a: maxItems"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "f: arguments.a: maxLength"),
        ({"allOf": [{"type": "string"}, {"minLength": 2}]}, "f: arguments.a: allOf"),
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, "f: arguments.a: oneOf (read as anyOf)"),
        ({"enum": [], "type": "string"}, "f: arguments.a: enum"),
        ({"properties": {"x": {}}, "additionalProperties": True}, "f: arguments.a: additionalProperties"),
    ],
)
def test_what_no_grammar_holds_is_said_and_still_parses(schema, said):
    tool = {"name": "f", "parameters": {"properties": {"a": schema}, "required": ["a"]}}
    text = tool_grammar([tool])
    assert f"#   {json.dumps(said)}" in text.splitlines()
    assert LlamaGrammar(text).begins('<tool_call>{"name": "f", "arguments": {"a": ')


def test_a_schema_that_is_no_object_is_loosened():
    rules = SchemaRules("t", {"properties": {"a": "string"}, "required": ["a"]})
    assert rules.loosened == ["arguments.a: a schema that is no object"]


NAMED = {"a": {"type": "string"}, "b": {"type": "string"}, "c": {"type": "integer"}}
EITHER = [{"required": ["a"]}, {"required": ["b"]}]
VALID = [{"a": "x"}, {"a": "x", "c": 1}, {"a": "x", "b": "y"}, {"b": "y"}]


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ({"anyOf": EITHER}, ["anyOf"]),
        ({"oneOf": EITHER}, ["oneOf"]),
        ({"allOf": [{"minProperties": 1}]}, ["allOf"]),
        ({"anyOf": EITHER, "allOf": [{"minProperties": 1}]}, ["anyOf", "allOf"]),
        ({"$ref": "#/$defs/some", "$defs": {"some": {"required": ["a"]}}}, ["$ref"]),
        ({"$ref": "#/$defs/some", "anyOf": EITHER}, ["$ref", "anyOf"]),
    ],
)
@pytest.mark.parametrize("where", ["top", "inner"])
def test_a_combiner_beside_properties_forbids_no_valid_call(beside, said, where):
    whole = {"type": "object", "properties": NAMED, **beside}
    place = "f: arguments" if where == "top" else "f: arguments.a"
    parameters = whole if where == "top" else {"properties": {"a": whole}, "required": ["a"]}
    text = tool_grammar([{"name": "f", "parameters": parameters}])
    grammar = LlamaGrammar(text)
    for value in VALID:
        assert grammar.accepts(text_of("f", value if where == "top" else {"a": value})), value
    wrong = {"c": "1"}
    assert not grammar.begins(text_of("f", wrong if where == "top" else {"a": wrong}))
    noted = [line for line in text.splitlines() if line.startswith("#   ")]
    assert noted == [f"#   {json.dumps(f'{place}: {keyword}')}" for keyword in said]


def test_two_combiners_alone_forbid_nothing():
    schema = {"anyOf": EITHER, "allOf": [{"properties": NAMED}]}
    for value in VALID:
        assert holds(schema, value)


@pytest.mark.parametrize(
    "note", [{"description": "d", "title": "t"}, {"type": "object"}, {"minProperties": 1}]
)
def test_notes_and_what_no_rule_holds_leave_the_branches(note):
    branches = [{"properties": {"x": {"type": "integer"}}, "required": ["x"]}]
    for schema in ({"anyOf": branches, **note}, {"allOf": branches, **note}):
        assert holds(schema, {"x": 1})
        assert not holds(schema, {"x": "1"})


@pytest.mark.parametrize("required", [True, "ab"])
def test_required_that_is_no_list_is_loosened(required):
    rules = SchemaRules("t", {"properties": {"a": {"type": "integer"}}, "required": required})
    assert rules.loosened == ["arguments: required"]
    assert holds({"properties": {"a": {"type": "integer"}}, "required": required}, {})
