"""The one way from YAML and overrides to a `Config`: wrong keys, types and ranges are refused by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from kdfast.config.config import SECTIONS, Config, required_keys
from kdfast.config.document import Entry, parse_value, read_entries
from kdfast.config.retired import is_retired
from kdfast.config.section import Section
from kdfast.errors import ConfigError

AnySection = TypeVar("AnySection", bound=Section)


def load_config(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Config:
    """Loads a config file.

    Paths in it stay as they are written: a relative one starts at the current directory, not at the file.

    Args:
        path: a YAML file of sections (`train:`) of keys (`num_steps: 100`).
        overrides: `section.key=value` each, the value in YAML; later ones win over earlier ones and the file.

    Returns:
        The valid config; `Config.origins` says where each value comes from.

    Raises:
        ConfigError: the message starts with the dotted path of the key at fault, and its note is the place in
            the file; where the YAML itself is broken, the message starts with file:line:column.
        OSError: the file cannot be read (`FileNotFoundError`, `IsADirectoryError`...).
    """
    return _build([*read_entries(Path(path)), *_parse_overrides(overrides)])


def config_from_dict(values: Mapping[str, object], overrides: Iterable[str] = ()) -> Config:
    """Loads a config from plain values, such as those that `Config.to_dict` returns.

    Args:
        values: section name -> key -> value.
        overrides: as for `load_config`.

    Returns:
        The valid config.

    Raises:
        ConfigError: as for `load_config`.

    Examples:
        >>> config_from_dict({"train": {"num_step": 10}})
        Traceback (most recent call last):
        ...
        kdfast.errors.ConfigError: train.num_step: unknown key, did you mean 'num_steps'?
    """
    entries = []
    for section, keys in values.items():
        mapping = keys if isinstance(keys, Mapping) else {}
        entries.append(Entry(section, None, None if isinstance(keys, Mapping) else keys, "given"))
        entries += [Entry(section, str(key), value, "given") for key, value in mapping.items()]
    return _build([*entries, *_parse_overrides(overrides)])


def load_section(
    section: type[AnySection], path: str | os.PathLike[str] | None = None, overrides: Iterable[str] = ()
) -> AnySection:
    """Loads one section alone, for a command that needs no other.

    Args:
        section: the section's class.
        path: a config file, whose other sections are not looked at; None = the defaults.
        overrides: as for `load_config`, but only keys of this section.

    Raises:
        ConfigError, OSError: as for `load_config`.

    Examples:
        >>> from kdfast.config import GatesConfig
        >>> load_section(GatesConfig, overrides=["gates.f1_drop=0.02"]).f1_drop
        0.02
        >>> load_section(GatesConfig, overrides=["train.seed=1"])
        Traceback (most recent call last):
        ...
        kdfast.errors.ConfigError: train.seed: only keys of 'gates' mean something here, such as gates.enabled
    """
    given = list(_parse_overrides(overrides))
    for entry in given:
        if entry.section != section.section:
            raise ConfigError(
                f"{entry.section}.{entry.key}: only keys of '{section.section}' mean something here, such as "
                f"{section.section}.{section.names()[0]}"
            )
    origins: dict[str, str] = {}
    with _placed(origins):
        file = read_entries(Path(path)) if path is not None else []
        values = _values([*file, *given], origins, only=section.section)
        return _section(section, values[section.section])


def _parse_overrides(overrides: Iterable[str]) -> Iterable[Entry]:
    for text in overrides:
        name, equals, value = text.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot and section and key):
            raise ConfigError(
                f"override: must be section.key=value, such as train.num_steps=10, got {text!r}"
            )
        try:
            yield Entry(section, key, parse_value(value), "override")
        except ValueError as error:
            raise ConfigError(f"{name.strip()}: not valid YAML ({error}), got {value!r}") from None


def _build(entries: Iterable[Entry]) -> Config:
    origins = {f"{name}.{key}": "default" for name, section in SECTIONS.items() for key in section.names()}
    with _placed(origins):
        values = _values(entries, origins)
        return Config(
            **{name: _section(section, values[name]) for name, section in SECTIONS.items()},  # type: ignore[arg-type]
            origins=origins,
        )


def _values(
    entries: Iterable[Entry], origins: dict[str, str], only: str | None = None
) -> dict[str, dict[str, Any]]:
    """The converted values of all sections, or of `only` one; writes to `origins` where each comes from."""
    values: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for entry in entries:
        # Set first, so that an error about this entry can name its place.
        origins[f"{entry.section}.{entry.key}" if entry.key else entry.section] = entry.origin
        section = _known_section(entry)
        if only not in (None, entry.section):
            continue
        if entry.key is not None:
            name = f"{entry.section}.{entry.key}"
            if is_retired(name, entry.value):
                del origins[name]
                continue
            _check_key(entry.key, section)
            values[entry.section][entry.key] = section.convert(entry.key, entry.value)
        # `teacher:` with every key commented out is an empty section, not a mistake.
        elif entry.value is not None:
            raise ConfigError(f"{entry.section}: must be a mapping of keys to values, got {entry.value!r}")
    return values


@contextmanager
def _placed(origins: Mapping[str, str]) -> Iterator[None]:
    """Adds the place of the key, as a note, to a ConfigError that is raised inside the block."""
    try:
        yield
    except ConfigError as error:
        origin = origins.get(str(error).partition(": ")[0], "default")
        if origin not in ("default", "override", "given"):
            error.add_note(origin)
        raise


def _section(section: type[AnySection], values: Mapping[str, Any]) -> AnySection:
    for key in required_keys(section):
        if key not in values:
            raise ConfigError(
                f"{section.section}.{key}: required; set it to {section.describe(key)}"
                f" ({section.key(key).help.rstrip('.')})"
            )
    return section(**values)


def _known_section(entry: Entry) -> type[Section]:
    section = SECTIONS.get(entry.section)
    if section is None:
        homes = [
            f"{name}.{entry.section}" for name, other in SECTIONS.items() if entry.section in other.names()
        ]
        close = homes[:1] or difflib.get_close_matches(entry.section.lower(), SECTIONS, n=1)
        raise ConfigError(f"{entry.section}: unknown section, {_suggest(close, SECTIONS)}")
    return section


def _check_key(key: str, section: type[Section]) -> None:
    if key not in section.names():
        close = difflib.get_close_matches(key.lower(), section.names(), n=1)
        homes = [f"{name}.{key}" for name, other in SECTIONS.items() if key in other.names()]
        suggestion = _suggest(close or homes[:1], section.names())
        raise ConfigError(f"{section.section}.{key}: unknown key, {suggestion}")


def _suggest(close: list[str], known: Iterable[str]) -> str:
    return f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}"
