"""Finds the chat template of a run, and the special tokens that the template may use."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from kdfast import _rust
from kdfast.errors import DataError

_QUESTION = json.dumps([{"role": "user", "content": "hello"}])
_TOOLS = json.dumps(
    [{"type": "function", "function": {"name": "kdfast_probe", "parameters": {"type": "object"}}}]
)


@dataclass(frozen=True)
class Template:
    """A chat template and its special tokens.

    Attributes:
        source: the Jinja text.
        bos_token: text of the token that begins a sequence ("" = none).
        eos_token: text of the token that ends one ("" = none).
    """

    source: str
    bos_token: str = ""
    eos_token: str = ""


def load_template(name: str, tokenizer: Path) -> Template:
    """Finds a chat template.

    Args:
        name: "hermes" (ships with kdfast), "tokenizer" (the tokenizer's own) or the path of a .jinja file.
        tokenizer: tokenizer.json, or the directory that holds it beside tokenizer_config.json.

    Raises:
        DataError: there is no such template, it does not compile, or the tokenizer's own ignores `tools`.

    Examples:
        >>> template = load_template("hermes", Path("."))
        >>> "<tool_call>" in template.source
        True
    """
    directory = tokenizer if tokenizer.is_dir() else tokenizer.parent
    settings = _settings(directory)
    bos, eos = (_token(settings.get(key)) for key in ("bos_token", "eos_token"))
    if name == "hermes":
        source = resources.files("kdfast").joinpath("templates/hermes.jinja").read_text(encoding="utf-8")
    elif name == "tokenizer":
        source = _own(directory, settings)
    else:
        source = Path(name).read_text(encoding="utf-8")
    compiled = _rust.ChatTemplate(source, bos_token=bos, eos_token=eos)
    if name == "tokenizer" and _ignores_tools(compiled):
        raise DataError(
            "the tokenizer's chat template ignores tools, so the model would never see them; set data.template to "
            "'hermes' or to a .jinja file",
            str(directory),
        )
    return Template(source, bos, eos)


def _settings(directory: Path) -> dict[str, Any]:
    file = directory / "tokenizer_config.json"
    if not file.is_file():
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"not JSON: {error}", str(file)) from error
    if not isinstance(settings, dict):
        raise DataError(f"must hold a JSON object, got {type(settings).__name__}", str(file))
    return settings


def _token(value: Any) -> str:
    """A special token's text: a string, or an object with `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _own(directory: Path, settings: dict[str, Any]) -> str:
    file = directory / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    source = settings.get("chat_template")
    if not isinstance(source, str):
        raise DataError(
            "the tokenizer has no chat template (neither chat_template.jinja nor chat_template in "
            "tokenizer_config.json); set data.template to 'hermes' or to a .jinja file",
            str(directory),
        )
    return source


def _ignores_tools(template: _rust.ChatTemplate) -> bool:
    with_tools = template.render(_QUESTION, _TOOLS, True)
    return with_tools == template.render(_QUESTION, None, True)
