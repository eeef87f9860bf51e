"""What the answers in a journal tell about those to come: how long they are, and how long they take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean, median, quantiles

from kdfast.config import Config
from kdfast.teacher.api.journal import Answer, Reader
from kdfast.teacher.api.price import AnswerLength
from kdfast.teacher.api.usage import usage_from_json, usage_of_body
from kdfast.teacher.asked import Asked

LEAST_ANSWERS = 5
"""From so many answers in the journal on, their length and not a guess is used."""
GUESS = AnswerLength(low=0.05, expected=0.25)
"""The length of answers that nobody has seen yet."""
_MOST_ANSWERS = 2000  # evenly spaced over the journal: a dry run reads no more


@dataclass(frozen=True, kw_only=True)
class Duration:
    """How long the job takes.

    Attributes:
        seconds: None if it cannot be told.
        reason: by what it is told, or why it cannot be.
        at_least: whether only the limits of the config are known, so that it may take longer.
    """

    seconds: float | None
    reason: str
    at_least: bool = False


def answers_like(asked: Sequence[Asked], journal: Reader) -> Iterator[Answer]:
    """Answers in the journal of the endpoint and model that are asked now; of very many, some evenly spaced ones.

    Args:
        asked: what is asked now.
        journal: the open journal.
    """
    wanted = {(one.request.endpoint, one.request.body.get("model")) for one in asked}
    if not wanted:
        return
    hashes = [one for page in journal.pages("answer IS NOT NULL") for one in page]
    for one in hashes[:: ceil(len(hashes) / _MOST_ANSWERS) or 1]:
        request, answer = journal.request(one), journal.answered(one)
        if request is None or answer is None or answer.status != 200:
            continue
        if (request.endpoint, request.body.get("model")) in wanted:
            yield answer


def length_of(answers: Sequence[Answer], most: int) -> tuple[AnswerLength, str]:
    """The length of answers to come, and where it is from in words.

    Args:
        answers: answers of the same teacher; fewer than `LEAST_ANSWERS` are too few.
        most: the most tokens that an answer may have, reasoning included.
    """
    counted = [tokens for answer in answers if (tokens := _output_tokens(answer)) is not None]
    if len(counted) < LEAST_ANSWERS:
        why = f"the journal has {len(counted)} answers that tell it, {LEAST_ANSWERS} are needed"
        return GUESS, f"a guess, {GUESS.low:.0%} to {GUESS.expected:.0%} of {most} tokens: {why}".replace(
            "%", " %"
        )
    parts = [min(1.0, tokens / most) for tokens in counted]
    expected = min(1.0, fmean(parts))
    low = min(expected, quantiles(parts, n=10, method="inclusive")[0])
    text = f"measured on {len(counted)} answers in the journal: {fmean(counted):.0f} tokens on average"
    return AnswerLength(low=low, expected=expected), text


def _output_tokens(answer: Answer) -> int | None:
    """What the server, or kdfast after it, counted; None if neither did."""
    usage = usage_from_json(answer.usage) or usage_of_body(answer.body)
    return None if usage is None else usage.output_tokens


def duration_of(requests: int, tokens: int, answers: Sequence[Answer], config: Config) -> Duration:
    """The largest of what the limits allow and what the answers so far took.

    Args:
        requests: requests to send.
        tokens: what they count for against `api.tokens_per_minute`.
        answers: answers of the same teacher.
        config: has the limits.
    """
    if not requests:
        return Duration(seconds=0.0, reason="there is nothing to send")
    if config.teacher.kind != "api":
        return Duration(seconds=None, reason="the speed of a local teacher is not known before it runs")
    api = config.api
    known: dict[str, float] = {}
    if api.requests_per_minute is not None:
        known["api.requests_per_minute"] = 60 * requests / api.requests_per_minute
    if api.tokens_per_minute is not None:
        known["api.tokens_per_minute"] = 60 * tokens / api.tokens_per_minute
    if answers:
        latency_s = median(answer.latency_ms for answer in answers) / 1000
        took = f"{latency_s:.2g} s an answer (median of {len(answers)}), {api.concurrency} at once"
        known[took] = requests * latency_s / min(requests, api.concurrency)
    if not known:
        return Duration(
            seconds=None, reason="no limit is set, and the journal has no answer whose time could tell"
        )
    reason = max(known, key=known.__getitem__)
    return Duration(seconds=known[reason], reason=reason, at_least=not answers)
