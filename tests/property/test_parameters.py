"""Schemas of any kind: what `ToolSchema` takes is scored without an error, and how it is written changes nothing."""

import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny_models import write_tokenizer

from kdfast._rust import Tokenizer, ToolSchema
from kdfast.errors import SchemaError
from kdfast.scoring import accepted_from_calls, match_calls, score_answer
from kdfast.speed import shortest_call_tokens

KEYS = st.sampled_from(["a", "b", "c"])
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "array", "object", "null"])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(-3, 3), st.text("aB ", max_size=3)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=4,
)
ARGUMENTS = st.dictionaries(KEYS, VALUES, max_size=3)
REFERENCES = st.sampled_from(["#", "#/$defs/a", "#/properties/b", "#/$defs/a/items", "#/allOf/0"])


def objects(inner):
    """Schemas around others."""
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
            "properties": st.dictionaries(KEYS, inner, max_size=3),
            "required": st.lists(KEYS, unique=True, max_size=2),
            "items": inner,
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "patternProperties": st.dictionaries(KEYS, inner, max_size=1),
            "additionalProperties": inner,
            "enum": st.lists(SCALARS, min_size=1, max_size=2),
            "$ref": REFERENCES,
        },
    )


SCHEMAS = st.recursive(st.booleans() | st.builds(dict, type=TYPES), objects, max_leaves=6)
ROOTS = st.none() | st.builds(lambda root, inner: root | {"$defs": {"a": inner}}, objects(SCHEMAS), SCHEMAS)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    folder: Path = write_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return Tokenizer.from_file(folder)


def written(arguments):
    return f"<tool_call>{json.dumps({'name': 'f', 'arguments': arguments})}</tool_call>"


@pytest.mark.slow
@given(ROOTS, ARGUMENTS, ARGUMENTS, st.booleans())
def test_no_schema_that_is_taken_makes_scoring_fail(tokenizer, root, made, due, known):
    tools = [{"name": "f", "parameters": root}]
    try:
        ToolSchema(tools)
    except SchemaError:
        assume(False)
    accepted = accepted_from_calls([("f", due)]) if known else None
    score = score_answer(
        written(made), tools, accepted=accepted, reference_text=written(due), should_call=True
    )
    assert score.parsed
    assert score.exact_match == (score.calls_right == 1)
    length = shortest_call_tokens(written(due), accepted, json.dumps(tools), tokenizer)
    assert length is None or length > 0


PLAIN = st.builds(dict, type=TYPES) | st.builds(
    lambda kind: {"type": "array", "items": {"type": kind}}, TYPES
)


@given(PLAIN, VALUES.filter(lambda value: value is not None), VALUES, st.booleans())
def test_a_schema_that_is_written_otherwise_says_the_same(plain, value, other, right):
    accepted = accepted_from_calls([("f", {"a": value if right else other})])

    def verdict(schema, **more):
        root = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
        mismatch = match_calls(
            [("f", {"a": value})], accepted, [{"name": "f", "parameters": more.pop("root", root) | more}]
        )
        return mismatch and mismatch.reason

    expected = verdict(plain)
    null, definitions = {"type": "null"}, {"s": plain}
    assert verdict(plain | {"type": [plain["type"], "null"]}) == expected
    assert verdict({"anyOf": [plain, null]}) == expected
    assert verdict({"oneOf": [{"allOf": [plain]}, null]}) == expected
    assert verdict({"$ref": "#/$defs/s"}, **{"$defs": definitions}) == expected
    assert verdict({"allOf": [{"$ref": "#/$defs/s"}, True]}, **{"$defs": definitions}) == expected
    whole = {"allOf": [{"properties": {"a": plain}, "required": ["a"]}]}
    assert verdict(None, root=whole) == expected
    named = {"$ref": "#/$defs/whole", "$defs": {"whole": whole}}
    assert verdict(None, root=named) == expected
