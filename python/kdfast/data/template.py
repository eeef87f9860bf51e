"""Finds the chat template of a run, and the special tokens that the template may use."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from kdfast import _rust
from kdfast.data.call_format import call_format
from kdfast.data.template_variables import check_variables, with_variables
from kdfast.errors import DataError

_QUESTION = json.dumps([{"role": "user", "content": "hello"}])
_TOOLS = json.dumps(
    [{"type": "function", "function": {"name": "kdfast_probe", "parameters": {"type": "object"}}}]
)
_REMEDY = "set {key} to 'hermes' or to a .jinja file"
_HIDE_TOOLS = "{% set tools = none %}"
"""Written before a template that is to show no tools: whatever renders it later, a server too, hides them."""
# Only variables may stand before it (see `with_variables`). Templates of others have the same text inside a condition.
_HIDDEN = re.compile(r"(?:\{% if \w+ is not defined %\}\{% set .*\{% endif %\}\n)*" + re.escape(_HIDE_TOOLS))
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class Template:
    """A chat template and its special tokens.

    Attributes:
        source: the Jinja text.
        bos_token: text of the token that begins a sequence ("" = none).
        eos_token: text of the token that ends one ("" = none).
        other_tokens: the tokenizer's other named tokens, each under the name that a template gives it (`pad_token`).
        tool_use: the Jinja text for conversations with tools, where the tokenizer has one of its own for these.
        note: why "auto" did not take the tokenizer's own template; "" = it did, or the user chose.
    """

    source: str
    bos_token: str = ""
    eos_token: str = ""
    other_tokens: Mapping[str, str] = field(default_factory=dict)
    tool_use: str | None = None
    note: str = ""

    @property
    def hides_tools(self) -> bool:
        """Whether it was made to show no tools (`data.show_tools: false`): they are baked into the model."""
        return _HIDDEN.match(self.source) is not None

    @property
    def tokens(self) -> dict[str, str]:
        """All named tokens, as the template sees them."""
        return {**self.other_tokens, "bos_token": self.bos_token, "eos_token": self.eos_token}

    def compile(self) -> _rust.ChatTemplate:
        """The template, ready to render.

        Raises:
            DataError: it is not Jinja.
        """
        return _rust.ChatTemplate(self.source, tool_use=self.tool_use, tokens=self.tokens)


def load_template(
    name: str,
    tokenizer: Path,
    variables: Mapping[str, Any] | None = None,
    *,
    show_tools: bool = True,
    key: str = "data.template",
) -> Template:
    """Finds a chat template. What a tokenizer's directory holds is read as transformers reads it.

    Args:
        name: "auto" (the tokenizer's own where it shows tools and its calls are found again, else "hermes"), "hermes"
            (ships with kdfast), "tokenizer" (the tokenizer's own) or the path of a .jinja file.
        tokenizer: tokenizer.json, or the directory that holds it beside tokenizer_config.json.
        variables: values of variables that the template reads (`data.template_kwargs`), by name; they become defaults
            in its source.
        show_tools: False = the template renders no tools, wherever it is rendered (`data.show_tools`). A template that
            was made so, such as that of a student with baked-in tools, stays so.
        key: the config key or option that named the template, for messages.

    Raises:
        ConfigError: the template reads no such variable.
        DataError: there is no such template, it does not compile, it is not UTF-8, or the tokenizer's own ignores
            `tools` that it should show.
        OSError: a file cannot be read.

    Examples:
        >>> template = load_template("hermes", Path("."))
        >>> "<tool_call>" in template.source
        True
        >>> load_template("hermes", Path("."), show_tools=False).hides_tools
        True
    """
    directory = tokenizer if tokenizer.is_dir() else tokenizer.parent
    settings = _json_object(directory / "tokenizer_config.json")
    tokens = _tokens(directory, settings)
    variables = variables or {}
    if name in ("auto", "tokenizer"):
        try:
            own = _own(directory, settings, tokens, key)
            own = _given(own if show_tools else _hidden(own), variables, "the tokenizer's own", key)
            _check_own(own, directory, key, with_calls=name == "auto")
            return own
        except DataError as error:
            if name == "tokenizer":
                raise
            note = f"kdfast's own chat template (hermes) is used: {error.message}"
            template = _hermes(tokens) if show_tools else _hidden(_hermes(tokens))
            return replace(_given(template, variables, "hermes", key), note=note)
    template = _hermes(tokens) if name == "hermes" else _template(_read(Path(name)), tokens)
    template = _given(template if show_tools else _hidden(template), variables, name, key)
    template.compile()
    return template


def _hidden(template: Template) -> Template:
    """The template with tools that it does not show; one of its own for conversations with tools is of no use then."""
    if template.hides_tools:
        return template
    # The engines drop the first line break after a block: the source begins a line, as before.
    return replace(template, source=f"{_HIDE_TOOLS}\n{template.source}", tool_use=None)


def _given(template: Template, variables: Mapping[str, Any], name: str, key: str) -> Template:
    """The template with these variables; `name` is what messages call it, `key` is what named it."""
    sources = {name: template.source} | ({"its tool_use": template.tool_use} if template.tool_use else {})
    kwargs = "--template-kwargs" if key.startswith("--") else "data.template_kwargs"
    check_variables(variables, sources, template.tokens, kwargs)
    tool_use = with_variables(template.tool_use, variables) if template.tool_use is not None else None
    return replace(template, source=with_variables(template.source, variables), tool_use=tool_use)


def _hermes(tokens: Mapping[str, str]) -> Template:
    source = resources.files("kdfast").joinpath("templates/hermes.jinja").read_text(encoding="utf-8")
    return _template(source, tokens)


def _template(source: str, tokens: Mapping[str, str], tool_use: str | None = None) -> Template:
    others = {name: token for name, token in tokens.items() if name not in ("bos_token", "eos_token")}
    return Template(source, tokens.get("bos_token", ""), tokens.get("eos_token", ""), others, tool_use)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 (byte {error.start} is 0x{error.object[error.start]:02x}); save the template as UTF-8",
            str(file),
        ) from error


def _json_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no such file."""
    if not file.is_file():
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"not JSON: {error}", str(file)) from error
    if not isinstance(settings, dict):
        raise DataError(f"must hold a JSON object, got {type(settings).__name__}", str(file))
    return settings


def _tokens(directory: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """The named tokens as transformers hands them to a template.

    These are the seven standard ones, every other key of the settings that ends in `_token`, and the names in
    `extra_special_tokens`. The entries of special_tokens_map.json win where the settings hold no
    `added_tokens_decoder`.
    """
    read = dict(settings)
    if "added_tokens_decoder" not in settings:
        read |= _json_object(directory / "special_tokens_map.json")
    extra = read.get("extra_special_tokens")
    own = {key: value for key, value in read.items() if key in _NAMED or key.endswith("_token")}
    found = own | (extra if isinstance(extra, dict) else {})
    return {key: _token(value) for key, value in found.items() if _token(value)}


def _token(value: Any) -> str:
    """A special token's text: a string, or an object with `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _own(directory: Path, settings: Mapping[str, Any], tokens: Mapping[str, str], key: str) -> Template:
    """The tokenizer's template."""
    named = _named_templates(directory, settings)
    tool_use = named.get("tool_use")
    default = named.get("default", tool_use)
    if default is None:
        has = (
            f"it has {', '.join(sorted(named))}, and none named default or tool_use"
            if named
            else "none at all"
        )
        raise DataError(
            f"the tokenizer has no chat template that fits ({has}: neither in chat_template.jinja, nor in "
            f"additional_chat_templates, nor as chat_template in tokenizer_config.json); {_REMEDY.format(key=key)}",
            str(directory),
        )
    return _template(default, tokens, None if tool_use == default else tool_use)


def _check_own(template: Template, directory: Path, key: str, *, with_calls: bool) -> None:
    """Checks that the tokenizer's template shows tools and, with `with_calls`, that its calls are found again."""
    compiled = template.compile()
    if not template.hides_tools and _ignores_tools(compiled):
        baked = (
            ""
            if key.startswith("--")
            else "; if the tools are baked into the model, set data.show_tools: false"
        )
        raise DataError(
            f"the tokenizer's chat template ignores tools, so the model would never see them; "
            f"{_REMEDY.format(key=key)}{baked}",
            str(directory),
        )
    if with_calls and call_format(compiled) is None:
        raise DataError(
            f"the tokenizer's chat template writes calls in no format that kdfast reads; {_REMEDY.format(key=key)}",
            str(directory),
        )


def _named_templates(directory: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """The tokenizer's templates under their names; a single one is `default`. Files go before the settings."""
    files = {"default": directory / "chat_template.jinja"}
    files |= {file.stem: file for file in sorted((directory / "additional_chat_templates").glob("*.jinja"))}
    found = {name: _read(file) for name, file in files.items() if file.is_file()}
    if found:
        return found
    given = settings.get("chat_template")
    if isinstance(given, str):
        return {"default": given}
    named = given if isinstance(given, list) else []
    return {
        str(entry["name"]): entry["template"]
        for entry in named
        if isinstance(entry, dict) and isinstance(entry.get("template"), str) and "name" in entry
    }


def _ignores_tools(template: _rust.ChatTemplate) -> bool:
    with_tools = template.render(_QUESTION, _TOOLS, True)
    return "kdfast_probe" not in with_tools
