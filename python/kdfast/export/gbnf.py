"""A GBNF grammar of a tool set, for runtimes on llama.cpp: an answer is prose and valid calls of these tools.

llama.cpp's converter of JSON Schema is no help here: in the wheel that kdfast uses it writes another notation, which a
plain llama-server does not read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdfast.errors import ConfigError
from kdfast.export.gbnf_schema import BASE_RULES, SchemaRules, json_literal, literal
from kdfast.scoring import parameters_of


@dataclass(frozen=True)
class Frame:
    """What is around the calls of a format, as in constrained decoding.

    Attributes:
        opening: the text before a call; it means a call and nothing else.
        closing: the text after it ("" = none).
        arguments: the key of a call's arguments.
        listed: whether calls stand in a JSON array.
        bare: whether an answer that begins with a brace is a call, too.
    """

    opening: str
    closing: str = ""
    arguments: str = "arguments"
    listed: bool = False
    bare: bool = False


FRAMES = {
    "hermes": Frame("<tool_call>", "</tool_call>"),
    "mistral": Frame("[TOOL_CALLS]", listed=True),
    "llama3": Frame("<|python_tag|>", arguments="parameters", bare=True),
    "granite": Frame("<tool_call>", "</tool_call>"),
}
"""The formats that a grammar can hold. Without an opening mark a call cannot be told from prose in time."""


def tool_grammar(tools: Sequence[Mapping[str, Any]], tool_call_format: str = "hermes") -> str:
    r"""The grammar of an answer: prose with any number of valid calls of these tools, maybe none.

    After the opening mark (`<tool_call>`) only a whole call is possible: its name, then its arguments in the order of
    the schema's properties. A keyword that no grammar can hold is named in a comment at the top. A call has no other
    keys than these two, so not the `id` that Mistral's templates write. What else is lost: see `gbnf_schema`.

    Args:
        tools: the tool definitions, plain or in OpenAI's form; at least one.
        tool_call_format: how calls are written, a key of `FRAMES`.

    Returns:
        the grammar's text; its first rule is `root`.

    Raises:
        ConfigError: no grammar can hold this format; there are no tools; a tool has no name, the name of another one,
            or parameters that are no object. The message names the tool.
        SchemaError: parameters are nested too deeply to be read.

    Example:
        >>> grammar = tool_grammar([{"name": "f"}])
        >>> [line for line in grammar.splitlines() if line.startswith(("call ", "tool-0 "))][0]
        'call ::= space (tool-0) space "</tool_call>"'
    """
    if tool_call_format not in FRAMES:
        raise ConfigError(
            f"grammar: no grammar can hold calls in this format, as nothing marks where one begins (possible: "
            f"{', '.join(FRAMES)}); serve without a grammar: {tool_call_format}"
        )
    definitions = _definitions(tools)
    frame = FRAMES[tool_call_format]
    choices = "(" + " | ".join(f"tool-{number}" for number in range(len(definitions))) + ")"
    body = f'"[" space {choices} (space "," space {choices})* space "]"' if frame.listed else choices
    closing = f" space {literal(frame.closing)}" if frame.closing else ""
    rules = _prose(frame.opening) | {"call": f"space {body}{closing}"}
    if frame.bare:
        first = _in_class(frame.opening[0])
        rules |= {"root": f'"" | bare | [{first}] prose-1 | [^{{{first}] prose-0', "bare": choices}
    loosened: list[str] = []
    for number, (name, parameters) in enumerate(definitions):
        arguments = SchemaRules(f"tool-{number}", parameters)
        rules[f"tool-{number}"] = _call(name, frame.arguments, arguments.start)
        rules |= arguments.rules
        loosened += [f"{name}: {one}" for one in arguments.loosened]
    rules |= BASE_RULES
    notes = [
        "# Not held, so check finished calls against their schema:",
        *(f"#   {json.dumps(one)}" for one in loosened),
    ]
    head = ["# kdfast: an answer is prose and calls of the tools below.", *(notes if loosened else [])]
    return "\n".join([*head, *(f"{name} ::= {text}" for name, text in rules.items()), ""])


def _call(name: str, key: str, arguments: str) -> str:
    parts = [literal("{"), json_literal("name"), literal(":"), json_literal(name), literal(",")]
    parts += [json_literal(key), literal(":"), arguments, literal("}")]
    return " space ".join(parts)


def _definitions(tools: Sequence[Mapping[str, Any]]) -> list[tuple[str, Any]]:
    """(name, parameters) of each tool; a tool without parameters takes any object."""
    if not tools:
        raise ConfigError("grammar: must have at least one tool, got none")
    found: dict[str, Any] = {}
    for number, tool in enumerate(tools):
        place = f"grammar: tools[{number}]"
        definition = tool.get("function", tool) if isinstance(tool, Mapping) else tool
        name = definition.get("name") if isinstance(definition, Mapping) else None
        if not isinstance(name, str) or not name:
            shown = json.dumps(tool, ensure_ascii=False, default=str)[:80]
            raise ConfigError(f"{place}: must be a tool definition, an object with a name, got {shown}")
        if name in found:
            raise ConfigError(f"{place}: another tool has this name; name each tool once: {name}")
        parameters = parameters_of(tool)
        if parameters is not None and not isinstance(parameters, Mapping):
            raise ConfigError(
                f"{place}: parameters of {name} must be a JSON Schema, an object, got {type(parameters).__name__}"
            )
        found[name] = {"type": "object", **(parameters or {})}
    return list(found.items())


def _prose(mark: str) -> dict[str, str]:
    r"""Rules of a text in which every mark opens a call. `prose-i`: the last i characters begin the mark.

    Example:
        >>> for name, body in _prose("ab").items():
        ...     print(name, "::=", body)
        root ::= prose-0
        prose-0 ::= "" | [a] prose-1 | [^a] prose-0
        prose-1 ::= "" | [a] prose-1 | [b] call prose-0 | [^ab] prose-0
    """
    letters = "".join(dict.fromkeys(mark))
    rules = {"root": "prose-0"}
    for state in range(len(mark)):
        ways = ['""']
        for letter in letters:
            after = _longest(mark, mark[:state] + letter)
            if after:
                target = "call prose-0" if after == len(mark) else f"prose-{after}"
                ways.append(f"[{_in_class(letter)}] {target}")
        leading = [letter for letter in letters if _longest(mark, mark[:state] + letter)]
        ways.append(f"[^{''.join(map(_in_class, leading))}] prose-0")
        rules[f"prose-{state}"] = " | ".join(ways)
    return rules


def _longest(mark: str, text: str) -> int:
    """The length of the longest end of the text that begins the mark."""
    return next(size for size in range(min(len(mark), len(text)), -1, -1) if text.endswith(mark[:size]))


def _in_class(letter: str) -> str:
    return f"\\{letter}" if letter in "[]\\" else letter
