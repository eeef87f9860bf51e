"""Writes the grammar of answers whose tool calls satisfy their schemas, in llguidance's Lark dialect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdfast.scoring import parameters_of


@dataclass(frozen=True)
class Frame:
    """What is around the calls of a format.

    Attributes:
        opening: the text before a call; it means a call and nothing else.
        closing: the text after it ("" = none).
        arguments: the key of a call's arguments.
        listed: whether calls stand in a JSON array.
    """

    opening: str
    closing: str = ""
    arguments: str = "arguments"
    listed: bool = False


FRAMES = {
    "hermes": Frame("<tool_call>", "</tool_call>"),
    "mistral": Frame("[TOOL_CALLS]", listed=True),
    "llama3": Frame("<|python_tag|>", arguments="parameters"),
    "granite": Frame("<tool_call>", "</tool_call>"),
}
"""The formats that a grammar can hold: those with an opening mark. Bare JSON cannot be told from prose in time."""

# The white space between two parts of a call: enough for every usual style. Without a limit a weak model could write
# white space for ever.
_SPACE = r"[ \n]{0,2}"
# "lenient": leave out the keywords that llguidance cannot turn into a grammar. The finished calls are still checked
# against the whole schema.
_JSON_OPTIONS: dict[str, Any] = {"whitespace_flexible": True, "whitespace_pattern": _SPACE, "lenient": True}
_COMPOSING = {"allOf", "anyOf", "oneOf", "if", "$ref", "$dynamicRef", "unevaluatedProperties"}


def answer_grammar(
    tools: Sequence[Mapping[str, Any]], *, special: bool = False, tool_call_format: str = "hermes"
) -> str:
    r"""The grammar of an answer: prose with any number of valid calls of these tools, maybe none.

    After the opening mark (`<tool_call>`) only a whole, valid call is possible: first its name, then its arguments in
    the order of the schema's properties, and only arguments that the tool defines.

    Args:
        tools: the tool definitions, plain or in OpenAI's form; at least one.
        special: whether the marks of the format are special tokens of the tokenizer; False = they are text.
        tool_call_format: how calls are written, a key of `FRAMES`.

    Returns:
        The grammar's text.

    Raises:
        ValueError: there are no tools.
        SchemaError: parameters are nested too deeply to be read.

    Example:
        >>> grammar = answer_grammar([{"name": "f"}, {"name": "g"}])
        >>> print("\n".join(grammar.splitlines()[1:4]))
        start: call* TEXT
        call: opening SPACE (tool_0 | tool_1) SPACE "</tool_call>"
        opening[lazy]: TEXT "<tool_call>"
    """
    if not tools:
        raise ValueError("tools must have at least one definition, got none")
    definitions = [tool.get("function", tool) for tool in tools]
    choices = " | ".join(f"tool_{number}" for number in range(len(definitions)))
    frame = FRAMES[tool_call_format]
    closing = frame.closing if special or not frame.closing else json.dumps(frame.closing)
    mark = f"opening: TEXT {frame.opening}" if special else f"opening[lazy]: TEXT {json.dumps(frame.opening)}"
    body = (
        f'"[" SPACE ({choices}) (SPACE "," SPACE ({choices}))* SPACE "]"' if frame.listed else f"({choices})"
    )
    rules = [f"call: opening SPACE {body} SPACE {closing}".removesuffix(" SPACE "), mark]
    for number, definition in enumerate(definitions):
        parts = ("{", '"name"', ":", _json(definition["name"]), ",", _json(frame.arguments), ":")
        before = " SPACE ".join(_json(part) for part in parts)
        rules.append(f'tool_{number}: {before} SPACE arguments_{number} SPACE "}}"')
        rules.append(f"arguments_{number}: %json {_json(_arguments(definition))}")
    return "\n".join(
        ("%llguidance {}", "start: call* TEXT", *rules, r"TEXT: /(.|\n)*/", f"SPACE: /{_SPACE}/", "")
    )


def _arguments(definition: Mapping[str, Any]) -> Any:
    """The schema of a tool's arguments: an object that allows only the properties that the schema names."""
    schema = parameters_of(definition)
    if schema is None:
        schema = {}
    if not isinstance(schema, Mapping):
        return schema  # `true` and `false` are valid schemas
    named = schema.get("properties", ())
    # Keywords such as `anyOf` may name more properties: then other properties stay allowed.
    plain = bool(named) and not _COMPOSING & set(schema)
    closed = (
        {"additionalProperties": False} if plain and set(schema.get("required", ())) <= set(named) else {}
    )
    return {"type": "object", **closed, **schema, "x-guidance": _JSON_OPTIONS}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
