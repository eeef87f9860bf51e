"""A few prompts whose right answer is known, before the money is spent: is this teacher worth it?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import median
from typing import Any, Literal

from kdfast.config import Config, TeacherConfig
from kdfast.exit_codes import DONE, GATE_FAILED
from kdfast.recipes.teach.estimate import Estimate, estimate
from kdfast.recipes.teach.pilot_scores import ScoredAnswer, score_asked
from kdfast.scoring import FORMATS, Share, summarise
from kdfast.teacher.api.journal import Answer, Reader
from kdfast.teacher.api.overview import charge_micro
from kdfast.teacher.api.price import JobCost, Price
from kdfast.teacher.asked import Asked
from kdfast.teacher.reading import Reading

Verdict = Literal["go", "no-go", "not enough evidence"]
Pair = tuple[Asked, Answer | None, Reading | None]
Json = dict[str, Any]

SHARES = (
    "schema_valid", "exact_match", "right_function", "missed_calls", "false_calls", "attempted_calls",
)  # fmt: skip
"""What a pilot measures. The first four are shares of the prompts that need a call, the others of those that do not."""
_MOST_WRONG = 5
_Z = 1.959963984540054  # of the normal distribution: 95 % lie between -Z and Z


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """What a pilot found.

    Attributes:
        prompts: how many prompts were asked.
        failed: reason -> how many of them got no answer. Those that need a call count as missed; the others say
            nothing about false calls and are left out.
        filtered: reason -> how many answers would not go into the dataset.
        shares: `count`, `total`, `fraction`, and the 95 % interval `low` and `high`, for each of `SHARES`.
        cost_micro: what the pilot's requests cost, those of earlier runs included; None if the teacher is free.
        rest: what the requests after the pilot take, with the lengths that the journal's answers have.
        tokens_per_second: of one answer, the median; None if no answer tells it.
        bad_tools: of how many prompts the tools are no valid JSON Schema; no call to them counts as valid.
        wrong: the worst answers.
        verdict: whether to go on.
        rules: what the verdict follows from, in words.
    """

    prompts: int
    failed: dict[str, int]
    filtered: dict[str, int]
    shares: dict[str, Json]
    cost_micro: int | None
    rest: Estimate
    tokens_per_second: float | None
    bad_tools: int
    wrong: tuple[ScoredAnswer, ...]
    verdict: Verdict
    rules: tuple[str, ...]

    @property
    def whole(self) -> JobCost | None:
        """What the pilot and all requests after it cost together, in micro-units; None if the teacher is free."""
        if self.cost_micro is None or self.rest.cost is None:
            return None
        return JobCost(**{name: self.cost_micro + cost for name, cost in asdict(self.rest.cost).items()})

    @property
    def exit_code(self) -> int:
        """0 for go, else 3."""
        return DONE if self.verdict == "go" else GATE_FAILED

    def to_json(self) -> Json:
        """The pilot as JSON values; amounts are in millionths of the currency."""
        wrong = [
            {"line": one.line, "right": one.right, "said": one.said, "why": one.why} for one in self.wrong
        ]
        whole = None if self.whole is None else asdict(self.whole)
        return asdict(self) | {"wrong": wrong, "whole": whole, "exit_code": self.exit_code}


def pilot_report(
    pairs: Sequence[Pair],
    config: Config,
    *,
    journal: Reader,
    price: Price | None,
    rest: Sequence[Asked] = (),
    formats: Sequence[str] = FORMATS,
) -> Pilot:
    """Scores the answers of a pilot by BFCL's rules, and says whether to go on.

    Args:
        pairs: each request of the pilot, its answer and what was read from it; None = there is none.
        config: the config of the job.
        journal: the open journal.
        price: of the teacher's tokens; None and `FREE`: it costs nothing.
        rest: the requests after the pilot that have no answer yet.
        formats: the call formats that count in a right answer that is a text.

    Raises:
        ValueError: nothing says what is right for a prompt.
    """
    scored = [score_asked(asked, answer, reading, formats) for asked, answer, reading in pairs]
    found = summarise(one.score for one in scored if one.score is not None)
    shares = {name: with_interval(found[name]) for name in SHARES}
    verdict, rules = judge(shares["schema_valid"], shares["false_calls"], config.teacher, len(pairs))
    answered = sum(answer is not None for _, answer, _ in pairs)
    remaining = estimate(rest, journal, config, price, answered=answered)
    hashes = {asked.request.hash for asked, _, _ in pairs}
    charged = sum(charge_micro(row) for one in hashes for row in journal.attempts(one))
    wrong = sorted((one for one in scored if one.why), key=lambda one: (one.rank, one.line))
    return Pilot(
        prompts=len(pairs),
        failed=dict(Counter(one.failed for one in scored if one.failed)),
        filtered=dict(Counter(one.filtered for one in scored if one.filtered)),
        shares=shares,
        cost_micro=None if remaining.cost is None else charged,
        rest=remaining,
        tokens_per_second=_tokens_per_second(pairs),
        bad_tools=sum(one.bad_tools for one in scored),
        wrong=tuple(wrong[:_MOST_WRONG]),
        verdict=verdict,
        rules=rules,
    )


def judge(valid: Json, false: Json, teacher: TeacherConfig, prompts: int) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict, and what it follows from in words.

    Args:
        valid: the share of valid calls, with its interval.
        false: the share of false calls, with its interval.
        teacher: has the limits.
        prompts: how many prompts were asked.

    Example:
        >>> valid, false = with_interval(Share(count=9, total=10)), with_interval(Share(count=0, total=5))
        >>> judge(valid, false, TeacherConfig(), 15)[0]
        'go'
    """
    least, most = teacher.pilot_min_valid_fraction, teacher.pilot_max_false_fraction
    above = bool(valid["total"]) and valid["low"] > least
    below = bool(valid["total"]) and valid["high"] < least
    over = bool(false["total"]) and false["fraction"] > most
    surely_over = over and false["low"] > most
    rules = (
        f"valid calls must surely be above {100 * least:g} % (teacher.pilot_min_valid_fraction): "
        + _words(valid, met=above, broken=below, unknown="not judged, no prompt here needs a call"),
        f"false calls must be at most {100 * most:g} % (teacher.pilot_max_false_fraction): "
        + _words(
            false, met=not over, broken=surely_over, unknown="not judged, each prompt here needs a call"
        ),
    )
    if below or surely_over:
        return "no-go", rules
    if above and not over:
        return "go", rules
    return "not enough evidence", (*rules, f"ask more prompts: --pilot {2 * max(1, prompts)}")


