"""The candidates of `bench/tool_calls.py`: each takes all answers and gives one verdict, or one token, for each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec

from kdfast import ToolCallStream, find_tool_calls, is_valid_tool_json_each
from kdfast._rust import Tokenizer
from tool_call_answers import CLOSING, OPENING, Answer

Candidates = dict[str, Callable[[list[Answer]], list[Any]]]
raw_decode = json.JSONDecoder().raw_decode

# ---------------------------------------------------------------- find + validate


def kdfast_one(answers: list[Answer]) -> list[bool]:
    """kdfast, one question a text."""
    return [answer.schema.is_valid(answer.text) for answer in answers]


def kdfast_nothing(answers: list[Answer]) -> list[bool]:
    """The question alone, of empty texts: the cost of calls from Python."""
    return [answer.schema.is_valid("") for answer in answers]


def kdfast_batch(answers: list[Answer], threads: int) -> list[bool]:
    """kdfast, all texts in one question."""
    texts, schemas = [answer.text for answer in answers], [answer.schema for answer in answers]
    return is_valid_tool_json_each(texts, schemas, threads=threads)


def kdfast_parts(answers: list[Answer]) -> list[bool]:
    """kdfast, the calls found, then validated."""
    return [all(map(answer.schema.is_valid, find_tool_calls(answer.text))) for answer in answers]


def decode_then(answers: list[Answer], kind: str) -> list[bool]:
    """json's raw_decode at each opening, then a validator on the Python object."""
    verdicts = []
    for answer in answers:
        text, end, valid = answer.text, 0, False
        while (start := text.find(OPENING, end)) >= 0:
            call, end = raw_decode(text, start + len(OPENING) + 1)
            valid = text.startswith(CLOSING, end + 1)
            valid = valid and getattr(answer, kind)[call["name"]](call["arguments"])
            if not valid:
                break
        verdicts.append(valid)
    return verdicts


class Named(msgspec.Struct, gc=False):
    """A call whose arguments wait for their type."""

    name: str
    arguments: msgspec.Raw


NAMED = msgspec.json.Decoder(Named)


def msgspec_typed(answers: list[Answer]) -> list[bool]:
    """msgspec: the call between the tags, then its arguments as the tool's struct."""
    verdicts = []
    for answer in answers:
        data, end, valid = answer.data, 0, False
        while (start := data.find(b"<tool_call>", end)) >= 0:
            end = data.index(b"</tool_call>", start)
            call = NAMED.decode(data[start + len(OPENING) : end])
            try:
                answer.msgspec[call.name].decode(call.arguments)
            except msgspec.ValidationError:
                valid = False
                break
            valid = True
        verdicts.append(valid)
    return verdicts


FIND: Candidates = {
    "kdfast, a text at a time": kdfast_one,
    "kdfast, all texts at once": lambda answers: kdfast_batch(answers, 1),
    "kdfast, all texts at once, 2 threads": lambda answers: kdfast_batch(answers, 2),
    "kdfast, find_tool_calls, then is_valid": kdfast_parts,
    "kdfast, empty texts": kdfast_nothing,
    "raw_decode + jsonschema-rs": lambda answers: decode_then(answers, "jsonschema_rs"),
    "raw_decode + fastjsonschema": lambda answers: decode_then(answers, "fastjsonschema"),
    "msgspec, typed": msgspec_typed,
}

# ---------------------------------------------------------------- stream


def kdfast_feed(answers: list[Answer]) -> list[int | None]:
    """kdfast, one call of `feed` a token."""

    def one(answer: Answer) -> int | None:
        feed = ToolCallStream(answer.schema).feed
        for index, piece in enumerate(answer.pieces):
            if feed(piece):
                return index
        return None

    return [one(answer) for answer in answers]


def kdfast_until(answers: list[Answer]) -> list[int | None]:
    """kdfast, taking each token from an iterator until a call is complete."""
    found = []
    for answer in answers:
        stream = ToolCallStream(answer.schema)
        stream.feed_until_complete(iter(answer.pieces))
        found.append(stream.complete_at_token)
    return found


def kdfast_feed_nothing(answers: list[Answer]) -> list[None]:
    """One call of `feed` a token, with nothing in it: the cost of calls from Python."""
    for answer in answers:
        feed = ToolCallStream(answer.schema).feed
        for _ in answer.pieces:
            feed(b"")
    return [None] * len(answers)


def kdfast_tokens(answers: list[Answer], tokenizer: Tokenizer) -> list[int | None]:
    """kdfast, all tokens of an answer in one call."""
    found = []
    for answer in answers:
        stream = ToolCallStream(answer.schema, tokenizer=tokenizer)
        stream.feed_tokens(answer.ids)
        found.append(stream.complete_at_token)
    return found


def retry(answers: list[Answer], kind: str) -> list[int | None]:
    """raw_decode anew whenever a token holds a brace that may be the last."""

    def one(answer: Answer) -> int | None:
        validators = getattr(answer, kind)
        text, at, done = "", -1, 0
        for index, token in enumerate(answer.tokens):
            text += token
            if at < 0:
                at = text.find(OPENING, done)
            elif "}" in token:
                try:
                    call, done = raw_decode(text, at + len(OPENING) + 1)
                except ValueError:
                    continue
                if validators[call["name"]](call["arguments"]):
                    return index
                at = -1
        return None

    return [one(answer) for answer in answers]


MARKS = re.compile(r'[{}"\\]')


def scanner(answers: list[Answer], kind: str) -> list[int | None]:
    """An incremental scanner: braces, quotes and backslashes, by a regular expression a token."""

    def one(answer: Answer) -> int | None:
        validators = getattr(answer, kind)
        text, at, done = "", -1, 0
        depth, in_string, escaped = 0, False, False
        for index, token in enumerate(answer.tokens):
            text += token
            if at < 0:
                at = text.find(OPENING, done)
                continue
            if escaped and token:
                token, escaped = token[1:], False  # noqa: PLW2901 - the character is behind a backslash
            for mark in MARKS.finditer(token):
                character = mark.group()
                if escaped:
                    escaped = False
                elif character == "\\":
                    escaped = in_string
                elif character == '"':
                    in_string = not in_string
                elif not in_string:
                    depth += 1 if character == "{" else -1
                    if not depth:
                        call, done = raw_decode(text, at + len(OPENING) + 1)
                        if validators[call["name"]](call["arguments"]):
                            return index
                        at = -1
                        break
        return None

    return [one(answer) for answer in answers]


def stream_candidates(tokenizer: Tokenizer) -> Candidates:
    """Who streams."""
    return {
        "kdfast, a token at a time": kdfast_feed,
        "kdfast, tokens out of an iterator": kdfast_until,
        "kdfast, all tokens at once": lambda answers: kdfast_tokens(answers, tokenizer),
        "kdfast, empty tokens": kdfast_feed_nothing,
        "incremental Python scanner + jsonschema-rs": lambda answers: scanner(answers, "jsonschema_rs"),
        "incremental Python scanner + fastjsonschema": lambda answers: scanner(answers, "fastjsonschema"),
        "raw_decode at each brace + jsonschema-rs": lambda answers: retry(answers, "jsonschema_rs"),
        "raw_decode at each brace + fastjsonschema": lambda answers: retry(answers, "fastjsonschema"),
    }
