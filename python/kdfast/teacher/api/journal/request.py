"""A request to a teacher, and the hash by which the journal knows it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from kdfast.files import parse_json

MOST_ORDER = 2**62
"""Orders and sample indices are below this number, so that SQLite can store them."""


def canonical_json(value: object) -> bytes:
    """The one way in which a JSON value is written: UTF-8, keys sorted by code point, no spaces.

    Floats are written as Python does (`0.7`, `1.0`), so 1 and 1.0 differ.

    Raises:
        ValueError: it is no JSON value (NaN, a key that is no text, half of a surrogate pair, nested too deeply).

    Examples:
        >>> canonical_json({"b": [1, 0.5], "a": "é"}).decode()
        '{"a":"é","b":[1,0.5]}'
        >>> canonical_json({1: "one"})
        Traceback (most recent call last):
        ...
        ValueError: a key of a JSON object must be text: 1
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except TypeError as error:
        raise ValueError(f"not a JSON value: {error}") from None
    _check_keys(value)
    return text.encode("utf-8")


def _check_keys(value: object) -> None:
    """`json.dumps` would turn the key 1 into "1": two requests could share a hash."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            for key in one:
                if not isinstance(key, str):
                    raise ValueError(f"a key of a JSON object must be text: {key!r}")
            waiting.extend(one.values())
        elif isinstance(one, list | tuple):
            waiting.extend(one)


@dataclass(frozen=True)
class Request:
    """What is asked of a teacher. Two requests with one `hash` are the same request, whatever config made them.

    Attributes:
        endpoint: the address that the request goes to, without a key.
        body: the JSON object that is sent.
        sample: which of several answers to the same body this one is, from 0.
        order: the request's place in its job. Results are read by it; it is not in the hash.
        context: what else decides the answer, such as names of headers; {} = nothing.
        hash: SHA-256 of `content`, in hex.

    Examples:
        >>> one = Request("http://localhost/v1/chat/completions", {"model": "m", "messages": []})
        >>> one.hash == Request(one.endpoint, {"messages": [], "model": "m"}, order=7).hash
        True
        >>> one.hash == Request(one.endpoint, one.body, sample=1).hash
        False
    """

    endpoint: str
    body: Mapping[str, Any]
    sample: int = 0
    order: int = 0
    context: Mapping[str, Any] = field(default_factory=dict)
    hash: str = field(init=False)

    def __post_init__(self) -> None:
        for name, number in (("sample", self.sample), ("order", self.order)):
            if not 0 <= number < MOST_ORDER:
                raise ValueError(f"{name} must be at least 0 and below {MOST_ORDER}: {number}")
        object.__setattr__(self, "hash", hashlib.sha256(canonical_json(self._parts())).hexdigest())

    @property
    def content(self) -> bytes:
        """Canonical JSON of all but `order`; made anew each time, because a job has many requests."""
        return canonical_json(self._parts())

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"endpoint": self.endpoint, "body": dict(self.body), "sample": self.sample}
        return parts | ({"context": dict(self.context)} if self.context else {})

    @classmethod
    def from_content(cls, content: bytes, order: int = 0) -> Self:
        """The request with this content.

        Raises:
            ValueError: the bytes are not the content of a request.
        """
        parts = parse_json(content)
        try:
            made = cls(parts["endpoint"], parts["body"], parts["sample"], order, parts.get("context", {}))
        except (TypeError, KeyError, AttributeError):
            raise ValueError("not the content of a request") from None
        if made.content != content:
            raise ValueError("not written as canonical JSON")
        return made