def with_interval(share: Share) -> Json:
    """A share and its 95 % interval by Wilson's formula; nulls if there are no prompts.

    A bootstrap would say that 3 of 3 are surely 100 %.

    Args:
        share: how many of how many prompts.

    Example:
        >>> found = with_interval(Share(count=3, total=3))
        >>> found["fraction"], round(found["low"], 2), found["high"]
        (1.0, 0.44, 1.0)
    """
    count, total, part = share.count, share.total, share.fraction
    if part is None:
        return {"count": count, "total": total, "fraction": None, "low": None, "high": None}
    square = _Z**2 / total
    middle = (part + square / 2) / (1 + square)
    half = _Z * sqrt((part * (1 - part) + square / 4) / total) / (1 + square)
    low = 0.0 if count == 0 else max(0.0, middle - half)
    high = 1.0 if count == total else min(1.0, middle + half)
    return {"count": count, "total": total, "fraction": part, "low": low, "high": high}


def _words(share: Json, *, met: bool, broken: bool, unknown: str) -> str:
    if not share["total"]:
        return unknown
    found = "met" if met else "broken" if broken else "not sure"
    low, high = (f"{100 * share[name]:.0f}" for name in ("low", "high"))
    return f"{found}, {share['count']} of {share['total']} (95 % interval: {low} to {high} %)"


def _tokens_per_second(pairs: Sequence[Pair]) -> float | None:
    speeds = [
        1000 * reading.usage.output_tokens / answer.latency_ms
        for _, answer, reading in pairs
        if answer is not None and reading is not None and answer.latency_ms and reading.usage.output_tokens
    ]
    return median(speeds) if speeds else None
