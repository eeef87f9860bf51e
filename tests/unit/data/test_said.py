"""What a message says is what is learned: its calls are found again as they are, or the line is an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_store
from tiny_store import build

from kdfast import _rust
from kdfast.errors import DataError

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "pay",
            "description": "",
            "parameters": {
                "type": "object",
                "properties": {"to": {"type": "string"}, "cents": {"type": "integer"}},
            },
        },
    }
]
ASK = [{"role": "user", "content": "Pay Ann."}]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}{% for c in m.tool_calls or [] %}CALL"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TO_JSON = '<tool_call>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}</tool_call>'
AS_TEXT = '<tool_call>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments }}}</tool_call>'


def calls(*arguments: Any) -> dict[str, Any]:
    """An assistant's message with a call of `pay` for each of `arguments`."""
    made = [{"type": "function", "function": {"name": "pay", "arguments": each}} for each in arguments]
    return {"role": "assistant", "content": None, "tool_calls": made}


def learned(
    tmp_path: Path, source: str | None, message: dict[str, Any], **options: Any
) -> list[dict[str, Any]]:
    """The arguments that the rows hold."""
    template = _rust.ChatTemplate(source) if source else tiny_store.hermes()
    record = {"messages": ASK, "tools": TOOLS, "truth_message": message}
    row = build(tmp_path, [record], template=template, **options).row(0)
    ids = row["ids"][row["response_start"] :].tolist()
    text = _rust.Tokenizer.from_file(tmp_path).decode(ids)
    return [call.arguments for call in _rust.find_tool_calls(text, ["hermes"])]


@pytest.mark.parametrize("source", [None, CHATML.replace("CALL", TO_JSON), CHATML.replace("CALL", AS_TEXT)])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"to": "Ann", "cents": 5}, {"to": "Ann", "cents": 5}),
        ('{"to": "Ann", "cents": 5}', {"to": "Ann", "cents": 5}),
        (' {"to":"A\\"nn"} ', {"to": 'A"nn'}),
        ("", {}),
        (None, {}),
        ({}, {}),
    ],
)
def test_arguments_in_every_form(
    tmp_path: Path, source: str | None, given: Any, expected: dict[str, Any]
) -> None:
    assert learned(tmp_path, source, calls(given, {"to": "Bo"})) == [expected, {"to": "Bo"}]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ('{"to": "Ann"', r"no JSON"),
        ("{'to': 'Ann'}", r"no JSON"),
        ('{"cents": NaN}', r"no JSON"),
        ('"{\\"to\\": 1}"', r"encoded twice"),
        ("[1]", r"but of type array"),
        ("7", r"but of type number"),
        (["to"], r"expected an object or its JSON text, got array"),
        (7, r"expected an object or its JSON text, got number"),
    ],
)
def test_arguments_that_are_no_object_are_refused(tmp_path: Path, given: Any, reason: str) -> None:
    with pytest.raises(
        DataError, match=rf"data\.jsonl:1:\d+: truth_message\.tool_calls\[0\].*arguments: .*{reason}"
    ):
        learned(tmp_path, None, calls(given))


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("", r"its call is not found in the text"),
        ("{{ c.function.name }}({{ c.function.arguments }})", r"its call is not found in the text"),
        ("[TOOL_CALLS]{{ [c.function] | tojson }}", r"in the format mistral"),
        (TO_JSON + TO_JSON, r"it has 1 call\(s\), and 2 are found"),
        (TO_JSON.replace("{{ c.function.name }}", "do"), r'is of "pay", and is read as one of "do"'),
        (TO_JSON.replace("c.function.arguments", "{}"), r"arguments of its call 0 \(pay\) are .*read as"),
    ],
)
def test_a_template_that_writes_something_else_is_refused(tmp_path: Path, call: str, reason: str) -> None:
    with pytest.raises(DataError, match=rf"data\.jsonl:1: .*{reason}.*data\.tool_call_format"):
        learned(tmp_path, CHATML.replace("CALL", call), calls({"to": "Ann"}))


def test_text_about_calls_is_no_call_of_the_message(tmp_path: Path) -> None:
    text = '<tool_call>{"name": "pay", "arguments": {}}</tool_call>'
    assert learned(tmp_path, None, {"role": "assistant", "content": text}) == [{}]
    with pytest.raises(DataError, match=r"it has 1 call\(s\), and 2 are found"):
        learned(tmp_path, None, calls({}) | {"content": text})


def test_earlier_turns_are_held_to_the_same_where_they_are_learned(tmp_path: Path) -> None:
    template = _rust.ChatTemplate(CHATML.replace("CALL", ""))
    record = {
        "messages": [*ASK, calls({"to": "Ann"}), {"role": "tool", "content": "ok"}],
        "truth_text": "Done.",
    }
    assert len(build(tmp_path, [record], template=template)) == 1
    with pytest.raises(DataError, match=r"messages\[1\]: what the message says is not what would be learned"):
        build(tmp_path, [record], template=template, supervise="all")


def test_null_keys_are_left_out_of_prompt_and_answer(tmp_path: Path) -> None:
    source = CHATML.replace(
        "{{ m.content or '' }}", "{{ m.content if m.content is defined else '' }}"
    ).replace("CALL", TO_JSON)
    messages = [{"role": "system", "content": "S", "tool_calls": None, "name": None}, *ASK]
    record = {"messages": messages, "tools": TOOLS, "truth_message": calls({"to": "Ann"}) | {"refusal": None}}
    row = build(tmp_path, [record], template=_rust.ChatTemplate(source)).row(0)
    assert "None" not in _rust.Tokenizer.from_file(tmp_path).decode(row["ids"].tolist())


def test_parts_are_text_where_the_template_knows_text_only(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Pay "}, {"type": "text", "text": "Ann."}]
    record = {"messages": [{"role": "user", "content": parts}], "truth_text": "No."}
    source = CHATML.replace("CALL", TO_JSON)
    row = build(tmp_path, [record], template=_rust.ChatTemplate(source)).row(0)
    text = _rust.Tokenizer.from_file(tmp_path).decode(row["ids"].tolist())
    assert text.startswith("<|im_start|>user\nPay Ann.<|im_end|>")


def test_a_store_of_the_version_before_is_not_used(tmp_path: Path) -> None:
    store = build(tmp_path, [{"prompt": "p ", "truth_text": "t"}])
    assert int(store.header()["kdfast.annotation"]) >= 2
    assert json.loads(store.row(0)["metadata"]) == {}


def test_a_template_error_names_the_message_and_its_key(tmp_path: Path) -> None:
    source = CHATML.replace("CALL", TO_JSON).replace(
        "{{ m.role }}", "{{ m.role }}{{ (m.name + 1) if m.name else '' }}"
    )
    template = _rust.ChatTemplate(source)
    record = {"messages": [*ASK, {"role": "tool", "name": "pay", "content": "x"}], "truth_text": "t"}
    with pytest.raises(
        DataError, match=r"data\.jsonl:1: messages\[1\]\.name: the chat template failed, line 1"
    ):
        build(tmp_path, [record], template=template)
    named = {"role": "assistant", "content": "x", "name": "pay"}
    with pytest.raises(DataError, match=r"truth_message\.name: the chat template failed"):
        build(tmp_path, [{"messages": ASK, "truth_message": named}], template=template)
