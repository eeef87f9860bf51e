"""Chat templates: what kdfast's own renders, and how failures read."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

import kdfast
from kdfast._rust import ChatTemplate, find_tool_calls
from kdfast.errors import DataError

HERMES = (Path(kdfast.__file__).parent / "templates" / "hermes.jinja").read_text()
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def hermes(messages: list[object], tools: list[object] | None = None, prompt: bool = False) -> str:
    return ChatTemplate(HERMES).render(json.dumps(messages), json.dumps(tools) if tools else None, prompt)


def test_the_shipped_template_by_hand() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Zürich?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich"}}},
                {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}},
            ],
        },
        {"role": "tool", "content": "sunny"},
        {"role": "tool", "content": {"sky": "grey"}},
    ]
    assert hermes(messages, [TOOL], prompt=True) == (
        "<|im_start|>system\nBe brief.\n\nYou may call these functions:\n<tools>\n"
        '{"name": "weather", "parameters": {"type": "object"}}\n</tools>\n'
        "To call one, answer with its name and arguments:\n"
        '<tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>\n'
        "If none fits or an argument is not given, say so.<|im_end|>\n"
        "<|im_start|>user\nZürich?<|im_end|>\n"
        "<|im_start|>assistant\n"
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>tool\n<tool_response>\nsunny\n</tool_response><|im_end|>\n"
        '<|im_start|>tool\n<tool_response>\n{"sky": "grey"}\n</tool_response><|im_end|>\n'
        "<|im_start|>assistant\n"
    )


def test_without_tools_there_is_no_system_turn() -> None:
    assert hermes([{"role": "user", "content": "hi"}]) == "<|im_start|>user\nhi<|im_end|>\n"


def test_rendered_calls_are_found_again() -> None:
    arguments = {"q": 'a "b" </tool_call> \\ é', "n": [1, {"x": None}]}
    turn = {"role": "assistant", "content": "Well.", "tool_calls": [{"name": "f", "arguments": arguments}]}
    (call,) = find_tool_calls(hermes([turn]))
    assert (call.name, call.arguments) == ("f", arguments)


def test_what_a_template_refuses_is_a_data_error() -> None:
    with pytest.raises(DataError, match="the chat template refused the messages: unknown role judge"):
        hermes([{"role": "judge", "content": "x"}])


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{% for %}", "the chat template failed, line 1: "),
        ("\n{{ messages | nonsense }}", "line 2: .*nonsense"),
        ("{{ messages.a.b }}", "the chat template failed, line 1: "),
        ("{{ missing | tojson }}", "tojson: a value of type undefined has no JSON form"),
    ],
)
def test_broken_templates_are_data_errors(source: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        ChatTemplate(source).render("[]")


@pytest.mark.parametrize(
    ("messages", "says"), [("[1]", "message 0 is not an object"), ("{", "messages: expected")]
)
def test_messages_must_be_a_list_of_objects(messages: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        ChatTemplate("").render(messages)


def test_the_date_of_today() -> None:
    source = "{{ strftime_now('%d %b %Y|%A|%j|%Y-%m-%d|%B %-d') }}"
    before = dt.datetime.now().strftime("%d %b %Y|%A|%j|%Y-%m-%d|%B %-d")
    rendered = ChatTemplate(source).render("[]")
    after = dt.datetime.now().strftime("%d %b %Y|%A|%j|%Y-%m-%d|%B %-d")
    assert rendered in {before, after}


def test_reasoning_is_seen_under_the_names_that_transformers_gives_it() -> None:
    messages = [
        {"role": "assistant", "content": "x", "reasoning": "r"},
        {"role": "assistant", "thinking": "t"},
    ]
    source = "{% for m in messages %}{{ m | tojson }}{{ m.reasoning_content }}{% endfor %}"
    expected = render_jinja_template([messages], chat_template=source)[0][0]
    assert ChatTemplate(source).render(json.dumps(messages)) == expected


def test_the_source_is_kept() -> None:
    assert (
        ChatTemplate("a{% generation %}b{% endgeneration %}\n").source
        == "a{% generation %}b{% endgeneration %}\n"
    )


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (r"'\U0001F600\x41\101\/\q'", "\U0001f600AA\\/\\q"),
        ("'a.b.c'.rsplit('.', 1)[0]", "a.b"),
        ("'abc'.removeprefix('a') + 'abc'.removesuffix('x')", "bcabc"),
        ('"o\'neil mc-donald 3rd".title()', "O'Neil Mc-Donald 3Rd"),
        ("none | default('x', boolean=true)", "x"),
        ("nothing | d('y')", "y"),
        ("'a' | default(default_value='x')", "a"),
    ],
)
def test_corners_that_the_engine_alone_gets_wrong(expression: str, expected: str) -> None:
    assert ChatTemplate(f"{{{{ {expression} }}}}").render("[]") == expected


@pytest.mark.parametrize(
    "source",
    [
        "{% for x in none %}x{% endfor %}",
        "{% for x in messages[0].absent.absent %}x{% endfor %}",
        "{{ '%02d' % 3 }}",
        r"{{ '\N{BULLET}' }}",
        "{% autoescape true %}{{ '<' }}{% endautoescape %}",
        "{{ 'abc'.startswith('b', 1) }}",
    ],
)
def test_what_the_engine_cannot_do_is_a_located_error(source: str) -> None:
    with pytest.raises(DataError, match="line 3"):
        ChatTemplate("\n\n" + source).render("[{}]")


def test_a_template_that_runs_away_ends() -> None:
    source = "{% for a in range(9999) %}{% for b in range(9999) %}{% set c = a %}{% endfor %}{% endfor %}"
    with pytest.raises(DataError, match="ran away"):
        ChatTemplate(source).render("[]")
