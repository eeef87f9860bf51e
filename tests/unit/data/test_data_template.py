"""Which chat template a run uses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import write_tokenizer
from transformers import AutoTokenizer

from kdfast.data import load_template
from kdfast.errors import DataError

KNOWS_TOOLS = "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}{{ messages[0].content }}"
IGNORES_TOOLS = "{% for message in messages %}{{ message.content }}{% endfor %}"


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path / "tokenizer")


def set_template(tokenizer: Path, source: str | None) -> None:
    path = tokenizer / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings.pop("chat_template")
    path.write_text(json.dumps(settings | ({"chat_template": source} if source is not None else {})))


def test_hermes_with_the_tokenizers_special_tokens(tokenizer: Path) -> None:
    template = load_template("hermes", tokenizer)
    assert "<tool_call>" in template.source
    assert (template.bos_token, template.eos_token) == ("<|endoftext|>", "<|im_end|>")


def write_settings(tokenizer: Path, **settings: object) -> None:
    path = tokenizer / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_named_tokens_are_those_of_transformers(tokenizer: Path) -> None:
    unknown = {"__type": "AddedToken", "content": "<|endoftext|>", "lstrip": False}
    more = {"image_token": "<image>", "extra_special_tokens": {"call_token": "<|im_start|>"}}
    write_settings(tokenizer, unk_token=unknown, pad_token=None, **more)
    names = ["bos_token", "eos_token", "unk_token", "pad_token", "image_token", "call_token"]
    source = "".join(f"[{{{{ {name} }}}}]" for name in names)
    for added in (False, True):
        if added:
            (tokenizer / "special_tokens_map.json").write_text(
                json.dumps({"eos_token": {"content": "<|im_start|>"}, "pad_token": "<|endoftext|>"})
            )
        expected = AutoTokenizer.from_pretrained(tokenizer).apply_chat_template(
            [{"role": "user", "content": "x"}], chat_template=source, tokenize=False
        )
        mine = replace(load_template("hermes", tokenizer), source=source)
        assert mine.compile().render("[{}]") == expected


def test_named_templates_with_one_for_tools(tokenizer: Path) -> None:
    plain = "plain {{ messages[0].content }}"
    named = [{"name": "default", "template": plain}, {"name": "tool_use", "template": KNOWS_TOOLS}]
    write_settings(tokenizer, chat_template=named)
    from_settings = load_template("tokenizer", tokenizer)
    (tokenizer / "chat_template.jinja").write_text(plain)
    (tokenizer / "additional_chat_templates").mkdir()
    (tokenizer / "additional_chat_templates/tool_use.jinja").write_text(KNOWS_TOOLS)
    assert load_template("tokenizer", tokenizer) == from_settings
    messages = [{"role": "user", "content": "hi"}]
    tools = [{"name": "f", "parameters": {"type": "object"}}]
    hf = AutoTokenizer.from_pretrained(tokenizer)
    compiled = from_settings.compile()
    assert compiled.render(json.dumps(messages)) == hf.apply_chat_template(messages, tokenize=False)
    expected = hf.apply_chat_template(messages, tools=tools, tokenize=False)
    assert compiled.render(json.dumps(messages), json.dumps(tools)) == expected


def test_templates_that_have_other_names_only(tokenizer: Path) -> None:
    write_settings(tokenizer, chat_template=[{"name": "rag", "template": KNOWS_TOOLS}])
    with pytest.raises(DataError, match=r"it has rag, and none named default.*hermes"):
        load_template("tokenizer", tokenizer)


def test_a_file_that_is_not_utf8(tokenizer: Path, tmp_path: Path) -> None:
    path = tmp_path / "latin.jinja"
    path.write_bytes("{{ messages }}é".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.jinja: not UTF-8 \(byte 14 is 0xe9\); save"):
        load_template(str(path), tokenizer)


def test_windows_line_ends(tokenizer: Path) -> None:
    source = "{% if tools %}\r\n{{ tools | tojson }}\r\n{% endif %}\r\n{{ messages[0].content }}\r\n"
    set_template(tokenizer, source)
    messages = [{"role": "user", "content": "a\r\nb"}]
    expected = AutoTokenizer.from_pretrained(tokenizer).apply_chat_template(messages, tokenize=False)
    assert load_template("tokenizer", tokenizer).compile().render(json.dumps(messages)) == expected


def test_the_tokenizers_own(tokenizer: Path) -> None:
    set_template(tokenizer, KNOWS_TOOLS)
    assert load_template("tokenizer", tokenizer).source == KNOWS_TOOLS
    assert load_template("tokenizer", tokenizer / "tokenizer.json").source == KNOWS_TOOLS
    (tokenizer / "chat_template.jinja").write_text(KNOWS_TOOLS + "!")
    assert load_template("tokenizer", tokenizer).source == KNOWS_TOOLS + "!"


def test_one_that_ignores_tools_is_refused(tokenizer: Path) -> None:
    set_template(tokenizer, IGNORES_TOOLS)
    with pytest.raises(DataError, match=r"ignores tools.*hermes"):
        load_template("tokenizer", tokenizer)


def test_none_at_all(tokenizer: Path) -> None:
    set_template(tokenizer, None)
    with pytest.raises(DataError, match=r"no chat template.*hermes"):
        load_template("tokenizer", tokenizer)


def test_a_file(tokenizer: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(IGNORES_TOOLS)  # the user's own choice is not second-guessed
    assert load_template(str(path), tokenizer).source == IGNORES_TOOLS
    with pytest.raises(FileNotFoundError):
        load_template(str(tmp_path / "none.jinja"), tokenizer)
    path.write_text("{% for %}")
    with pytest.raises(DataError):
        load_template(str(path), tokenizer)


def test_broken_tokenizer_settings(tokenizer: Path) -> None:
    (tokenizer / "tokenizer_config.json").write_text("{")
    with pytest.raises(DataError, match=r"tokenizer_config\.json"):
        load_template("hermes", tokenizer)
