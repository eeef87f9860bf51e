"""The score of one answer, and the shares over many."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from kdfast.config.choices import DEFAULT_FORMATS, Thinking
from kdfast.scoring.bootstrap import Interval, interval_of_share
from kdfast.scoring.match import Call, Mismatch, accepted_from_calls, count_right_calls, match_calls

if TYPE_CHECKING:
    from kdfast._rust import ToolCall

NO_TRUTH = "no_truth"
"""The reason of a mismatch if a call is due, but the right answer has no call that can be read."""
BROKEN = "broken_call"
"""The reason of a mismatch if the answer opens a call and gives none, or not all that it opens."""
FORMATS = DEFAULT_FORMATS


@dataclass(frozen=True, kw_only=True)
class Score:
    """The score of one answer.

    Attributes:
        should_call: whether the prompt needs a call.
        parsed: whether the answer has at least one whole call.
        right_function: whether exactly the functions of the ground truth were called, in any order.
        schema_valid: whether there are calls and each satisfies its tool's schema.
        exact_match: whether the calls match BFCL's accepted values. No broken call may stand beside the right ones,
            here and in the two shares above.
        calls_right: how many calls match a ground-truth call, one to one; also counted without an exact match.
        calls_made: how many whole calls the answer has.
        calls_due: how many calls the ground truth has; at least 1 if the prompt needs a call, else 0.
        calls_broken: how many times the answer opens a call and gives none that counts: cut off, not closed,
            malformed, in a format that does not count (see `kdfast.find_attempted_calls`).
        calls_unclosed: how many of these are complete and only lack what closes them.
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
    calls_broken: int = 0
    calls_unclosed: int = 0
    calls_not_counted: int = 0

    @property
    def false_call(self) -> bool:
        """Whether there is a call, whole or broken, but none was due."""
        return (self.parsed or self.calls_broken > 0) and not self.should_call

    @property
    def attempted_call(self) -> bool:
        """Whether there is a broken call, but none was due; also counted as a false call."""
        return self.calls_broken > 0 and not self.should_call

    @property
    def broken_call(self) -> bool:
        """Whether there is a broken call, and one was due; without a whole call it is also counted as missed."""
        return self.calls_broken > 0 and self.should_call

    @property
    def missed_call(self) -> bool:
        """Whether there is no whole call, but one was due."""
        return self.should_call and not self.parsed

    def to_json(self) -> dict[str, Any]:
        """The score as JSON values."""
        flags = ("false_call", "missed_call", "attempted_call", "broken_call")
        return asdict(self) | {name: getattr(self, name) for name in flags}


def score_calls(
    calls: Sequence[Call],
    *,
    all_valid: bool,
    accepted: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    should_call: bool,
    broken: int = 0,
    unclosed: int = 0,
) -> Score:
    """Scores the calls found in one answer.

    Args:
        calls: (function name, arguments) of each whole call in the answer.
        all_valid: whether all calls satisfy their schemas.
        accepted: BFCL's ground truth; empty if no call is due.
        tools: the prompt's tool definitions.
        should_call: whether the prompt needs a call.
        broken: how many times the answer opens a call and gives none that counts.
        unclosed: how many of these only lack what closes them.

    Example:
        >>> score = score_calls([], all_valid=True, accepted=[], tools=[], should_call=False)
        >>> score.false_call, score.missed_call
        (False, False)
    """
    mismatch = None
    if should_call:
        unknown = Mismatch(NO_TRUTH, "the right answer has no call that can be read")
        mismatch = match_calls(calls, accepted, tools) if accepted else unknown
        if accepted and broken:
            mismatch = Mismatch(BROKEN, f"{broken} cut off, malformed or in another format")
    wanted = sorted(name for call in accepted for name in call)
    return Score(
        should_call=should_call,
        parsed=bool(calls),
        right_function=should_call
        and bool(calls)
        and not broken
        and sorted(name for name, _ in calls) == wanted,
        schema_valid=bool(calls) and not broken and all_valid,
        exact_match=should_call and mismatch is None,
        calls_right=count_right_calls(calls, accepted, tools) if should_call else 0,
        calls_made=len(calls),
        calls_due=max(len(accepted), 1) if should_call else 0,
        mismatch=mismatch,
        calls_broken=broken,
        calls_unclosed=unclosed,
    )


