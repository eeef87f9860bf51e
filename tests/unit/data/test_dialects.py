"""Records as other houses write them: read rightly, or refused with the place and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from defaults import read_jsonl
from tiny_store import build

from kdfast import _rust
from kdfast.errors import DataError

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ASK = [{"role": "user", "content": "Rain?"}]
CALL = {"name": "rain", "arguments": {"city": "Lisbon"}}
TOOL = {"name": "rain", "description": "", "parameters": SCHEMA}
ANSWER = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": CALL}]}


def read(tmp_path: Path, record: dict[str, Any]) -> dict[str, Any]:
    file = tmp_path / "r.jsonl"
    file.write_text(json.dumps(record))
    good, bad = read_jsonl(file, on_error="quarantine", max_rejected_fraction=1.0)
    assert bad == []
    return good[0]


def refusal(tmp_path: Path, record: dict[str, Any]) -> str:
    file = tmp_path / "r.jsonl"
    file.write_text(json.dumps(record))
    with pytest.raises(DataError) as caught:
        read_jsonl(file)
    assert caught.value.line == 1
    return caught.value.message


@pytest.mark.parametrize("key", ["inputSchema", "input_schema"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_schema_under_another_key_judges_the_calls(tmp_path: Path, key: str, wrapped: bool) -> None:
    tool: dict[str, Any] = {"name": "rain", "description": "", key: SCHEMA}
    tools = [{"type": "function", "function": tool} if wrapped else tool]
    wrong = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": "rain", "arguments": {}}}],
    }
    record = {"messages": ASK, "tools": tools, "truth_message": ANSWER}
    assert build(tmp_path, [record]).row(0)["call_valid"]
    with pytest.raises(DataError, match="breaks its tool's schema"):
        build(tmp_path, [record | {"truth_message": wrong}])


def test_functions_and_function_call_are_tools_and_tool_calls(tmp_path: Path) -> None:
    messages = [
        *ASK,
        {
            "role": "assistant",
            "content": None,
            "function_call": CALL | {"arguments": json.dumps(CALL["arguments"])},
        },
        {"role": "function", "name": "rain", "content": "no"},
    ]
    old = {"messages": messages, "functions": [TOOL], "truth_text": "No."}
    record = read(tmp_path, old)
    assert record["tools"] == [TOOL]
    assert record["messages"][1]["tool_calls"][0]["function"]["name"] == "rain"
    assert "function_call" not in record["messages"][1]
    assert record["messages"][2]["role"] == "tool"
    assert "both tools and functions" in refusal(tmp_path, old | {"tools": [TOOL]})
    answer = {"role": "assistant", "content": None, "function_call": CALL}
    row = build(tmp_path, [{"messages": ASK, "functions": [TOOL], "truth_message": answer}]).row(0)
    assert row["tool_should_be_used"]


def test_a_last_message_of_the_assistant_is_the_answer(tmp_path: Path) -> None:
    record = read(tmp_path, {"messages": [*ASK, ANSWER], "tools": [TOOL]})
    assert (record["messages"], record["truth_message"]) == (ASK, ANSWER)
    both = {"messages": [*ASK, ANSWER], "truth_text": "No."}
    assert "already end with an assistant's turn, and truth_text would follow" in refusal(tmp_path, both)
    assert "no question" in refusal(tmp_path, {"messages": [ANSWER]})
    assert "no answer" in refusal(tmp_path, {"messages": ASK})
    assert "says nothing" in refusal(tmp_path, {"messages": [*ASK, {"role": "assistant", "content": ""}]})


def test_turns_of_weight_0_are_not_learned(tmp_path: Path) -> None:
    wrong = {"role": "assistant", "content": "WRONG", "weight": 0}
    messages = [
        *ASK,
        wrong,
        {"role": "user", "content": "Look again."},
        {"role": "assistant", "content": "No."},
    ]
    record = {"messages": messages}
    row = build(tmp_path, [record], supervise="all").row(0)
    decode = _rust.Tokenizer.from_file(tmp_path).decode
    assert [decode(row["ids"][start:end].tolist()) for start, end in row["supervised"]] == ["No.<|im_end|>"]
    assert "weight: 0" in refusal(tmp_path, {"messages": ASK, "truth_message": wrong})


def test_nulls_of_a_table_export_go(tmp_path: Path) -> None:
    properties = {"city": {"type": "string", "enum": None, "default": None}, "days": None}
    tools = [
        {
            "type": "function",
            "strict": None,
            "function": TOOL | {"parameters": SCHEMA | {"properties": properties}},
        }
    ]
    read_back = read(tmp_path, {"messages": ASK, "tools": tools, "truth_message": ANSWER})["tools"][0]
    assert read_back["function"]["parameters"]["properties"] == {"city": {"type": "string", "default": None}}
    assert "strict" not in read_back
    null = {"role": "assistant", "tool_calls": [{"function": {"name": "rain", "arguments": {"city": None}}}]}
    with pytest.raises(DataError, match="breaks its tool's schema"):
        build(tmp_path, [{"messages": ASK, "tools": tools, "truth_message": null}])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            [{"type": "image_url", "image_url": {"url": "x"}}],
            'content[0]: a part of type "image_url" is no text',
        ),
        ([{"type": "text", "text": "a"}, {"type": "tool_use", "name": "f"}], "content[1]: Anthropic's way"),
        ([{"type": "text"}], "content[0]: a part without text"),
        ([7], "content[0]: expected a part"),
    ],
)
def test_parts_that_are_no_text(tmp_path: Path, content: list[Any], reason: str) -> None:
    record = {"messages": [{"role": "user", "content": content}], "truth_text": "t"}
    assert reason in refusal(tmp_path, record)


def test_content_without_a_part_is_no_answer(tmp_path: Path) -> None:
    for content in ([], [{"type": "text", "text": " "}]):
        answer = {"role": "assistant", "content": content}
        assert "says nothing" in refusal(tmp_path, {"messages": ASK, "truth_message": answer})


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"conversations": [{"from": "human", "value": "hi"}]}, "ShareGPT"),
        ({"instruction": "i", "output": "o"}, "Alpaca"),
        ({"messages": ASK, "tools": json.dumps([TOOL]), "truth_text": "t"}, "decode it (json.loads)"),
        (
            {"messages": ASK, "truth_message": {"role": "assistant", "tool_calls": {}}},
            "expected an array of calls",
        ),
    ],
)
def test_other_houses_are_named(tmp_path: Path, record: dict[str, Any], words: str) -> None:
    assert words in refusal(tmp_path, record)


ROLE_ANSWER = {"role": "assistant", "content": "Yes."}


def text_of(tmp_path: Path, messages: list[dict[str, Any]], source: str | None = None) -> str:
    """The text of the row, rendered by our own template or by another one."""
    template = _rust.ChatTemplate(source) if source is not None else None
    store = build(tmp_path, [{"messages": messages, "truth_message": ROLE_ANSWER}], template=template)
    return _rust.Tokenizer.from_file(tmp_path).decode(store.row(0)["ids"].tolist())


def test_other_names_of_roles_are_read_as_the_usual_ones(tmp_path: Path) -> None:
    usual = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": "Where?"},
        {"role": "user", "content": "Lisbon"},
    ]
    for names in (
        {"system": "developer"},
        {"user": "human", "assistant": "gpt"},
        {"assistant": "model"},
    ):
        other = [message | {"role": names.get(message["role"], message["role"])} for message in usual]
        assert text_of(tmp_path, other) == text_of(tmp_path, usual), names


DROPS = (
    "{% for m in messages %}{% if m.role in ['user', 'assistant', 'tool'] %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
KNOWS = DROPS.replace("'tool'", "'tool', 'developer'")


def test_a_template_with_a_role_for_developers_gets_it(tmp_path: Path) -> None:
    messages = [{"role": "developer", "content": "Be brief."}, *ASK]
    assert "<|im_start|>developer\nBe brief." in text_of(tmp_path, messages, KNOWS)


@pytest.mark.parametrize("role", ["system", "developer", "critic"])
@pytest.mark.parametrize("content", ["Be brief.", "Rain?", "Answer in one short sentence, please."])
def test_what_a_template_leaves_out_is_refused(tmp_path: Path, role: str, content: str) -> None:
    messages = [{"role": role, "content": content}, *ASK]
    said = "system" if role == "developer" else role
    with pytest.raises(
        DataError, match=rf"messages\[0\]: the chat template leaves out .* of role \"{said}\" says"
    ):
        text_of(tmp_path, messages, DROPS)


def test_an_unknown_role_is_refused_by_our_own_template(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown role critic"):
        text_of(tmp_path, [{"role": "critic", "content": "Hm."}, *ASK])
