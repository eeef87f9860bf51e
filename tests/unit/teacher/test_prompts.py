"""Prompts are read with their truth, or refused with file, line and key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdfast.config import DataConfig
from kdfast.errors import DataError
from kdfast.teacher.prompts import Prompt, Truth, read_prompts, tool_name

Json = dict[str, Any]
USER = {"role": "user", "content": "q"}
TOOLS = [{"type": "function", "function": {"name": "f"}}, {"name": "g"}]
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1.0}}}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "prompts.jsonl"


def read(path: Path, *records: Json) -> list[Prompt]:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return read_prompts(path, DataConfig(train=path, tokenizer=path))


def test_all_of_a_prompt(path: Path) -> None:
    record = {
        "messages": [USER],
        "tools": TOOLS,
        "truth_message": CALL,
        "tool_choice": {"type": "function", "function": {"name": "g"}},
        "parallel_tool_calls": False,
        "metadata": {"accepted": [{"f": {"a": [1]}}]},
        "id": 3,
    }
    first, second = read(path, {"prompt": "Hi"}, record)
    assert (first.line, first.index, first.prompt, first.messages, first.tools) == (1, 0, "Hi", None, ())
    assert (second.source, second.line, second.index, second.prompt) == (path, 2, 1, None)
    assert (second.messages, second.tools) == ([USER], TOOLS)
    assert second.truth == Truth(message=CALL, accepted=[{"f": {"a": [1]}}])
    assert (second.should_call, second.parallel_tool_calls) == (True, False)
    assert second.tool_choice == record["tool_choice"]
    assert second.metadata["id"] == 3


@pytest.mark.parametrize(
    ("record", "due"),
    [
        ({}, None),
        ({"tool_should_be_used": True}, True),
        ({"tool_should_be_used": False}, False),
        ({"truth_message": CALL}, True),
        ({"truth_message": {"role": "assistant", "content": "x"}}, False),
        ({"truth_message": CALL, "tool_should_be_used": False}, False),
        ({"truth_text": "x"}, False),
        ({"accepted": [{"f": {}}]}, True),
        ({"truth_text": '<tool_call>{"name": "f", "arguments": {}}</tool_call>'}, True),
        ({"truth_text": "x", "accepted": [{"f": {}}]}, True),
        ({"truth_text": "x", "tool_should_be_used": None}, False),
    ],
)
def test_whether_a_call_is_due(path: Path, record: Json, due: bool | None) -> None:
    (one,) = read(path, {"messages": [USER], "tools": TOOLS, **record})
    assert one.should_call is due


def test_a_conversation_that_ends_with_the_answer_has_a_truth(path: Path) -> None:
    (one,) = read(path, {"messages": [USER, {"role": "assistant", "content": "x"}]})
    assert one.messages == [USER]
    assert one.truth == Truth(message={"role": "assistant", "content": "x"})


@pytest.mark.parametrize(
    "choice", ["auto", "none", "required", {"name": "f"}, {"function": {"name": "g"}}, None]
)
def test_choices(path: Path, choice: Any) -> None:
    (one,) = read(path, {"messages": [USER], "tools": TOOLS, "tool_choice": choice})
    assert one.tool_choice == choice


@pytest.mark.parametrize("choice", ["any", "", 3, {"name": "h"}, {"function": "f"}, {"name": None}, ["f"]])
def test_wrong_choices(path: Path, choice: Any) -> None:
    with pytest.raises(DataError, match=r"prompts\.jsonl:2: tool_choice must be one of auto, none, required"):
        read(path, {"prompt": "x"}, {"messages": [USER], "tools": TOOLS, "tool_choice": choice})


@pytest.mark.parametrize("given", ["true", 1, []])
def test_wrong_parallel_tool_calls(path: Path, given: Any) -> None:
    with pytest.raises(DataError, match=r"prompts\.jsonl:1: parallel_tool_calls must be true or false"):
        read(path, {"prompt": "x", "parallel_tool_calls": given})


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"messages": [USER], "teacher_text": "x"}, "teacher_text belongs to an answer"),
        ({"tools": TOOLS}, "no prompt"),
        ({"messages": [USER], "accepted": [3]}, "metadata.accepted must have"),
    ],
)
def test_what_is_no_prompt(path: Path, record: Json, words: str) -> None:
    with pytest.raises(DataError, match=rf"prompts\.jsonl:2.*{words}"):
        read(path, {"prompt": "x"}, record)


def test_an_empty_file(path: Path) -> None:
    with pytest.raises(DataError, match=r"prompts\.jsonl"):
        read(path)


def test_the_record_of_a_prompt_is_read_again_as_the_same(path: Path) -> None:
    records = [
        {"messages": [USER], "tools": TOOLS, "truth_message": CALL, "id": 3, "tool_choice": "required"},
        {"prompt": "x", "truth_text": "y", "parallel_tool_calls": True},
        {"prompt": "x"},
    ]
    prompts = read(path, *records)
    assert [one.to_record() for one in read(path, *(one.to_record() for one in prompts))] == [
        one.to_record() for one in prompts
    ]
    assert [one.tool_choice for one in prompts] == ["required", None, None]


@pytest.mark.parametrize(
    ("tool", "name"),
    [(TOOLS[0], "f"), (TOOLS[1], "g"), ({}, None), ({"function": {}}, None), ({"name": 3}, None)],
)
def test_tool_names(tool: Json, name: str | None) -> None:
    assert tool_name(tool) == name


@pytest.mark.parametrize(
    "record", [{"tool_should_be_used": True}, {"tool_choice": "required"}, {"truth_message": CALL}]
)
def test_a_call_that_no_tool_could_answer_is_refused(path: Path, record: Json) -> None:
    with pytest.raises(DataError, match="asks for a call, and there are no tools"):
        read(path, {"messages": [USER], **record})
    assert read(path, {"prompt": "tools: f", **record}), "a prompt that is a text may name its tools there"
