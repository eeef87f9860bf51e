"""The slow, obvious way to read a dataset: the json module and a loop over lines."""

from __future__ import annotations

import json
from typing import Any

KNOWN = {
    "prompt",
    "messages",
    "tools",
    "teacher_text",
    "teacher_message",
    "truth_text",
    "truth_message",
    "tool_should_be_used",
    "teacher_prefix_ids",
    "required_fields_present",
    "teacher_attention_mask",
    "validated_arguments",
    "teacher_topk",
    "finish_reason",
}
MAX_DEPTH = 128


class BadLineError(ValueError):
    """A line that is not a JSON object. Other tests check what a record must contain."""


def read(content: bytes) -> tuple[list[dict[str, Any]], list[int]]:
    """The good records, and the numbers of the bad lines."""
    records, bad = [], []
    for number, whole in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        line = whole.removesuffix(b"\r")
        if not line.strip(b" \t\r"):
            continue
        try:
            records.append({"line": number} | record(line))
        except (BadLineError, ValueError, RecursionError):
            bad.append(number)
    return records, bad


def record(line: bytes) -> dict[str, Any]:
    """One line as a record: its known fields that are present, and its metadata."""
    text = line.decode()
    if depth(text) > MAX_DEPTH:
        raise BadLineError("too deep")
    pairs = json.loads(text, parse_constant=_refuse, object_pairs_hook=_Pairs)
    if not isinstance(pairs, _Pairs):
        raise BadLineError("no object")
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise BadLineError("duplicate key")
    values = {name: _plain(value) for name, value in pairs}
    json.dumps(values, ensure_ascii=False, allow_nan=False).encode()  # refuses 1e999 and lone surrogates
    known = {name: value for name, value in values.items() if name in KNOWN and value is not None}
    metadata = dict(values.get("metadata") or {})
    for name, value in values.items():
        if name not in KNOWN and name != "metadata":
            if name in metadata and json.dumps(metadata[name]) != json.dumps(value):
                raise BadLineError("clash")
            metadata.setdefault(name, value)
    return known | {"metadata": metadata}


def depth(text: str) -> int:
    """The deepest nesting of brackets; brackets inside strings do not count."""
    deepest = now = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            in_string, escaped = (escaped or character != '"'), (character == "\\" and not escaped)
        elif character == '"':
            in_string = True
        elif character in "[{":
            now += 1
            deepest = max(deepest, now)
        elif character in "]}":
            now -= 1
    return deepest


class _Pairs(list[tuple[str, Any]]):
    """An object before its repeated keys are merged."""


def _plain(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return {name: _plain(inner) for name, inner in value}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _refuse(constant: str) -> None:
    raise BadLineError(constant)
