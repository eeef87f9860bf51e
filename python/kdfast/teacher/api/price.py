"""What a teacher's tokens cost, in whole micro-units of money (1,000,000 = one dollar, euro, ...)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

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


def read_price(section: Mapping[str, Any] | str | None, path: str = "price") -> Price:
    """Reads the price of a config.

    Args:
        section: "free", or the price of a million tokens: `input` and `output`, with `cached` (default: as `input`) and
            `reasoning` (default: as `output`), each a number or its text with at most 6 decimals.
        path: the section's dotted path, for messages.

    Raises:
        ConfigError: a price is missing or no price. A price that nobody gave is never 0.

    Example:
        >>> read_price({"input": 0.15, "output": "0.60"})
        Price(input=150000, cached=150000, output=600000, reasoning=600000)
    """
    if section == "free":
        return FREE
    if not isinstance(section, Mapping) or not section:
        raise ConfigError(
            f"{path}: the teacher's price is not known; give price.input and price.output per million tokens, "
            f"or 'free': {section!r}"
        )
    known = ("input", "cached", "output", "reasoning")
    unknown = [key for key in section if key not in known]
    if unknown:
        raise ConfigError(f"{path}.{unknown[0]}: unknown key; known are {', '.join(known)}")
    given = {key: _micro(value, f"{path}.{key}") for key, value in section.items() if value is not None}
    for key in ("input", "output"):
        if key not in given:
            raise ConfigError(f"{path}.{key}: give the price of a million tokens, or price: free")
    if not any(given.values()):
        raise ConfigError(f"{path}: all prices are 0; if the teacher costs nothing, write price: free")
    price_in, price_out = given["input"], given["output"]
    return Price(
        input=price_in,
        cached=given.get("cached", price_in),
        output=price_out,
        reasoning=given.get("reasoning", price_out),
    )


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
    """How long answers are, as a part of `max_tokens`, reasoning included.

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
        output = min(size.max_tokens, _whole(size.max_tokens * ratio))
        return Usage(input_tokens=size.input_tokens, cached_tokens=cached, output_tokens=output)

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


def _micro(value: object, path: str) -> int:
    refused = ConfigError(f"{path}: expected a price with at most 6 decimals, 0 or more: {value!r}")
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise refused
    try:
        amount = Decimal(str(value)) * MILLION
        whole = int(amount)
    except (InvalidOperation, ValueError, OverflowError):
        raise refused from None
    if amount != whole or whole < 0:
        raise refused
    return whole


def _rounded_up(millionths: int) -> int:
    return -(-millionths // MILLION)


def _whole(tokens: float) -> int:
    return int(-(-tokens // 1))
