"""The shortest right call of a prompt, counted by hand."""

from __future__ import annotations

import json

import pytest
from area_tool import TO_BRACE, TOOLS
from tiny_models import write_tokenizer

from kdfast._rust import Tokenizer, tool_call_formats
from kdfast.speed import shortest_call_tokens


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    return Tokenizer.from_file(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def test_shortest_call(tokenizer) -> None:
    reference = '<tool_call>\n{"name": "area", "arguments": {"side": 3, "unit": "metre"}}\n</tool_call>'
    compact = '<tool_call>{"name":"area","arguments":{"side":3,"unit":"metre"}}'
    assert shortest_call_tokens(reference, None, TOOLS, tokenizer) == len(compact)
    # of the accepted values the shortest, and no optional argument
    accepted = [{"area": {"side": [30, 3, 300], "unit": ["metre", ""]}}]
    assert shortest_call_tokens(reference, accepted, TOOLS, tokenizer) == TO_BRACE
    # an optional one that the schema requires stays
    tools = json.loads(TOOLS)
    tools[0]["parameters"]["required"] = ["side", "unit"]
    compact = '<tool_call>{"name":"area","arguments":{"side":3,"unit":"m"}}'
    accepted = [{"area": {"side": [3], "unit": ["metre", "m", ""]}}]
    assert shortest_call_tokens(reference, accepted, json.dumps(tools), tokenizer) == len(compact)


def test_shortest_call_of_several_in_lists_and_without_a_schema(tokenizer) -> None:
    reference = 'Both: [{"name": "f", "arguments": {"xs": [1, 2]}}, {"name": "g", "arguments": {}}]'
    expected = len('[{"name":"g","arguments":{}}')
    assert shortest_call_tokens(reference, None, "", tokenizer, tool_call_formats()) == expected
    assert shortest_call_tokens("no call", None, "", tokenizer) is None
    # values may be objects with accepted values of their own
    accepted = [{"f": {"at": [{"x": [100, 1], "y": [""]}]}}]
    reference = '<tool_call>{"name": "f", "arguments": {"at": {"x": 100}}}</tool_call>'
    expected = len('<tool_call>{"name":"f","arguments":{"at":{"x":1}}}')
    assert shortest_call_tokens(reference, accepted, "", tokenizer) == expected


def test_shortest_call_of_a_wrong_reference_is_not_its_own(tokenizer) -> None:
    reference = '<tool_call>{"name":"area","arguments":{"side":3}}</tool_call>'
    accepted = [{"area": {"side": [1234567]}}]
    assert shortest_call_tokens(reference, accepted, TOOLS, tokenizer) == TO_BRACE + 6
    assert shortest_call_tokens(reference, [{"area": {"side": ["x"]}}], TOOLS, tokenizer) is None
