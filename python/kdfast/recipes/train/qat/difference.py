"""The paired difference between QAT and quantisation after training, over records, and what it says in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdfast.recipes.train.qat.answers import MEASURES, AnswerSums
from kdfast.scoring.bootstrap import Floats, interval_of_sums

QAT = "qat"
"""The name of the arm that was trained under quantisation; the others are compared with it."""

MIN_RECORDS = 6
"""With fewer records even differences that all have one sign may be chance (five: 2 * 0.5**5 is above 5 %)."""

MEASURE_TITLES = {
    "kl": "KL to the float student",
    "nll_names": "NLL of tool names",
    "nll_args": "NLL of arguments",
}
"""What the measures are called."""

_SAYS = {
    "lower": "QAT is better",
    "higher": "QAT is worse",
    "not_shown": "no difference that these {records} records can show",
    "too_few": "too few records to judge ({records}, at least {least})",
}

_OF_KL = {"lower": "QAT is closer to it", "higher": "QAT is further from it"}
"""To be further from the float student is no fault of a student that learned something new."""


def differences(sums: Mapping[str, AnswerSums]) -> list[dict[str, Any]]:
    """QAT minus each other arm, for each measure that both have, with its 95 % interval (bootstrap over records).

    Args:
        sums: arm's name -> its sums, of the same rows.

    Returns:
        JSON values: `against` (the other arm's name) and, for each measure, `value`, `low`, `high`, `records` and
        `says`: `lower` or `higher` where the interval leaves out 0, else `not_shown`; `too_few` = fewer than
        `MIN_RECORDS`.
    """
    if QAT not in sums:
        return []
    found = []
    for name, other in sums.items():
        if name == QAT:
            continue
        pairs = {measure: difference(sums[QAT], other, measure) for measure in MEASURES}
        known = {measure: pair for measure, pair in pairs.items() if pair is not None}
        found.append({"against": name, **known})
    return found


def difference(own: AnswerSums, other: AnswerSums, measure: str) -> dict[str, Any] | None:
    """The difference of one measure; None = one of the two has no such number.

    Args:
        own: of the first arm.
        other: of the second, of the same rows.
        measure: one of `MEASURES`.
    """
    counts = own.sums[MEASURES[measure]]
    there = counts > 0
    if not there.any() or (measure == "kl" and not (own.compared and other.compared)):
        return None
    gaps = own.sums[measure][there] - other.sums[measure][there]
    if not np.isfinite(gaps).all():
        return None
    table = np.stack([gaps, counts[there]], axis=1)

    def mean(sums: Floats) -> Floats:
        ratio: Floats = sums[:, 0] / sums[:, 1]
        return ratio

    value, records = float(mean(table.sum(axis=0)[None])[0]), len(table)
    low, high = interval_of_sums(table, mean)
    says = "lower" if high < 0 else "higher" if low > 0 else "not_shown"
    return {
        "value": value,
        "low": low,
        "high": high,
        "records": records,
        "says": says if records >= MIN_RECORDS else "too_few",
    }


def sentences(arms: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the differences say, one sentence for each.

    Args:
        arms: the arms as JSON values.
        found: what `differences` gave.

    Example:
        >>> arms = [{"name": "qat", "title": "QAT", "kl": 0.031}, {"name": "p", "title": "trained", "kl": 0.052}]
        >>> pair = {"value": -0.021, "low": -0.03, "high": -0.01, "records": 40, "says": "lower"}
        >>> sentences(arms, [{"against": "p", "kl": pair}])
        ['KL to the float student: QAT 0.031 against 0.052 (trained), -0.021 [-0.03, -0.01]: QAT is closer to it']
    """
    by_name = {arm["name"]: arm for arm in arms}
    told = []
    for pair in found:
        own, other = by_name[QAT], by_name[pair["against"]]
        for measure, title in MEASURE_TITLES.items():
            one = pair.get(measure)
            if one is None:
                continue
            words = _SAYS | (_OF_KL if measure == "kl" else {})
            says = words[one["says"]].format(records=one["records"], least=MIN_RECORDS)
            values = f"QAT {own[measure]:.3g} against {other[measure]:.3g} ({other['title']})"
            change = f"{one['value']:+.2g} [{one['low']:+.2g}, {one['high']:+.2g}]"
            told.append(f"{title}: {values}, {change}: {says}")
    return told
