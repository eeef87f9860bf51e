"""The fake teacher's answers: a record says all of what the server said, and a text names the user's own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdfast.recipes.preflight.facts import Sample
from kdfast.recipes.preflight.looking.taught_answers import says_the_same, with_own_places


def of_text(content: str | None) -> dict[str, Any]:
    return {"teacher_message": {"role": "assistant", "content": content}}


def with_call(content: str | None, name: str = "add", **arguments: Any) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"teacher_message": {"role": "assistant", "content": content, "tool_calls": [call]}}


SAID = {"message": {"content": "echo: What is 3 + 4?"}}
THOUGHT = {"message": {"content": "<think>\nA sum.\n</think>\n\n7 \n"}}
CALL = {
    "message": {
        "content": None,
        "tool_calls": [{"function": {"name": "add", "arguments": '{"a": 3, "b": 4}'}}],
    }
}
WRITTEN = {"text": 'I add. <tool_call>{"name": "add", "arguments": {"a": 3}}</tool_call>'}


@pytest.mark.parametrize(
    ("record", "choice", "same"),
    [
        (of_text("echo: What is 3 + 4?"), SAID, True),
        (of_text(" echo: What is 3 + 4?\n"), SAID, True),
        (of_text(""), SAID, False),
        (of_text(None), SAID, False),
        ({"teacher_text": None}, SAID, False),
        (of_text("echo: What is"), SAID, False),
        (of_text("echo: What is 3 + 4? 7"), SAID, False),
        (of_text("7"), THOUGHT, True),
        (of_text("A sum."), THOUGHT, False),
        (with_call(None, a=3, b=4), CALL, True),
        (with_call(None, a=3), CALL, False),
        (of_text(""), CALL, False),
        ({"teacher_text": WRITTEN["text"]}, WRITTEN, True),
        (with_call("I add.", a=3), WRITTEN, True),
        (with_call("I subtract.", a=3), WRITTEN, False),
        (with_call("I add.", "subtract", a=3), WRITTEN, False),
    ],
)
def test_a_record_says_all_of_what_the_server_said(
    record: dict[str, Any], choice: dict[str, Any], same: bool
) -> None:
    assert says_the_same(record, choice) is same


WORK = Path("/scratch/kdfast-preflight-x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{WORK}/taught/prompts.jsonl:2: no prompt", "mine/b.jsonl:81: no prompt"),
        (f"{WORK}/taught/chat/prompts.jsonl:1:17: no prompt", "mine/a.jsonl:4: no prompt"),
        (f"{WORK}/taught/prompts.jsonl:3: no prompt", "record 3 of the sample: no prompt"),
        (f"journal {WORK}/taught/chat/journal.db", "journal journal.db"),
        ("mine/prompts.jsonl:2: no prompt", "mine/prompts.jsonl:2: no prompt"),
    ],
)
def test_places_are_those_of_the_users_own_files(text: str, expected: str) -> None:
    lines = (Path("mine/a.jsonl"), 4), (Path("mine/b.jsonl"), 81)
    sample = Sample(records=({}, {}), lines=lines, held_out=(), of=2, asked=True)
    assert with_own_places(text, WORK, sample) == expected
