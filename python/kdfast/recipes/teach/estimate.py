"""What a job will take, before anything is sent: requests, tokens, cost and time. `kdfast teach --dry-run` shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from math import ceil
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from kdfast.config import Config
from kdfast.recipes.teach.facts import facts_table
from kdfast.recipes.teach.measured import Duration, answers_like, duration_of, length_of
from kdfast.teacher.api.journal import Reader
from kdfast.teacher.api.price import (
    FREE,
    AnswerLength,
    JobCost,
    Price,
    RequestSize,
    estimate_job,
    length_tokens,
    money,
    to_micro,
)
from kdfast.teacher.asked import Asked


@dataclass(frozen=True, kw_only=True)
class OutputTokens:
    """Tokens of all answers, reasoning included.

    Attributes:
        low: if answers are short.
        expected: if they are of average length.
        worst: if each is as long as allowed.
    """

    low: int
    expected: int
    worst: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is still to be sent, and what it takes.

    Attributes:
        prompts: different prompts among the requests.
        requests: requests to send.
        answered: requests of the job whose answer is in the journal.
        input_tokens: tokens of the prompts, counted with `data.tokenizer`.
        shared_tokens: those that the request before has, too, at its start; a server's cache may hold them.
        output_tokens: tokens of the answers.
        length: the length of answers that was assumed, as a part of the most that is allowed.
        length_source: where it is from, in words.
        cost: in micro-units; None if the teacher costs nothing.
        spent_micro: what the journal's requests cost so far, those in flight with their worst case.
        budget_micro: `teacher.budget`; None = no limit.
        covered: how many of the requests, in their order, the budget surely pays; None without budget or cost.
        time: how long it takes.
    """

    prompts: int
    requests: int
    answered: int
    input_tokens: int
    shared_tokens: int
    output_tokens: OutputTokens
    length: AnswerLength
    length_source: str
    cost: JobCost | None
    spent_micro: int
    budget_micro: int | None
    covered: int | None
    time: Duration

    def to_json(self) -> dict[str, Any]:
        """The estimate as JSON values; amounts are in millionths of the currency."""
        return asdict(self)


def estimate(
    asked: Sequence[Asked], journal: Reader | None, config: Config, price: Price | None, *, answered: int = 0
) -> Estimate:
    """Estimates what a job will take.

    Args:
        asked: the requests that have no answer yet, in the order of sending. One that is there twice is sent once.
        journal: the open journal; None if there is none yet.
        config: the config of the job.
        price: of the teacher's tokens; None and `FREE`: it costs nothing. A local teacher costs nothing either way.
        answered: how many requests of the job have an answer already.
    """
    prompts = len({one.prompt.index for one in asked})
    asked = list({one.request.hash: one for one in reversed(asked)}.values())[::-1]  # the first of each
    seen = [] if journal is None else list(answers_like(asked, journal))
    sizes = [_size(one, config) for one in asked]
    length, source = length_of(seen, max((_most(size) for size in sizes), default=_most_of(config)))
    output = OutputTokens(
        low=sum(length_tokens(size, length.low) for size in sizes),
        expected=sum(length_tokens(size, length.expected) for size in sizes),
        worst=sum(length_tokens(size, 1.0) for size in sizes),
    )
    input_tokens = sum(one.input_tokens for one in asked)
    # Before an answer is there, the job counts it with the most that it may have.
    paced_tokens = input_tokens + len(asked) * _most_of(config)
    budget = None if config.teacher.budget is None else to_micro(config.teacher.budget)
    tries = 1 + config.teacher.max_unknown_retries
    cost = covered = None
    if price is not None and price != FREE and config.teacher.kind != "local":
        likely = estimate_job(price, sizes, length)
        worst = tries * sum(one.worst_micro for one in asked)
        cost = JobCost(low=likely.low, expected=likely.expected, worst=worst)
    spent = _spent_micro(journal)
    if cost is not None and budget is not None:
        charged = accumulate(tries * one.worst_micro for one in asked)
        covered = sum(spent + total <= budget for total in charged)
    return Estimate(
        prompts=prompts,
        requests=len(asked),
        answered=answered,
        input_tokens=input_tokens,
        shared_tokens=sum(one.shared_tokens for one in asked),
        output_tokens=output,
        length=length,
        length_source=source,
        cost=cost,
        spent_micro=spent,
        budget_micro=budget,
        covered=covered,
        time=duration_of(len(asked), paced_tokens, seen, config),
    )


