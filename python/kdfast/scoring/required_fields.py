"""Checks whether an answer has every argument that its tools require."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kdfast.config.choices import Thinking
from kdfast.scoring.score import FORMATS

if TYPE_CHECKING:
    from kdfast._rust import ToolCall, ToolSchema

    Tools = Sequence[Mapping[str, Any]] | ToolSchema | str


def compute_required_fields_present(
    texts: Sequence[str | ToolCall | Mapping[str, Any]],
    tools: Tools | Sequence[Tools | None] | None,
    formats: Sequence[str] = FORMATS,
    *,
    thinking: Thinking = "closed",
) -> list[bool]:
    """For each answer, whether all its calls are whole and have every required argument.

    Meant for what a student wrote, for example to exempt complete answers in `length_excess`. Only the names at the
    top level of the arguments count, not the values; for these use `is_valid_tool_json`.

    Args:
        texts: the answers; each a text, or one parsed call: a `ToolCall`, or an object with `name` and `arguments`.
        tools: the tool definitions for all texts (a list, its JSON text or a `ToolSchema`); or a list with one entry
            per text. None, as a whole or as an entry, = no definitions: then any well-formed call is complete.
        formats: the formats of calls that count, see `kdfast.find_tool_calls`; a dataset's are `KDDataset.formats`.
        thinking: "open" if the texts begin inside a thinking block, which their prompts open.

    Returns:
        One bool per text. False if the text has no call, or a call that is cut off, malformed or of an unknown tool.

    Raises:
        SchemaError: a tool's parameters are not a valid JSON Schema.
        TypeError: a text or an entry of `tools` is of another type.
        ValueError: `tools` has neither definitions nor one entry for each text.

    Examples:
        >>> tool = {"name": "weather", "parameters": {"type": "object", "required": ["city"]}}
        >>> whole = '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'
        >>> compute_required_fields_present([whole, whole[:-20], whole.replace("city", "town")], [tool])
        [True, False, False]
        >>> compute_required_fields_present([{"name": "weather", "arguments": {}}] * 2, [[tool], None])
        [False, True]
    """
    from kdfast._rust import required_fields_present_each

    if isinstance(texts, (str, Mapping)):
        raise TypeError(
            f"texts must be a sequence with one entry for each answer, got one {type(texts).__name__}"
        )
    each = _tools_of_each(tools, len(texts))
    return required_fields_present_each(list(texts), each, formats, thinking=thinking)


def _tools_of_each(
    tools: Tools | Sequence[Tools | None] | None, count: int
) -> list[ToolSchema | list[dict[str, Any]] | str | None]:
    """One entry per text; definitions that all texts share are compiled once."""
    from kdfast._rust import ToolSchema

    if tools is None:
        return [None] * count
    if isinstance(tools, (str, ToolSchema)):
        return [ToolSchema(tools)] * count
    shared = [dict(entry) for entry in tools if isinstance(entry, Mapping)]
    if len(shared) == len(tools):
        return [ToolSchema(shared)] * count
    if len(tools) != count:
        raise ValueError(
            f"tools must be tool definitions, or have one entry for each of the {count} texts, got {len(tools)}"
        )
    return [_definitions(entry) for entry in tools]


def _definitions(entry: Any) -> ToolSchema | list[dict[str, Any]] | str | None:
    from kdfast._rust import ToolSchema

    if entry is None or isinstance(entry, (str, ToolSchema)):
        return entry
    if isinstance(entry, Sequence) and all(isinstance(tool, Mapping) for tool in entry):
        return [dict(tool) for tool in entry]
    raise TypeError(f"tools must hold tool definitions or None for each text, got {type(entry).__name__}")
