"""Leaves out of tools what llguidance cannot make a grammar of. The finished calls are judged by the whole schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdfast._rust import ToolSchema
from kdfast.errors import SchemaError
from kdfast.scoring import parameters_of

Tool = Mapping[str, Any]
Check = Callable[[Sequence[Tool]], tuple[bool, list[str]]]
"""Whether these tools fail as a grammar, and what is said about it: the error, or warnings."""

# Keywords of values that a grammar may be unable to hold, and the type of these values.
_LEAVES = {"pattern": "string", "format": "string", "multipleOf": "number"} | dict.fromkeys(
    ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), "number"
)
# Keywords with schemas in them, of those that llguidance reads. Under `not` or `if`, a schema that allows more would
# forbid right calls, but llguidance leaves out such keywords as a whole.
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_LISTED = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
_SINGLE = frozenset({"items", "additionalItems", "additionalProperties"})

# Around llguidance's messages: the place in the grammar, and its lines. The user does not see the grammar.
_AROUND = re.compile(r"^at \d+\(\d+\): (failed to compile JSON schema: )?|\n +\d+ \| [\s\S]*")
_LONGEST_VALUE = 60
_LONGEST_MESSAGE = 300


@dataclass(frozen=True)
class HeldTools:
    """Tools that are a grammar.

    Attributes:
        tools: their definitions, without what the grammar cannot hold.
        left_out: what the grammar does not hold: a text for each, which begins with the tool.
    """

    tools: list[Tool]
    left_out: list[str]


class LenientGrammar:
    """Makes tools such that they are a grammar. Each text of tools and each tool is looked at once.

    Args:
        check: says whether tools fail as a grammar.
    """

    def __init__(self, check: Check) -> None:
        self._check = check
        self._texts: dict[str, HeldTools] = {}
        self._tools: dict[str, tuple[Tool, list[str]]] = {}
        self._holding: dict[tuple[str, str], bool] = {}

    def held(self, text: str) -> HeldTools:
        """The tools of a JSON text, without what the grammar cannot hold.

        Raises:
            SchemaError: the parameters of a tool are no valid JSON Schema, or the tools fail for another reason.
        """
        if text not in self._texts:
            self._texts[text] = self._held(text)
        return self._texts[text]

    def _held(self, text: str) -> HeldTools:
        ToolSchema(text)  # raises SchemaError: what is no schema cannot judge the finished calls either
        tools: list[Tool] = json.loads(text)
        failed, messages = self._check(tools)
        if not failed and not messages:
            return HeldTools(tools, [])
        pairs = [self._lighter_tool(tool) for tool in tools]
        held = HeldTools([tool for tool, _ in pairs], [said for _, texts in pairs for said in texts])
        if failed:
            failed, messages = self._check(held.tools)
        if failed:
            raise SchemaError(one_line(messages[0]))
        return held

    def _lighter_tool(self, tool: Tool) -> tuple[Tool, list[str]]:
        """A tool that is a grammar if it can be made one, and what was left out."""
        key = json.dumps(tool)
        if key not in self._tools:
            name = json.dumps(tool.get("function", tool)["name"], ensure_ascii=False)
            tool, left_out = self._lighter(tool)
            self._tools[key] = tool, [f"tool {name}: {part}" for part in left_out]
        return self._tools[key]

    def _lighter(self, tool: Tool) -> tuple[Tool, list[str]]:
        failed, messages = self._check([tool])
        left_out: list[str] = []
        if failed:
            parts: list[str] = []
            tool = _with_parameters(tool, self._lighter_schema(parameters_of(tool), parts))
            left_out = [f"{part} is left out of the grammar" for part in dict.fromkeys(parts)]
            failed, messages = self._check([tool])
        if failed:
            why = one_line(messages[0])
            tool = _with_parameters(tool, _names_only(parameters_of(tool)))
            left_out = [f"all but the names of the arguments is left out of the grammar: {why}"]
            messages = []  # if this fails too, so does the check of all tools
        return tool, [*left_out, *(f"not held by the grammar: {one_line(message)}" for message in messages)]

    def _lighter_schema(self, schema: Any, left_out: list[str]) -> Any:
        """The schema without what the grammar cannot hold; says in `left_out` what that is."""
        if not isinstance(schema, Mapping):
            return schema
        kept: dict[str, Any] = {}
        for keyword, value in schema.items():
            if keyword in _LEAVES and not self._holds(keyword, value):
                left_out.append(f"{keyword} {_short(value)}")
            elif keyword in _NAMED and isinstance(value, Mapping):
                kept[keyword] = {name: self._lighter_schema(part, left_out) for name, part in value.items()}
            elif keyword in _LISTED and isinstance(value, list):
                kept[keyword] = [self._lighter_schema(part, left_out) for part in value]
            elif keyword in _SINGLE:
                kept[keyword] = self._lighter_schema(value, left_out)
            else:
                kept[keyword] = value
        patterns = kept.get("patternProperties", {})
        unheld = [pattern for pattern in patterns if not self._holds("patternProperties", pattern)]
        if unheld:
            left_out.extend(f"patternProperties {_short(pattern)}" for pattern in unheld)
            kept["patternProperties"] = {name: patterns[name] for name in patterns if name not in unheld}
            # The properties that such a pattern allows are additional ones to the grammar.
            kept["additionalProperties"] = True
        return kept

    def _holds(self, keyword: str, value: Any) -> bool:
        """Whether this keyword, alone, is a grammar."""
        key = (keyword, json.dumps(value))
        if key not in self._holding:
            if keyword == "patternProperties":
                schema: dict[str, Any] = {keyword: {value: {}}}
            else:
                schema = {"type": _LEAVES[keyword], keyword: value}
            parameters = {"properties": {"value": schema}, "required": ["value"]}
            failed, _ = self._check([{"name": "f", "parameters": parameters}])
            self._holding[key] = not failed
        return self._holding[key]


def _names_only(schema: Any) -> dict[str, Any]:
    """Any object with the required arguments; those that have a name come in the schema's order."""
    named = schema.get("properties", {}) if isinstance(schema, Mapping) else {}
    required = schema.get("required", []) if isinstance(schema, Mapping) else []
    properties: dict[str, Any] = {name: {} for name in named}
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": True,
    }


def _with_parameters(tool: Tool, parameters: Any) -> Tool:
    """The tool, plain, with other parameters."""
    return {**tool.get("function", tool), "parameters": parameters}


def _short(value: Any) -> str:
    """A value as JSON, cut to fit into a line."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def one_line(message: str) -> str:
    r"""A message of llguidance in one line.

    Example:
        >>> one_line("at 6(14): failed to compile JSON schema: Invalid\n  type: x\n   4 | opening[lazy]: TEXT\n")
        'Invalid type: x'
    """
    return " ".join(_AROUND.sub("", message).split())[:_LONGEST_MESSAGE]
