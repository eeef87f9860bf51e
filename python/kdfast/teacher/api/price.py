"""What a teacher's tokens cost, in whole micro-units of money (1,000,000 = one dollar, euro, ...)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import ceil

from kdfast.config import PriceConfig
from kdfast.errors import ConfigError
from kdfast.teacher.api.usage import Usage

MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Price:
    """The price of a million tokens, in micro-units: the price of one token in millionths of a micro-unit.

    Attributes:
        input: of the prompt.
        cached: of the prompt where the server reads it from its cache.
        output: of the answer.
        reasoning: of the reasoning before the answer.
    """

    input: int
    cached: int
    output: int
    reasoning: int

    def __post_init__(self) -> None:
        if min(self.input, self.cached, self.output, self.reasoning) < 0:
            raise ValueError(f"no price may be negative: {self}")


FREE = Price(input=0, cached=0, output=0, reasoning=0)


def price_of(section: PriceConfig) -> Price:
    """The price that a config gives.

    Args:
        section: the config's section `price`.

    Raises:
        ConfigError: the section gives no price. A price that nobody gave is never 0.

    Examples:
        >>> price_of(PriceConfig(input=0.15, output=0.6))
        Price(input=150000, cached=150000, output=600000, reasoning=600000)
        >>> price_of(PriceConfig(free=True)) == FREE
        True
    """
    if section.free:
        return FREE
    if section.input is None or section.output is None:
        raise ConfigError(
            "price: the teacher's price is not known; set price.input and price.output (of a million tokens), or"
            f" price.free: true if it costs nothing, got {section.to_dict()}"
        )
    cached = section.input if section.cached is None else section.cached
    reasoning = section.output if section.reasoning is None else section.reasoning
    return Price(
        input=to_micro(section.input),
        cached=to_micro(cached),
        output=to_micro(section.output),
        reasoning=to_micro(reasoning),
    )


def to_micro(amount: float) -> int:
    """An amount of a config in micro-units, rounded down: a budget is never larger than what was written.

    Args:
        amount: as written, finite and not negative.

    Examples:
        >>> to_micro(0.15), to_micro(1.1), to_micro(0.0000019)
        (150000, 1100000, 1)
    """
    # By its decimal digits: 1.1 * 1000000 is 1100000.0000000002 as a float.
    return int(Decimal(str(amount)) * MILLION)


def cost_micro(price: Price, usage: Usage) -> int:
    """What a request cost, in micro-units, rounded up.

    Args:
        price: the price.
        usage: its tokens.

    Example:
        >>> price = Price(input=1_000_000, cached=100_000, output=4_000_000, reasoning=4_000_000)
        >>> cost_micro(price, Usage(input_tokens=1000, cached_tokens=600, output_tokens=50))
        660
    """
    return _rounded_up(
        (usage.input_tokens - usage.cached_tokens) * price.input
        + usage.cached_tokens * price.cached
        + (usage.output_tokens - usage.reasoning_tokens) * price.output
        + usage.reasoning_tokens * price.reasoning
    )


def worst_case_micro(
    price: Price, input_tokens: int, max_tokens: int, extra_reasoning_tokens: int = 0
) -> int:
    """The most that a request can cost, in micro-units, rounded up.

    Nothing comes from the cache, and every token that may be generated is generated, at the dearer of both prices.

    Args:
        price: the price.
        input_tokens: tokens of the prompt, tools and template included.
        max_tokens: the limit of the answer, over all choices.
        extra_reasoning_tokens: reasoning that the server does not count against `max_tokens`.
    """
    if min(input_tokens, max_tokens, extra_reasoning_tokens) < 0:
        raise ValueError(
            f"numbers of tokens must not be negative: {(input_tokens, max_tokens, extra_reasoning_tokens)}"
        )
    return _rounded_up(
        input_tokens * max(price.input, price.cached)
        + max_tokens * max(price.output, price.reasoning)
        + extra_reasoning_tokens * price.reasoning
    )


@dataclass(frozen=True, kw_only=True)
class RequestSize:
    """What is known of a request before it is sent.

    Attributes:
        input_tokens: tokens of the prompt.
        max_tokens: the limit of the answer.
        shared_tokens: those at the prompt's start that an earlier request of the job has, too: the server's cache may
            hold them.
        extra_reasoning_tokens: reasoning that the server does not count against `max_tokens`.
    """

    input_tokens: int
    max_tokens: int
    shared_tokens: int = 0
    extra_reasoning_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class AnswerLength:
    """How long answers are, as a part of all that may be generated.

    That is the limit of the answer and the reasoning that the server adds to it.

    Attributes:
        low: of short answers.
        expected: on average.
    """

    low: float
    expected: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.expected <= 1:
            raise ValueError(f"0 <= low <= expected <= 1 must hold: {self}")


@dataclass(frozen=True, kw_only=True)
class JobCost:
    """What a job costs, in micro-units.

    Attributes:
        low: short answers, and everything shared comes from the cache.
        expected: answers of average length, nothing from the cache.
        worst: every answer as long as allowed, and every request sent as often as a lost answer allows.
    """

    low: int
    expected: int
    worst: int


def length_tokens(size: RequestSize, ratio: float) -> int:
    """How many tokens are generated for a request, rounded up.

    Args:
        size: the request.
        ratio: a part of all that may be generated, in [0, 1].

    Example:
        >>> length_tokens(RequestSize(input_tokens=9, max_tokens=10, extra_reasoning_tokens=5), 0.5)
        8
    """
    most = size.max_tokens + size.extra_reasoning_tokens
    return min(most, ceil(most * ratio))


def estimate_job(
    price: Price, requests: Sequence[RequestSize], length: AnswerLength, max_unknown_retries: int = 1
) -> JobCost:
    """Estimates what a job will cost.

    Args:
        price: the price.
        requests: the requests that are still to be sent.
        length: the length of answers, best from a pilot.
        max_unknown_retries: how often a request is sent again after an outcome that is unknown.

    Example:
        >>> price = Price(input=1_000_000, cached=0, output=2_000_000, reasoning=2_000_000)
        >>> sizes = [RequestSize(input_tokens=100, max_tokens=50, shared_tokens=80)] * 2
        >>> estimate_job(price, sizes, AnswerLength(low=0.1, expected=0.5))
        JobCost(low=60, expected=300, worst=800)
    """

    def usage(size: RequestSize, ratio: float, cached: int) -> Usage:
        output = length_tokens(size, ratio)
        # What the limit of the answer does not allow can only be reasoning.
        reasoning = max(0, output - size.max_tokens)
        return Usage(
            input_tokens=size.input_tokens,
            cached_tokens=cached,
            output_tokens=output,
            reasoning_tokens=reasoning,
        )

    worst = sum(
        worst_case_micro(price, size.input_tokens, size.max_tokens, size.extra_reasoning_tokens)
        for size in requests
    )
    return JobCost(
        low=sum(cost_micro(price, usage(size, length.low, size.shared_tokens)) for size in requests),
        expected=sum(cost_micro(price, usage(size, length.expected, 0)) for size in requests),
        worst=worst * (1 + max_unknown_retries),
    )


def money(micro: int) -> str:
    """An amount for people: two decimals, or as many as a small amount needs; rounded up.

    Args:
        micro: micro-units.

    Examples:
        >>> money(12_345_678), money(1_234), money(0)
        ('12.35', '0.0013', '0.00')
    """
    unit = 10_000 if micro >= MILLION else 100 if micro >= 1_000 else 1
    if micro == 0:
        return "0.00"
    amount = Decimal(-(-micro // unit) * unit) / MILLION
    return f"{amount:.{ {10_000: 2, 100: 4, 1: 6}[unit] }f}"


def _rounded_up(millionths: int) -> int:
    return -(-millionths // MILLION)
