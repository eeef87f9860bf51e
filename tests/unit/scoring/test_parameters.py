"""What is read of a tool's schema: names, required ones, and the type that a value is held to."""

import pytest

from kdfast.scoring import Parameters, accepted_from_calls, match_calls

TEXTS = {"type": "array", "items": {"type": "string"}}
WHOLE_OR_NULL = {"type": "array", "items": {"type": ["integer", "null"]}}
SIZE = {"type": "object", "properties": {"n": {"type": "integer"}}}


def parameters(root):
    return Parameters({"type": "function", "function": {"name": "f", "parameters": root}})


def asked(schema, value, **root):
    return parameters({"properties": {"a": schema}, **root}).asked("a", value)


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "string", "description": "x"}, 3, {"type": "string"}),
        (True, 3, {}),
        ({}, 3, {}),
        ({"type": ["string", "null"]}, "x", {"type": "string"}),
        ({"type": ["string", "null"]}, None, {"type": "null"}),
        ({"type": ["string", "null"]}, 3, {"type": "string"}),
        ({"type": ["null", "integer", "boolean"]}, True, {"type": "boolean"}),
        ({"anyOf": [{"type": "null"}, {"type": "number"}]}, 3, {"type": "number"}),
        ({"oneOf": [TEXTS]}, [1], TEXTS),
        ({"type": "array", "items": True}, [1], {"type": "array"}),
        ({"type": "array", "items": [{"type": "string"}]}, ["a"], {"type": "array"}),
        (WHOLE_OR_NULL, [1, 2], {"type": "array", "items": {"type": "integer"}}),
        (WHOLE_OR_NULL, [1, None], {"type": "array"}),
        ({"$ref": "#/$defs/s"}, 3, {"type": "string"}),
        ({"$ref": "#/$defs/a~1b%20c"}, 3, {"type": "boolean"}),
        ({"$ref": "#/$defs/list/allOf/0"}, 3, {"type": "integer"}),
        ({"allOf": [{"minLength": 1}, {"$ref": "#/$defs/s"}]}, 3, {"type": "string"}),
        # what cannot be followed
        ({"$ref": "#/$defs/none"}, 3, None),
        ({"$ref": "#anchor"}, 3, None),
        ({"$ref": "#/$defs/loop"}, 3, None),
        ({"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}, None, {"type": "null"}),
    ],
)
def test_the_type_that_a_value_is_held_to(schema, value, expected):
    definitions = {
        "s": {"type": "string"},
        "a/b c": {"type": "boolean"},
        "list": {"allOf": [{"type": "integer"}]},
        "loop": {"$ref": "#/$defs/loop"},
        "tree": {"type": "object", "properties": {"next": {"$ref": "#/$defs/tree"}}},
    }
    assert asked(schema, value, **{"$defs": definitions}) == expected


@pytest.mark.parametrize(
    ("root", "known", "required"),
    [
        ({"properties": {"a": SIZE}, "required": ["a"]}, False, ["a"]),
        ({"allOf": [{"properties": {"a": SIZE}, "required": ["a"]}], "required": ["b"]}, False, ["b", "a"]),
        ({"$ref": "#/$defs/all", "$defs": {"all": {"properties": {"a": True}}}}, False, []),
        # the names of arguments may stand elsewhere, or nowhere
        ({"anyOf": [{"properties": {"a": SIZE}}], "properties": {"a": True}}, True, []),
        ({"properties": {"a": True}, "patternProperties": {"^x": {}}}, True, []),
        ({"properties": {"a": True}, "$ref": "#/none"}, True, []),
        ({"properties": {"a": True}, "additionalProperties": {"type": "string"}}, True, []),
        ({"properties": {"a": True}, "additionalProperties": False}, False, []),
        ({}, True, []),
        (None, True, []),
    ],
)
def test_names_of_arguments(root, known, required):
    found = parameters(root)
    assert found.may_be("a")
    assert found.may_be("another") == known
    assert found.required == required


@pytest.mark.parametrize(
    "root",
    [
        {"properties": {"a": {"$ref": "#/$defs/size"}}, "$defs": {"size": SIZE}},
        {
            "properties": {"a": {"anyOf": [{"$ref": "#/$defs/size"}, {"type": "null"}]}},
            "$defs": {"size": SIZE},
        },
        {"allOf": [{"properties": {"a": SIZE}}]},
        {"properties": {"a": {"properties": {"n": {"type": "integer"}}}}},
        {"properties": {"a": True}},
        {"oneOf": [{"properties": {"a": SIZE}}]},
        {},
        None,
    ],
)
def test_a_right_call_is_right_however_its_schema_is_written(root):
    tools = [{"name": "f", "parameters": root}]
    accepted = accepted_from_calls([("f", {"a": {"n": 3}})])
    assert match_calls([("f", {"a": {"n": 3}})], accepted, tools) is None
    assert match_calls([("f", {"a": {"n": 4}})], accepted, tools).reason == "value"
    assert match_calls([("f", {})], accepted, tools).reason == "missing"


def test_items_of_several_types():
    items = {"anyOf": [SIZE, {"type": "string"}, {"type": "null"}]}
    tools = [{"name": "f", "parameters": {"properties": {"a": {"type": "array", "items": items}}}}]
    accepted = accepted_from_calls([("f", {"a": [{"n": 3}, None, "New York"]})])
    assert match_calls([("f", {"a": [{"n": 3}, None, "new york"]})], accepted, tools) is None
    assert match_calls([("f", {"a": [{"n": 4}, None, "new york"]})], accepted, tools).reason == "value"
