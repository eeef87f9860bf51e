"""Finds tool calls the slow, obvious way: it starts to parse again at every opening."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import jsonschema
from naive_json import SPACE, BrokenError, CutError, Reader, TooDeepError
from naive_spoken import CALL_TAGS, said_is_prose

WORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
TAGS = {"hermes": "<tool_call>", "mistral": "[TOOL_CALLS]", "llama3": "<|python_tag|>", "fenced": "```"}
CLOSINGS = {"hermes": "</tool_call>", "fenced": "```"}
ALL = ("hermes", "granite", "mistral", "llama3", "fenced", "array", "object", "openai")
THINKING = {
    "<think>": "</think>",
    "[THINK]": "[/THINK]",
    "<seed:think>": "</seed:think>",
    "<|START_THINKING|>": "<|END_THINKING|>",
}

Json = dict[str, Any]


class SpokenError(Exception):
    """The opening is only spoken of."""


class VoidError(Exception):
    """Nothing counts from `rest` on, up to the frame's closing."""

    def __init__(self, rest: int) -> None:
        self.rest = rest


class UnclosedError(Exception):
    """A further frame begins at `resume`."""

    def __init__(self, resume: int) -> None:
        self.resume = resume


def find(
    text: str,
    formats: Collection[str] = ALL,
    *,
    unclosed: bool = False,
    tools: Sequence[Json] | None = None,
    thinking: str = "closed",
) -> list[Json]:
    """Every closed call, with `unclosed` every complete one: format, name, arguments, span, body, closed."""
    calls, _ = read(text, formats, tools=tools, thinking=thinking)
    return [call for call in calls if call["closed"] or unclosed]


def read(
    text: str,
    formats: Collection[str] = ALL,
    *,
    tools: Sequence[Json] | None = None,
    thinking: str = "closed",
) -> tuple[list[Json], list[tuple[int, str]]]:
    """Every complete call that counts; and (start, reason) of every frame that gives none, or one too few."""
    calls: list[Json] = []
    attempts: list[tuple[int, str]] = []
    doomed: set[int] = set()  # brackets inside broken JSON: no call begins there
    at = after(text, 0, list(THINKING.values())) if thinking == "open" else 0
    while at < len(text):
        rest = text[at:]
        if block := next((mark for mark in THINKING if rest.startswith(mark)), None):
            at = after(text, at, [THINKING[block]])
            continue
        tag = next((name for name in TAGS if rest.startswith(TAGS[name])), None)
        bare = rest[0] in "{[" and at not in doomed
        if tag is None and any(mark.startswith(rest) for mark in (*TAGS.values(), *THINKING)):
            whole = bare and {"array", "openai"} & set(formats)
            if whole or (len(rest) > 1 and any(mark.startswith(rest) for mark in CALL_TAGS)):
                attempts.append((at, "cut"))
            break  # it may become a tag
        if tag is None and not bare:
            at += 1
            continue
        frame = Frame(text, at, tag, formats, tools or [])
        ended, at = frame.end()
        calls += [call for call in frame.calls if call["format"] in formats]
        attempts += [(frame.start, reason) for reason in (frame.failure(ended),) if reason]
        if ended == "broken":
            doomed.update(frame.reader.open)
    return calls, attempts


def after(text: str, at: int, marks: list[str]) -> int:
    """The place after the first of the marks from `at` on; the end of the text if there is none."""
    found = [(text.find(mark, at), mark) for mark in marks if mark in text[at:]]
    return min((place + len(mark) for place, mark in found), default=len(text))


