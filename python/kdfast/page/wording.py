"""How the page writes numbers."""

from __future__ import annotations

import math

NEVER = "never"
"""What the page writes for the time of an event that certainly did not come."""


def infinite_word(infinite: int, cut: int | None) -> str:
    """What an infinite time or count means, such as that of the first action.

    Args:
        infinite: how many samples are infinite.
        cut: how many of these are of answers that were cut at the token limit: the event may have come later. None =
            not known.

    Examples:
        >>> infinite_word(2, 0), infinite_word(2, 2), infinite_word(2, 1), infinite_word(2, None)
        ('never', 'cut', 'no call', 'no call')
    """
    if cut is None:
        return "no call" if infinite else NEVER
    return NEVER if not cut else "cut" if cut == infinite else "no call"


def number(value: float) -> str:
    """A number with three significant digits, but all digits before the point; infinity is "never".

    Examples:
        >>> [number(value) for value in (0, 0.22401, 3.0, 41.25, 412.4, 52123, 3e-5, -0.5, math.inf)]
        ['0', '0.224', '3', '41.2', '412', '52,123', '3e-05', '-0.5', 'never']
    """
    size = abs(value)
    if math.isinf(value):
        return NEVER
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.3g}"


def share(fraction: float) -> str:
    """A share in percent.

    Examples:
        >>> share(0.931), share(0.045), share(0.0), share(1.0), share(0.9996)
        ('93 %', '4.5 %', '0 %', '100 %', '99.96 %')
    """
    percent = 100 * fraction
    if 10 <= percent <= 99 or percent == round(percent):
        return f"{percent:.0f} %"
    return f"{percent:.1f} %" if 0.1 <= percent <= 99.9 else f"{percent:.2f} %"


def change(before: float, after: float) -> str:
    """By how many percent a number changed; "" if it was 0 before.

    Examples:
        >>> change(0.67, 0.224), change(2.0, 2.5), change(0.0, 1.0), change(1.0, 1.0)
        ('-67 %', '+25 %', '', 'unchanged')
    """
    if before == 0:
        return ""
    percent = 100 * (after - before) / abs(before)
    if abs(percent) < 0.05:
        return "unchanged"
    return f"{percent:+.0f} %" if abs(percent) >= 1 else f"{percent:+.1f} %"


def duration(seconds: float) -> str:
    """A duration in words.

    Examples:
        >>> duration(7.2), duration(194), duration(7325)
        ('7.2 s', '3 min 14 s', '2 h 02 min')
    """
    if seconds < 60:
        return f"{number(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest} s"


def counted(count: int, noun: str) -> str:
    """A count with its noun.

    Examples:
        >>> counted(1, "prompt"), counted(0, "prompt"), counted(1200, "step")
        ('1 prompt', '0 prompts', '1,200 steps')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
