"""Reads JSON strictly, the slow, obvious way: by recursive descent."""

from __future__ import annotations

import json
from collections.abc import Callable

MAX_DEPTH = 128
SPACE = " \n\r\t"


class CutError(Exception):
    """The text ends before the value is complete."""


class BrokenError(Exception):
    """The next character is not allowed here."""


class TooDeepError(Exception):
    """Brackets are nested too deep."""


class Reader:
    """Reads JSON strictly, without building values."""

    def __init__(self, text: str, at: int) -> None:
        self.text, self.at = text, at
        self.open: list[int] = []
        self.has_object = False

    def peek(self) -> str:
        """The next character."""
        if self.at >= len(self.text):
            raise CutError
        return self.text[self.at]

    def take(self) -> str:
        """Reads the next character."""
        character = self.peek()
        self.at += 1
        return character

    def expect(self, character: str) -> None:
        """Reads the next character, which must be this one."""
        if self.peek() != character:
            raise BrokenError
        self.at += 1

    def space(self) -> None:
        """Reads white space."""
        while self.at < len(self.text) and self.text[self.at] in SPACE:
            self.at += 1

    def whole(self) -> None:
        """Reads a text that must be exactly one object."""
        self.space()
        self.object(lambda _: self.value())
        self.space()
        if self.at < len(self.text):
            raise BrokenError

    def value(self) -> None:
        """Reads a value."""
        self.space()
        character = self.peek()
        if character == "{":
            self.object(lambda _: self.value())
        elif character == "[":
            self.array(self.value)
        elif character == '"':
            self.string()
        elif character in "tfn":
            for expected in {"t": "true", "f": "false", "n": "null"}[character]:
                self.expect(expected)
        else:
            self.number()

    def open_bracket(self, bracket: str) -> None:
        """Reads an opening bracket."""
        self.space()
        if self.peek() != bracket:
            raise BrokenError
        if len(self.open) == MAX_DEPTH:
            raise TooDeepError
        self.open.append(self.at)
        self.at += 1
        self.space()

    def object(self, entry: Callable[[str], None], note: Callable[[str], None] = lambda _: None) -> None:
        """Reads an object; `note` takes each key, `entry` reads each value."""
        self.open_bracket("{")
        self.has_object = True
        if self.peek() != "}":
            while True:
                self.space()
                key = self.string()
                note(key)
                self.space()
                self.expect(":")
                entry(key)
                self.space()
                if self.peek() == "}":
                    break
                self.expect(",")
        self.at += 1
        self.open.pop()

    def array(self, element: Callable[[], None]) -> None:
        """Reads an array; `element` reads each value."""
        self.open_bracket("[")
        if self.peek() != "]":
            while True:
                element()
                self.space()
                if self.peek() == "]":
                    break
                self.expect(",")
        self.at += 1
        self.open.pop()

    def string(self) -> str:
        """Reads a string and returns its content."""
        start = self.at
        self.expect('"')
        while (character := self.take()) != '"':
            if character < " ":
                raise BrokenError
            if character == "\\":
                self.escape()
        said: str = json.loads(self.text[start : self.at])
        return said

    def escape(self) -> None:
        """Reads the part of an escape after the backslash."""
        if self.peek() == "u":
            unit = self.unit()
            if 0xDC00 <= unit < 0xE000:
                raise BrokenError
            if 0xD800 <= unit < 0xDC00:
                self.expect("\\")
                if not 0xDC00 <= self.unit() < 0xE000:
                    raise BrokenError
        elif self.take() not in '"\\/bfnrt':
            raise BrokenError

    def unit(self) -> int:
        """Reads `uXXXX` and returns the number."""
        self.expect("u")
        digits = ""
        while len(digits) < 4:
            digits += self.take()
            if digits[-1] not in "0123456789abcdefABCDEF":
                raise BrokenError
        return int(digits, 16)

    def digits(self) -> None:
        """Reads one or more digits."""
        if self.peek() not in "0123456789":
            raise BrokenError
        while self.peek() in "0123456789":
            self.at += 1

    def number(self) -> None:
        """Reads a number. At the end of the text it counts as cut, because more digits could follow."""
        start = self.at
        if self.peek() == "-":
            self.at += 1
        if self.peek() == "0":
            self.at += 1
        else:
            self.digits()
        if self.peek() == ".":
            self.at += 1
            self.digits()
        if self.peek() in "eE":
            self.at += 1
            if self.peek() in "+-":
                self.at += 1
            self.digits()
        if abs(float(self.text[start : self.at])) == float("inf"):
            raise BrokenError
