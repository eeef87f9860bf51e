"""Tools with JSON Schemas, from what the templates of one language may put into each slot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from kdfast.importers.smart_home.home import Home
from kdfast.importers.smart_home.numbers import Speaker
from kdfast.importers.smart_home.pools import Texts, Values
from kdfast.importers.smart_home.source import Package
from kdfast.importers.smart_home.templates import Template

CLOSED = ("area", "floor", "zone")
"""Lists of places: a home has these and no others. Names, items and messages are texts."""


def tools(package: Package, templates: Sequence[Template], home: Home) -> dict[str, dict[str, Any]]:
    """The tools that the templates call, as OpenAI writes them, by name, in the package's order.

    A property is there if a template may fill it. Its type, its `enum` and its bounds come from the lists that fill it.

    Args:
        package: what each intent and its slots are.
        templates: those that call.
        home: its rooms, floors and zones become `enum`s.
    """
    sources: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    fixed: dict[tuple[str, str], dict[Any, None]] = defaultdict(dict)
    for template in templates:
        for slot in template.node.slots():
            sources[template.intent, slot.slot][slot.source] = template.pools[slot.source]
        for name, value in template.fixed.items():
            fixed[template.intent, name][value] = None
    called = {template.intent for template in templates}
    result = {}
    for intent, definition in package.intents.items():
        if intent not in called:
            continue
        slots = definition.get("slots", {})
        properties = {
            name: _property(sources[intent, name], list(fixed[intent, name]), home) | _described(slot)
            for name, slot in slots.items()
            if sources[intent, name] or fixed[intent, name]
        }
        parameters: dict[str, Any] = {"type": "object", "properties": properties}
        if required := [name for name in properties if slots[name]["required"]]:
            parameters["required"] = required
        parameters["additionalProperties"] = False
        function = {"name": intent, "description": definition["description"], "parameters": parameters}
        result[intent] = {"type": "function", "function": function}
    return result


def _described(slot: dict[str, Any]) -> dict[str, Any]:
    return {"description": slot["description"]} if slot.get("description") else {}


def _property(sources: dict[str, Any], fixed: list[Any], home: Home) -> dict[str, Any]:
    """The schema of what these lists and these fixed values may be."""
    places = {"area": home.areas, "floor": home.floors, "zone": home.values.get("zone", ())}
    texts: list[str] | None = []
    numbers: list[float] = []
    halves = False
    for source, pool in sources.items():
        if isinstance(pool, Speaker):
            ends = sorted((pool.range.value(pool.range.low), pool.range.value(pool.range.high)))
            numbers += ends
            halves = halves or pool.range.halves
        elif isinstance(pool, Values):
            numbers += [value for value in pool.meanings() if not isinstance(value, str)]
            texts = _add(texts, _strings(pool.meanings()))
        elif isinstance(pool, Texts) and source in CLOSED:
            texts = _add(texts, list(places[source]))
        else:
            texts = None
    numbers += [value for value in fixed if not isinstance(value, str)]
    texts = _add(texts, _strings(fixed))
    schemas: list[dict[str, Any]] = []
    if texts is None:
        schemas.append({"type": "string"})
    elif texts:
        schemas.append({"type": "string", "enum": list(dict.fromkeys(texts))})
    if numbers:
        whole = not halves and all(value == int(value) for value in numbers)
        kind = "integer" if whole else "number"
        schemas.append({"type": kind, "minimum": min(numbers), "maximum": max(numbers)})
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _strings(values: Sequence[Any]) -> list[str]:
    return [value for value in values if isinstance(value, str)]


def _add(texts: list[str] | None, more: list[str]) -> list[str] | None:
    """None stands for any text: what is added to it changes nothing."""
    return None if texts is None else texts + more
