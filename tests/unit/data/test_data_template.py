"""Which chat template a run uses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import write_tokenizer

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
