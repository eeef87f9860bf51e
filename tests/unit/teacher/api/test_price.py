"""Money in whole micro-units: no float, no unknown price, nothing above the worst case."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdfast.config import PriceConfig
from kdfast.errors import ConfigError
from kdfast.teacher.api.price import (
    FREE,
    AnswerLength,
    Price,
    RequestSize,
    cost_micro,
    estimate_job,
    length_tokens,
    money,
    price_of,
    to_micro,
    worst_case_micro,
)
from kdfast.teacher.api.usage import Usage

PRICE = Price(input=250_000, cached=25_000, output=2_000_000, reasoning=3_000_000)
amounts = st.integers(0, 10**8)
prices = st.builds(Price, input=amounts, cached=amounts, output=amounts, reasoning=amounts)
tokens = st.integers(0, 10**6)


def test_a_price_is_read_exactly() -> None:
    assert price_of(PriceConfig(input=0.1, cached=0.000001, output=1.1, reasoning=2)) == Price(
        input=100_000, cached=1, output=1_100_000, reasoning=2_000_000
    )
    assert price_of(PriceConfig(input=0, output=1)) == Price(
        input=0, cached=0, output=1_000_000, reasoning=1_000_000
    )
    assert price_of(PriceConfig(input=1, output=2, cached=0)).cached == 0
    assert price_of(PriceConfig(free=True)) == FREE


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_no_digit_of_a_price_is_lost(price_in: int, price_out: int) -> None:
    section = PriceConfig(input=float(Decimal(price_in) / 10**6), output=float(Decimal(price_out) / 10**6))
    assert price_of(section) == Price(input=price_in, cached=price_in, output=price_out, reasoning=price_out)


def test_a_price_that_nobody_gave_is_not_0() -> None:
    with pytest.raises(ConfigError) as error:
        price_of(PriceConfig())
    assert str(error.value).startswith(
        "price: the teacher's price is not known; set price.input and price.output"
    )
    assert "price.free: true" in str(error.value)


@pytest.mark.parametrize(
    ("amount", "micro"),
    [(0.0, 0), (5.0, 5_000_000), (0.29, 290_000), (1e-06, 1), (9.9e-07, 0), (1e15, 10**21)],
)
def test_a_budget_is_never_larger_than_what_was_written(amount: float, micro: int) -> None:
    assert to_micro(amount) == micro


def test_the_cost_of_a_request_by_hand() -> None:
    usage = Usage(input_tokens=1_000, cached_tokens=400, output_tokens=100, reasoning_tokens=60)
    # 600 * 0.25 + 400 * 0.025 + 40 * 2 + 60 * 3 = 420 micro-units
    assert cost_micro(PRICE, usage) == 420
    assert worst_case_micro(PRICE, 1_000, 100) == 550
    assert worst_case_micro(PRICE, 1_000, 100, extra_reasoning_tokens=10) == 580


def test_a_part_of_a_micro_unit_is_rounded_up() -> None:
    assert cost_micro(PRICE, Usage(input_tokens=1, output_tokens=0)) == 1
    assert cost_micro(FREE, Usage(input_tokens=10**9, output_tokens=10**9)) == 0


@given(prices, st.data())
def test_no_request_costs_more_than_its_worst_case(price: Price, data: st.DataObject) -> None:
    prompt, limit = data.draw(tokens), data.draw(tokens)
    output = data.draw(st.integers(0, limit))
    usage = Usage(
        input_tokens=prompt,
        cached_tokens=data.draw(st.integers(0, prompt)),
        output_tokens=output,
        reasoning_tokens=data.draw(st.integers(0, output)),
    )
    assert 0 <= cost_micro(price, usage) <= worst_case_micro(price, prompt, limit)


@given(
    st.builds(Price, input=st.just(10**6), cached=st.integers(0, 10**6), output=amounts, reasoning=amounts),
    st.lists(
        st.builds(
            RequestSize,
            input_tokens=st.just(50),
            max_tokens=tokens,
            shared_tokens=st.integers(0, 50),
            extra_reasoning_tokens=tokens,
        )
    ),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_an_estimate_is_in_order(price: Price, sizes: list[RequestSize], one: float, other: float) -> None:
    cost = estimate_job(price, sizes, AnswerLength(low=min(one, other), expected=max(one, other)))
    assert 0 <= cost.low <= cost.expected <= cost.worst


def test_the_worst_case_counts_lost_answers() -> None:
    sizes = [RequestSize(input_tokens=1_000, max_tokens=100)] * 3
    assert estimate_job(PRICE, sizes, AnswerLength(low=0, expected=1), max_unknown_retries=0).worst == 3 * 550
    assert estimate_job(PRICE, sizes, AnswerLength(low=0, expected=1), max_unknown_retries=2).worst == 9 * 550


def test_reasoning_that_is_not_limited_is_estimated_too() -> None:
    size = RequestSize(input_tokens=0, max_tokens=100, extra_reasoning_tokens=900)
    assert [length_tokens(size, ratio) for ratio in (0, 0.05, 1)] == [0, 50, 1000]
    # 100 * 2 + 700 * 3: no more than 100 tokens can be of the answer
    assert estimate_job(PRICE, [size], AnswerLength(low=0.05, expected=0.8)).expected == 2300


@pytest.mark.parametrize(
    ("micro", "text"),
    [
        (0, "0.00"),
        (1, "0.000001"),
        (999, "0.000999"),
        (1_000, "0.0010"),
        (999_999, "1.0000"),
        (1_000_000, "1.00"),
        (1_000_001, "1.01"),
        (123_456_780_000, "123456.78"),
    ],
)
def test_amounts_for_people(micro: int, text: str) -> None:
    assert money(micro) == text


def test_wrong_numbers() -> None:
    with pytest.raises(ValueError, match="negative"):
        worst_case_micro(PRICE, -1, 0)
    with pytest.raises(ValueError, match="negative"):
        Price(input=-1, cached=0, output=0, reasoning=0)
    with pytest.raises(ValueError, match="low <= expected"):
        AnswerLength(low=0.5, expected=0.4)
