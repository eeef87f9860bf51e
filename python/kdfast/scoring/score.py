"""The score of one answer, and the shares over many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kdfast.config.choices import DEFAULT_FORMATS
from kdfast.scoring.bootstrap import Interval, interval_of_share
from kdfast.scoring.match import Call, Mismatch, accepted_from_calls, count_right_calls, match_calls

NO_TRUTH = "no_truth"
"""The reason of a mismatch if a call is due, but the right answer has no call that can be read."""
FORMATS = DEFAULT_FORMATS


@dataclass(frozen=True, kw_only=True)
class Score:
    """The score of one answer.

    Attributes:
        should_call: whether the prompt needs a call.
        parsed: whether the answer has at least one complete call.
        right_function: whether exactly the functions of the ground truth were called, in any order.
        schema_valid: whether there are calls and each satisfies its tool's schema.
        exact_match: whether the calls match BFCL's accepted values.
        calls_right: how many calls match a ground-truth call, one to one; also counted without an exact match.
        calls_made: how many calls the answer has.
        calls_due: how many calls the ground truth has; at least 1 if the prompt needs a call, else 0.
        calls_not_counted: how many calls the answer has in formats that do not count.
        mismatch: why there is no exact match; None = there is one, or the prompt needs no call.
    """

    should_call: bool
    parsed: bool
    right_function: bool
    schema_valid: bool
    exact_match: bool
    calls_right: int
    calls_made: int
    calls_due: int
    mismatch: Mismatch | None = None
    calls_not_counted: int = 0

    @property
    def false_call(self) -> bool:
        """Whether there is a call, but none was due."""
        return self.parsed and not self.should_call

    @property
    def missed_call(self) -> bool:
        """Whether there is no call, but one was due."""
        return self.should_call and not self.parsed

    def to_json(self) -> dict[str, Any]:
        """The score as JSON values."""
        return asdict(self) | {"false_call": self.false_call, "missed_call": self.missed_call}


def score_calls(
    calls: Sequence[Call],
    *,
    all_valid: bool,
    accepted: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    should_call: bool,
) -> Score:
    """Scores the calls found in one answer.

    Args:
        calls: (function name, arguments) of each complete call in the answer.
        all_valid: whether all calls satisfy their schemas.
        accepted: BFCL's ground truth; empty if no call is due.
        tools: the prompt's tool definitions.
        should_call: whether the prompt needs a call.

    Example:
        >>> score = score_calls([], all_valid=True, accepted=[], tools=[], should_call=False)
        >>> score.false_call, score.missed_call
        (False, False)
    """
    mismatch = None
    if should_call:
        unknown = Mismatch(NO_TRUTH, "the right answer has no call that can be read")
        mismatch = match_calls(calls, accepted, tools) if accepted else unknown
    wanted = sorted(name for call in accepted for name in call)
    return Score(
        should_call=should_call,
        parsed=bool(calls),
        right_function=should_call and bool(calls) and sorted(name for name, _ in calls) == wanted,
        schema_valid=bool(calls) and all_valid,
        exact_match=should_call and mismatch is None,
        calls_right=count_right_calls(calls, accepted, tools) if should_call else 0,
        calls_made=len(calls),
        calls_due=max(len(accepted), 1) if should_call else 0,
        mismatch=mismatch,
    )


def score_answer(
    text: str,
    tools: Sequence[Mapping[str, Any]],
    *,
    accepted: Sequence[Mapping[str, Any]] | None,
    reference_text: str,
    should_call: bool,
    formats: Sequence[str] = FORMATS,
) -> Score:
    """Finds the tool calls in an answer's text and scores them, see `score_calls`.

    Args:
        text: what the model wrote.
        tools: the prompt's tool definitions; if there are none, every call counts as valid.
        accepted: BFCL's ground truth; None = exactly the calls of `reference_text`.
        reference_text: the right answer.
        should_call: whether the prompt needs a call.
        formats: the call formats that count, in the answer and in `reference_text`; see `kdfast.find_tool_calls`.

    Raises:
        SchemaError: a tool's parameters are not a valid JSON Schema.
    """
    from kdfast._rust import ToolSchema, find_tool_calls

    found = find_tool_calls(text, formats)
    schema = ToolSchema([dict(tool) for tool in tools]) if tools else None
    if accepted is None:
        accepted = accepted_from_calls(
            [(call.name, call.arguments) for call in find_tool_calls(reference_text, formats)]
        )
    score = score_calls(
        [(call.name, call.arguments) for call in found],
        all_valid=schema is None or all(schema.is_valid(call) for call in found),
        accepted=accepted,
        tools=tools,
        should_call=should_call,
    )
    return replace(score, calls_not_counted=max(len(find_tool_calls(text)) - len(found), 0))


@dataclass(frozen=True, kw_only=True)
class Share:
    """`count` of `total` prompts.

    Example:
        >>> str(Share(count=3, total=4)), str(Share(count=0, total=0))
        ('3 of 4 (75 %)', 'no prompts')
    """

    count: int
    total: int

    @property
    def fraction(self) -> float | None:
        """The share in [0, 1]; None if `total` is 0."""
        return self.count / self.total if self.total else None

    @property
    def interval(self) -> Interval | None:
        """The 95 % bootstrap interval of the fraction; None if `total` is 0."""
        return interval_of_share(self.count, self.total) if self.total else None

    def to_json(self) -> dict[str, Any]:
        """`count`, `total`, `fraction`, `low` and `high`; the last three are None if `total` is 0."""
        low, high = self.interval or (None, None)
        return asdict(self) | {"fraction": self.fraction, "low": low, "high": high}

    def __str__(self) -> str:
        return (
            f"{self.count} of {self.total} ({self.count / self.total:.0%})".replace("%", " %")
            if self.total
            else "no prompts"
        )


def summarise(scores: Iterable[Score]) -> dict[str, Share]:
    """The shares of an evaluation.

    `parsed`, `right_function`, `schema_valid`, `exact_match` and `missed_calls` are over the prompts that need a call,
    `false_calls` is over those that do not.

    Example:
        >>> missed = score_calls([], all_valid=True, accepted=[{"f": {}}], tools=[], should_call=True)
        >>> {name: str(share) for name, share in summarise([missed]).items()}
        {'parsed': '0 of 1 (0 %)', 'right_function': '0 of 1 (0 %)', 'schema_valid': '0 of 1 (0 %)',
         'exact_match': '0 of 1 (0 %)', 'missed_calls': '1 of 1 (100 %)', 'false_calls': 'no prompts'}
    """
    counts: Counter[str] = Counter()
    due = other = 0
    for score in scores:
        due += score.should_call
        other += not score.should_call
        if score.should_call:
            for name in ("parsed", "right_function", "schema_valid", "exact_match"):
                counts[name] += getattr(score, name)
        counts["missed_calls"] += score.missed_call
        counts["false_calls"] += score.false_call
    table = {
        name: Share(count=counts[name], total=due)
        for name in ("parsed", "right_function", "schema_valid", "exact_match", "missed_calls")
    }
    return table | {"false_calls": Share(count=counts["false_calls"], total=other)}
