"""JSON values inside a text, kept as they are written, so that two renderings of the same value can be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
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

    Example:
        >>> [piece if isinstance(piece, str) else piece.text for piece in split('a {"b": [1]} c {...}')]
        ['a ', '{"b": [1]}', ' c {...}']
    """
    parts: list[str | Piece] = []
    plain, at = 0, 0
    while (at := _bracket(text, at)) >= 0:
        try:
            _, end = _DECODER.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError):
            at += 1
            continue
        parts += [text[plain:at], _read(text[at:end])]
        plain = at = end
    return [*parts, text[plain:]]


def _bracket(text: str, at: int) -> int:
    found = [place for place in (text.find("{", at), text.find("[", at)) if place >= 0]
    return min(found, default=-1)


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


def with_shared_keys(one: Piece, other: Piece) -> tuple[str, str]:
    """Both values without the members that the other lacks.

    Example:
        >>> with_shared_keys(split('{"a": 1}')[1], split('{"a": 2, "b": ""}')[1])
        ('{"a": 1}', '{"a": 2}')
    """
    if one.members is None or other.members is None or one.text[0] != other.text[0]:
        return one.text, other.text
    first, second = ({key: value for key, value, _ in _of(piece)} for piece in (one, other))
    shared = {key: with_shared_keys(first[key], second[key]) for key in first if key in second}
    # An array's elements are told apart by their place alone: one more or less is another content.
    if one.text[0] == "[" and len(first) != len(second):
        return one.text, other.text
    kept = [(key, _led(text, value, shared[key][0])) for key, value, text in _of(one) if key in shared]
    theirs = [(key, _led(text, value, shared[key][1])) for key, value, text in _of(other) if key in shared]
    return _rebuilt(one, kept, keep_order=True), _rebuilt(other, theirs, keep_order=True)


def _of(piece: Piece) -> Iterator[tuple[str, Piece, str]]:
    return iter(piece.members or ())


def _led(text: str, value: Piece, new: str) -> str:
    """A member's text (`"key": value`) with a new value."""
    return text[: len(text) - len(value.text)] + new


def _rebuilt(piece: Piece, members: list[tuple[str, str]], *, keep_order: bool = False) -> str:
    if piece.members is None:
        return piece.text
    if piece.text[0] == "{" and not keep_order:
        members = sorted(members)
    return piece.opening + piece.between.join(text for _, text in members) + piece.closing
