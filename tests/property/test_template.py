"""Templates rendered in Rust are equal to those rendered by transformers' `apply_chat_template`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chat_templates
import jinja2
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

import kdfast
from kdfast._rust import ChatTemplate
from kdfast.errors import DataError

HERMES = (Path(kdfast.__file__).parent / "templates" / "hermes.jinja").read_text()

BOS, EOS = "<s>", "</s>"

# Unassigned (Cn) depends on the version of Unicode, which is not Python's in Rust.
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=10)
WORDS = st.lists(
    st.sampled_from(["abc", " x", "y", "\n", "'", '"', "é", "</think>", "<b>", "\\"]), max_size=4
).map("".join)
STRINGS = st.one_of(TEXT, WORDS)
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(2**200), 2**200),
        st.floats(allow_nan=False, allow_infinity=False),
        STRINGS,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(STRINGS, inner, max_size=3)),
    max_leaves=5,
)
ROLE = st.sampled_from(["system", "user", "assistant", "tool", "stop"])
MESSAGE = st.fixed_dictionaries(
    {"role": ROLE, "content": st.one_of(STRINGS, STRINGS, st.none(), JSON)},
    optional={
        "tool_calls": st.none(),
        "name": st.one_of(st.none(), STRINGS),
        "weight": st.sampled_from([None, 0, 1]),
    },
)
PLAIN = st.fixed_dictionaries({"role": ROLE, "content": STRINGS})
PARAMETERS = st.fixed_dictionaries(
    {"type": st.sampled_from(["object", ["object", "null"]])},
    optional={
        "properties": st.dictionaries(STRINGS, st.fixed_dictionaries({"type": st.just("string")}), max_size=2)
    },
)
FUNCTION = st.fixed_dictionaries(
    {"name": STRINGS, "parameters": PARAMETERS}, optional={"description": STRINGS}
)
TOOL = st.one_of(FUNCTION, st.fixed_dictionaries({"type": st.just("function"), "function": FUNCTION}))
TOOLS = st.one_of(st.none(), st.lists(TOOL, max_size=2))


TOKENIZER = PreTrainedTokenizerFast(tokenizer_object=tiny.train(), bos_token=BOS, eos_token=EOS)


def reference(source: str, messages: list[Any], tools: list[Any] | None, prompt: bool) -> str:
    text = TOKENIZER.apply_chat_template(
        messages, tools=tools, chat_template=source, add_generation_prompt=prompt, tokenize=False
    )
    assert isinstance(text, str)
    return text


def rendered(source: str, messages: list[Any], tools: list[Any] | None, prompt: bool) -> str:
    template = ChatTemplate(source, tokens={"bos_token": BOS, "eos_token": EOS})
    return template.render(json.dumps(messages), None if tools is None else json.dumps(tools), prompt)


def assert_equal(source: str, messages: list[Any], tools: list[Any] | None, prompt: bool) -> None:
    expected = outcome(reference, source, messages, tools, prompt)
    assert outcome(rendered, source, messages, tools, prompt) == expected


def outcome(render: Callable[..., str], *arguments: Any) -> tuple[str, str]:
    """The text, the refusal (`raise_exception`), or that it failed (the engines word this differently)."""
    try:
        return "text", render(*arguments)
    except DataError as error:
        refused = "the chat template refused the messages: "
        return (
            ("refused", error.message.removeprefix(refused))
            if error.message.startswith(refused)
            else ("failed", "")
        )
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        return ("refused", str(error)) if type(error) is jinja2.TemplateError else ("failed", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in chat_templates.ALL if name != "printing"])
@settings(max_examples=60)
@given(st.lists(PLAIN, min_size=1, max_size=4), TOOLS, st.booleans())
def test_templates_render_as_in_transformers(
    name: str, messages: list[Any], tools: list[Any] | None, prompt: bool
) -> None:
    assert_equal(chat_templates.ALL[name], messages, tools, prompt)


@pytest.mark.slow
@settings(max_examples=200)
@given(st.lists(MESSAGE, min_size=1, max_size=2))
def test_values_print_as_in_transformers(messages: list[Any]) -> None:
    assert_equal(chat_templates.PRINTING, messages, None, False)


CALL = st.fixed_dictionaries(
    {"name": STRINGS, "arguments": st.one_of(st.dictionaries(STRINGS, JSON, max_size=2))}
)
TURN = st.one_of(
    PLAIN,
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": st.one_of(st.none(), STRINGS)},
        optional={
            "tool_calls": st.lists(
                st.one_of(CALL, st.fixed_dictionaries({"type": st.just("function"), "function": CALL})),
                max_size=2,
            )
        },
    ),
    st.fixed_dictionaries({"role": st.just("tool"), "content": JSON}),
)


@pytest.mark.slow
@settings(max_examples=200)
@given(st.lists(TURN, min_size=1, max_size=4), TOOLS, st.booleans())
def test_the_shipped_template_renders_as_in_transformers(
    messages: list[Any], tools: list[Any] | None, prompt: bool
) -> None:
    assert_equal(HERMES, messages, tools, prompt)


@settings(max_examples=100)
@given(st.lists(TURN.filter(lambda turn: turn["role"] != "stop"), min_size=1, max_size=5), TOOLS)
def test_the_shipped_template_is_stable_from_turn_to_turn(
    messages: list[Any], tools: list[Any] | None
) -> None:
    texts = []
    for end in range(1, len(messages) + 1):
        try:
            texts.append(rendered(HERMES, messages[:end], tools, False))
        except DataError:
            return
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))


OPENAI_CALL = st.fixed_dictionaries(
    {
        "type": st.just("function"),
        "function": st.fixed_dictionaries(
            {
                "name": STRINGS,
                "arguments": st.one_of(st.dictionaries(STRINGS, JSON, max_size=2), STRINGS, st.just("{}")),
            }
        ),
    },
    optional={"id": STRINGS},
)
PARTS = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": STRINGS}), min_size=1, max_size=2)
NULLS = {
    "name": st.none(),
    "tool_calls": st.none(),
    "refusal": st.none(),
    "weight": st.sampled_from([None, 0, 1]),
}
WRITTEN = st.one_of(
    st.fixed_dictionaries({"role": ROLE, "content": st.one_of(STRINGS, PARTS, st.none())}, optional=NULLS),
    st.fixed_dictionaries({"role": st.just("assistant"), "tool_calls": st.lists(OPENAI_CALL, max_size=2)}),
    st.fixed_dictionaries(
        {
            "role": st.just("assistant"),
            "content": st.one_of(st.none(), STRINGS),
            "tool_calls": st.lists(OPENAI_CALL),
        },
        optional={"reasoning_content": st.one_of(st.none(), STRINGS)},
    ),
    st.fixed_dictionaries({"role": st.just("tool"), "content": st.one_of(STRINGS, JSON)}, optional=NULLS),
)


@pytest.mark.slow
@settings(max_examples=150)
@given(
    st.sampled_from([HERMES, *(text for name, text in chat_templates.ALL.items() if name != "printing")]),
    st.lists(WRITTEN, min_size=1, max_size=4),
    TOOLS,
    st.booleans(),
)
def test_messages_as_users_write_them_render_as_in_transformers(
    source: str, messages: list[Any], tools: list[Any] | None, prompt: bool
) -> None:
    assert_equal(source, messages, tools, prompt)