def score_answer(  # noqa: PLR0913 - the answer, what it is scored against, and how it is read
    text: str,
    tools: Sequence[Mapping[str, Any]],
    *,
    accepted: Sequence[Mapping[str, Any]] | None,
    reference_text: str,
    should_call: bool,
    formats: Sequence[str] = FORMATS,
    thinking: Thinking = "closed",
    finished: bool = True,
) -> Score:
    """Finds the tool calls in an answer's text and scores them, see `score_calls`.

    Args:
        text: what the model wrote.
        tools: the prompt's tool definitions; if there are none, every call counts as valid.
        accepted: BFCL's ground truth; None = exactly the calls of `reference_text`.
        reference_text: the right answer.
        should_call: whether the prompt needs a call.
        formats: the call formats that count, in the answer and in `reference_text`; see `kdfast.find_tool_calls`.
        thinking: "open" if the prompt opens a thinking block, see `kdfast.find_tool_calls`.
        finished: whether the model ended the answer; False = it was cut off.

    Raises:
        SchemaError: a tool's parameters are not a valid JSON Schema.
    """
    from kdfast._rust import ToolSchema, find_attempted_calls, find_tool_calls

    schema = ToolSchema([dict(tool) for tool in tools]) if tools else None
    complete = find_tool_calls(text, formats, unclosed=True, tools=schema, thinking=thinking)
    found = [call for call in complete if call.closed]
    attempts = find_attempted_calls(text, formats, tools=schema, thinking=thinking)
    unclosed = [start for start, reason in attempts if reason == "unclosed"]
    last = max([0, *(call.span[0] for call in found), *(start for start, _ in attempts)])
    if not finished and unclosed and unclosed[-1] == last:
        unclosed.pop()  # its closing may have followed
    if accepted is None:
        right = find_tool_calls(reference_text, formats, tools=schema, thinking=thinking)
        accepted = accepted_from_calls([(call.name, call.arguments) for call in right])
    score = score_calls(
        [(call.name, call.arguments) for call in found],
        all_valid=schema is None or all(schema.is_valid(call) for call in found),
        accepted=accepted,
        tools=tools,
        should_call=should_call,
        broken=_broken_calls(attempts, complete),
        unclosed=len(unclosed),
    )
    every = find_tool_calls(text, tools=schema, thinking=thinking)
    return replace(score, calls_not_counted=max(len(every) - len(found), 0))


def _broken_calls(attempts: Sequence[tuple[int, str]], calls: Sequence[ToolCall]) -> int:
    """How many calls the attempts are: a broken list is as many as it has complete calls, and at least one."""
    open_calls = [call.span[0] for call in calls if not call.closed]
    places = pairwise([*(start for start, _ in attempts), sys.maxsize])
    return sum(max(1, sum(start <= place < end for place in open_calls)) for start, end in places)


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

    Most are over the prompts that need a call; `false_calls` and `attempted_calls` are over those that do not. A prompt
    whose only calls are broken counts as missed, too; one with an attempted call as a false call.

    Example:
        >>> missed = score_calls([], all_valid=True, accepted=[{"f": {}}], tools=[], should_call=True)
        >>> {name: str(share) for name, share in summarise([missed]).items()}
        {'parsed': '0 of 1 (0 %)', 'right_function': '0 of 1 (0 %)', 'schema_valid': '0 of 1 (0 %)',
         'exact_match': '0 of 1 (0 %)', 'missed_calls': '1 of 1 (100 %)', 'broken_calls': '0 of 1 (0 %)',
         'unclosed': '0 of 1 (0 %)', 'false_calls': 'no prompts', 'attempted_calls': 'no prompts'}
    """
    counts: Counter[str] = Counter()
    due = other = 0
    for score in scores:
        due += score.should_call
        other += not score.should_call
        if score.should_call:
            for name in ("parsed", "right_function", "schema_valid", "exact_match"):
                counts[name] += getattr(score, name)
            counts["unclosed"] += score.calls_unclosed > 0
        counts["missed_calls"] += score.missed_call
        counts["broken_calls"] += score.broken_call
        counts["false_calls"] += score.false_call
        counts["attempted_calls"] += score.attempted_call
    totals = dict.fromkeys(OF_DUE, due) | dict.fromkeys(OF_OTHERS, other)
    return {name: Share(count=counts[name], total=total) for name, total in totals.items()}


OF_DUE = (
    "parsed", "right_function", "schema_valid", "exact_match", "missed_calls", "broken_calls", "unclosed",
)  # fmt: skip
"""The shares over prompts that need a call."""
OF_OTHERS = ("false_calls", "attempted_calls")
"""The shares over prompts that need none."""
