"""No minute sees more requests or tokens than allowed; without real waiting."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdfast.teacher.api.rate_limit import RateLimit


class JumpingClock:
    """Its time passes only while somebody sleeps, one after the other."""

    def __init__(self) -> None:
        self.time = 50.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


def starts(rate: RateLimit, clock: JumpingClock, requests: list[tuple[float, int]]) -> list[float]:
    """When requests begin that arrive (seconds after the one before began, tokens)."""

    async def scene() -> list[float]:
        begun = []
        for pause, tokens in requests:
            clock.time += pause
            await rate.wait(tokens)
            begun.append(clock.time)
        return begun

    return asyncio.run(scene())


limits = st.one_of(st.none(), st.floats(0.3, 500))
arrivals = st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.5, 70.0]), st.integers(0, 300)), max_size=40)


@given(limits, limits, arrivals)
def test_every_minute_is_within_both_limits(
    requests_per_minute: float | None, tokens_per_minute: float | None, requests: list[tuple[float, int]]
) -> None:
    clock = JumpingClock()
    begun = starts(RateLimit(requests_per_minute, tokens_per_minute, clock), clock, requests)
    for first, start in enumerate(begun):
        minute = [
            tokens
            for at, (_, tokens) in zip(begun[first:], requests[first:], strict=True)
            if at < start + 60 - 1e-6
        ]
        assert requests_per_minute is None or len(minute) <= math.ceil(requests_per_minute)
        assert tokens_per_minute is None or len(minute) == 1 or sum(minute) <= tokens_per_minute
    assert begun == sorted(begun)


def test_they_are_spaced_evenly_and_nobody_waits_without_need() -> None:
    clock = JumpingClock()
    assert starts(RateLimit(30, None, clock), clock, [(0, 9)] * 3) == [50, 52, 54]
    clock = JumpingClock()
    assert starts(RateLimit(None, 600, clock), clock, [(0, 20), (0, 100), (0, 20), (9, 1)]) == [
        50,
        52,
        62,
        71,
    ]
    clock = JumpingClock()
    assert starts(RateLimit(60, 600, clock), clock, [(0, 5), (0, 50), (0, 5)]) == [50, 51, 56]
    clock = JumpingClock()
    assert starts(RateLimit(None, None, clock), clock, [(0, 10**9)] * 3) == [50] * 3


def test_a_request_that_is_larger_than_a_minute_waits_for_an_empty_one() -> None:
    clock = JumpingClock()
    assert starts(RateLimit(None, 100, clock), clock, [(0, 10), (0, 500), (0, 10)]) == [50, 110, 410]


def test_first_come_first_served() -> None:
    async def scene() -> list[int]:
        clock, order = JumpingClock(), list[int]()
        rate = RateLimit(60, None, clock)

        async def request(number: int) -> None:
            await rate.wait(1)
            order.append(number)

        await asyncio.gather(*(request(number) for number in range(5)))
        return order

    assert asyncio.run(scene()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("wrong", [0, -1.0, math.inf, math.nan])
def test_limits_that_cannot_be(wrong: float) -> None:
    with pytest.raises(ValueError, match="requests_per_minute must be above 0"):
        RateLimit(requests_per_minute=wrong)
    with pytest.raises(ValueError, match="tokens_per_minute must be above 0"):
        RateLimit(tokens_per_minute=wrong)
