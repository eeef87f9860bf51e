"""The chat templates of a student's directory, by the same rule as training reads them."""

from __future__ import annotations

from pathlib import Path

from kdfast.errors import ConfigError, DataError
from kdfast.export.gguf.vocabulary import read_settings

TOOL_USE = "tool_use"
"""The template for conversations with tools, where that is another one; llama-server takes it by this name."""


def read_templates(directory: Path) -> dict[str, str]:
    """`default`, and `tool_use` where it is another one. Files come before tokenizer_config.json.

    Raises:
        ConfigError: there is none, so that a runtime would take one of its own.
        DataError: a template is no UTF-8.
        OSError: a file cannot be read.
    """
    files = {"default": directory / "chat_template.jinja"}
    files |= {file.stem: file for file in sorted((directory / "additional_chat_templates").glob("*.jinja"))}
    found = {name: _text(file) for name, file in files.items() if file.is_file()}
    if not found:
        found = _in_settings(directory)
    tool_use = found.get(TOOL_USE)
    default = found.get("default", tool_use)
    if not default:
        raise ConfigError(
            f"gguf: the student has no chat template, so a runtime would take another one; save one as "
            f"chat_template.jinja: {directory}"
        )
    return {"default": default} | ({TOOL_USE: tool_use} if tool_use and tool_use != default else {})


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")  # with line ends as training saw them
    except UnicodeDecodeError as cause:
        raise DataError("the chat template is no UTF-8; save it again", str(file)) from cause


def _in_settings(directory: Path) -> dict[str, str]:
    given = read_settings(directory).get("chat_template")
    if isinstance(given, str):
        return {"default": given}
    return {
        str(one["name"]): one["template"]
        for one in (given if isinstance(given, list) else [])
        if isinstance(one, dict) and isinstance(one.get("template"), str) and "name" in one
    }
