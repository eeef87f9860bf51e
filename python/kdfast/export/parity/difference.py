"""Why two renderings of the same prompt differ: named causes, and the place, side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import isfinite
from typing import Any

from kdfast.errors import ConfigError
from kdfast.export.parity.json_pieces import join, split, with_sorted_keys, without_empty_extras

WAIVABLE: dict[str, str] = {
    "number": "a number is printed otherwise: 1.0 as 1, 1e-5 as 1e-05",
    "rounding": "a number is rounded: llama.cpp prints numbers with six digits, and garbles integers beyond 64 bits",
    "key-order": "the keys of an object stand in another order",
    "keys": "a key without a value is added or left out: llama.cpp adds an empty description to a tool that has none",
    "white-space": "only blanks and line ends differ",
    "escape": "a character is escaped otherwise: \\u00e9 for é, \\/ for /",
    "date": "another date: the template asks for today's",
    "content": "another text",
    "refused": "the server refuses the messages or the tools",
}
"""Causes that a user may accept, by name."""

REFUSED = "refused"
"""The cause that the check `calls` knows too: it leaves such records out."""

TOKENIZER = "tokenizer"
"""The texts are equal and the ids differ: the file's tokenizer is not the student's. Never accepted."""

CALLS = "calls"
"""The waiver of the check `calls`: llama.cpp does not parse this format; the client parses."""

AROUND = 40
"""Characters that a difference shows before and after its place."""

_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_NUMBER = re.compile(r"(?<![\w.])(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?(?![\w.])")
_LONG = 20  # digits of a number that are worth a calculation: Python refuses to read thousands
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_DATE = re.compile(
    rf"\d{{4}}-\d\d-\d\d|\d{{1,2}} (?:{_MONTHS})[a-z]* \d{{4}}|(?:{_MONTHS})[a-z]* \d{{1,2}}, \d{{4}}"
)

_Change = Callable[[str, str], tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A prompt that the runtime does not make as training did.

    Attributes:
        line: the record's line.
        causes: names out of `WAIVABLE`, or `TOKENIZER`.
        at: the first character that differs; None where the texts are equal.
        trained: training's text there, with some characters before.
        runtime: the runtime's.
        message: what the server said, or the first ids that differ; "" = nothing.
    """

    line: int
    causes: tuple[str, ...]
    at: int | None = None
    trained: str = ""
    runtime: str = ""
    message: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "line": self.line,
            "causes": list(self.causes),
            **(
                {"at": self.at, "trained": self.trained, "runtime": self.runtime}
                if self.at is not None
                else {}
            ),
            **({"message": self.message} if self.message else {}),
        }


def check_waivers(waivers: Collection[str]) -> None:
    """Checks the names of accepted differences.

    Raises:
        ConfigError: one that is not known, or cannot be accepted.

    Example:
        >>> check_waivers({"number", "calls"})
    """
    allowed = (*WAIVABLE, CALLS)
    for name in waivers:
        if name == TOKENIZER:
            raise ConfigError(
                "a waiver cannot accept other token ids for the same text: the student was trained on other prompts; "
                f"export it with its own tokenizer, got: {name}"
            )
        if name not in allowed:
            raise ConfigError(f"a waiver must be one of {', '.join(allowed)}, got: {name}")


def describe(line: int, trained: str, runtime: str) -> Difference:
    """A difference of two texts.

    Example:
        >>> found = describe(3, 'tools: [{"a": 1.0}]', 'tools: [{"a": 1}]')
        >>> found.causes, found.at, found.trained, found.runtime
        (('number',), 15, 'tools: [{"a": 1.0}]', 'tools: [{"a": 1}]')
    """
    at = first_difference(trained, runtime)
    start = max(0, at - AROUND)
    return Difference(
        line=line,
        causes=find_causes(trained, runtime),
        at=at,
        trained=trained[start : at + AROUND],
        runtime=runtime[start : at + AROUND],
    )


def first_difference(one: str, other: str) -> int:
    """The first place at which two texts differ; the shorter one's length if it is how the longer one begins.

    Example:
        >>> first_difference("ab", "ac"), first_difference("ab", "abc")
        (1, 2)
    """
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def find_causes(trained: str, runtime: str) -> tuple[str, ...]:
    r"""The causes that explain a difference, each of them needed; else "content".

    Each cause has a change after which it makes no difference. All of them are made; then each is left out in turn, and
    those without which the texts differ are the causes.

    Examples:
        >>> find_causes('{"b": 1.0, "a": "\\u00e9"}', '{"a": "é", "b": 1}')
        ('number', 'key-order', 'escape')
        >>> find_causes("Is it raining?", "Is it snowing?")
        ('content',)
        >>> find_causes("a", "a")
        ()
    """
    if trained == runtime:
        return ()
    needed = list(_CHANGES)
    if not _equal_after(needed, trained, runtime):
        return ("content",)
    for name in _CHANGES:
        rest = [other for other in needed if other != name]
        if _equal_after(rest, trained, runtime):
            needed = rest
    return tuple(sorted(needed, key=list(WAIVABLE).index))


def _equal_after(names: Collection[str], one: str, other: str) -> bool:
    for name, change in _CHANGES.items():
        if name in names:
            one, other = change(one, other)
    return one == other


def _each(change: Callable[[str], str]) -> _Change:
    return lambda one, other: (change(one), change(other))


def _drop_keys(one: str, other: str) -> tuple[str, str]:
    ours, theirs = split(one), split(other)
    if len(ours) != len(theirs):
        return one, other
    for at, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if not isinstance(a, str) and not isinstance(b, str):
            ours[at], theirs[at] = without_empty_extras(a, b)
    return join(ours), join(theirs)


def _sort_keys(text: str) -> str:
    return join([part if isinstance(part, str) else with_sorted_keys(part) for part in split(text)])


def _unescape(text: str) -> str:
    plain = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text).replace("\\/", "/")
    # A character beyond the basic plane is escaped as two halves.
    return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _exact(found: re.Match[str]) -> str:
    """A number's value in one form for all ways to write it."""
    sign, whole, fraction, exponent = found[1], found[2], found[3] or "", found[4] or "0"
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return "0"
    if len(exponent) > _LONG:
        return found[0]
    plain = digits.rstrip("0")
    return f"{sign}{plain}e{int(exponent) - len(fraction) + len(digits) - len(plain)}"


def _rounded(found: re.Match[str]) -> str:
    """A number with six digits. An integer of 64 bits stays: llama.cpp prints it whole."""
    if found[3] is None and found[4] is None and len(found[2]) <= _LONG and abs(int(found[0])) < 1 << 63:
        return found[0]
    value = float(found[0])
    return f"{value:.6g}" if isfinite(value) else found[0]


# Last to first, a change must not hide what an earlier one needs: JSON is read before numbers and blanks are changed.
# The strictest go last in the trial of leaving out: `number` before `rounding`, which covers it.
_CHANGES: dict[str, _Change] = {
    "keys": _drop_keys,
    "key-order": _each(_sort_keys),
    "escape": _each(_unescape),
    "date": _each(lambda text: _DATE.sub("DATE", text)),
    "rounding": _each(lambda text: _NUMBER.sub(_rounded, text)),
    "number": _each(lambda text: _NUMBER.sub(_exact, text)),
    "white-space": _each(lambda text: re.sub(r"\s+", "", text)),
}