class Frame:
    """The content of a frame: the text after an opening."""

    def __init__(
        self, text: str, start: int, tag: str | None, formats: Collection[str], tools: Sequence[Json]
    ) -> None:
        self.start, self.tag, self.formats, self.tools = start, tag, formats, tools
        self.opened = start + len(TAGS[tag] if tag else "")
        self.reader = Reader(text, self.opened)
        self.calls: list[Json] = []
        self.means_call = tag in ("hermes", "mistral", "llama3")
        self.wide = tag in (None, "fenced")
        self.listed = self.spoiled = self.like = self.begun = self.ended = self.array = self.void = False
        self.keys: set[str] = set()
        self.lenient = False

    def end(self) -> tuple[str, int]:
        """Reads the frame: how it ended, and where the scan resumes."""
        reader, breaks = self.reader, self.start + 1
        try:
            self.read()
        except CutError:
            return "cut", len(reader.text)
        except SpokenError:
            return "spoken", self.opened
        except UnclosedError as error:
            return "unclosed", error.resume
        except VoidError as error:
            return "void", self.after_rest(error.rest)
        except (BrokenError, TooDeepError) as error:
            if isinstance(error, TooDeepError):
                breaks = reader.at + 1
            elif self.calls:
                breaks = self.calls[-1]["body"][1]
            void = self.tag == "hermes"
            return ("void", self.after_rest(self.opened)) if void else ("broken", breaks)
        return "closed", reader.at

    def after_rest(self, rest: int) -> int:
        """The place after the frame's closing, or of the opening of a further frame."""
        text = self.reader.text
        closing = CLOSINGS[self.tag or ""]
        for at in range(rest, len(text)):
            here = text[at:]
            if here.startswith(closing):
                return at + len(closing)
            if any(here.startswith(mark) for mark in (*CALL_TAGS, *THINKING)):
                return at
            if any(mark.startswith(here) for mark in (closing, *CALL_TAGS, *THINKING)):
                break
        return len(text)

    def failure(self, ended: str) -> str | None:
        """Why the frame gives no call, or one too few."""
        found, whole = bool(self.calls), not self.spoiled
        chosen = {call["format"] for call in self.calls} <= set(self.formats)
        uncounted = None if chosen else ("arguments" if self.lenient else "format")
        call_like = self.means_call or self.like or self.keys >= {"name", "arguments"}
        call_like |= self.is_chosen() and bool(self.keys or (self.listed and not self.array))
        reasons = {
            "spoken": None,
            "closed": "malformed" if found or self.means_call or self.like else None,
            "cut": self.cut(found, uncounted, call_like),
        }
        if found and whole and ended in ("closed", "unclosed"):
            return uncounted or ("unclosed" if ended == "unclosed" else None)
        if ended == "closed" and self.like and whole:
            return "arguments"
        return reasons.get(ended, "malformed" if found or call_like or self.taken_back else None)

    taken_back = False

    def cut(self, found: bool, uncounted: str | None, call_like: bool) -> str | None:
        """Why the frame gives no call if the text ends in it."""
        barren = self.ended and not found
        if self.void or (self.spoiled and found) or (self.means_call and (self.spoiled or barren)):
            return "malformed"
        if found and self.ended:
            return uncounted or "unclosed"
        text = self.reader.text
        if not self.begun and text[self.opened :].strip(SPACE) and text[self.opened] == " ":
            return None
        if self.is_chosen():
            return "cut" if self.means_call or self.begun else None
        return "cut" if found or call_like else None

    def is_chosen(self) -> bool:
        """Whether it may have a call of a chosen format."""
        bare = {"array", "openai"} if self.array else {"object", "openai", "llama3"}
        rows = {"hermes": {"hermes", "granite"}, None: bare}.get(self.tag, {self.tag})
        return bool(rows & set(self.formats))

    def void_array(self) -> None:
        """Reads an array where the format has none. Without an object it is a bracket of prose."""
        reader, spaced = self.reader, self.reader.text[self.opened] == " "
        self.void = True
        try:
            reader.array(reader.value)
        except CutError:
            self.void = reader.has_object or not spaced
            raise
        except BrokenError:
            if reader.has_object or not spaced:
                raise
            raise SpokenError from None
        if spaced and not reader.has_object:
            raise SpokenError

    def read(self) -> None:
        """Reads the whole frame."""
        reader = self.reader
        if self.tag == "fenced":
            while reader.peek() in WORD:
                reader.at += 1
        reader.space()
        body, opens = reader.at, reader.peek()
        if opens not in "{[":
            if not self.means_call:
                raise BrokenError
            gap = reader.text[self.opened : reader.at]
            prose = said_is_prose(reader.text[reader.at :], gap)
            if prose is None:
                raise CutError
            raise SpokenError if prose else BrokenError
        self.array = opens == "["
        self.begun = True
        if opens == "{":
            reader.object(self.entry, self.note)
            if not self.listed:
                self.add(body, "alone", span=(self.start, reader.at))
        elif self.tag in ("hermes", "llama3"):
            self.void_array()
        else:
            self.listed = True
            reader.array(lambda: self.element("array"))
        self.ended = True
        if closing := CLOSINGS.get(self.tag or ""):
            self.close(closing)
        for call in self.calls:
            call["closed"] = not self.spoiled
            if not self.listed:
                call["span"] = (self.start, reader.at)

    def close(self, closing: str) -> None:
        """Reads what must be the closing."""
        reader = self.reader
        reader.space()
        rest = reader.text[reader.at :]
        if rest.startswith(closing):
            reader.at += len(closing)
        elif any(rest.startswith(tag) for tag in CALL_TAGS):
            raise UnclosedError(reader.at)
        elif any(mark.startswith(rest) for mark in (closing, *CALL_TAGS)):
            raise CutError
        elif self.calls or self.means_call:
            self.taken_back = bool(self.calls)
            self.calls = []
            raise VoidError(reader.at)
        else:
            raise BrokenError

    def entry(self, key: str) -> None:
        """One entry of the frame's object."""
        self.reader.space()
        if self.wide and key == "tool_calls" and self.reader.peek() == "[":
            self.listed = True
            self.reader.array(lambda: self.element("tool_calls"))
        else:
            self.reader.value()

    def note(self, key: str) -> None:
        """Takes note of a key that only a call has."""
        if key in ("name", "tool", "function"):
            self.keys.add("name")
        if key in ("arguments", "parameters", "args"):
            self.keys.add("arguments")

    def element(self, place: str) -> None:
        """One element of a list of calls."""
        self.reader.space()
        start = self.reader.at
        if self.reader.peek() != "{":
            self.spoiled = True
            self.reader.value()
            return

        self.reader.object(lambda _: self.reader.value(), self.note)
        self.spoiled = not self.add(start, place, span=(start, self.reader.at)) or self.spoiled

    def add(self, start: int, place: str, span: tuple[int, int]) -> bool:
        """Adds a call if the object that begins at `start` is one; returns whether it is."""
        end = self.reader.at
        body = json.loads(self.reader.text[start:end], strict=True)
        openai = place == "tool_calls"
        found = as_call(body, wrapped=self.wide, openai=openai)
        if found is None:
            self.like |= call_like(body, wrapped=self.wide)
            return False
        name, arguments, usual, was_wrapped = found
        if arguments == EMPTY:
            arguments, usual = {}, usual or any(takes_none(tool, name) for tool in self.tools)
        kind = self.kind(place, body, usual=usual, was_wrapped=was_wrapped)
        if kind is None or self.spoiled:
            self.like |= kind is not None or call_like(body, wrapped=self.wide)
            return False
        self.lenient = not usual
        call = {"format": kind, "name": name, "arguments": arguments, "closed": False}
        self.calls.append(call | {"span": span, "body": (start, end)})
        return True

    def kind(self, place: str, body: Json, *, usual: bool, was_wrapped: bool) -> str | None:
        """The format of a call; None if no format has such calls."""
        if self.tag == "hermes":
            granite = not usual or ("granite" in self.formats and "hermes" not in self.formats)
            return "granite" if granite else "hermes"
        if self.tag == "mistral":
            return "mistral"
        if not usual or self.tag:
            return self.tag if usual else None
        llama3 = set(body) == {"name", "parameters"} and "llama3" in self.formats
        alone = "llama3" if llama3 else "object"
        return "openai" if place == "tool_calls" or was_wrapped else {"array": "array"}.get(place, alone)


