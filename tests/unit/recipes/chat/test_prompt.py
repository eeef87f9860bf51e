"""A chat's prompt is the one that training and evaluation make of the same conversation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from tiny_run import TOOL

from kdfast.data import KDDataset
from kdfast.errors import DataError
from kdfast.recipes.chat.prompt import PromptMaker, TooLongError, shown_arguments
from kdfast.recipes.requests import ModelSettings

MCP = {"name": "get_weather", "inputSchema": TOOL["function"]["parameters"]}
CALL = {
    "id": "call00001",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"city": "Rome"}},
}
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Wie ist es in 東京? <|im_end|>"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call00001", "name": "get_weather", "content": "21 degrees"},
    {"role": "user", "content": "And Rome?"},
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_tokenizer(tmp_path_factory.mktemp("prompt"))


@pytest.mark.parametrize("tools", [(), (TOOL,), (MCP,)], ids=["none", "OpenAI", "MCP"])
@pytest.mark.parametrize("length", [2, 4, 5])
def test_as_in_training(directory: Path, tmp_path: Path, tools: Any, length: int) -> None:
    messages = CONVERSATION[:length]
    made = PromptMaker.of(directory, ModelSettings(template="hermes"), tools).make(messages)
    record = {"messages": messages, "tools": list(tools), "truth_text": "ok"}
    (tmp_path / "train.jsonl").write_text(json.dumps(record if tools else record | {"tools": None}))
    dataset = KDDataset(tmp_path / "train.jsonl", tokenizer_path=directory, shapes=(1024,), template="hermes")
    assert made.ids == dataset.store.prompt_ids(0).tolist()
    assert made.turn_end_ids == dataset.turn_end_ids
    assert made.thinking == "closed"
    # the user's own text of a special token is no special token
    assert made.ids.count(2) == sum(
        message["role"] in ("system", "user", "assistant", "tool") for message in messages
    )


def test_a_prompt_that_opens_a_thinking_block(directory: Path, tmp_path: Path) -> None:
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{{ tools or '' }}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    (tmp_path / "thinks.jinja").write_text(source)
    maker = PromptMaker.of(directory, ModelSettings(template=str(tmp_path / "thinks.jinja")), ())
    assert maker.make(CONVERSATION[:2]).thinking == "open"


def test_formats_and_schema(directory: Path) -> None:
    maker = PromptMaker.of(directory, ModelSettings(template="hermes"), (TOOL,))
    assert (maker.formats, maker.schema.names if maker.schema else None) == (("hermes",), ["get_weather"])
    named = PromptMaker.of(directory, ModelSettings(template="hermes", formats=("mistral",)), ())
    assert (named.formats, named.schema) == (("mistral",), None)
    assert shown_arguments({"a": [1.0, None, "é"]}) == '{"a": [1.0, null, "é"]}'


def test_a_conversation_that_the_template_refuses(directory: Path, tmp_path: Path) -> None:
    source = "{{ tools }}{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tool') }}{% endif %}"
    (tmp_path / "strict.jinja").write_text(source + "<|im_start|>{{ m.content }}<|im_end|>{% endfor %}")
    maker = PromptMaker.of(directory, ModelSettings(template=str(tmp_path / "strict.jinja")), ())
    with pytest.raises(DataError, match=r"the chat template cannot take this conversation: .*no tool"):
        maker.make(CONVERSATION[:4])


def test_a_conversation_too_long_for_any_context_says_new(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = "^the conversation is too long for the context; shorten it, or start again with /new: more than "
    maker = PromptMaker.of(directory, ModelSettings(template="hermes"), (TOOL,))
    short = replace(maker.reader, data=replace(maker.reader.data, max_line_bytes=100))
    with pytest.raises(TooLongError, match=rf"{says}100 bytes$"):
        replace(maker, reader=short).make(CONVERSATION[:2])
    monkeypatch.setattr("kdfast.recipes.chat.prompt._LONGEST", 64)
    maker = PromptMaker.of(directory, ModelSettings(template="hermes"), (TOOL,))
    with pytest.raises(TooLongError, match=rf"{says}64 tokens$"):
        maker.make(CONVERSATION[:2])
