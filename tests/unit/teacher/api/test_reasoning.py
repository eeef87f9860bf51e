"""Reasoning is found in blocks, fields and parts; what only speaks of it stays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdfast._rust import thinking_closing
from kdfast.teacher.api.reasoning import (
    MARKS,
    Stripped,
    reasoning_of_fields,
    reasoning_of_part,
    strip_reasoning,
)


def test_the_marks_are_those_of_the_search_for_calls() -> None:
    assert all(thinking_closing(opening) == closing for opening, closing in MARKS)


@pytest.mark.parametrize(("opening", "closing"), MARKS)
def test_a_block_before_the_answer(opening: str, closing: str) -> None:
    text = f"\n{opening}\nWhy \n not?\n{closing}\n\nBecause.\n"
    assert strip_reasoning(text) == Stripped("\nBecause.\n", "Why \n not?", 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes.", Stripped("Yes.")),
        ("", Stripped("")),
        (" \n Yes. ", Stripped(" \n Yes. ")),
        ("<think></think>Yes.", Stripped("Yes.", "", 1)),
        ("<think>a</think>\n<think>b</think>Yes.", Stripped("Yes.", "a\n\nb", 2)),
        ("One.\n<think>a</think>\nTwo.", Stripped("One.\nTwo.", "a", 1)),
        ("<think>only [THINK] in it</think>Yes.", Stripped("Yes.", "only [THINK] in it", 1)),
        ("<think>never closed", Stripped("", "never closed", 1, open=True)),
        ("<think>a</think>Yes.\n<think>b", Stripped("Yes.\n", "a\n\nb", 2, open=True)),
        ("<think>wrong mark [/THINK] x", Stripped("", "wrong mark [/THINK] x", 1, open=True)),
        ("reasons\n</think>\n\nYes.", Stripped("Yes.", "reasons", 1)),
        ("reasons</think>\nYes.", Stripped("Yes.", "reasons", 1)),
        ("reasons\n</think>", Stripped("", "reasons", 1)),
        (
            "The <think> and </think> marks are special.",
            Stripped("The <think> and </think> marks are special."),
        ),
        ("In `<think>x</think>` x is hidden.", Stripped("In `<think>x</think>` x is hidden.")),
    ],
)
def test_blocks_in_a_text(text: str, expected: Stripped) -> None:
    assert strip_reasoning(text) == expected


def test_a_block_that_the_prompt_opened() -> None:
    assert strip_reasoning("a</think>\nYes.", opened_by_prompt=True) == Stripped("Yes.", "a", 1)
    assert strip_reasoning("no end", opened_by_prompt=True) == Stripped("", "no end", 1, open=True)


@given(st.text("<think>/[THINK] \nab", max_size=60), st.booleans())
def test_never_more_than_was_said(text: str, opened: bool) -> None:
    stripped = strip_reasoning(text, opened)
    assert len(stripped.text) + len(stripped.reasoning.replace("\n\n", "")) <= len(text)
    assert stripped.blocks or stripped.text == text


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", "\n", "[THINK]", "[/THINK]", " "]), max_size=12))
def test_what_is_left_has_no_block(parts: list[str]) -> None:
    stripped = strip_reasoning("".join(parts))
    again = strip_reasoning(stripped.text)
    assert again.text == stripped.text or again.blocks


@pytest.mark.parametrize(
    ("message", "reasoning"),
    [
        ({}, ""),
        ({"reasoning_content": None, "reasoning": " "}, ""),
        ({"reasoning_content": "a", "reasoning": "a"}, "a"),
        ({"reasoning": "b"}, "b"),
        (
            {
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "c"},
                    {"summary": "d"},
                    {"data": "?"},
                    1,
                ]
            },
            "cd",
        ),
        ({"reasoning": {"effort": "low"}}, ""),
    ],
)
def test_fields(message: dict[str, Any], reasoning: str) -> None:
    assert reasoning_of_fields(message) == reasoning


def test_parts() -> None:
    assert (
        reasoning_of_part({"type": "thinking", "thinking": [{"type": "text", "text": "a"}, {"text": "b"}]})
        == "ab"
    )
    assert reasoning_of_part({"type": "thinking", "thinking": "a"}) == "a"
    assert reasoning_of_part({"type": "redacted_thinking", "data": "xxx"}) == ""
