"""Splits imported records into training and held-out records, without leakage.

Two records belong together if they ask the same question (up to case, spaces and punctuation) or offer the
same set of functions. Records that belong together, directly or through others, form a group. A whole group
goes to one side.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdfast.errors import DataError
from kdfast.importers.components import components as connected

_NO_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How many records each side gets.

    Attributes:
        rows: how many records to train on; None = all that remain.
        validation_rows: how many records to hold out; None = use `validation_fraction`.
        validation_fraction: the share to hold out, of `rows` or, if that is None, of all records.
        irrelevance_fraction: the share of training records that need no call; None = their natural share.
        validation_irrelevance_fraction: the same for held-out records; None = `irrelevance_fraction`.
    """

    rows: int | None = None
    validation_rows: int | None = None
    validation_fraction: float = 0.1
    irrelevance_fraction: float | None = None
    validation_irrelevance_fraction: float | None = None


def components(records: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Groups of records that share a question or a set of functions, directly or through others.

    Returns:
        For each group the indices of its records, ascending; the groups are in the order of their first record.

    Example:
        >>> def record(question, tool):
        ...     return {"messages": [{"role": "user", "content": question}], "tools": [{"name": tool}]}
        >>> components([record("Hi?", "a"), record("Bye", "b"), record("hi", "c"), record("yo", "c")])
        [[0, 2, 3], [1]]
    """
    return connected(
        [[("question", _question_key(one)), ("functions", _functions_key(one))] for one in records]
    )


def split(
    records: Sequence[dict[str, Any]], shares: Shares, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Draws training and held-out records with a seed, in the given shares; no group is on both sides.

    Among the records that need a call (and among those that need none) each category keeps its natural share.

    Returns:
        (train, validation), each in a seeded random order.

    Raises:
        DataError: there are fewer records than asked for.
    """
    rng = random.Random(seed)  # noqa: S311
    groups = components(records)
    rng.shuffle(groups)
    available = Counter(_stratum(record) for record in records)
    held_out = _held_out_quotas(available, shares)
    validation_groups = _choose_groups(groups, records, held_out)
    taken = {index for group in validation_groups for index in group}
    validation = _draw(
        records, [index for group in validation_groups for index in group], held_out, rng, "validation"
    )
    rest = [index for index in range(len(records)) if index not in taken]
    remaining = Counter(_stratum(records[index]) for index in rest)
    train = _draw(records, rest, _train_quotas(remaining, shares), rng, "training")
    return train, validation


def _question_key(record: dict[str, Any]) -> str:
    text = " ".join(message["content"] for message in record["messages"])
    # A question without letters and digits would have an empty key: use the text itself.
    return _NO_WORD.sub(" ", text).strip().casefold() or text


def _functions_key(record: dict[str, Any]) -> str:
    return json.dumps(sorted(json.dumps(tool, sort_keys=True) for tool in record["tools"]))


def _stratum(record: dict[str, Any]) -> tuple[bool, str]:
    return bool(record["tool_should_be_used"]), str(record["metadata"]["category"])


def _held_out_quotas(available: Counter[tuple[bool, str]], shares: Shares) -> dict[tuple[bool, str], int]:
    total = shares.validation_rows
    if total is None:
        base = available.total() if shares.rows is None else shares.rows
        total = round(shares.validation_fraction * base)
    fraction = shares.validation_irrelevance_fraction
    return _quotas(available, total, shares.irrelevance_fraction if fraction is None else fraction)


def _train_quotas(available: Counter[tuple[bool, str]], shares: Shares) -> dict[tuple[bool, str], int]:
    total = shares.rows
    fraction = shares.irrelevance_fraction
    if total is None:
        if fraction is None:
            return dict(available)
        tool = sum(count for (needs_call, _), count in available.items() if needs_call)
        other = available.total() - tool
        limits = [tool / (1 - fraction)] if fraction < 1 else []
        limits += [other / fraction] if fraction > 0 else []
        total = int(min(limits))
    return _quotas(available, total, fraction)


def _quotas(
    available: Mapping[tuple[bool, str], int], total: int, irrelevance_fraction: float | None
) -> dict[tuple[bool, str], int]:
    if irrelevance_fraction is None:
        return _proportional(available, total)
    other = round(total * irrelevance_fraction)
    tool_strata = {key: count for key, count in available.items() if key[0]}
    other_strata = {key: count for key, count in available.items() if not key[0]}
    return _proportional(tool_strata, total - other) | _proportional(other_strata, other)


def _proportional(available: Mapping[tuple[bool, str], int], total: int) -> dict[tuple[bool, str], int]:
    """Splits `total` in proportion to `available`, by largest remainder; ties go to the earlier name."""
    everything = sum(available.values())
    if total > everything:
        raise DataError(
            f"fewer records ({everything}) than asked for; ask for less, or choose more categories: {total}"
        )
    exact = {key: total * count / everything for key, count in available.items()} if everything else {}
    quotas = {key: int(value) for key, value in exact.items()}
    by_remainder = sorted(exact, key=lambda key: (quotas[key] - exact[key], key))
    for key in by_remainder[: total - sum(quotas.values())]:
        quotas[key] += 1
    return quotas


def _choose_groups(
    groups: list[list[int]], records: Sequence[dict[str, Any]], quotas: Mapping[tuple[bool, str], int]
) -> list[list[int]]:
    """The groups to hold out: first those that fit whole into the quotas, then the smallest that fill the rest."""
    missing = Counter(quotas)
    chosen, others = [], []
    for group in groups:
        content = Counter(_stratum(records[index]) for index in group)
        if all(missing[key] >= count for key, count in content.items()):
            missing -= content
            chosen.append(group)
        else:
            others.append((group, content))
    for group, content in sorted(others, key=lambda pair: len(pair[0])):
        if any(missing[key] for key in content):
            missing -= content
            chosen.append(group)
    return chosen


def _draw(
    records: Sequence[dict[str, Any]],
    indices: Sequence[int],
    quotas: Mapping[tuple[bool, str], int],
    rng: random.Random,
    side: str,
) -> list[dict[str, Any]]:
    left = Counter(quotas)
    drawn = []
    for index in rng.sample(sorted(indices), len(indices)):
        stratum = _stratum(records[index])
        if left[stratum] > 0:
            left[stratum] -= 1
            drawn.append(records[index])
    if short := +left:
        names = ", ".join(sorted(name for _, name in short))
        raise DataError(f"too few {side} records in {names}; ask for less; short by: {short.total()}")
    return drawn
