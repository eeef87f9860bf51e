"""Money in whole micro-units: no float, no unknown price, nothing above the worst case."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdfast.errors import ConfigError
from kdfast.teacher.api.price import (
    FREE,
    AnswerLength,
    Price,
    RequestSize,
    cost_micro,
    estimate_job,
    money,
    read_price,
    worst_case_micro,
)
from kdfast.teacher.api.usage import Usage

PRICE = Price(input=250_000, cached=25_000, output=2_000_000, reasoning=3_000_000)
amounts = st.integers(0, 10**8)
prices = st.builds(Price, input=amounts, cached=amounts, output=amounts, reasoning=amounts)
tokens = st.integers(0, 10**6)


def test_a_price_is_read_exactly() -> None:
    assert read_price({"input": 0.1, "cached": 0.000001, "output": "1.1", "reasoning": 2}) == Price(
        input=100_000, cached=1, output=1_100_000, reasoning=2_000_000
    )
    assert read_price({"input": 0, "output": 1}) == Price(
        input=0, cached=0, output=1_000_000, reasoning=1_000_000
    )
    assert read_price({"input": 1, "output": 2, "cached": None}).cached == 1_000_000
    assert read_price("free") == FREE


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (None, "price: the teacher's price is not known"),
        ({}, "price: the teacher's price is not known"),
        ("cheap", "'cheap'"),
        ({"input": 1}, "price.output: give"),
        ({"input": None, "output": 1}, "price.input: give"),
        ({"input": 1, "output": 1, "outputs": 1}, "price.outputs: unknown key"),
        ({"input": 0, "output": 0}, "write price: free"),
        ({"input": -1, "output": 1}, "price.input: expected a price"),
        ({"input": True, "output": 1}, "price.input: expected a price"),
        ({"input": "one", "output": 1}, "price.input: expected a price"),
        ({"input": float("nan"), "output": 1}, "price.input: expected a price"),
        ({"input": float("inf"), "output": 1}, "price.input: expected a price"),
        ({"input": 0.0000001, "output": 1}, "at most 6 decimals"),
        ({"input": [1], "output": 1}, "price.input: expected a price"),
    ],
)
def test_what_is_no_price(section: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_price(section)


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
        st.builds(RequestSize, input_tokens=st.just(50), max_tokens=tokens, shared_tokens=st.integers(0, 50))
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
