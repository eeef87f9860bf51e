"""Reads the YAML of a home strictly: every fault with its key and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Hashable
from pathlib import Path
from typing import Any

import yaml

from kdfast.errors import DataError

MARKS = "\ue000\ue001\ue002"
"""Characters for private use, which stand around a slot's text while a sentence is made."""


class Node:
    """One value of the file, and where it is.

    Attributes:
        value: the value as YAML gives it.
        key: its dotted key; "" for the whole file.
        file: the file's name, for messages.
    """

    def __init__(self, value: Any, key: str, file: str) -> None:
        self.value = value
        self.key = key
        self.file = file

    def wrong(self, message: str) -> DataError:
        """The error that this value is wrong."""
        return DataError(f"{self.key}: {message}" if self.key else message, self.file)

    def mapping(self) -> dict[str, Node]:
        """The keys of a mapping with their values; all keys are texts."""
        if not isinstance(self.value, dict):
            raise self.wrong(f"must be a mapping of keys; got {_shown(self.value)}")
        prefix = f"{self.key}." if self.key else ""
        for key in self.value:
            if not isinstance(key, str):
                raise self.wrong(f"a key must be a text; put it in quotes: {key!r}")
        return {key: Node(value, f"{prefix}{key}", self.file) for key, value in self.value.items()}

    def section(self, *keys: str) -> dict[str, Node]:
        """The values of a mapping that has exactly these keys."""
        found = self.mapping()
        for key in found:
            if key not in keys:
                raise found[key].wrong(f"unknown key; {_close(key, keys)}")
        for key in keys:
            if key not in found:
                raise self.wrong(f"the key {key!r} is missing; every key of a home is required")
        return found

    def text(self) -> str:
        """A text that is not blank."""
        if not isinstance(self.value, str):
            raise self.wrong(
                f"must be a text; put it in quotes if YAML reads another thing: {_shown(self.value)}"
            )
        if not self.value.strip():
            raise self.wrong("is empty; write a text")
        if any(mark in self.value for mark in MARKS) or "\n" in self.value.strip():
            raise self.wrong(f"must be one line without characters for private use: {self.value!r}")
        return self.value

    def items(self) -> list[Node]:
        """The entries of a list that is not empty."""
        if not isinstance(self.value, list):
            raise self.wrong(f"must be a list; got {_shown(self.value)}")
        if not self.value:
            raise self.wrong("is empty; give at least one entry")
        return [Node(item, f"{self.key}[{index}]", self.file) for index, item in enumerate(self.value)]

    def texts(self) -> tuple[str, ...]:
        """A list of texts of which none is there twice; spaces at their ends are taken off."""
        seen: dict[str, str] = {}
        for item in self.items():
            text = item.text().strip()
            if text.casefold() in seen:
                raise item.wrong(f"there twice; remove one: {text!r}")
            seen[text.casefold()] = text
        return tuple(seen.values())

    def spoken(self) -> tuple[str, ...]:
        """A list of texts whose spaces at the ends matter."""
        return tuple(item.text() for item in self.items())

    def text_lists(self) -> dict[str, tuple[str, ...]]:
        """A mapping of names to lists of texts."""
        return {name: node.texts() for name, node in self.mapping().items()}

    def text_map(self) -> dict[str, str]:
        """A mapping of names to texts."""
        return {name: node.text() for name, node in self.mapping().items()}

    def number(self, least: float, most: float) -> float:
        """A number in [least, most]."""
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)):
            raise self.wrong(f"must be a number; got {_shown(self.value)}")
        if not least <= self.value <= most:
            raise self.wrong(f"must be in [{least}, {most}]; got {self.value}")
        return self.value

    def share(self) -> float:
        """A number in [0, 1]."""
        return self.number(0, 1)

    def count(self) -> int:
        """A whole number from 0 on."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or self.value < 0:
            raise self.wrong(f"must be a whole number from 0 on; got {_shown(self.value)}")
        return self.value


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key that is given twice: the first would be lost silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(None, None, "a key must be a text", key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Node:
    """Reads a YAML file.

    Raises:
        DataError: it is no file, not UTF-8, or not valid YAML (with line and column).
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise DataError("no such file; copy a home that comes with kdfast and edit it", str(path))
    try:
        return Node(yaml.load(path.read_text(encoding="utf-8-sig"), _Loader), "", str(path))  # noqa: S506 (safe)
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}; save it as UTF-8", str(path)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else ()
        raise DataError(f"not valid YAML: {error.problem or error.context}", str(path), *place) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f"not valid YAML: {error}", str(path)) from None


def _shown(value: Any) -> str:
    return f"{value!r:.60}"


def _close(key: str, keys: Collection[str]) -> str:
    close = difflib.get_close_matches(key, keys, n=1)
    return f"did you mean {close[0]!r}?" if close else f"the keys here are {', '.join(keys)}"
