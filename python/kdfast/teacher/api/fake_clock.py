"""A clock that jumps over waits, for tests and for checks before money is spent."""

from __future__ import annotations

import asyncio
import time

_LONGEST_S = 0.005


class JumpingClock:
    """Goes on as the machine's, and jumps over all but 5 ms of what is slept. A `kdfast.teacher.api.pacing.Clock`.

    Example:
        >>> clock = JumpingClock()
        >>> before = clock.now()
        >>> asyncio.run(clock.sleep(3600))
        >>> clock.now() - before >= 3600
        True
    """

    def __init__(self) -> None:
        self._skipped_s = 0.0

    def now(self) -> float:
        """Seconds since a moment that the machine chose, and those that were jumped over."""
        return time.monotonic() + self._skipped_s

    async def sleep(self, seconds: float) -> None:
        """Returns at once, or nearly; `now` says that the time has passed."""
        slept = min(seconds, _LONGEST_S)
        await asyncio.sleep(slept)
        self._skipped_s += max(0.0, seconds - slept)
