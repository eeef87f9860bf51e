"""Finds tool calls the slow, obvious way: a strict recursive-descent parser that starts again at every opening."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

MAX_DEPTH = 128
SPACE = " \n\r\t"
WORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
TAGS = {"hermes": "<tool_call>", "mistral": "[TOOL_CALLS]", "llama3": "<|python_tag|>", "fenced": "```"}
CLOSINGS = {"hermes": "</tool_call>", "fenced": "```"}
ALL = ("hermes", "mistral", "llama3", "fenced", "array", "object", "openai")


class CutError(Exception):
    """The text ends before the value is complete."""


class BrokenError(Exception):
    """The next character is not allowed here."""


class TooDeepError(Exception):
    """Brackets are nested too deep."""


def find(text: str, formats: Collection[str] = ALL, *, unclosed: bool = False) -> list[dict[str, Any]]:
    """Every closed call, with `unclosed` every complete one: format, name, arguments, span, body, closed."""
    calls: list[dict[str, Any]] = []
    doomed: set[int] = set()  # brackets inside broken JSON: no call begins there
    at = 0
    while at < len(text):
        rest = text[at:]
        tags = [name for name in formats if name in TAGS]
        tag = next((name for name in tags if rest.startswith(TAGS[name])), None)
        if tag is None and any(TAGS[name].startswith(rest) for name in tags):
            break  # it may become a tag
        if tag is None and (rest[0] not in "{[" or at in doomed):
            at += 1
            continue
        frame = Frame(text, at, tag, formats)
        try:
            frame.read()
            at = frame.reader.at
        except CutError:
            at = len(text)
        except TooDeepError:
            at = frame.reader.at + 1
        except BrokenError:
            doomed.update(frame.reader.open)
            at = frame.calls[-1]["body"][1] if frame.calls else at + 1
        calls += frame.calls
    return [call for call in calls if call["closed"] or unclosed]


class Frame:
    """The content of a frame: the text after an opening."""

    def __init__(self, text: str, start: int, tag: str | None, formats: Collection[str]) -> None:
        self.start, self.tag, self.formats = start, tag, formats
        self.reader = Reader(text, start + len(TAGS[tag] if tag else ""))
        self.calls: list[dict[str, Any]] = []
        self.wide = tag == "fenced" or (tag is None and "openai" in formats)
        self.listed = self.spoiled = False

    def read(self) -> None:
        """Reads the whole frame."""
        reader = self.reader
        if self.tag == "fenced":
            while reader.peek() in WORD:
                reader.at += 1
        reader.space()
        body, opens = reader.at, reader.peek()
        objects = self.tag or {"object", "openai", "llama3"} & set(self.formats)
        arrays = self.tag in ("mistral", "fenced") or (
            self.tag is None and {"array", "openai"} & set(self.formats)
        )
        if opens == "{" and objects:
            reader.object(self.entry)
            if not self.listed:
                self.add(body, "alone", span=(self.start, reader.at))
        elif opens == "[" and arrays:
            self.listed = True
            reader.array(lambda: self.element("array"))
        else:
            raise BrokenError
        if closing := CLOSINGS.get(self.tag or ""):
            reader.space()
            for character in closing:
                reader.expect(character)
        for call in self.calls:
            call["closed"] = not self.spoiled
            if not self.listed:
                call["span"] = (self.start, reader.at)

    def entry(self, key: str) -> None:
        """One entry of the frame's object."""
        self.reader.space()
        if self.wide and key == "tool_calls" and self.reader.peek() == "[":
            self.listed = True
            self.reader.array(lambda: self.element("tool_calls"))
        else:
            self.reader.value()

    def element(self, place: str) -> None:
        """One element of a list of calls."""
        self.reader.space()
        start = self.reader.at
        if self.reader.peek() != "{":
            self.spoiled = True
        self.reader.value()
        if not self.spoiled:
            self.spoiled = not self.add(start, place, span=(start, self.reader.at))

    def add(self, start: int, place: str, span: tuple[int, int]) -> bool:
        """Adds a call if the object that begins at `start` is one; returns whether it is."""
        end = self.reader.at
        body = json.loads(self.reader.text[start:end], strict=True)
        found = as_call(body, wrapped=self.wide, strings=place == "tool_calls")
        if found is None:
            return False
        name, arguments, was_wrapped = found
        llama3 = set(body) == {"name", "parameters"} and "llama3" in self.formats
        if self.tag:
            kind = self.tag
        elif place == "tool_calls" or was_wrapped:
            kind = "openai"
        elif place == "array":
            kind = "array"
        else:
            kind = "llama3" if llama3 else "object"
        if kind not in self.formats:
            return False
        call = {"format": kind, "name": name, "arguments": arguments, "closed": False}
        self.calls.append(call | {"span": span, "body": (start, end)})
        return True


def as_call(body: dict[str, Any], *, wrapped: bool, strings: bool) -> tuple[str, dict[str, Any], bool] | None:
    """The call's name, its arguments and whether it was wrapped; None if `body` is not a call."""
    inner = body.get("function")
    is_wrapper = wrapped and isinstance(inner, dict)
    names = [
        key for key in ("name", "tool", "function") if key in body and not (key == "function" and is_wrapper)
    ]
    if not names and is_wrapper:
        found = as_call(inner, wrapped=False, strings=True)
        return found and (found[0], found[1], True)
    keys = [key for key in ("arguments", "parameters", "args") if key in body]
    if not names or not keys:
        return None
    name, arguments = body[names[0]], body[keys[0]]
    if isinstance(arguments, str) and strings:
        try:
            Reader(arguments, 0).whole()
            arguments = json.loads(arguments)
        except (CutError, BrokenError, TooDeepError):
            return None
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    return name, arguments, False


class Reader:
    """Reads JSON strictly, without building values."""

    def __init__(self, text: str, at: int) -> None:
        self.text, self.at = text, at
        self.open: list[int] = []

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

    def object(self, entry: Callable[[str], None]) -> None:
        """Reads an object; `entry` reads each value."""
        self.open_bracket("{")
        if self.peek() != "}":
            while True:
                self.space()
                key = self.string()
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
