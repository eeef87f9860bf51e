"""A JSON value that knows its place in the document, so that an error names file, line and key."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from kdfast.errors import DataError


@dataclass(frozen=True)
class Node:
    """A JSON value and its place.

    Attributes:
        value: the value, as the JSON decoder gave it.
        file: the file that it was read from.
        remedy: what to do when the value is wrong.
        line: 1-based line of a JSONL file; None = the file is one document.
        path: dotted keys from the document's root.

    Examples:
        >>> node = Node({"table": {"parsed": {"count": "3"}}}, "evaluation.json", "make it again")
        >>> node["table"]["parsed"]["count"].number()
        Traceback (most recent call last):
        ...
        kdfast.errors.DataError: evaluation.json: table.parsed.count must be a number; make it again, got '3'
    """

    value: Any
    file: str
    remedy: str
    line: int | None = None
    path: str = ""

    def __getitem__(self, key: str) -> Node:
        found = self.find(key)
        if found is None:
            raise DataError(f"{self._child(key).name} is missing; {self.remedy}", self.file, self.line)
        return found

    @property
    def name(self) -> str:
        """How errors call the value."""
        return self.path or "the document"

    def find(self, key: str) -> Node | None:
        """The value of a key; None where the key is missing or null.

        Raises:
            DataError: this node is no object.
        """
        found = self.at(key)
        return None if found.value is None else found

    def at(self, key: str) -> Node:
        """The value of a key; a missing key counts as null."""
        return replace(self._child(key), value=self.object().get(key))

    def object(self) -> dict[str, Any]:
        """The value, which must be an object; otherwise raises DataError."""
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        return self.value

    def items(self) -> Iterator[tuple[str, Node]]:
        """The keys of an object and their values, nulls included."""
        for key in self.object():
            yield key, self.at(key)

    def list(self) -> list[Node]:
        """The entries of the value, which must be a list; otherwise raises DataError."""
        if not isinstance(self.value, list):
            raise self.wrong("a list")
        return [replace(self._child(str(index)), value=value) for index, value in enumerate(self.value)]

    def number(self) -> float:
        """The value, which must be a finite number; otherwise raises DataError."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self.wrong("a number")
        try:
            number = float(self.value)
        except OverflowError:
            raise self.wrong("a number that fits 64 bits") from None
        if not math.isfinite(number):
            raise self.wrong("a finite number")
        return number

    def count(self) -> int:
        """The value, which must be an integer of at least 0; otherwise raises DataError."""
        number = self.number()
        if number < 0 or number != int(number):
            raise self.wrong("an integer of at least 0")
        return int(number)

    def text(self) -> str:
        """The value, which must be a text; otherwise raises DataError."""
        if not isinstance(self.value, str):
            raise self.wrong("a text")
        return self.value

    def flag(self) -> bool:
        """The value, which must be true or false; otherwise raises DataError."""
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return self.value

    def wrong(self, allowed: str) -> DataError:
        """The error that says what the value must be."""
        shown = repr(self.value)
        shown = shown if len(shown) <= 80 else shown[:80] + "..."
        return DataError(f"{self.name} must be {allowed}; {self.remedy}, got {shown}", self.file, self.line)

    def _child(self, key: str) -> Node:
        return replace(self, path=f"{self.path}.{key}" if self.path else key)
