"""Why two prompts differ: each cause by itself, several at once, and what no cause explains."""

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdfast.config.export import Waiver
from kdfast.errors import ConfigError
from kdfast.export.parity.difference import CALLS, WAIVABLE, check_waivers, describe, find_causes
from kdfast.export.parity.json_pieces import MOST_DEEP, join, split, with_sorted_keys

TOOL = '{"name": "f", "description": "", "parameters": {"minimum": 1.0, "title": "é/"}}'

CASES = [
    ('{"name": "f", "description": "", "parameters": {"minimum": 1, "title": "é/"}}', ("number",)),
    ('{"name": "f", "parameters": {"minimum": 1.0, "title": "é/"}, "description": ""}', ("key-order",)),
    ('{"name": "f", "description": "", "parameters": {"minimum": 1.0, "title": "\\u00e9\\/"}}', ("escape",)),
    ('{"name":"f","description":"","parameters":{"minimum":1.0,"title":"é/"}}', ("white-space",)),
    ('{"name": "f", "parameters": {"minimum": 1.0, "title": "é/"}}', ("keys",)),
    (TOOL.replace('"f"', '"e"'), ("content",)),
    (TOOL.replace("1.0", "2.0"), ("content",)),
    (TOOL.replace("1.0", '"1.0"'), ("content",)),
    ('{"parameters":{"title":"é/","minimum":1},"name":"f"}', ("number", "key-order", "keys", "white-space")),
]


@pytest.mark.parametrize(("other", "causes"), CASES)
@pytest.mark.parametrize("around", ["{}", "<tools>\n{}\n</tools>", "[{}, {{}}]"])
def test_each_cause_is_named(other, causes, around):
    ours, theirs = around.format(TOOL), around.format(other)
    assert find_causes(ours, theirs) == causes
    assert find_causes(theirs, ours) == causes


@pytest.mark.parametrize(
    ("ours", "theirs", "causes"),
    [
        ("at most 123456.789 m", "at most 123457 m", ("rounding",)),
        ("x 1e-5 y", "x 1e-05 y", ("number",)),
        ("x -0.0 y", "x 0 y", ("number",)),
        ("Today is 2026-11-30.", "Today is 2026-12-01.", ("date",)),
        ("Today Date: 30 Nov 2026", "Today Date: 1 Dec 2026", ("date",)),
        ("a 😀", "a \\ud83d\\ude00", ("escape",)),
        ("<|im_start|>user\na", "<|im_start|>user\n\na", ("white-space",)),
        ("a", "", ("content",)),
        ("at most 12345678.9 m", "at most 1.23457e+07 m", ("rounding",)),
        ("call 5551234567", "call 5551234568", ("content",)),  # llama.cpp prints such integers whole
        (f"x {10**30} y", f"x {10**30 + 1} y", ("rounding",)),
        (f"x {10**30} y", "x 1e30 y", ("number",)),
        ("x 1.50e-2 y", "x 0.015 y", ("number",)),
        ("x 1e99999999999999999999999 y", "x 1e99999999999999999999998 y", ("content",)),
        (f"[{'9' * 5000}]", f"[{'9' * 5000}.0]", ("number",)),
        ("[1, 2]", "[2, 1]", ("content",)),
        ("[1, 2]", "[1, 2, 2]", ("content",)),
        ("12345678901234567890", "-6101065172474983726", ("content",)),
        ("{...}", "{... }", ("white-space",)),
    ],
)
def test_causes_in_plain_text(ours, theirs, causes):
    assert find_causes(ours, theirs) == causes


EMPTY = ['""', "{}", "[]", "null", "{ }"]


@pytest.mark.parametrize("value", EMPTY)
def test_a_key_that_says_nothing_may_come_or_go(value):
    ours, theirs = f'{{"a": {{"b": 1, "c": {value}}}}}', '{"a": {"b": 1}}'
    assert find_causes(ours, theirs) == find_causes(theirs, ours) == ("keys",)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ('{"a": {"type": "object", "properties": {}, "required": ["b"]}}', '{"a": {}}'),
        ('{"a": {"b": {"c": 1}}}', '{"a": {}}'),
        ('{"a": 0}', "{}"),
        ('{"a": false}', "{}"),
        ('{"a": " "}', "{}"),
        ('{"a": [null]}', "{}"),
        ('{"a": [""]}', '{"a": []}'),
        ('{"a": 1, "a": 2}', '{"a": 9, "a": 2}'),
        ('{"a": 1, "a": 2}', '{"a": 2, "a": 1}'),
    ],
)
def test_a_key_that_says_something_is_content(ours, theirs):
    assert find_causes(ours, theirs) == find_causes(theirs, ours) == ("content",)


@pytest.mark.parametrize("depth", [MOST_DEEP + 1, 900, 3000])
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a": ', "}")])
def test_deep_values_are_plain_text(depth, start, end):
    deep = start * depth + "1" + end * depth
    assert join(split(deep)) == deep
    assert all(isinstance(part, str) for part in split(deep))
    assert find_causes(deep + ' {"a": 1.0, "b": 2}', deep + ' {"b": 2, "a": 1}') == ("number", "key-order")
    assert find_causes(deep, deep.replace("1", "2")) == ("content",)


def test_the_deepest_value_is_read():
    text = '{"b": 0, "a": ' * MOST_DEEP + "1" + "}" * MOST_DEEP
    (piece,) = [part for part in split(text) if not isinstance(part, str)]
    assert json.loads(with_sorted_keys(piece)) == json.loads(text)
    assert find_causes(text, with_sorted_keys(piece)) == ("key-order",)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, st.text(max_size=5), st.booleans())
def test_pieces_are_the_text_and_sorting_is_json_s(value, around, compact):
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":") if compact else None)
    text = around + written + around
    assert join(split(text)) == text
    if isinstance(value, dict | list):
        (piece,) = [part for part in split(written) if not isinstance(part, str)]
        assert json.loads(with_sorted_keys(piece)) == value
        assert find_causes(written, with_sorted_keys(piece)) in ((), ("key-order",))


def test_a_difference_is_shown_side_by_side():
    found = describe(7, "a" * 100 + "b" + "c" * 100, "a" * 100 + "d" + "c" * 100)
    assert (found.at, found.line, found.causes) == (100, 7, ("content",))
    assert found.trained == "a" * 40 + "b" + "c" * 39
    assert found.runtime == "a" * 40 + "d" + "c" * 39
    assert json.loads(json.dumps(found.to_json()))["runtime"] == found.runtime


def test_unknown_waivers_are_refused_with_the_known():
    check_waivers([*WAIVABLE, "calls"])
    with pytest.raises(ConfigError, match=r"must be one of number, .*, calls, got: numbers"):
        check_waivers(["numbers"])
    with pytest.raises(ConfigError, match="cannot accept other token ids"):
        check_waivers(["tokenizer"])


def test_the_config_knows_every_waiver_and_no_other():
    assert set(get_args(Waiver)) == {*WAIVABLE, CALLS}
