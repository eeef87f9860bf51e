"""Reads from a tool's JSON Schema the names and types of its arguments, as the matching rules need them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

Schema = Mapping[str, Any]

_TYPES: dict[type[Any], tuple[str, ...]] = {
    str: ("string",),
    bool: ("boolean",),
    int: ("integer", "number"),
    float: ("number",),
    list: ("array",),
    dict: ("object",),
    type(None): ("null",),
}
_ALTERNATIVES = ("anyOf", "oneOf")
_FORMS: dict[str, Any] = {"properties": Mapping, "type": str | list} | dict.fromkeys(
    ("required", "allOf", *_ALTERNATIVES), list
)
# If a schema has one of these keywords, it may allow arguments that are not in its `properties`.
_NAMES_ELSEWHERE = frozenset(
    {"anyOf", "oneOf", "$ref", "$dynamicRef", "$recursiveRef", "if", "dependentSchemas", "dependencies"}
    | {"patternProperties", "additionalProperties"}
)


def parameters_of(tool: Schema) -> Any:
    """The parameters of a tool as `ToolSchema` reads them: forms of older drafts are rewritten to 2020-12.

    Args:
        tool: the tool's definition, plain or in OpenAI's form.

    Raises:
        SchemaError: they are nested too deeply to be read.

    Example:
        >>> parameters_of({"name": "f", "parameters": {"properties": {"a": {"required": True}}}})
        {'properties': {'a': {}}, 'required': ['a']}
    """
    from kdfast._rust import modern_parameters

    given = tool.get("function", tool).get("parameters")
    return json.loads(modern_parameters(json.dumps(given))) if isinstance(given, Mapping) else given


class Parameters:
    """The arguments of a tool, for any schema that `ToolSchema` takes.

    - A local `$ref` and an `allOf` are merged into the schema that contains them; `true` is a schema without a type.
    - If a schema allows several types (a list of types, `anyOf`, `oneOf`), the first one that fits the value counts;
      if none fits, the first one. So {"type": ["string", "null"]} asks for null where the value is None.

    Args:
        tool: the tool's definition, plain or in OpenAI's form.

    Attributes:
        required: the names of the arguments that must be given.

    Examples:
        >>> unit = {"type": ["string", "null"]}
        >>> given = Parameters({"name": "f", "parameters": {"properties": {"unit": unit}, "required": ["unit"]}})
        >>> given.required, given.may_be("unit"), given.may_be("size")
        (['unit'], True, False)
        >>> given.asked("unit", "cm"), given.asked("unit", None)
        ({'type': 'string'}, {'type': 'null'})
        >>> Parameters({"name": "f", "parameters": None}).may_be("anything")
        True
    """

    def __init__(self, tool: Schema) -> None:
        root = parameters_of(tool)
        self._root: Schema = root if isinstance(root, Mapping) else {}
        flat = self._flat(self._root, set())
        self.required = [name for name in flat.get("required", ()) if isinstance(name, str)]
        self._properties: Schema = flat.get("properties", {})
        if flat.get("additionalProperties") is False:
            del flat["additionalProperties"]
        self._open = "properties" not in flat or not _NAMES_ELSEWHERE.isdisjoint(flat)

    def may_be(self, name: str) -> bool:
        """Whether there may be an argument of this name; True also if the schema does not say."""
        return self._open or name in self._properties

    def asked(self, name: str, value: Any) -> Schema | None:
        """The type that the schema asks for, for an argument that has this value.

        Returns:
            A schema with at most `type` and the `type` of `items`; None if the schema does not name this argument, or
            names it by a `$ref` that cannot be followed.
        """
        if name not in self._properties:
            return None
        found = self._fitting(self._properties[name], value)
        if "$ref" in found and "type" not in found:
            return None
        kind = {"type": found["type"]} if "type" in found else {}
        if "items" not in found or "prefixItems" in found:  # the entries have types one by one
            return kind
        entries = value if isinstance(value, list) and value else [None]
        kinds = {self._fitting(found["items"], entry).get("type") for entry in entries}
        # If the list has entries of several types, none of these types is asked for.
        return kind | ({"items": {"type": kinds.pop()}} if len(kinds) == 1 and None not in kinds else {})

    def _fitting(self, schema: Any, value: Any) -> Schema:
        choices, types = self._choices(schema, set()), _TYPES.get(type(value), ())
        fitting = (choice for choice in choices if "type" not in choice or choice["type"] in types)
        return next(fitting, choices[0])

    def _choices(self, schema: Any, seen: set[str]) -> list[dict[str, Any]]:
        """Splits a schema into one flat schema per type that it allows, each with one type or none; at least one."""
        flat = self._flat(schema, seen)
        branches = [branch for key in _ALTERNATIVES for branch in flat.pop(key, ())]
        if branches:
            return [
                choice for branch in branches for choice in self._choices({"allOf": [flat, branch]}, seen)
            ]
        types = flat.get("type")
        if not isinstance(types, list):
            return [flat]
        return [{**flat, "type": one} for one in types if isinstance(one, str)] or [{}]

    def _flat(self, schema: Any, seen: set[str]) -> dict[str, Any]:
        """Merges the local `$ref` and the `allOf` of a schema into it. A `$ref` that cannot be followed is kept.

        Args:
            schema: the schema; `true`, `false` and everything that is not an object become {}.
            seen: the references that were already followed; each is followed only once, so that circles end.
        """
        stated = dict(schema) if isinstance(schema, Mapping) else {}
        flat = {key: value for key, value in stated.items() if isinstance(value, _FORMS.get(key, object))}
        parts = list(flat.pop("allOf", ()))
        reference = flat.get("$ref")
        if isinstance(reference, str):
            target = None if reference in seen else self._target(reference)
            seen.add(reference)
            if target is not None:
                del flat["$ref"]
                parts.append(target)
        for part in parts:
            for key, found in self._flat(part, seen).items():
                if key == "properties" and key in flat:
                    flat[key] = {**found, **flat[key]}
                elif key == "required" and key in flat:
                    flat[key] = [*flat[key], *found]
                else:
                    flat.setdefault(key, found)
        return flat

    def _target(self, reference: str) -> Any:
        """The target of a JSON pointer in this document (`#/$defs/size`); None = no target, or in another document."""
        file, _, pointer = unquote(reference).partition("#")
        if file or not (pointer == "" or pointer.startswith("/")):
            return None
        found: Any = self._root
        for step in pointer.split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping):
                found = found.get(key)
            elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            else:
                return None
        return found
