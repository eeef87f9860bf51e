"""Hypothesis strategies: texts with tool calls in every format, and with text that is almost a call."""

from __future__ import annotations

import json
from typing import Any

import naive_tool_call
from hypothesis import strategies as st

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
AWKWARD = st.sampled_from(
    [
        "</tool_call>",
        "<tool_call>",
        '"',
        "\\",
        "{",
        "}",
        "é😀",
        "\n",
        "\u2028",
        "```",
        "[TOOL_CALLS]",
        "<think>",
    ]
)
STRINGS = st.lists(st.one_of(TEXT, AWKWARD), max_size=3).map("".join)
JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), STRINGS
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(STRINGS, inner, max_size=3)),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(STRINGS, JSON, max_size=3)
SPACE = st.sampled_from(["", "\n", " \t\r\n"])
FORMATS = st.lists(st.sampled_from(naive_tool_call.ALL), min_size=1, unique=True)
# The naive twin takes the formats in the order of its table `ALL`.
CHOICES = st.one_of(
    st.just(naive_tool_call.ALL),
    FORMATS.map(lambda chosen: tuple(name for name in naive_tool_call.ALL if name in chosen)),
)


@st.composite
def objects(draw: st.DrawFn, name: st.SearchStrategy[str] = STRINGS) -> dict[str, Any]:
    """A JSON object in one of the forms that calls have; most of them are calls."""
    name_key = draw(st.sampled_from(["name", "name", "name", "tool", "function"]))
    key = draw(st.sampled_from(["arguments", "arguments", "parameters", "args"]))
    body = {name_key: draw(name), key: draw(ARGUMENTS)}
    match draw(st.integers(0, 11)):
        case 0:
            body |= draw(
                st.dictionaries(st.one_of(STRINGS, st.sampled_from(["name", "args"])), JSON, max_size=1)
            )
        case 1:
            body[key] = json.dumps(body[key], ensure_ascii=draw(st.booleans()))
        case 2:
            body = {"type": "function", "function": body}
        case 3:
            body[key] = json.dumps(body[key], ensure_ascii=draw(st.booleans()))
            body = {"id": "c", "type": "function", "function": body}
        case 4:
            body[key] = draw(st.sampled_from([None, "", " \n", 3, []]))
        case 5:
            del body[key]
    return body


@st.composite
def frames(draw: st.DrawFn, bodies: st.SearchStrategy[Any] | None = None) -> str:
    """Calls in the frame of one of the formats."""
    bodies = objects() if bodies is None else bodies
    content: Any = draw(bodies)
    match draw(st.integers(0, 3)):
        case 0:
            content = draw(st.lists(st.one_of(bodies, bodies, bodies, JSON), max_size=3))
        case 1:
            content = {"tool_calls": draw(st.lists(bodies, max_size=3))}
            content |= draw(st.dictionaries(STRINGS, JSON, max_size=1))
    written = json.dumps(content, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    opening = draw(st.sampled_from(["<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "```", "```json", ""]))
    closing = {"<tool_call>": "</tool_call>", "```": "```", "```json": "```"}.get(opening, "")
    return f"{opening}{draw(SPACE)}{written}{draw(SPACE)}{closing}"


MARKS = [
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "<|python_tag|>",
    "```",
    "```json",
    "tool_calls",
    '"',
    "{",
    "}",
]
MARKS += ["<think>", "</think>", "[THINK]", "[/THINK]", "<|START_THINKING|>", "</seed:think>", "<th", "<|"]
MARKS += [
    " tag: ",
    "f(",
    "f[ARGS]",
    "f\n<arg_key>",
    "<function=f>",
    "call:f",
    "</b>",
    '"{',
    "`",
    "and",
    "</tool_cal>",
]
MARKS += [
    "[",
    "]",
    "\\",
    ":",
    ",",
    " ",
    "1e400",
    "-",
    "null",
    "\\ud83d",
    "\\u00e9",
    '{"name": "f", "arguments": {}}',
    "{" * 130,
]
PIECES = st.one_of(
    frames(),
    frames().flatmap(lambda frame: st.integers(0, len(frame)).map(lambda cut: frame[:cut])),
    st.sampled_from(MARKS),
    TEXT,
)
TEXTS = st.lists(PIECES, max_size=5).map("".join)
