"""Reads BFCL's ground truth from a record's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kdfast.errors import DataError

_FORM = "one {function: {argument: [accepted values]}} for each call"


def read_accepted(
    metadata: str, source: str, line: int | None = None
) -> list[dict[str, dict[str, Any]]] | None:
    """The accepted values of a record, from `accepted` in its metadata; None if there are none.

    Args:
        metadata: the metadata, an object as JSON text ("" = empty).
        source: the name of the file, for messages.
        line: the line of the record, for messages.

    Raises:
        DataError: `accepted` does not have BFCL's form.

    Examples:
        >>> read_accepted('{"accepted": [{"f": {"n": [1, 2]}}]}', "data.jsonl")
        [{'f': {'n': [1, 2]}}]
        >>> read_accepted('{"id": 3}', "data.jsonl") is None
        True
        >>> read_accepted('{"accepted": {"f": 1}}', "data.jsonl", 7)
        Traceback (most recent call last):
            ...
        kdfast.errors.DataError: data.jsonl:7: metadata.accepted must be a list, one {function: ...
    """
    return check_accepted(json.loads(metadata or "{}"), source, line)


def check_accepted(
    metadata: Mapping[str, Any], source: str, line: int | None = None
) -> list[dict[str, dict[str, Any]]] | None:
    """As `read_accepted`, of metadata that is parsed already."""
    accepted = metadata.get("accepted")
    if accepted is None:
        return None
    if not isinstance(accepted, list):
        raise DataError(f"metadata.accepted must be a list, {_FORM}, got {accepted!r:.80}", source, line)
    for call in accepted:
        if not isinstance(call, dict) or len(call) != 1 or not _is_call(*call.values()):
            raise DataError(f"metadata.accepted must have {_FORM}, got {call!r:.80}", source, line)
    return accepted


def _is_call(arguments: Any) -> bool:
    return isinstance(arguments, dict) and all(isinstance(values, list) for values in arguments.values())
