"""How long a server asks its clients to wait, from the headers of a response."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_LIMIT = re.compile(r"(?:x-|anthropic-)?ratelimit-(?:(.+)-)?(remaining|reset)(?:-(.+))?")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_EPOCH_S = 1e9  # a larger number of seconds is a point in time: 1e9 s = 32 years
_EPOCH_MS = 1e11


def requested_wait_s(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that a server asks to wait; None if it does not say.

    The first of these that can be read decides: `retry-after-ms`; `Retry-After` in seconds or as an HTTP date;
    the limits of `exhausted_wait_s`.

    Args:
        headers: the response's headers; the case of their names does not matter.
        now: the time, in seconds since 1970. A date is compared with the response's own `Date` where it has one,
            because the clocks of two machines differ.

    Returns:
        0 or more, never infinite. A time in the past gives 0.

    Examples:
        >>> requested_wait_s({"Retry-After": "7"}, now=0.0)
        7.0
        >>> requested_wait_s({"Retry-After": "Thu, 01 Jan 1970 00:01:00 GMT"}, now=20.0)
        40.0
        >>> requested_wait_s({"retry-after-ms": "250", "retry-after": "1"}, now=0.0)
        0.25
    """
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    milliseconds = _number(lower.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    asked = lower.get("retry-after", "")
    seconds = _number(asked)
    if seconds is not None:
        return seconds
    if asked.startswith("-"):
        return 0.0
    moment = _http_date(asked)
    if moment is not None:
        sent = _http_date(lower.get("date", ""))
        return max(0.0, moment - (now if sent is None else sent))
    return exhausted_wait_s(headers, now)


def exhausted_wait_s(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds until every limit that has nothing left is reset; None if all have something left.

    Reads `x-ratelimit-remaining-requests` with `x-ratelimit-reset-requests`, the same of tokens, `x-ratelimit-reset`
    without a kind, `ratelimit-*` and `anthropic-ratelimit-*`.

    Args:
        headers: the response's headers; the case of their names does not matter.
        now: the time, in seconds since 1970.

    Example:
        >>> headers = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}
        >>> exhausted_wait_s(headers, now=0.0)
        360.0
    """
    limits: dict[str, dict[str, str]] = {}
    for name, value in headers.items():
        match = _LIMIT.fullmatch(name.lower())
        if match:
            limits.setdefault(match[1] or match[3] or "", {})[match[2]] = value.strip()
    waits = [
        wait
        for limit in limits.values()
        if _number(limit.get("remaining", "")) == 0
        and (wait := reset_s(limit.get("reset", ""), now)) is not None
    ]
    return max(waits, default=None)


def reset_s(value: str, now: float) -> float | None:
    """The seconds until a limit is reset; None if the value cannot be read.

    Args:
        value: a duration ("6m0s", "1s", "20ms"), seconds ("17"), a point in time in seconds or milliseconds since
            1970, or as an ISO 8601 date.
        now: the time, in seconds since 1970.

    Examples:
        >>> reset_s("1m2.5s", now=0.0)
        62.5
        >>> reset_s("1700000030", now=1700000000.0)
        30.0
        >>> reset_s("soon", now=0.0) is None
        True
    """
    number = _number(value)
    if number is not None:
        if number < _EPOCH_S:
            return number
        moment = number if number < _EPOCH_MS else number / 1000
        return max(0.0, moment - now)
    if _DURATION.fullmatch(value):
        return math.fsum(float(count) * _UNITS_S[unit] for count, unit in _PART.findall(value))
    try:
        date = datetime.fromisoformat(value)
    except ValueError:
        return None
    return max(0.0, _timestamp(date) - now)


def _number(value: str) -> float | None:
    """A plain decimal number that is finite. `float` alone would read "nan", "1_0" and "1e9"."""
    number = float(value) if value.isascii() and _NUMBER.fullmatch(value) else math.inf
    return number if math.isfinite(number) else None


def _http_date(value: str) -> float | None:
    try:
        return _timestamp(parsedate_to_datetime(value)) if value else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _timestamp(date: datetime) -> float:
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
