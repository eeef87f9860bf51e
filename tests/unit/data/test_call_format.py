"""In which format a template writes calls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import write_tokenizer

from kdfast import _rust, find_tool_calls
from kdfast._rust import tool_call_formats
from kdfast.config.choices import CALL_FORMATS
from kdfast.data import KDDataset, load_template
from kdfast.data.call_format import OPENINGS, call_format, template_thinking
from kdfast.evaluate import eval_prompts
from kdfast.speed import speed_prompts

FRAME = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content or '' }}{% for c in m.tool_calls or [] %}CALL{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALLS = {
    "hermes": '<tool_call>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments }}}</tool_call>',
    "granite": (
        '<tool_call>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson | tojson }}}'
        "</tool_call>"
    ),
    "mistral": "[TOOL_CALLS]{{ [c.function] | tojson }}",
    "llama3": '<|python_tag|>{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}',
    "fenced": "```json\n{{ c.function | tojson }}\n```",
    "array": "{{ [c.function] | tojson }}",
    "object": "{{ c.function | tojson }}",
    "openai": "{{ c | tojson }}",
}


def test_every_format_has_its_name_everywhere() -> None:
    assert ("auto", *tool_call_formats()) == CALL_FORMATS
    assert list(OPENINGS) == tool_call_formats()


@pytest.mark.parametrize("name", CALLS)
def test_the_format_is_told_from_the_template(tmp_path: Path, name: str) -> None:
    source = FRAME.replace("CALL", CALLS[name])
    assert call_format(_rust.ChatTemplate(source)) == name
    (tmp_path / "t.jinja").write_text(source)
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    record = {
        "messages": [{"role": "user", "content": "q"}],
        "tools": [{"name": "f"}],
        "truth_message": answer,
    }
    (tmp_path / "r.jsonl").write_text(json.dumps(record))
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    data = KDDataset(tmp_path / "r.jsonl", tokenizer, template=str(tmp_path / "t.jinja"))
    assert (data.tool_call_format, data.formats) == (name, (name,))
    row = data.store.row(0)
    assert row["tool_should_be_used"]
    assert len(row["spans"]["tool_args"]) == 1
    text = data.tokenizer.decode(row["ids"][row["response_start"] :].tolist())
    assert find_tool_calls(text, [name])[0].arguments == {"a": 1}
    assert any(text.startswith(opening) for opening in data.call_openings)


def test_thinking_is_told_from_the_template(tmp_path: Path) -> None:
    source = FRAME.replace("CALL", CALLS["hermes"]).replace("assistant\n{%", "assistant\n<think>\n{%")
    template = _rust.ChatTemplate(source)
    assert (template_thinking(template), call_format(template)) == ("open", "hermes")
    assert template_thinking(_rust.ChatTemplate(FRAME)) == "closed"
    (tmp_path / "t.jinja").write_text(source)
    draft, final = (f'<tool_call>{{"name": "f", "arguments": {{"a": {n}}}}}</tool_call>' for n in (1, 2))
    records = [
        {"messages": [{"role": "user", "content": "q"}], "tools": [{"name": "f"}], "truth_text": text}
        for text in (f"Maybe {draft}\n</think>\n{final}", f"Maybe {draft}")
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, records)))
    data = KDDataset(
        tmp_path / "r.jsonl", write_tokenizer(tmp_path / "tokenizer"), template=str(tmp_path / "t.jinja")
    )
    assert data.thinking == "open"
    first, second = data.store.row(0), data.store.row(1)
    assert (first["tool_should_be_used"], second["tool_should_be_used"]) == (True, False)
    assert first["validated_arguments"] == '{"a": 2}'
    (start, end), *others = first["spans"]["tool_call"].tolist()
    assert data.tokenizer.decode(first["ids"][start:end].tolist()) == final
    assert others == []
    prompts = eval_prompts(data)
    assert [prompt.thinking for prompt in prompts] == ["open", "open"]
    speed = speed_prompts(data)
    assert [prompt.thinking for prompt in speed] == ["open", "open"]
    tokens = len(data.tokenizer.encode("</think>" + final.removesuffix("</tool_call>")))
    assert (speed[0].shortest_call_tokens or 0) <= tokens
    assert speed[1].shortest_call_tokens is None


@pytest.mark.parametrize("call", ["", "{{ c.function.name }}()", "{{ raise_exception('no calls') }}"])
def test_a_template_that_writes_no_call(call: str) -> None:
    assert call_format(_rust.ChatTemplate(FRAME.replace("CALL", call))) is None


def test_auto_takes_the_tokenizers_own_where_it_can(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path)
    for call, own in [(CALLS["mistral"], True), ("", False)]:
        (tokenizer / "chat_template.jinja").write_text(FRAME.replace("CALL", call))
        template = load_template("auto", tokenizer)
        assert (template.note == "") is own
        assert (template.source == FRAME.replace("CALL", call)) is own
    assert "hermes) is used: the tokenizer's chat template writes calls in no format" in template.note
    (tokenizer / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert "ignores tools" in load_template("auto", tokenizer).note
