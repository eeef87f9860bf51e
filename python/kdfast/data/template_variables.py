"""Variables for a chat template (`data.template_kwargs`), written into the template itself as its defaults."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from kdfast.errors import ConfigError

_TAKEN = (
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "loop",
    "true",
    "false",
    "none",
    "True",
    "False",
    "None",
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def with_variables(source: str, variables: Mapping[str, Any]) -> str:
    r"""A chat template with defaults for variables that it reads.

    So whatever renders the template later (transformers, llama.cpp, a server) sees what training saw, and may still
    hand over another value.

    Args:
        source: Jinja.
        variables: name -> JSON value.

    Returns:
        the template with one more line at its beginning, which writes nothing; `source` itself without variables.

    Example:
        >>> with_variables("{{ enable_thinking }}", {"enable_thinking": False})
        '{% if enable_thinking is not defined %}{% set enable_thinking = false %}{% endif %}\n{{ enable_thinking }}'
    """
    if not variables:
        return source
    lines = [
        f"{{% if {name} is not defined %}}{{% set {name} = {_literal(value)} %}}{{% endif %}}"
        for name, value in sorted(variables.items())
    ]
    # The engines drop the first line break after a block: the source begins a line, as before.
    return "".join(lines) + "\n" + source


def check_variables(
    variables: Mapping[str, Any],
    sources: Mapping[str, str],
    tokens: Mapping[str, str],
    key: str = "data.template_kwargs",
) -> None:
    """Refuses variables that would do nothing, or something else.

    Args:
        variables: name -> JSON value.
        sources: what each Jinja text is called -> the text.
        tokens: the tokenizer's named tokens, which a template sees under their names.
        key: the config key or option that gave the variables, for messages.

    Raises:
        ConfigError: no name of a variable, a name that is taken, or one that no text mentions.
    """
    for name in variables:
        if not _NAME.fullmatch(name):
            raise _wrong(key, "names must be letters, digits and underscores", name)
        if name in _TAKEN or name in tokens:
            raise _wrong(key, "this name is taken: the template gets its value from elsewhere", name)
        if not any(re.search(rf"\b{name}\b", source) for source in sources.values()):
            what = f"the chat template ({', '.join(sources)}) reads no such variable"
            raise _wrong(key, what + _remedy(name, sources.values()), name)


def _remedy(name: str, sources: Iterable[str]) -> str:
    words = {word for source in sources for word in _NAME.findall(source)}.difference(_TAKEN)
    close = difflib.get_close_matches(name, sorted(words), n=1, cutoff=0.75)
    return f", did you mean '{close[0]}'? Rename or remove it" if close else "; remove it"


def _wrong(key: str, what: str, name: str) -> ConfigError:
    return ConfigError(f"{key}: {what}, got {name!r}")


def _literal(value: Any) -> str:
    """A JSON value as Jinja writes it."""
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
