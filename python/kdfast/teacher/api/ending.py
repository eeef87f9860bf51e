"""How a job ends early: waits are broken off, what is in flight is not; and what there is in flight."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class EndedEarly(Exception):  # noqa: N818 - no fault: the job is to end
    """The job is ending: the worker that waits, or wants to send, goes home."""


class Ending:
    """Whether a job is ending; breaks off the waits of its tasks. For one event loop.

    Attributes:
        begun: whether it is ending.

    Example:
        >>> async def wait_for_ever(ending: Ending) -> str:
        ...     try:
        ...         async with ending.breakable():
        ...             await asyncio.Event().wait()
        ...     except EndedEarly:
        ...         return "went home"
        ...     return "waited"
        >>> async def scene() -> str:
        ...     ending = Ending()
        ...     waiting = asyncio.create_task(wait_for_ever(ending))
        ...     await asyncio.sleep(0)
        ...     ending.begin()
        ...     return await waiting
        >>> asyncio.run(scene())
        'went home'
    """

    def __init__(self) -> None:
        self.begun = False
        self._waits: set[asyncio.Timeout] = set()

    def begin(self) -> None:
        """From now on nothing waits any more; may be called again."""
        if not self.begun:
            self.begun = True
            for wait in self._waits:
                wait.reschedule(0.0)  # a time that has passed

    @asynccontextmanager
    async def breakable(self) -> AsyncIterator[None]:
        """A block that only waits. It is left at once when the ending begins.

        Raises:
            EndedEarly: the job is ending.
        """
        if self.begun:
            raise EndedEarly
        wait = asyncio.timeout(None)
        try:
            async with wait:
                self._waits.add(wait)
                try:
                    yield
                finally:
                    self._waits.discard(wait)
        except TimeoutError:
            if wait.expired():
                raise EndedEarly from None
            raise


class InFlight:
    """How many requests a job has begun whose cost is not known yet. For one event loop.

    Attributes:
        count: begun, or just being begun.
        ended: how many have ended; their worst case is no longer reserved.
    """

    def __init__(self) -> None:
        self.count = 0
        self.ended = 0
        self._changed = asyncio.Event()

    def begin(self) -> None:
        """Counts one that is being begun."""
        self.count += 1

    def end(self, *, was_sent: bool) -> None:
        """Counts one less.

        Args:
            was_sent: False if it was not begun after all, so that no money came free.
        """
        self.count -= 1
        self.ended += was_sent
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Returns after the next `end`."""
        await self._changed.wait()
