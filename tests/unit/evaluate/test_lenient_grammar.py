"""What llguidance cannot make a grammar of is left out for its tool, and only there."""

import json

import llguidance
import pytest
from tiny_models import write_tokenizer

from kdfast.errors import SchemaError
from kdfast.evaluate.grammar import answer_grammar
from kdfast.evaluate.lenient_grammar import LenientGrammar

AHEAD = "^(?=.*@)[a-z@.]+$"
GOOD = {"name": "good", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}}}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = write_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return llguidance.LLTokenizer((folder / "tokenizer.json").read_text(), eos_token=[258])


@pytest.fixture
def lenient(tokenizer):
    return LenientGrammar(
        lambda tools: llguidance.LLMatcher.validate_grammar_with_warnings(answer_grammar(tools), tokenizer)
    )


def object_of(**properties):
    return {"type": "object", "properties": properties, "required": list(properties)}


@pytest.mark.parametrize(
    ("parameters", "left", "said"),
    [
        (
            object_of(a={"type": "string", "pattern": AHEAD, "minLength": 3}, b={"pattern": "^x+$"}),
            object_of(a={"type": "string", "minLength": 3}, b={"pattern": "^x+$"}),
            [f'pattern "{AHEAD}" is left out of the grammar'],
        ),
        (
            object_of(a={"items": {"anyOf": [{"pattern": AHEAD}, {"$ref": "#/$defs/A"}]}})
            | {"$defs": {"A": {"pattern": AHEAD}}},
            object_of(a={"items": {"anyOf": [{}, {"$ref": "#/$defs/A"}]}}) | {"$defs": {"A": {}}},
            [f'pattern "{AHEAD}" is left out of the grammar'],
        ),
        (
            {"patternProperties": {AHEAD: {"type": "string"}, "^n": {}}, "additionalProperties": False},
            {"patternProperties": {"^n": {}}, "additionalProperties": True},
            [f'patternProperties "{AHEAD}" is left out of the grammar'],
        ),
        (
            object_of(a={"type": "number", "multipleOf": 1e-300, "minimum": 2}),
            object_of(a={"type": "number", "minimum": 2}),
            ["multipleOf 1e-300 is left out of the grammar"],
        ),
        # no keyword alone is at fault
        (
            object_of(a={"type": "string", "minLength": 5, "maxLength": 2}),
            object_of(a={}) | {"additionalProperties": True},
            [
                "all but the names of the arguments is left out of the grammar: Unsatisfiable schema: required "
                "property 'a' is unsatisfiable"
            ],
        ),
        # a property that is called like a keyword, and values that are no schemas
        (
            object_of(pattern={"enum": [{"pattern": AHEAD}]}, format={"pattern": AHEAD}),
            object_of(pattern={"enum": [{"pattern": AHEAD}]}, format={}),
            [f'pattern "{AHEAD}" is left out of the grammar'],
        ),
    ],
)
def test_only_what_is_at_fault_is_left_out(lenient, parameters, left, said):
    held = lenient.held(json.dumps([GOOD, {"name": "f", "parameters": parameters}]))
    assert held.tools == [GOOD, {"name": "f", "parameters": left}]
    assert held.left_out == [f'tool "f": {one}' for one in said]


def test_what_llguidance_says_is_said_of_its_tool(lenient):
    unique = {"type": "function", "function": {"name": "u", "parameters": object_of(a={"uniqueItems": True})}}
    text = json.dumps([GOOD, unique])
    held = lenient.held(text)
    assert held.tools == [GOOD, unique]
    assert held.left_out == ['tool "u": not held by the grammar: Unimplemented keys: ["uniqueItems"]']
    assert lenient.held(text) is held


def test_a_long_pattern_is_cut(lenient):
    parameters = object_of(a={"pattern": "(?=x)" * 50})
    (said,) = lenient.held(json.dumps([{"name": "f", "parameters": parameters}])).left_out
    assert said == f'tool "f": pattern "{("(?=x)" * 50)[:59]}... is left out of the grammar'


def test_each_text_and_each_tool_is_checked_once():
    asked = []

    def check(tools):
        asked.append([tool["name"] for tool in tools])
        return "(?=" in json.dumps(tools), ["no"]

    lenient = LenientGrammar(check)
    ahead = {"name": "ahead", "parameters": object_of(a={"pattern": AHEAD})}
    for text in (json.dumps([ahead]), json.dumps([ahead]), json.dumps([ahead, GOOD])):
        lenient.held(text)
    tools, leaf = ["ahead"], ["f"]
    assert asked == [tools, tools, leaf, tools, tools, ["ahead", "good"], ["good"], ["ahead", "good"]]


def test_tools_that_fail_for_another_reason_are_an_error():
    lenient = LenientGrammar(lambda tools: (True, ["at 6(14): too\n complex\n   4 | opening[lazy]: TEXT\n"]))
    with pytest.raises(SchemaError, match=r"^too complex$"):
        lenient.held(json.dumps([GOOD]))
    with pytest.raises(SchemaError, match='tool "f": parameters/type: not a valid JSON Schema'):
        lenient.held('[{"name": "f", "parameters": {"type": "dict"}}]')
