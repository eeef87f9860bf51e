"""When a request may be sent: one gate for all workers, and as many requests at once as the server bears."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from kdfast.teacher.api.retry import Decision

OVERLOAD_REASONS = frozenset(
    {"rate_limited", "overloaded", "timeout", "server_error", "read_timeout", "connect"}
)
"""Reasons of a decision after which fewer requests are sent at once."""


class Clock(Protocol):
    """A clock that tests can replace."""

    def now(self) -> float:
        """Seconds, since any moment; never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Returns after this many seconds."""


class MonotonicClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since a moment that the machine chose."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Returns after this many seconds."""
        await asyncio.sleep(seconds)


class Gate:
    """One gate that every request passes; a server's wish to wait closes it for all.

    Args:
        clock: the clock; the machine's own by default.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self._opens_at = float("-inf")

    @property
    def closed_for_s(self) -> float:
        """Seconds until the gate opens; 0 if it is open."""
        return max(0.0, self._opens_at - self._clock.now())

    def close(self, seconds: float) -> None:
        """Closes the gate. A gate that is closed for longer stays so.

        Args:
            seconds: how long, from now.
        """
        self._opens_at = max(self._opens_at, self._clock.now() + seconds)

    async def wait(self) -> None:
        """Returns once the gate is open, also if it was closed again in the meantime."""
        while self.closed_for_s > 0:
            await self._clock.sleep(self.closed_for_s)


@dataclass(frozen=True, kw_only=True)
class ConcurrencyLimits:
    """How many requests may be in flight at once.

    Attributes:
        start: at the beginning.
        lowest: never fewer.
        highest: never more.
        decrease_ratio: what is left of the number after the server was overloaded.
    """

    start: int = 4
    lowest: int = 1
    highest: int = 16
    decrease_ratio: float = 0.5

    def __post_init__(self) -> None:
        if not 1 <= self.lowest <= self.start <= self.highest:
            raise ValueError(f"1 <= lowest <= start <= highest must hold: {self}")
        if not 0 < self.decrease_ratio < 1:
            raise ValueError(f"decrease_ratio must be between 0 and 1: {self.decrease_ratio}")


class Slot:
    """The place of one request among those in flight. `Pacer.slot` makes it."""

    def __init__(self, pacer: Pacer, period: int) -> None:
        self._pacer = pacer
        self._period = period

    def report(self, decision: Decision) -> None:
        """Tells the pacer what became of the request.

        Args:
            decision: what was decided about its outcome.
        """
        self._pacer.report(decision, self._period)


class Pacer:
    """Lets requests through: at most `limit` at once, and none while the gate is closed.

    The limit grows by one after as many answers as it has places ("additive increase"), and only while all places are
    in use. It falls to `decrease_ratio` of itself when the server is overloaded ("multiplicative decrease"). Requests
    that were sent before the limit fell lower it no further: they report the same overload.

    Args:
        limits: bounds of the limit.
        clock: the clock of the gate.

    Attributes:
        gate: the gate.
        limit: how many requests may be in flight; its whole part counts.
        in_flight: how many requests have a place now.

    Example:
        >>> async def one_request() -> int:
        ...     pacer = Pacer(ConcurrencyLimits(start=8))
        ...     async with pacer.slot() as slot:
        ...         slot.report(Decision(action="retry", reason="rate_limited"))
        ...     return int(pacer.limit)
        >>> asyncio.run(one_request())
        4
    """

    def __init__(self, limits: ConcurrencyLimits | None = None, clock: Clock | None = None) -> None:
        self._limits = limits or ConcurrencyLimits()
        self.gate = Gate(clock)
        self.limit = float(self._limits.start)
        self.in_flight = 0
        self._period = 0  # how often the limit fell
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """A place for one request, first come first served; given back at the block's end, also after an error.

        Yields:
            the place, to which the block reports the decision. Without a report nothing is learned.
        """
        await self._take_place()
        try:
            # After the place is taken: the gate may have closed while this request waited for it.
            await self.gate.wait()
            yield Slot(self, self._period)
        finally:
            self._give_place_back()

    def report(self, decision: Decision, period: int) -> None:
        """Moves the gate and the limit.

        Args:
            decision: what was decided about a request's outcome.
            period: how often the limit had fallen when the request was sent.
        """
        if decision.gate_s is not None:
            self.gate.close(decision.gate_s)
        if decision.action == "accept":
            if self.in_flight >= int(self.limit):
                self.limit = min(self._limits.highest, self.limit + 1 / int(self.limit))
        elif decision.reason in OVERLOAD_REASONS and period == self._period:
            self.limit = max(self._limits.lowest, self.limit * self._limits.decrease_ratio)
            self._period += 1
        self._let_in()

    async def _take_place(self) -> None:
        if not self._waiting and self.in_flight < int(self.limit):
            self.in_flight += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove(turn)
            else:  # the place was given to this request, which is not sent any more
                self._give_place_back()
            raise

    def _give_place_back(self) -> None:
        self.in_flight -= 1
        self._let_in()

    def _let_in(self) -> None:
        free = int(self.limit) - self.in_flight
        for turn in [turn for turn in self._waiting if not turn.done()][: max(0, free)]:
            self._waiting.remove(turn)
            self.in_flight += 1
            turn.set_result(None)
