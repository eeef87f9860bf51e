"""A YAML file of sections and keys, read strictly: every key with its line, none given twice."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kdfast.errors import ConfigError


@dataclass(frozen=True)
class Entry:
    """One key of a file, or (key None) the head of a section.

    Attributes:
        section: its section.
        key: its name in the section; None for the section itself.
        value: its value; for the section itself None, or the value that is there instead of a mapping of keys.
        origin: "file:line".
    """

    section: str
    key: str | None
    value: Any
    origin: str


def read_entries(path: Path) -> list[Entry]:
    """Reads a config file.

    Args:
        path: a YAML file.

    Returns:
        Its entries, in the file's order.

    Raises:
        ConfigError: the file is empty, not UTF-8, not valid YAML (with file:line:column), or has a key twice.
        OSError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, _no_such_file(path), str(path)) from None
    except IsADirectoryError:
        message = "a config must be a YAML file, this is a directory"
        raise IsADirectoryError(errno.EISDIR, message, str(path)) from None
    try:
        return list(_entries(content.decode("utf-8-sig"), str(path)))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not valid UTF-8 at byte {error.start}; save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{place}: not valid YAML: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(
            f"{path}: not valid YAML: {error.reason} at character {error.position}, got {error.character!r}"
        ) from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply; a config is sections of keys") from None


def parse_value(text: str) -> Any:
    """Parses the value of an override as YAML.

    Args:
        text: the text after `key=`.

    Returns:
        The plain value.

    Raises:
        ValueError: not valid YAML.

    Examples:
        >>> parse_value("[128, 256]"), parse_value("true"), parse_value("runs/a")
        ([128, 256], True, 'runs/a')
    """
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(str(getattr(error, "problem", None) or "nested too deeply")) from None


def _no_such_file(path: Path) -> str:
    siblings = path.parent.glob("*.y*ml") if path.parent.is_dir() else ()
    close = difflib.get_close_matches(path.name, [sibling.name for sibling in siblings], n=1)
    hint = f", did you mean '{path.with_name(close[0])}'?" if close else ""
    return f"no such config file{hint}"


def _entries(text: str, source: str) -> Iterator[Entry]:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            raise ConfigError(f"{source}: empty; a config needs at least the sections data and io")
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{source}: must hold sections of keys, such as 'train: {{num_steps: 100}}'")
        for name, line, node in _pairs(loader, root, source, ""):
            if not isinstance(node, yaml.MappingNode):
                yield Entry(name, None, _construct(loader, node, source), f"{source}:{line}")
                continue
            yield Entry(name, None, None, f"{source}:{line}")
            for key, key_line, value in _pairs(loader, node, source, f"{name}."):
                yield Entry(name, key, _construct(loader, value, source), f"{source}:{key_line}")
    finally:
        loader.dispose()


def _pairs(
    loader: yaml.SafeLoader, mapping: yaml.MappingNode, source: str, prefix: str
) -> Iterator[tuple[str, int, yaml.Node]]:
    """The keys of a mapping with their lines. `<<` merges are followed; a key that is given twice is refused."""
    seen: dict[str, int] = {}
    for key, _ in mapping.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in seen:
            error = ConfigError(f"{prefix}{name}: given twice, in lines {seen[name]} and {line}; remove one")
            error.add_note(f"{source}:{line}")
            raise error
        seen[name] = line
    loader.flatten_mapping(mapping)
    merged = {str(key.value): (key.start_mark.line + 1, value) for key, value in mapping.value}
    for name, (line, value) in merged.items():
        yield name, line, value


def _construct(loader: yaml.SafeLoader, node: yaml.Node, source: str) -> Any:
    try:
        return loader.construct_object(node, deep=True)
    except (ValueError, OverflowError) as error:  # such as the date 2026-13-45, or an integer of 5000 digits
        mark = node.start_mark
        raise ConfigError(f"{source}:{mark.line + 1}:{mark.column + 1}: not a valid value: {error}") from None
