"""One gate for all, and a number of requests at once that follows the server; without real waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from kdfast.teacher.api.pacing import ConcurrencyLimits, Gate, MonotonicClock, Pacer
from kdfast.teacher.api.retry import Decision

ANSWERED = Decision(action="accept", reason="ok")
OVERLOADED = Decision(action="retry", reason="rate_limited")


class HandClock:
    """A clock that moves when a test moves it."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        sleeper = asyncio.get_running_loop().create_future()
        self.sleepers.append((self.time + seconds, sleeper))
        await sleeper

    async def advance(self, seconds: float) -> None:
        self.time += seconds
        for due, sleeper in self.sleepers:
            if due <= self.time and not sleeper.done():
                sleeper.set_result(None)
        await settle()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_the_gate_closes_for_all_and_a_shorter_wait_does_not_open_it() -> None:
    async def scene() -> None:
        clock = HandClock()
        gate, passed = Gate(clock), list[int]()

        async def walk(number: int) -> None:
            await gate.wait()
            passed.append(number)

        gate.close(10)
        gate.close(2)
        assert gate.closed_for_s == 10
        walkers = [asyncio.create_task(walk(number)) for number in range(3)]
        await clock.advance(9)
        assert passed == []
        gate.close(5)  # closed again while they wait
        await clock.advance(2)
        assert passed == []
        await clock.advance(3)
        assert passed == [0, 1, 2]
        assert gate.closed_for_s == 0
        await asyncio.gather(*walkers)

    asyncio.run(scene())


async def hold(pacer: Pacer, leave: asyncio.Event, decision: Decision | None) -> None:
    async with pacer.slot() as slot:
        await leave.wait()
        if decision is not None:
            slot.report(decision)


def test_no_more_in_flight_than_the_limit_first_come_first_served() -> None:
    async def scene() -> None:
        pacer, order = Pacer(ConcurrencyLimits(start=2, highest=2)), list[int]()
        leaves = [asyncio.Event() for _ in range(5)]

        async def request(number: int) -> None:
            async with pacer.slot():
                order.append(number)
                await leaves[number].wait()

        tasks = [asyncio.create_task(request(number)) for number in range(5)]
        await settle()
        assert (order, pacer.in_flight) == ([0, 1], 2)
        leaves[1].set()
        await settle()
        assert (order, pacer.in_flight) == ([0, 1, 2], 2)
        tasks[3].cancel()
        await settle()
        leaves[0].set()
        await settle()
        assert (order, pacer.in_flight) == ([0, 1, 2, 4], 2)
        for leave in leaves:
            leave.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert pacer.in_flight == 0

    asyncio.run(scene())


def test_a_request_that_is_cancelled_when_its_turn_comes_loses_no_place() -> None:
    async def scene() -> None:
        pacer, leave = Pacer(ConcurrencyLimits(start=1)), asyncio.Event()
        first = asyncio.create_task(hold(pacer, leave, None))
        second = asyncio.create_task(hold(pacer, asyncio.Event(), None))
        third = asyncio.create_task(hold(pacer, leave, None))
        await settle()
        leave.set()
        await first  # its place is second's now, which has not run yet
        second.cancel()
        await asyncio.gather(third, asyncio.wait([second]))
        assert second.cancelled()
        assert pacer.in_flight == 0

    asyncio.run(scene())


def test_an_error_gives_the_place_back() -> None:
    async def scene() -> None:
        pacer = Pacer()
        with pytest.raises(OSError, match="gone"):
            async with pacer.slot():
                raise OSError("gone")
        assert pacer.in_flight == 0

    asyncio.run(scene())


def test_the_gate_holds_those_who_have_a_place_too() -> None:
    async def scene() -> None:
        clock = HandClock()
        pacer, sent = Pacer(ConcurrencyLimits(start=1), clock), list[float]()

        async def request(decision: Decision) -> None:
            async with pacer.slot() as slot:
                sent.append(clock.now())
                slot.report(decision)

        told_to_wait = Decision(action="retry", reason="rate_limited", wait_s=30, gate_s=30)
        tasks = [asyncio.create_task(request(told_to_wait)), asyncio.create_task(request(ANSWERED))]
        await settle()
        assert sent == [1000.0]
        await clock.advance(30)
        assert sent == [1000.0, 1030.0]
        await asyncio.gather(*tasks)

    asyncio.run(scene())


def run_rounds(pacer: Pacer, decisions: list[Decision | None], at_once: int) -> None:
    async def scene() -> None:
        for decision in decisions:
            leave = asyncio.Event()
            tasks = [asyncio.create_task(hold(pacer, leave, decision)) for _ in range(at_once)]
            await settle()
            leave.set()
            await asyncio.gather(*tasks)

    asyncio.run(scene())


def test_additive_increase_while_all_places_are_in_use_up_to_the_highest() -> None:
    pacer = Pacer(ConcurrencyLimits(start=2, highest=4))
    run_rounds(pacer, [ANSWERED], at_once=3)
    assert 2.5 <= pacer.limit <= 3.5
    run_rounds(pacer, [ANSWERED] * 20, at_once=6)
    assert pacer.limit == 4
    idle = Pacer(ConcurrencyLimits(start=8))
    run_rounds(idle, [ANSWERED] * 20, at_once=2)
    assert idle.limit == 8


def test_a_burst_of_overload_lowers_the_limit_once_down_to_the_lowest() -> None:
    pacer = Pacer(ConcurrencyLimits(start=16, lowest=3))
    run_rounds(pacer, [OVERLOADED], at_once=16)
    assert pacer.limit == 8
    run_rounds(pacer, [OVERLOADED] * 5, at_once=1)
    assert pacer.limit == 3


@pytest.mark.parametrize(
    "decision",
    [None, Decision(action="give_up", reason="content_filter"), Decision(action="stop", reason="quota")],
)
def test_a_failure_of_a_record_says_nothing_about_the_load(decision: Decision | None) -> None:
    pacer = Pacer(ConcurrencyLimits(start=4))
    run_rounds(pacer, [decision] * 3, at_once=4)
    assert pacer.limit == 4


def test_the_limit_settles_near_what_the_server_bears() -> None:
    bears, seen = 6, list[float]()
    pacer = Pacer(ConcurrencyLimits(start=1, highest=32))

    async def worker() -> None:
        for _ in range(40):
            async with pacer.slot() as slot:
                await asyncio.sleep(0)
                slot.report(OVERLOADED if pacer.in_flight > bears else ANSWERED)
                seen.append(pacer.limit)

    async def scene() -> None:
        await asyncio.gather(*(worker() for _ in range(20)))

    asyncio.run(scene())
    later = seen[len(seen) // 4 :]
    assert max(later) <= bears + 1.5
    assert 3 <= sum(later) / len(later) <= bears + 1
    assert pacer.in_flight == 0


@pytest.mark.parametrize(
    "wrong", [{"lowest": 0}, {"start": 20}, {"decrease_ratio": 1.0}, {"start": 1, "lowest": 2}]
)
def test_bounds_that_cannot_be(wrong: dict[str, float]) -> None:
    make: Callable[..., ConcurrencyLimits] = ConcurrencyLimits
    with pytest.raises(ValueError, match=r"must"):
        make(**wrong)


def test_the_machines_clock_goes_on() -> None:
    clock = MonotonicClock()
    before = clock.now()
    asyncio.run(clock.sleep(0))
    assert clock.now() >= before
