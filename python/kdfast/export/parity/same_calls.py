"""Whether two readers found the same calls."""

from __future__ import annotations

import json

Calls = tuple[tuple[str, str], ...]
"""Name and arguments (JSON text) of each call of an answer."""


def same_calls(ours: Calls, theirs: Calls) -> bool:
    """Whether calls have the same names and the same arguments, as JSON values.

    Examples:
        >>> same_calls((("f", '{"a": 1.0, "b": [true]}'),), (("f", '{"b":[true],"a":1}'),))
        True
        >>> same_calls((("f", '{"a": true}'),), (("f", '{"a": 1}'),))
        False
    """
    return [_value(*call) for call in ours] == [_value(*call) for call in theirs]


def _value(name: str, arguments: str) -> tuple[str, str]:
    """A call in one form for all ways to write it. Arguments that are no JSON stay text."""
    try:
        value = json.loads(arguments, parse_float=lambda text: _whole(float(text)))
    except (ValueError, RecursionError):
        return name, arguments
    return name, json.dumps(value, sort_keys=True)


def _whole(number: float) -> float | int:
    return int(number) if number.is_integer() else number
