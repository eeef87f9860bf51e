"""Builds the rows of all files: distinct sentences, each with one meaning."""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kdfast.errors import DataError
from kdfast.importers.smart_home.automaton import Automaton
from kdfast.importers.smart_home.calls import Calls
from kdfast.importers.smart_home.expand import Sentence
from kdfast.importers.smart_home.no_call import SHARES, NoCalls
from kdfast.importers.smart_home.records import CALL, Row
from kdfast.importers.smart_home.sentences import core, fold
from kdfast.importers.smart_home.templates import TRAIN

HELD_OUT_TEMPLATE, HELD_OUT_SENTENCE = "held_out_template", "held_out_sentence"

_TIRED = 1500
"""After so many draws without a new sentence, a kind has no more."""

_PLENTIFUL = ("missing_slot", "out_of_domain", "unknown_device", "unknown_area")
"""Kinds that make up for others, in this order."""


@dataclass
class Demand:
    """Rows that a file needs.

    Attributes:
        file: the file's name.
        part: TRAIN, VALIDATION or TEST.
        kind: the rows' category.
        count: how many.
        make: draws one row; None if the draw was of no use.
        exhausted: whether no more distinct sentences were found.
    """

    file: str
    part: str
    kind: str
    count: int
    make: Callable[[random.Random], Row | None]
    exhausted: bool = False


@dataclass
class _Core:
    """A sentence without polite words: the only part that may use it, its meaning, and the rows that have it."""

    part: str
    meaning: tuple[Any, ...]
    keys: list[str]


@dataclass
class Built:
    """The rows of all files.

    Attributes:
        files: the rows by file, in the file's order.
        clashes: how many sentences were dropped because they came up with two meanings.
        ambiguous: how many were dropped because two templates with different calls make them.
    """

    files: dict[str, list[Row]]
    clashes: int
    ambiguous: int