def print_estimate(console: Console, found: Estimate) -> None:
    """Prints an estimate for people.

    Args:
        console: where to.
        found: the estimate.
    """
    console.print(facts_table(estimate_lines(found)))
    console.print(estimate_table(found))


def estimate_table(found: Estimate) -> Table:
    """Tokens and cost: low, expected and worst.

    Args:
        found: the estimate.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("still to be sent", overflow="fold")
    for heading in ("low", "expected", "worst"):
        table.add_column(heading, justify="right", overflow="fold")
    output = found.output_tokens
    table.add_row("tokens of prompts", *[f"{found.input_tokens:,}"] * 3)
    table.add_row("tokens of answers", *(f"{one:,}" for one in (output.low, output.expected, output.worst)))
    if found.cost is None:
        table.add_row("cost", *["free"] * 3)
    else:
        table.add_row(
            "cost", *(money(one) for one in (found.cost.low, found.cost.expected, found.cost.worst))
        )
    return table


def estimate_lines(found: Estimate) -> list[tuple[str, str]]:
    """What else an estimate says, as names and texts.

    Args:
        found: the estimate.
    """
    lines = [
        (
            "requests",
            f"{found.requests} to send for {found.prompts} prompts; {found.answered} answered already",
        ),
        (
            "tokens of prompts",
            f"counted with data.tokenizer; {found.shared_tokens:,} may be in a server's cache",
        ),
        ("length of answers", found.length_source),
    ]
    if found.cost is not None:
        lines.append(("spent so far", money(found.spent_micro)))
        lines.append(("budget", _budget_text(found)))
    return [*lines, ("time", _time_text(found.time))]


def duration_text(seconds: float) -> str:
    """A duration for people.

    Args:
        seconds: how long.

    Examples:
        >>> [duration_text(seconds) for seconds in (0.2, 59, 150, 9000, 400_000)]
        ['1 s', '59 s', '3 min', '2.5 h', '4.6 days']
    """
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    if seconds < 100 * 60:
        return f"{ceil(seconds / 60)} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 72 else f"{hours / 24:.1f} days"


def _most(size: RequestSize) -> int:
    """The most tokens of an answer, reasoning included."""
    return size.max_tokens + size.extra_reasoning_tokens


def _most_of(config: Config) -> int:
    """As the job counts an answer against `api.tokens_per_minute`."""
    return config.teacher.max_new_tokens + config.api.max_reasoning_tokens


def _size(asked: Asked, config: Config) -> RequestSize:
    return RequestSize(
        input_tokens=asked.input_tokens,
        max_tokens=asked.output_tokens or config.teacher.max_new_tokens,
        shared_tokens=asked.shared_tokens,
        extra_reasoning_tokens=config.api.max_reasoning_tokens,
    )


def _spent_micro(journal: Reader | None) -> int:
    if journal is None:
        return 0
    spent = journal.money()
    return spent.spent_micro + spent.in_flight_micro


def _budget_text(found: Estimate) -> str:
    if found.budget_micro is None:
        return "none (teacher.budget)"
    if found.covered == found.requests:
        return f"{money(found.budget_micro)}: enough for all requests, even at their worst"
    return f"{money(found.budget_micro)}: surely enough for {found.covered} of {found.requests} requests"


def _time_text(time: Duration) -> str:
    if time.seconds is None:
        return f"unknown: {time.reason}"
    if not time.seconds:
        return time.reason
    if time.at_least:
        return f"at least {duration_text(time.seconds)} by {time.reason}; more is unknown: the journal has no answer"
    return f"about {duration_text(time.seconds)} by {time.reason}"
