"""Plans what a local teacher is asked, and the fingerprint under which its answers are stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from kdfast.config.section import invalid
from kdfast.config.teacher import TeacherConfig
from kdfast.errors import ConfigError
from kdfast.teacher.local.scores import Wanted, call_opening_ids


class TrainingRows(Protocol):
    """The part of the training data that the plan reads; `kdfast.data.KDDataset` satisfies it.

    Attributes:
        lengths: [rows] tokens.
    """

    lengths: Any

    @property
    def call_openings(self) -> tuple[str, ...]:
        """The texts with which a tool call may begin."""

    @property
    def turn_end_ids(self) -> list[int]:
        """Token ids that end a turn."""

    def should_call(self) -> list[bool]:
        """[rows] whether a call is due."""

    def ids(self, index: int) -> list[int]:
        """All token ids of a row."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""

    def pieces(self) -> list[str]:
        """Decoded text of every id."""


@dataclass(frozen=True)
class Plan:
    """What the teacher is asked.

    Attributes:
        prefix_ids: tokens of the demonstrations, put before every row.
        shown: training rows that are demonstrations; they are not scored, as the teacher would only copy them.
        wanted: what to keep of each distribution.
        fingerprint: hash of all that the answers depend on besides the row itself.
    """

    prefix_ids: list[int]
    shown: frozenset[int]
    wanted: Wanted
    fingerprint: str


def plan_teaching(settings: TeacherConfig, teacher: str, data: TrainingRows, usable: int) -> Plan:
    """The plan of a config: the same data, teacher and settings give the same plan.

    Args:
        settings: the config's section `teacher`.
        teacher: fingerprint of the teacher's model.
        data: the training rows.
        usable: ids that teacher and student share.

    Raises:
        ConfigError: too few records to show, a k too small for the ids that are always kept or larger than the
            vocabulary, or a turn's end that the teacher does not know.
    """
    shown = choose_demonstrations(
        data.lengths, data.should_call(), count=settings.demonstrations, seed=settings.demonstrations_seed
    )
    separator = data.encode("\n")
    prefix = [token for row in shown for token in (*data.ids(row), *separator)]
    _check_ids(settings, data.turn_end_ids, usable)
    wanted = Wanted(
        k=settings.k,
        usable=usable,
        always_ids=tuple(data.turn_end_ids),
        call_opening_ids=call_opening_ids(data.pieces()[:usable], data.call_openings),
        samples=settings.samples,
    )
    identity: dict[str, Any] = {
        "teacher": teacher,
        "prefix": prefix,
        "dtype": settings.dtype,
        "k": settings.k,
        "usable": usable,
        "always": sorted(data.turn_end_ids),
        "openings": data.call_openings,
    }
    if settings.samples:
        # Omit the key when 0, so that the fingerprint equals that of older stores.
        identity["samples"] = settings.samples
    fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return Plan(prefix, frozenset(shown), wanted, fingerprint)


def _check_ids(settings: TeacherConfig, turn_end_ids: Sequence[int], usable: int) -> None:
    least = 1 + len(set(turn_end_ids))
    if settings.k < least:
        raise invalid("teacher.k", f"at least {least} (the answer's token and the end of a turn)", settings.k)
    if settings.k > usable:
        allowed = f"at most {usable}, the number of ids that teacher and student share"
        raise invalid("teacher.k", allowed, settings.k)
    unknown = [token for token in turn_end_ids if token >= usable]
    if unknown:
        raise ConfigError(
            f"data.tokenizer: must have the end of a turn among the {usable} ids that teacher and student share; use "
            f"the teacher's tokenizer, got {unknown}"
        )


def choose_demonstrations(
    lengths: Sequence[int], should_call: Sequence[bool], *, count: int, seed: int
) -> list[int]:
    """Which rows to show: drawn by the seed, none longer than the median, one in four without a call if possible.

    A small teacher may not know the format that the student is to learn. Shown a few training records, it gives its
    distribution in that format; the student, which sees only the prompt, learns it (context distillation).

    Args:
        lengths: [rows] tokens.
        should_call: [rows] whether a call is due.
        count: how many rows to show.
        seed: decides the choice.

    Returns:
        row numbers, in the order to show them.

    Raises:
        ConfigError: there are too few rows.

    Examples:
        >>> due = [True, True, True, False, True, True, True, True]
        >>> sorted(choose_demonstrations([4, 4, 9, 4, 4, 9, 9, 9], due, count=4, seed=0))
        [0, 1, 3, 4]
    """
    if not count:
        return []
    limit = float(np.median(lengths))
    words = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(len(lengths))
    order = sorted(
        (row for row in range(len(lengths)) if lengths[row] <= limit), key=lambda row: int(words[row])
    )
    calls = [row for row in order if should_call[row]]
    others = [row for row in order if not should_call[row]]
    without = min(count // 4 if calls else count, len(others))
    chosen = calls[: count - without] + others[:without]
    if len(chosen) < count:
        raise ConfigError(
            "teacher.demonstrations: more than the training records have to show "
            f"({len(chosen)} no longer than the median): {count}"
        )
    return sorted(chosen, key=lambda row: int(words[row]))