class Builder:
    """Draws rows until every demand is met.

    Args:
        calls: draws commands.
        no_calls: draws sentences that need no call.
        reader: reads the sentences of all templates.
        seed: another seed draws others.
    """

    def __init__(self, calls: Calls, no_calls: NoCalls, reader: Automaton, seed: int) -> None:
        self._calls = calls
        self._no_calls = no_calls
        self._reader = reader
        self._seed = seed
        self._rng = random.Random(f"{seed} rows")  # noqa: S311
        self._demands: list[Demand] = []
        self._rows: dict[
            str, tuple[int, Row]
        ] = {}  # by folded sentence: the number of its demand, and the row
        self._cores: dict[str, _Core] = {}
        self._dropped: set[str] = set()
        self._ambiguous: set[str] = set()

    def want(self, file: str, rows: int, part: str, no_call_fraction: float, *, check: bool = False) -> None:
        """Asks for the rows of one file. Files that are asked for first are filled first.

        Args:
            file: its name.
            rows: its rows.
            part: TRAIN, VALIDATION or TEST.
            no_call_fraction: the share of rows without a call.
            check: whether each command is read by all templates, and dropped if it may mean two things; always done
                for held-out rows. Reading a sentence takes ten times as long as drawing it.
        """
        without = round(rows * no_call_fraction)
        calling = rows - without
        if part == TRAIN:
            self._demands.append(Demand(file, part, CALL, calling, self._caller(TRAIN, TRAIN, check)))
        else:
            held = calling // 2 if self._calls.has(part) else 0
            self._demands.append(Demand(file, part, CALL, held, self._caller(part, HELD_OUT_TEMPLATE, True)))
            rest = self._caller(TRAIN, HELD_OUT_SENTENCE, True)
            self._demands.append(Demand(file, part, CALL, calling - held, rest))
        makers = self._no_calls.makers
        counts = shared(without, {kind: SHARES[kind] for kind in makers})
        if part != TRAIN:
            # One half is cut where no training template can be cut; of the other half only the sentences are new.
            known = counts["missing_slot"] if not self._calls.has(part) else counts["missing_slot"] // 2
            counts["missing_slot"] -= known
            make = functools.partial(self._no_calls.missing_slot, part, known=True)
            self._demands.append(Demand(file, part, "missing_slot", known, make))
        for kind, count in counts.items():
            self._demands.append(Demand(file, part, kind, count, functools.partial(makers[kind], part)))

    def _caller(self, part: str, slice_name: str, check: bool) -> Callable[[random.Random], Row | None]:
        def accept(sentence: Sentence) -> bool:
            readings = self._reader.sentences_of(sentence.text)
            meanings = {(one.intent, one.combination, *sorted(one.fixed.items())) for one in readings}
            if len(meanings) > 1:
                self._ambiguous.add(fold(sentence.text))
            seen = slice_name == HELD_OUT_TEMPLATE and any(one.part == TRAIN for one in readings)
            return len(meanings) == 1 and not seen

        return lambda rng: self._calls.row(part, slice_name, rng, accept if check else None)

    def build(self, report: Callable[[int], None]) -> Built:
        """Draws rows until every demand is met, again after sentences with two meanings were dropped.

        Args:
            report: called with the number of rows so far.

        Raises:
            DataError: there are not enough distinct sentences.
        """
        while True:
            have = Counter(number for number, _ in self._rows.values())
            short = {n: one.count - have[n] for n, one in enumerate(self._demands) if one.count > have[n]}
            if not short:
                break
            for number, count in short.items():
                found = self._draw(number, count, report)
                if found < count:
                    self._shift(number, count - found)
        report(len(self._rows))
        files: dict[str, list[Row]] = {demand.file: [] for demand in self._demands}
        for number, row in self._rows.values():
            files[self._demands[number].file].append(row)
        for file, rows in files.items():
            random.Random(f"{self._seed} order of {file}").shuffle(rows)  # noqa: S311
        return Built(files, len(self._dropped), len(self._ambiguous))

    def _draw(self, number: int, count: int, report: Callable[[int], None]) -> int:
        """Draws new rows for a demand. Returns how many were found."""
        make, found, failed = self._demands[number].make, 0, 0
        while found < count and failed < _TIRED:
            row = make(self._rng)
            if row is not None and self._add(number, row):
                found, failed = found + 1, 0
                if len(self._rows) % 500 == 0:
                    report(len(self._rows))
            else:
                failed += 1
        return found

    def _add(self, number: int, row: Row) -> bool:
        """Takes a row if its sentence is new.

        What is asked in training is not asked in test or validation, whatever polite words are around it. A sentence
        with a second meaning is dropped everywhere.
        """
        key, plain, part = fold(row.text), core(row.plain or row.text), self._demands[number].part
        if plain in self._dropped:
            return False
        known = self._cores.setdefault(plain, _Core(part, row.meaning, []))
        if known.meaning != row.meaning:
            for one in known.keys:
                del self._rows[one]
            self._dropped.add(plain)
            return False
        if known.part != part or key in self._rows:
            return False
        known.keys.append(key)
        self._rows[key] = number, row
        return True

    def _shift(self, number: int, count: int) -> None:
        """Lets another demand of the same file make up for what one could not find."""
        short = self._demands[number]
        short.count -= count
        short.exhausted = True
        if short.kind == CALL:
            others = [one for one in self._demands if one.kind == CALL and one.file == short.file]
        else:
            others = [one for one in self._demands if one.kind in _PLENTIFUL and one.file == short.file]
            others.sort(key=lambda one: _PLENTIFUL.index(one.kind))
        other = next((one for one in others if not one.exhausted), None)
        if other is None:
            raise DataError(
                f"{short.file}: {count} rows of the kind {short.kind!r} could not be found: the home and the templates "
                "make too few distinct sentences; ask for fewer rows, or add names to the home"
            )
        other.count += count


def shared(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Splits a number in proportion to weights, by largest remainder; ties go to the earlier name.

    Example:
        >>> shared(10, {"a": 0.5, "b": 0.3, "c": 0.24})
        {'a': 5, 'b': 3, 'c': 2}
    """
    exact = {name: total * weight / sum(weights.values()) for name, weight in weights.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_rest = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_rest[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
