"""A bar that shows how a whole is divided into parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdfast.page.charts.axis import CHARACTER, trim
from kdfast.page.wording import number, share

_NARROW = 120
"""The narrowest bar in CSS pixels, as the style sheet has it."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a whole.

    Attributes:
        label: its name.
        amount: its size, at least 0.
        style: its class in the style sheet.
    """

    label: str
    amount: float
    style: str


def stack(parts: Sequence[Part]) -> Markup:
    """One bar, divided by the amounts. A part of 0 is left out; a part that has room for it has its amount in it.

    Examples:
        >>> bar = stack([Part(label="used", amount=30, style="good"), Part(label="padding", amount=10, style="weak")])
        >>> "width:75%" in bar, "padding: 10 (25 %)" in bar
        (True, True)
    """
    whole = sum(part.amount for part in parts)
    shown = [part for part in parts if part.amount > 0]
    piece = Markup('<span class="{}" style="width:{}%" title="{}">{}</span>')
    body = Markup("").join(
        piece.format(
            part.style,
            trim(100 * part.amount / whole),
            f"{part.label}: {number(part.amount)} ({share(part.amount / whole)})",
            number(part.amount) if _has_room(part.amount, whole) else "",
        )
        for part in shown
    )
    words = "; ".join(f"{part.label} {number(part.amount)}" for part in shown) or "nothing"
    return Markup('<div class="stack" role="img" aria-label="{}">{}</div>').format(words, body)


def _has_room(amount: float, whole: float) -> bool:
    """Whether the amount can be written into its part, even of the narrowest bar: half a number would be wrong."""
    return amount / whole * _NARROW >= CHARACTER * len(number(amount)) + 2
