"""How correct the tool calls are: the section of a report that the quality gates read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdfast.scoring.bootstrap import Floats, interval_of_share, interval_of_sums
from kdfast.scoring.score import Score

_NONE_DUE = "no prompt needs a call"
_ALL_DUE = "every prompt needs a call"
_NONE_MADE = "no call was made"
_RATES = (
    ("false_call_rate", "false_call", False),
    ("attempted_call_rate", "attempted_call", False),
    ("missed_call_rate", "missed_call", True),
    ("broken_call_rate", "broken_call", True),
)
"""Name of a rate, property of a score, whether it is over the prompts that need a call."""
_PARTS = ("attempted_call_rate", "broken_call_rate")


def quality(scores: Sequence[Score], *, seed: int = 0) -> dict[str, Any]:
    """The section `quality` of a report, each number with its 95 % interval (percentile bootstrap over prompts).

    - `precision`, `recall`, `f1` are over the *calls* of all prompts: the right calls as a share of those made, as a
      share of those due, and the harmonic mean of both. A call where none is due is wrong, and so is a broken one.
      `f1.per_prompt` has `[right, wrong, missed]` calls for each prompt: true positives, false positives, false
      negatives.
    - `false_call_rate`: the share of the *prompts* that need no call, but got one, whole or broken;
      `attempted_call_rate`: of these prompts, the share with a broken one. `per_prompt` has 0 or 1 for each of them.
    - `missed_call_rate`: the share of the prompts that need a call, but got no whole one; `broken_call_rate`: of these
      prompts, the share with a broken one.

    Args:
        scores: the scores of the answers, in the order of the prompts.
        seed: the same seed gives the same intervals.

    Returns:
        `{name: {"value", "low", "high", maybe "per_prompt"}}` as JSON values. A number that is undefined is left out;
        `absent`, `{name: reason}`, says why.

    Example:
        >>> from kdfast.scoring import score_calls
        >>> accepted = [{"f": {"n": [1]}}, {"f": {"n": [2]}}]
        >>> right = ("f", {"n": 1})
        >>> score = score_calls([right, right], all_valid=True, accepted=accepted, tools=[], should_call=True)
        >>> section = quality([score])
        >>> section["f1"]
        {'value': 0.5, 'low': 0.5, 'high': 0.5, 'per_prompt': [[1, 1, 1]]}
        >>> section["absent"]
        {'false_call_rate': 'every prompt needs a call'}
    """
    per_prompt = [
        [
            score.calls_right,
            score.calls_made + score.calls_broken - score.calls_right,
            score.calls_due - score.calls_right,
        ]
        for score in scores
    ]
    table = np.array(per_prompt, dtype=np.float64).reshape(-1, 3)
    section: dict[str, Any] = {}
    absent: dict[str, str] = {}
    right, wrong, missed = table.sum(axis=0)
    if right + missed == 0:
        absent |= dict.fromkeys(("f1", "precision", "recall"), _NONE_DUE)
    else:
        section["f1"] = _of_calls(table, (2, 1, 1), seed) | {"per_prompt": per_prompt}
        section["recall"] = _of_calls(table, (1, 0, 1), seed)
        if right + wrong > 0:
            section["precision"] = _of_calls(table, (1, 1, 0), seed)
        else:
            absent["precision"] = _NONE_MADE
    for name, flag, due in _RATES:
        flags = [int(getattr(score, flag)) for score in scores if score.should_call == due]
        if flags:
            section[name] = _of_prompts(flags, seed) | {"per_prompt": flags}
        elif name in _PARTS:
            continue  # absent for the same reason as the rate that it is a part of
        else:
            absent[name] = _NONE_DUE if due else _ALL_DUE if len(table) else "no prompts"
    return section | ({"absent": absent} if absent else {})


def _of_calls(table: NDArray[np.float64], weights: tuple[int, int, int], seed: int) -> dict[str, float]:
    """The right calls as a share of right, wrong and missed calls with these weights."""

    def statistic(sums: Floats) -> Floats:
        among = sums @ np.array(weights, dtype=np.float64)
        share: Floats = np.full(len(sums), np.nan)
        np.divide(weights[0] * sums[:, 0], among, out=share, where=among > 0)
        return share

    low, high = interval_of_sums(table, statistic, seed=seed)
    return {"value": float(statistic(table.sum(axis=0)[None])[0]), "low": low, "high": high}


def _of_prompts(flags: list[int], seed: int) -> dict[str, float]:
    low, high = interval_of_share(sum(flags), len(flags), seed=seed)
    return {"value": sum(flags) / len(flags), "low": low, "high": high}
