"""A share before and after, each with its interval, on one line from 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from kdfast.page.charts.axis import trim
from kdfast.page.wording import share


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A share in [0, 1].

    Attributes:
        value: the share.
        low: the lower end of its 95 % interval; None = not known.
        high: the upper end of its 95 % interval; None = not known.
        count: the share is `count` of `total`; None = it is no such share (F1).
        total: see `count`.
    """

    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None
    total: int | None = None

    def __str__(self) -> str:
        return (
            share(self.value) if self.count is None else f"{share(self.value)} ({self.count} of {self.total})"
        )

    @property
    def interval(self) -> str:
        """The interval in words; "" if it is not known. It may have no width: a share of 0 or 1, or one prompt."""
        if self.low is None or self.high is None:
            return ""
        low, high = share(self.low).removesuffix(" %"), share(self.high)
        return f"{low} to {high}"


def interval(before: Estimate | None, after: Estimate | None) -> Markup:
    """Draws both shares as dots, their intervals as bars, and a line from one dot to the other.

    Examples:
        >>> drawn = interval(Estimate(value=0.0), Estimate(value=0.5, low=0.25, high=0.75))
        >>> drawn.count("<circle"), 'x1="25%" x2="75%"' in drawn
        (2, True)
    """
    body = Markup('<line class="base" x1="0" x2="100%" y1="50%" y2="50%"/>')
    for at in (0, 25, 50, 75, 100):
        body += Markup('<line class="grid" x1="{0}%" x2="{0}%" y1="0" y2="100%"/>').format(at)
    if before is not None and after is not None:
        body += _stroke("move", before.value, after.value, "50%")
    for style, estimate in (("before", before), ("after", after)):
        if estimate is None:
            continue
        if estimate.low is not None and estimate.high is not None:
            body += _stroke(f"range {style}", estimate.low, estimate.high, "50%")
        body += Markup('<circle class="{}" cx="{}%" cy="50%" r="5"><title>{}: {}</title></circle>').format(
            style, trim(100 * estimate.value), style, estimate
        )
    words = "; ".join(
        f"{name} {estimate}"
        for name, estimate in (("before", before), ("after", after))
        if estimate is not None
    )
    return Markup('<svg class="interval" role="img" aria-label="{}">{}</svg>').format(words, body)


def _stroke(style: str, low: float, high: float, y: str) -> Markup:
    return Markup('<line class="{}" x1="{}%" x2="{}%" y1="{}" y2="{}"/>').format(
        style, trim(100 * low), trim(100 * high), y, y
    )
