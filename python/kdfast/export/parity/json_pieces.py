"""JSON values inside a text, kept as they are written, so that two renderings of the same value can be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

MOST_DEEP = 100
"""A value that is nested deeper is read as plain text: pieces are read by recursion."""

_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)  # Python refuses to read thousands of digits
_SPACE = re.compile(r"[ \t\n\r]*")
_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')
_SCALAR = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s,\]\}]+')


@dataclass(frozen=True)
class Piece:
    """A JSON value as written.

    Attributes:
        text: all of it.
        members: of an object, each key (decoded) with its value and its text from the key on; of an array, its
            elements under "0", "1", ...; None for a scalar.
        between: what stands between two members, such as ", ".
        opening: "{" or "[" and the white space after it.
        closing: the white space before the last bracket, and that bracket.
    """

    text: str
    members: tuple[tuple[str, Piece, str], ...] | None = None
    between: str = ", "
    opening: str = ""
    closing: str = ""


def split(text: str) -> list[str | Piece]:
    """A text, cut at the objects and arrays in it: plain text and pieces take turns.

    A value that is nested deeper than `MOST_DEEP` is plain text.

    Example:
        >>> [piece if isinstance(piece, str) else piece.text for piece in split('a {"b": [1]} c {...}')]
        ['a ', '{"b": [1]}', ' c {...}']
    """
    parts: list[str | Piece] = []
    plain, at = 0, 0
    while (at := _bracket(text, at)) >= 0:
        try:
            _, end = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError:
            at += 1
            continue
        except RecursionError:
            _, at = _nest(text, at)
            continue
        if _nest(text, at)[0] <= MOST_DEEP:
            parts += [text[plain:at], _read(text[at:end])]
            plain = end
        at = end
    return [*parts, text[plain:]]


def _bracket(text: str, at: int) -> int:
    found = [place for place in (text.find("{", at), text.find("[", at)) if place >= 0]
    return min(found, default=-1)


def _nest(text: str, at: int) -> tuple[int, int]:
    """How deep the object or array at a place is nested (`[]`: 1), and where it ends; an open one: with the text."""
    depth = deepest = 0
    for found in _STRUCTURE.finditer(text, at):
        if found[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif found[0] in "]}":
            depth -= 1
        if depth == 0:
            return deepest, found.end()
    return deepest, len(text)


def _read(text: str) -> Piece:
    """A whole JSON value, known to be valid."""
    piece, _ = _value(text, 0)
    return piece


def _value(text: str, start: int) -> tuple[Piece, int]:
    if text[start] not in "{[":
        match = _SCALAR.match(text, start)
        end = match.end() if match else start + 1
        return Piece(text[start:end]), end
    members: list[tuple[str, Piece, str]] = []
    at = opened = _skip(text, start + 1)
    between, last = ", ", opened
    while text[at] not in "}]":
        begin, key = at, str(len(members))
        if text[start] == "{":
            key, at = _DECODER.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)  # the colon
        value, last = _value(text, at)
        members.append((key, value, text[begin:last]))
        at = _skip(text, last)
        if text[at] == ",":
            between, at = text[last : (after := _skip(text, at + 1))], after
    closing = text[last if members else at : at + 1]
    piece = Piece(text[start : at + 1], tuple(members), between, text[start:opened], closing)
    return piece, at + 1


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def join(parts: list[str | Piece]) -> str:
    """The text of parts again."""
    return "".join(part if isinstance(part, str) else part.text for part in parts)


def with_sorted_keys(piece: Piece) -> str:
    """The value with its objects' members sorted by key, else as written.

    Example:
        >>> with_sorted_keys(split('{"b":1, "a":[{"d": 2,"c": 3}]}')[1])
        '{"a":[{"c": 3,"d": 2}], "b":1}'
    """
    return _rebuilt(
        piece, [(key, _led(text, value, with_sorted_keys(value))) for key, value, text in _of(piece)]
    )


def without_empty_extras(one: Piece, other: Piece) -> tuple[str, str]:
    """Both values without the members that the other lacks and that say nothing: "", {}, [] or null.

    Examples:
        >>> without_empty_extras(split('{"a": 1}')[1], split('{"a": 2, "b": ""}')[1])
        ('{"a": 1}', '{"a": 2}')
        >>> without_empty_extras(split('{"a": 1}')[1], split('{"a": 1, "b": 0}')[1])
        ('{"a": 1}', '{"a": 1, "b": 0}')
    """
    if one.members is None or other.members is None or one.text[0] != other.text[0]:
        return one.text, other.text
    first, second = ({key: value for key, value, _ in _of(piece)} for piece in (one, other))
    # An array's elements are told apart by their place alone: one more or less is another content.
    if one.text[0] == "[" and len(first) != len(second):
        return one.text, other.text
    if len(first) < len(one.members) or len(second) < len(other.members):  # a key stands twice
        return one.text, other.text
    shared = {key: without_empty_extras(first[key], second[key]) for key in first if key in second}
    made = [
        [
            (key, _led(text, value, shared[key][number]) if key in shared else text)
            for key, value, text in _of(piece)
            if key in shared or not _is_empty(value)
        ]
        for number, piece in enumerate((one, other))
    ]
    return _rebuilt(one, made[0], keep_order=True), _rebuilt(other, made[1], keep_order=True)


def _is_empty(piece: Piece) -> bool:
    return piece.members == () or piece.text in ('""', "null")


def _of(piece: Piece) -> Iterator[tuple[str, Piece, str]]:
    return iter(piece.members or ())


def _led(text: str, value: Piece, new: str) -> str:
    """A member's text (`"key": value`) with a new value."""
    return text[: len(text) - len(value.text)] + new


def _rebuilt(piece: Piece, members: list[tuple[str, str]], *, keep_order: bool = False) -> str:
    if piece.members is None:
        return piece.text
    if piece.text[0] == "{" and not keep_order:
        members = sorted(members, key=lambda member: member[0])  # a key that stands twice: in its order
    return piece.opening + piece.between.join(text for _, text in members) + piece.closing
