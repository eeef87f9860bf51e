"""A first look at a file of tools."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdfast.errors import DataError, SchemaError
from kdfast.files import parse_json
from kdfast.recipes.first_look.files import check_named, file_problem

_FORM = 'a JSON list of tools, such as [{"name": "f", "parameters": {"type": "object"}}]'


def read_tools(file: Path, *, name: str = "--tools") -> list[dict[str, Any]]:
    """Reads a file of tools: OpenAI's form, bare functions, or MCP's; a list, or an object with the list in `tools`.

    Args:
        file: JSON.
        name: how messages call the file.

    Raises:
        ConfigError: there is no such file.
        DataError: it is no JSON, holds no list of tools, or a tool's parameters are no valid JSON Schema; a tool's name
            is empty, or another tool's.
        OSError: it cannot be read.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "tools.json"
        >>> _ = file.write_text('[{"name": "f", "parameters": {"type": "object"}}]')
        >>> [tool["name"] for tool in read_tools(file)]
        ['f']
    """
    from kdfast._rust import ToolSchema

    check_named([(name, file_problem(file))])
    try:
        document = parse_json(file.read_bytes().removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        raise DataError(f"{name}: not JSON ({error}); give {_FORM}", str(file)) from None
    tools = document.get("tools") if isinstance(document, dict) else document
    if not isinstance(tools, list):
        raise DataError(f"{name}: must be {_FORM}, got {document!r:.80}", str(file))
    if not tools:
        raise DataError(f"{name}: there is no tool in it; leave {name} out to do without", str(file))
    try:
        ToolSchema(tools)
    except SchemaError as error:
        raise DataError(f"{name}: {error}; give {_FORM}", str(file)) from None
    _check_names([ToolSchema([tool]).names[0] for tool in tools], file, name)
    return tools


def _check_names(names: Sequence[str], file: Path, option: str) -> None:
    """Refuses what the core accepts in a record: a tool that is there twice, word for word, or has an empty name."""
    place: dict[str, int] = {}
    for at, name in enumerate(names):
        if not name.strip():
            raise DataError(
                f"{option}: tools[{at}]: the name is empty; give the tool one: {name!r}", str(file)
            )
        first = place.setdefault(name, at)
        if first != at:
            raise DataError(f"{option}: tools[{at}] repeats tools[{first}]; remove one: {name!r}", str(file))
