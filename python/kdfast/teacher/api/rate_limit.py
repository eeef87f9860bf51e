"""Requests and tokens per minute: spaced, so that no minute sees more than the server allows."""

from __future__ import annotations

import math
from collections import deque

from kdfast.teacher.api.pacing import Clock, MonotonicClock

_MINUTE_S = 60.0


class RateLimit:
    """Lets requests through one after the other, first come first served, so that neither limit is exceeded.

    They are spaced evenly. A request that alone has more tokens than a minute allows waits for an empty minute.

    Args:
        requests_per_minute: most requests that begin within any minute, a fraction rounded up; None = no limit.
        tokens_per_minute: most of their tokens; None = no limit.
        clock: the clock; the machine's own by default.

    Raises:
        ValueError: a limit is not above 0.

    Example:
        >>> import asyncio
        >>> rate = RateLimit(requests_per_minute=60_000)
        >>> asyncio.run(rate.wait(tokens=7))
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        for name, limit in (("requests", requests_per_minute), ("tokens", tokens_per_minute)):
            if limit is not None and not 0 < limit < math.inf:
                raise ValueError(f"{name}_per_minute must be above 0: {limit}")
        self._requests = requests_per_minute
        self._tokens = tokens_per_minute
        self._clock = clock or MonotonicClock()
        self._next_s = float("-inf")
        self._last_minute: deque[tuple[float, int]] = (
            deque()
        )  # (start, tokens); all of them, if there is a limit
        self._last_tokens = 0

    async def wait(self, tokens: int) -> None:
        """Returns when the request may be sent. A caller that is cancelled has used up its share all the same.

        Args:
            tokens: what the request counts for.
        """
        if self._requests is None and self._tokens is None:
            return
        begins_s = self._reserve(tokens)
        while (left_s := begins_s - self._clock.now()) > 0:
            await self._clock.sleep(left_s)

    def _reserve(self, tokens: int) -> float:
        """When the request may begin."""
        begins_s = max(self._clock.now(), self._next_s)
        while self._last_minute and (
            self._last_minute[0][0] + _MINUTE_S <= begins_s or self._is_too_much(tokens)
        ):
            earlier_s, earlier_tokens = self._last_minute.popleft()
            self._last_tokens -= earlier_tokens
            begins_s = max(begins_s, earlier_s + _MINUTE_S)
        self._last_minute.append((begins_s, tokens))
        self._last_tokens += tokens
        by_requests_s = 0.0 if self._requests is None else _MINUTE_S / self._requests
        by_tokens_s = 0.0 if self._tokens is None else _MINUTE_S * tokens / self._tokens
        self._next_s = begins_s + max(by_requests_s, by_tokens_s)
        return begins_s

    def _is_too_much(self, tokens: int) -> bool:
        """Whether the last minute's requests and this one are too many. Spacing alone lets the last one over."""
        requests = self._requests is not None and len(self._last_minute) + 1 > math.ceil(self._requests)
        return requests or (self._tokens is not None and self._last_tokens + tokens > self._tokens)
