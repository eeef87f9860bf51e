"""Chat templates: the same as in training, wherever the directory keeps them."""

import json

import pytest

from kdfast.errors import ConfigError, DataError
from kdfast.export.gguf.chat_templates import read_templates


def settings(directory, template):
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))


def named(directory, name, text):
    (directory / "additional_chat_templates").mkdir(exist_ok=True)
    (directory / "additional_chat_templates" / f"{name}.jinja").write_bytes(text.encode())


def test_a_file_comes_before_the_settings(tmp_path):
    settings(tmp_path, "old")
    assert read_templates(tmp_path) == {"default": "old"}
    (tmp_path / "chat_template.jinja").write_bytes("né \r\n".encode())
    assert read_templates(tmp_path) == {"default": "né \n"}  # as training read it


def test_the_template_for_tools(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("plain")
    named(tmp_path, "tool_use", "tools")
    named(tmp_path, "rag", "documents")
    assert read_templates(tmp_path) == {"default": "plain", "tool_use": "tools"}


def test_the_same_template_twice_is_one(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("plain")
    named(tmp_path, "tool_use", "plain")
    assert read_templates(tmp_path) == {"default": "plain"}


def test_only_one_for_tools_is_for_all(tmp_path):
    named(tmp_path, "tool_use", "tools")
    assert read_templates(tmp_path) == {"default": "tools"}


def test_a_list_in_the_settings(tmp_path):
    settings(
        tmp_path,
        [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}, {"name": "c"}, 3],
    )
    assert read_templates(tmp_path) == {"default": "a", "tool_use": "b"}


@pytest.mark.parametrize("template", [None, "", [], [{"name": "rag", "template": "a"}]])
def test_none_is_refused(tmp_path, template):
    settings(tmp_path, template)
    with pytest.raises(ConfigError, match="no chat template"):
        read_templates(tmp_path)


def test_a_template_of_another_encoding_is_named(tmp_path):
    (tmp_path / "chat_template.jinja").write_bytes("é".encode("latin-1"))
    with pytest.raises(DataError, match="no UTF-8") as caught:
        read_templates(tmp_path)
    assert caught.value.source == str(tmp_path / "chat_template.jinja")
