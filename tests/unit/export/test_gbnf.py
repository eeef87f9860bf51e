"""The grammar of a tool set, held to llama.cpp's own matcher and to kdfast's own reading of answers."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdfast import ToolSchema, find_tool_calls, is_valid_tool_json
from kdfast.errors import ConfigError
from kdfast.evaluate import grammar as constrained
from kdfast.export.gbnf import FRAMES, tool_grammar

pytest.importorskip("xllamacpp")
from llama_grammar import LlamaGrammar

WEATHER = {
    "name": "weather.now",
    "description": "The weather.",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": 'Say "Oslo".'},
            "days": {"type": "integer"},
            "unit": {"type": "string", "enum": ["C", "F"]},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["city"],
    },
}
TIME = {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}}
TOOLS = [WEATHER, TIME]


def text_of(name, arguments, frame="hermes"):
    call = json.dumps({"name": name, FRAMES[frame].arguments: arguments}, ensure_ascii=False)
    return {
        "hermes": f"<tool_call>\n{call}\n</tool_call>",
        "granite": f"<tool_call>{call}</tool_call>",
        "mistral": f"[TOOL_CALLS][{call}]",
        "llama3": f"<|python_tag|>{call}",
    }[frame]


RIGHT = [
    {"city": "Oslo"},
    {"city": 'a "b" \\ \n é 日本'},
    {"city": "Oslo", "days": -3},
    {"city": "Oslo", "unit": "C", "tags": []},
    {"city": "", "days": 0, "unit": "F", "tags": ["a", "b"]},
]
WRONG = [
    {},
    {"days": 3},
    {"city": 3},
    {"city": "Oslo", "days": "3"},
    {"city": "Oslo", "days": 1.5},
    {"city": "Oslo", "unit": "K"},
    {"city": "Oslo", "tags": [1]},
    {"city": "Oslo", "other": 1},
    {"city": None},
    [],
]


@pytest.mark.parametrize("frame", FRAMES)
def test_right_calls_are_accepted_and_wrong_ones_are_not(frame):
    grammar, schema = LlamaGrammar(tool_grammar(TOOLS, frame)), ToolSchema(TOOLS)
    for arguments in RIGHT:
        text = text_of("weather.now", arguments, frame)
        assert grammar.accepts(text), text
        assert is_valid_tool_json(text, schema, formats=[frame])
    for arguments in WRONG:
        text = text_of("weather.now", arguments, frame)
        assert not grammar.begins(text), text
    assert not grammar.begins(text_of("weather", {"city": "Oslo"}, frame))
    assert grammar.accepts(text_of("time", {}, frame))


@pytest.mark.parametrize("frame", FRAMES)
def test_prose_is_free_and_a_mark_opens_a_call_only(frame):
    grammar, mark = LlamaGrammar(tool_grammar(TOOLS, frame)), FRAMES[frame].opening
    call = text_of("time", {}, frame)
    for prose in ("", "No tool fits.", f"a {mark[:-1]} b", mark[:3] * 3, "1 < 2 [x] {y}\n\nend", "日本"):
        assert grammar.accepts(prose), prose
        assert grammar.accepts(f"{prose}{call}"), prose
        assert grammar.accepts(f"x{call}\n{prose}{call}{prose}"), prose
    assert not grammar.begins(f"The {mark} tag")
    assert not grammar.accepts(call[:-2])
    assert grammar.begins(call[:-2])


def test_the_frames_are_those_of_constrained_decoding():
    assert FRAMES.keys() == constrained.FRAMES.keys()
    for name, frame in FRAMES.items():
        theirs = constrained.FRAMES[name]
        ours = (frame.opening, frame.closing, frame.arguments, frame.listed)
        assert ours == (theirs.opening, theirs.closing, theirs.arguments, theirs.listed)


def test_a_bare_call_of_llama3_is_held_too():
    grammar = LlamaGrammar(tool_grammar(TOOLS, "llama3"))
    bare = json.dumps({"name": "weather.now", "parameters": {"city": "Oslo"}})
    assert grammar.accepts(bare)
    assert [call.name for call in find_tool_calls(bare, ["llama3"])] == ["weather.now"]
    assert not grammar.begins('{"name": "weather.now", "parameters": {"days"')
    assert not grammar.begins("{x")
    assert grammar.accepts("x{x")


def test_several_calls_of_mistral_are_one_list():
    grammar = LlamaGrammar(tool_grammar(TOOLS, "mistral"))
    call = '{"name": "time", "arguments": {}}'
    assert grammar.accepts(f"[TOOL_CALLS][{call}, {call}]")
    assert not grammar.begins("[TOOL_CALLS][]")
    assert not grammar.begins(f"[TOOL_CALLS]{call}")


VALUES = {
    "city": st.one_of(st.text(max_size=4), st.integers(), st.none()),
    "days": st.one_of(st.integers(-99, 99), st.booleans(), st.text(max_size=2)),
    "unit": st.sampled_from(["C", "F", "K", 1]),
    "tags": st.one_of(st.lists(st.text(max_size=3), max_size=3), st.lists(st.integers(), max_size=2)),
}
GRAMMAR = LlamaGrammar(tool_grammar(TOOLS))


@settings(max_examples=80)
@given(st.fixed_dictionaries({}, optional=VALUES))
def test_the_grammar_takes_exactly_the_valid_calls(drawn):
    arguments = {name: drawn[name] for name in VALUES if name in drawn}  # in the schema's order
    text = text_of("weather.now", arguments)
    assert GRAMMAR.accepts(text) == is_valid_tool_json(text, ToolSchema(TOOLS))


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ([], "must have at least one tool"),
        (["f"], r"tools\[0\]: must be a tool definition"),
        (['{"name": "f"}'], r"tools\[0\]: must be a tool definition"),
        ([{"name": None}], r"tools\[0\]: must be a tool definition"),
        ([{"function": None}], r"tools\[0\]: must be a tool definition"),
        ([{"name": "f"}, {"name": "f"}], r"tools\[1\]: another tool has this name.*: f"),
        ([{"name": "f", "parameters": '{"type": "object"}'}], r"parameters of f must be .* got str"),
        ([{"name": "f", "parameters": []}], r"parameters of f must be .* got list"),
    ],
)
def test_bad_tools_are_refused(tools, said):
    with pytest.raises(ConfigError, match=said):
        tool_grammar(tools)


@pytest.mark.parametrize("name", ["fenced", "object", "array", "openai", "pythonic"])
def test_a_format_without_a_mark_is_refused(name):
    with pytest.raises(ConfigError, match=f"nothing marks where one begins.*: {name}"):
        tool_grammar(TOOLS, name)


def test_a_tool_without_parameters_takes_any_object():
    grammar = LlamaGrammar(tool_grammar([{"name": "f", "parameters": None}, {"name": 'odd "name"\n'}]))
    assert grammar.accepts(text_of("f", {"x": 1}))
    assert grammar.accepts(text_of('odd "name"\n', {}))