EMPTY = "no arguments"


def as_call(body: Json, *, wrapped: bool, openai: bool) -> tuple[str, Any, bool, bool] | None:
    """The call's name, its arguments, whether these are usual, and whether it was wrapped; None = no call."""
    inner = body.get("function")
    is_wrapper = wrapped and isinstance(inner, dict)
    names = [
        key for key in ("name", "tool", "function") if key in body and not (key == "function" and is_wrapper)
    ]
    if not names and is_wrapper:
        found = as_call(inner, wrapped=False, openai=True)
        return found and (*found[:3], True)
    keys = [key for key in ("arguments", "parameters", "args") if key in body]
    labels = {"name", "tool", "function", "id", "type", "index", "call_id"}
    if not names or (not keys and not set(body) <= labels):
        return None
    name, arguments = body[names[0]], body[keys[0]] if keys else None
    usual = isinstance(arguments, dict)
    if arguments is None or (isinstance(arguments, str) and not arguments.strip(SPACE)):
        arguments = EMPTY
    elif isinstance(arguments, str):
        try:
            Reader(arguments, 0).whole()
            arguments = json.loads(arguments)
        except (CutError, BrokenError, TooDeepError):
            return None
    if not isinstance(name, str) or not name or not (arguments == EMPTY or isinstance(arguments, dict)):
        return None
    return name, arguments, usual or openai, False


def call_like(body: Json, *, wrapped: bool) -> bool:
    """Whether an object has the keys of a call."""
    inner = body.get("function")
    is_wrapper = wrapped and isinstance(inner, dict)
    if is_wrapper and call_like(inner, wrapped=False):
        return True
    names = [key for key in ("name", "tool") if key in body]
    if "function" in body and not is_wrapper:
        names.append("function")
    return bool(names) and any(key in body for key in ("arguments", "parameters", "args"))


def takes_none(tool: Json, name: str) -> bool:
    """Whether this is the tool `name`, and `{}` is valid for it."""
    definition = tool.get("function", tool)
    parameters = definition.get("parameters") or {}
    return definition["name"] == name and jsonschema.Draft202012Validator(parameters).is_valid({})
