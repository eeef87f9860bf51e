"""BFCL's parameter descriptions as JSON Schema."""

import pytest

from kdfast.errors import DataError
from kdfast.importers.bfcl_schema import conforms, json_schema


@pytest.mark.parametrize(
    ("bfcl", "expected"),
    [
        ({"type": "dict"}, {"type": "object"}),
        ({"type": "float"}, {"type": "number"}),
        ({"type": "tuple", "items": {"type": "float"}}, {"type": "array", "items": {"type": "number"}}),
        ({"type": "String"}, {"type": "string"}),
        ({"type": "char"}, {"type": "string"}),
        ({"type": "long"}, {"type": "integer"}),
        ({"type": "Bigint"}, {"type": "integer"}),
        ({"type": "double"}, {"type": "number"}),
        ({"type": "Boolean"}, {"type": "boolean"}),
        ({"type": "HashMap"}, {"type": "object"}),
        ({"type": "ArrayList", "items": {"type": "any"}}, {"type": "array", "items": {}}),
        ({"type": "any", "description": "what you like"}, {"description": "what you like"}),
        ({"type": ""}, {}),
        ({"type": "string", "optional": True, "default": None}, {"type": "string"}),
        ({"type": "integer", "default": 3}, {"type": "integer", "default": 3}),
        ({"type": "integer", "default": "three"}, {"type": "integer"}),
        ({"type": "integer", "default": True}, {"type": "integer"}),
        ({"type": "string", "enum": ["a", None, "b"]}, {"type": "string", "enum": ["a", "b"]}),
        ({"type": "integer", "enum": ["1", "2"]}, {"type": "integer"}),
        ({"type": "string", "items": {"type": "string"}}, {"type": "string"}),
        ({"type": "integer", "maximum": 10, "minimum": True}, {"type": "integer", "maximum": 10}),
    ],
)
def test_types_and_keywords_become_json_schema(bfcl, expected):
    assert json_schema(bfcl) == expected


def test_schemas_are_converted_at_any_depth_and_required_keeps_known_names_only():
    inner = {"type": "dict", "properties": {"x": {"type": "float"}}, "required": ["x", "gone"]}
    outer = {
        "type": "dict",
        "properties": {"points": {"type": "array", "items": inner}},
        "required": ["points"],
    }
    assert json_schema(outer) == {
        "type": "object",
        "properties": {
            "points": {
                "type": "array",
                "items": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]},
            }
        },
        "required": ["points"],
    }


def test_an_unknown_type_is_an_error_that_names_it():
    with pytest.raises(DataError, match=r"unknown parameter type.*'strnig'"):
        json_schema({"type": "dict", "properties": {"a": {"type": "strnig"}}})


@pytest.mark.parametrize(
    ("value", "schema", "verdict"),
    [
        (5.0, {"type": "integer"}, True),
        (5.5, {"type": "integer"}, False),
        (True, {"type": "integer"}, False),
        (1, {"type": "number"}, True),
        (1, {"type": "boolean"}, False),
        (None, {"type": "null"}, True),
        (True, {"enum": [1]}, False),
        (1.0, {"enum": [1]}, True),
        ([1, 2, 3], {"type": "array", "maxItems": 2}, False),
        ([1, "b"], {"type": "array", "items": {"type": "integer"}}, False),
        (11, {"type": "integer", "maximum": 10}, False),
        ({"a": 1}, {"type": "object", "properties": {"a": {"type": "string"}}}, False),
        ({"b": 1}, {"type": "object", "properties": {}, "required": ["a"]}, False),
    ],
)
def test_conforms(value, schema, verdict):
    assert conforms(value, schema) is verdict
