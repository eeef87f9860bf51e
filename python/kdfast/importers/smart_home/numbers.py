"""Numbers as people say them: the usual ones above all, in digits or in words."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kdfast.importers.smart_home.home import Numbers

_MOST_TEXTS = 1000
_DECIMAL_POINT = (
    "en",
    "ga",
    "he",
    "hi",
    "ja",
    "ko",
    "ml",
    "ne",
    "sw",
    "th",
    "zh",
    "cy",
    "ms",
    "bn",
    "gu",
    "kn",
    "pa",
)


@dataclass(frozen=True)
class Range:
    """A list of the package that is a range of numbers.

    Attributes:
        low: the least number that is said.
        high: the greatest.
        step: the distance between two.
        multiplier: what a number is multiplied by to make the argument: -1 for "volume down by 10".
        halves: whether 20.5 may be said as well.
    """

    low: int
    high: int
    step: int = 1
    multiplier: float = 1
    halves: bool = False

    @classmethod
    def of(cls, definition: dict[str, Any]) -> Range:
        """The range that the package defines: `{"from": 0, "to": 100, "step": 1, ...}`."""
        return cls(
            int(definition["from"]),
            int(definition["to"]),
            int(definition.get("step", 1)),
            definition.get("multiplier", 1),
            definition.get("fractions") is not None,
        )

    def value(self, said: float) -> int | float:
        """The argument that a said number means.

        Example:
            >>> Range(0, 100, multiplier=-1).value(10), Range(0, 100, halves=True).value(20.5)
            (-10, 20.5)
        """
        result = said * self.multiplier
        return int(result) if result == int(result) else result


class Speaker:
    """Says the numbers of one list.

    Args:
        definition: the list's range.
        family: the key of the usual numbers, see `family_of`.
        numbers: how this home says numbers.
        words: says a whole number in words; None = this language has none.
        language: decides how a half is written.
    """

    def __init__(
        self,
        definition: Range,
        family: str,
        numbers: Numbers,
        words: Callable[[int], str] | None,
        language: str,
    ) -> None:
        self.range = definition
        usual = numbers.usual.get(family, ())
        self._usual = [number for number in usual if definition.low <= number <= definition.high]
        self._usual_share = numbers.usual_share if self._usual else 0.0
        self._in_words_share = numbers.in_words_share if words else 0.0
        self._words = words
        self._point = "." if language.split("-", maxsplit=1)[0] in _DECIMAL_POINT else ","

    def draw(self, rng: random.Random) -> tuple[str, int | float]:
        """A number as it is said, and the argument that it means."""
        if rng.random() < self._usual_share:
            number = rng.choice(self._usual)
        else:
            low, high, step = self.range.low, self.range.high, self.range.step
            number = rng.randrange(low, high + 1, step)
            if self.range.halves and number < high and rng.random() < 0.2:
                number += 0.5
        in_words = self._words is not None and number == int(number) and rng.random() < self._in_words_share
        return self._text(number, in_words), self.range.value(number)

    def texts(self) -> list[str]:
        """Every number of the list, as it may be said. A long list is thinned out to the round numbers."""
        step = self.range.step * max(1, (self.range.high - self.range.low) // (self.range.step * _MOST_TEXTS))
        whole: list[float] = [*range(self.range.low, self.range.high + 1, step), *self._usual]
        halves = [number + 0.5 for number in whole if self.range.halves and number < self.range.high]
        texts = [self._text(number, False) for number in whole + halves]
        if self._words is not None:
            texts += [self._text(number, True) for number in whole if number == int(number)]
        return sorted(set(texts))

    def _text(self, number: float, in_words: bool) -> str:
        if number == int(number):
            return self._words(int(number)) if in_words and self._words else str(int(number))
        return str(number).replace(".", self._point)


def family_of(name: str, definition: dict[str, Any]) -> str:
    """The key under which a home gives the usual numbers of a list.

    Example:
        >>> family_of("timer_minutes", {"from": 1}), family_of("volume", {"type": "percentage"})
        ('timer', 'percentage')
        >>> family_of("color_temperature", {"from": 1000})
        'color_temperature'
    """
    return "timer" if name.startswith("timer_") else str(definition.get("type", name))
