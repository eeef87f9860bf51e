"""Waits end when a job does; work does not."""

from __future__ import annotations

import asyncio

import pytest

from kdfast.teacher.api.ending import EndedEarly, Ending, InFlight


def test_all_waits_end_and_no_new_one_begins() -> None:
    async def scene() -> list[str]:
        ending, told = Ending(), list[str]()

        async def worker(number: int) -> None:
            try:
                async with ending.breakable():
                    await asyncio.Event().wait()
            except EndedEarly:
                told.append(f"worker {number}")

        workers = [asyncio.create_task(worker(number)) for number in range(3)]
        await asyncio.sleep(0)
        ending.begin()
        ending.begin()
        await asyncio.gather(*workers)
        assert not any(one.cancelled() for one in workers)
        with pytest.raises(EndedEarly):
            async with ending.breakable():
                told.append("never")
        return told

    assert sorted(asyncio.run(scene())) == ["worker 0", "worker 1", "worker 2"]


def test_a_block_that_has_ended_is_left_alone() -> None:
    async def scene() -> str:
        ending = Ending()
        async with ending.breakable():
            await asyncio.sleep(0)
        ending.begin()
        await asyncio.sleep(0)
        return "went on"

    assert asyncio.run(scene()) == "went on"


def test_errors_of_the_block_stay_themselves() -> None:
    async def scene(error: BaseException) -> None:
        async with Ending().breakable():
            raise error

    for error in (TimeoutError("inside"), OSError("inside")):
        with pytest.raises(type(error), match="inside"):
            asyncio.run(scene(error))


def test_a_task_that_is_cancelled_is_cancelled() -> None:
    async def scene() -> bool:
        async def wait(ending: Ending) -> None:
            async with ending.breakable():
                await asyncio.Event().wait()

        task = asyncio.create_task(wait(Ending()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(scene())


def test_every_end_of_what_is_in_flight_is_told() -> None:
    async def scene() -> None:
        flying = InFlight()
        flying.begin()
        flying.begin()
        waiting = [asyncio.create_task(flying.change()) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(one.done() for one in waiting)
        flying.end(was_sent=False)
        await asyncio.gather(*waiting)
        assert (flying.count, flying.ended) == (1, 0)
        later = asyncio.create_task(flying.change())
        await asyncio.sleep(0)
        assert not later.done()
        flying.end(was_sent=True)
        await later
        assert (flying.count, flying.ended) == (0, 1)

    asyncio.run(scene())
