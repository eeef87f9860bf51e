"""Names that are one letter apart: one of two is likely to be misspelt. No torch in here."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdfast.scoring.parameters import parameters_of

_SHORTEST = 4
"""Shorter names, such as lat and lon, are often near each other on purpose."""


def one_letter_apart(first: str, second: str) -> bool:
    """Whether two names differ by one letter (changed, added, left out, or two swapped), or by case and dashes alone.

    Numbered names (`item1`, `item2`), short ones, and those with another first letter are not counted.

    Example:
        >>> one_letter_apart("location", "locaton"), one_letter_apart("location", "loaction")
        (True, True)
        >>> one_letter_apart("item1", "item2"), one_letter_apart("lat", "lon"), one_letter_apart("city", "city")
        (False, False, False)
        >>> one_letter_apart("weight", "height")
        False
    """
    if first == second or min(len(first), len(second)) < _SHORTEST:
        return False
    if re.sub(r"\d", "", first) == re.sub(r"\d", "", second):
        return False
    a, b = _plain(first), _plain(second)
    # slips are rare in a first letter, and weight and height are two words
    return a == b or (a[:1] == b[:1] and _is_edit(a, b))


def misspelt_names(
    tools: Sequence[Mapping[str, Any]], calls: Iterable[tuple[str, Sequence[str]]]
) -> list[str]:
    """What is one letter apart in one record.

    Args:
        tools: definitions, without OpenAI's envelope.
        calls: (name of the tool, names of the arguments) of each call.

    Returns:
        a line of words for each pair: first those of the tools, then those of the calls.

    Example:
        >>> tool = {"name": "f", "parameters": {"type": "object", "properties": {"days": {}, "cities": {}}}}
        >>> misspelt_names([tool], [("f", ["dayz"])])
        ["argument 'dayz' of a call and parameter 'days' of 'f'"]
    """
    names = [str(tool.get("name", "")) for tool in tools]
    parameters = {name: _parameters(tool) for name, tool in zip(names, tools, strict=True)}
    found = [f"tools {one!r} and {other!r}" for one, other in _pairs(names)]
    for tool, known in parameters.items():
        found += [f"parameters {one!r} and {other!r} of {tool!r}" for one, other in _pairs(known)]
    for tool, arguments in calls:
        known = parameters.get(tool, [])
        found += [
            f"argument {argument!r} of a call and parameter {name!r} of {tool!r}"
            for argument in arguments
            if argument not in known
            for name in known
            if one_letter_apart(argument, name)
        ]
    return found


def _pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    return [pair for pair in itertools.combinations(dict.fromkeys(names), 2) if one_letter_apart(*pair)]


def _parameters(tool: Mapping[str, Any]) -> list[str]:
    parameters = parameters_of(tool)
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    return list(properties) if isinstance(properties, Mapping) else []


def _plain(name: str) -> str:
    return re.sub(r"[-_ .]", "", name).casefold()


def _is_edit(a: str, b: str) -> bool:
    """Whether one change, insertion, deletion or swap of neighbours turns `a` into `b`."""
    if len(a) > len(b):
        a, b = b, a
    if len(b) - len(a) > 1:
        return False
    at = next((index for index, letter in enumerate(a) if letter != b[index]), len(a))
    if len(a) < len(b):
        return a[at:] == b[at + 1 :]
    swapped = a[at : at + 2] == b[at : at + 2][::-1] and a[at + 2 :] == b[at + 2 :]
    return a[at + 1 :] == b[at + 1 :] or swapped
