"""The base class of all sections of a config: how keys are declared, checked and explained.

A section is a frozen keyword-only dataclass. The annotation of a field is the type that the key accepts; `Key` adds
bounds and help text. The constructor checks all of it, so a section that exists is valid.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
import types
from pathlib import Path
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from kdfast.errors import ConfigError

# YAML 1.1 reads `1e-4` (no dot) as text, but users mean the number.
_EXPONENT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")
_NOUNS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a text",
    Path: "a path",
    dict: "a mapping of names to JSON values",
    type(None): "null",
}
_PLURALS = {int: "integers", float: "numbers", str: "texts", Path: "paths"}


@dataclasses.dataclass(frozen=True)
class Key:
    """What a key declares besides its type: `num_steps: Annotated[int, Key("...", minimum=1)] = 1`.

    Attributes:
        help: one sentence for `kdfast config keys`.
        minimum: the value (in a list, each item) must be >= this.
        above: the value must be > this.
        maximum: the value must be <= this.
        below: the value must be < this.
        on_resume: whether `--resume` accepts another value than the interrupted run had.
        title: what the key weighs, in words; only of weights of loss terms.
    """

    help: str
    _: dataclasses.KW_ONLY
    minimum: float = -math.inf
    above: float = -math.inf
    maximum: float = math.inf
    below: float = math.inf
    on_resume: bool = False
    title: str = ""

    def limits(self) -> str:
        """The bounds in words, such as `> 0 and <= 1`."""
        bounds = {">=": self.minimum, ">": self.above, "<=": self.maximum, "<": self.below}
        return " and ".join(f"{sign} {bound}" for sign, bound in bounds.items() if math.isfinite(bound))

    def accepts(self, number: float) -> bool:
        """Whether a number is within the bounds."""
        return self.minimum <= number <= self.maximum and self.above < number < self.below


class _MismatchError(Exception):
    """A value does not fit its type. The caller, who knows the key, turns it into a ConfigError."""


def invalid(path: str, allowed: str, value: object) -> ConfigError:
    """The error for a value that a key does not accept.

    Examples:
        >>> str(invalid("train.num_steps", "an integer >= 1", 0))
        'train.num_steps: must be an integer >= 1, got 0'
    """
    shown = repr(str(value) if isinstance(value, Path) else value)
    return ConfigError(
        f"{path}: must be {allowed}, got {shown if len(shown) <= 120 else shown[:117] + '...'}"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """One section of the config; subclasses set `section` to its name."""

    section: ClassVar[str]
    _hints: ClassVar[dict[str, Any]]

    def __init_subclass__(cls) -> None:
        cls._hints = get_type_hints(cls, include_extras=True)

    def __post_init__(self) -> None:
        for name in self.names():
            object.__setattr__(self, name, self.convert(name, getattr(self, name)))
        self.check()

    def check(self) -> None:
        """Checks keys that depend on other keys of the section; raises ConfigError."""

    def unused(self) -> frozenset[str]:
        """The keys that have no effect, given the section's other values."""
        return frozenset()

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of the section's keys, in the order of their declaration."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def key(cls, name: str) -> Key:
        """The declaration of one key."""
        key: Key = cls._hints[name].__metadata__[0]
        return key

    @classmethod
    def default(cls, name: str) -> Any:
        """The default of one key; `dataclasses.MISSING` for a required one."""
        return cls.__dataclass_fields__[name].default

    @classmethod
    def convert(cls, name: str, value: object) -> Any:
        """A value in the type that a key declares.

        Args:
            name: the key.
            value: as read from YAML, or given in Python.

        Returns:
            The value. A list becomes a tuple; a text becomes a `Path` if the key is a path; an integer becomes a float
            if the key is a number.

        Raises:
            ConfigError: wrong type or out of range.
        """
        try:
            return _convert(value, cls._hints[name].__origin__, cls.key(name))
        except _MismatchError:
            raise invalid(f"{cls.section}.{name}", cls.describe(name), value) from None

    @classmethod
    def describe(cls, name: str) -> str:
        """What a key accepts, in words."""
        options = _options(cls._hints[name].__origin__, cls.key(name).limits())
        return options[0] if len(options) == 1 else f"{', '.join(options[:-1])} or {options[-1]}"

    def to_dict(self) -> dict[str, Any]:
        """The section as plain values: paths as text, tuples as lists."""
        return {name: _plain(getattr(self, name)) for name in self.names()}


def _convert(value: object, hint: Any, key: Key) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, args, key)
    if origin is tuple:
        return _convert_list(value, args, key)
    if origin is Literal:
        fits, result = isinstance(value, str) and value in args, value
    elif hint is float:
        fits, result = _number(value, key)
    elif hint is Path:
        fits, result = _path(value)
    elif origin is dict:
        fits, result = isinstance(value, dict) and _is_json(value), copy.deepcopy(value)
    else:
        fits, result = type(value) is hint, value  # not isinstance: a bool is no integer here
        # An integer that takes more than 64 bits would fail where it is used.
        fits = fits and (not isinstance(value, int) or (abs(value) < 2**63 and key.accepts(value)))
    if not fits:
        raise _MismatchError
    return result


def _convert_union(value: object, options: tuple[Any, ...], key: Key) -> Any:
    for option in options:
        try:
            return _convert(value, option, key)
        except _MismatchError:
            continue
    raise _MismatchError


def _convert_list(value: object, items: tuple[Any, ...], key: Key) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _MismatchError
    if items[-1] is not Ellipsis and len(value) != len(items):
        raise _MismatchError
    return tuple(_convert(item, items[0], key) for item in value)


def _number(value: object, key: Key) -> tuple[bool, object]:
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False, value
    try:
        number = float(value)
    except OverflowError:
        return False, value
    return math.isfinite(number) and key.accepts(number), number


def _path(value: object) -> tuple[bool, object]:
    if not isinstance(value, str | Path) or not str(value).strip() or "\0" in str(value):
        return False, value
    path = Path(value)
    return True, path.expanduser() if path.parts[:1] == ("~",) else path


def _is_json(value: object) -> bool:
    """Whether a value is one that JSON can write: no date, no NaN, texts as keys."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(one) for key, one in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    return (
        value is None
        or isinstance(value, bool | int | str)
        or (isinstance(value, float) and math.isfinite(value))
    )


def _options(hint: Any, limits: str) -> list[str]:
    """What a type accepts, in words; one entry per alternative."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return [option for arg in args for option in _options(arg, limits)]
    if origin is Literal:
        return [repr(choice) for choice in args]
    if origin is tuple:
        count = "" if args[-1] is Ellipsis else f"{len(args)} "
        if get_origin(args[0]) is Literal:
            return [f"a list of {', '.join(map(repr, get_args(args[0])))}"]
        return [f"a list of {count}{_PLURALS[args[0]]} {limits}".rstrip()]
    return [f"{_NOUNS[origin or hint]} {limits if hint in (int, float) else ''}".rstrip()]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else copy.deepcopy(value)
