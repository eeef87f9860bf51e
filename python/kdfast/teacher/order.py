"""In which order prompts are asked: every part of the job is a fair sample of the whole, whenever it ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from kdfast.teacher.prompts import Prompt

WINDOW = 64
"""Prompts that share their tools go together within so many."""

_FIRST_WINDOWS = (8, 16, 32)
"""Where the windows at the beginning end: short ones, since a small sample ends there."""


def sending_order(prompts: Sequence[Prompt], seed: int) -> list[int]:
    """The places of prompts, in the order in which they are asked.

    The order is drawn by the seed, the same on every machine. In each part from the beginning the number of prompts
    with tools differs from their share by at most a half. Within windows of `WINDOW` places (shorter ones at the
    beginning) the prompts with the same tools and the same system message stand together, for the server's cache: the
    part up to a window's end is what was drawn.

    Args:
        prompts: the prompts; each is drawn by its `index`.
        seed: `teacher.seed`.

    Returns:
        places in `prompts`, each once.

    Example:
        >>> from pathlib import Path
        >>> tool = {"name": "f"}
        >>> prompts = [
        ...     Prompt(source=Path("p"), line=i + 1, index=i, prompt="x", tools=[tool] * (i < 2)) for i in range(4)
        ... ]
        >>> [bool(prompts[place].tools) for place in sending_order(prompts, seed=0)]
        [True, False, True, False]
    """
    drawn = _drawn(prompts, range(len(prompts)), seed)
    tools = [place for place in drawn if prompts[place].tools]
    plain = [place for place in drawn if not prompts[place].tools]
    order = _interleaved(tools, plain)
    ends = [end for end in _FIRST_WINDOWS if end < len(order)]
    ends += [*range(WINDOW, len(order), WINDOW), len(order)]
    for start, end in zip([0, *ends], ends, strict=False):
        order[start:end] = _neighbours(prompts, order[start:end])
    return order


def truth_sample(prompts: Sequence[Prompt], count: int, seed: int) -> list[int]:
    """A sample of the prompts that have a truth, in the order of asking.

    Its prompts that need a call, that need none, and of which it is not known are as many as their shares say, and at
    least one of each kind that there is, if `count` allows.

    Args:
        prompts: the prompts.
        count: how many; all that have a truth if there are fewer.
        seed: `teacher.seed`.

    Returns:
        places in `prompts`; [] if no prompt has a truth.

    Raises:
        ValueError: `count` is negative.
    """
    _check(count)
    known = [place for place, prompt in enumerate(prompts) if prompt.truth is not None]
    kinds: dict[bool | None, list[int]] = {}
    for wanted in (True, False, None):
        of_kind = [place for place in known if prompts[place].should_call is wanted]
        if of_kind:
            kinds[wanted] = _drawn(prompts, of_kind, seed)
    shares = _shares([len(places) for places in kinds.values()], min(count, len(known)))
    taken = [place for places, share in zip(kinds.values(), shares, strict=True) for place in places[:share]]
    order = sending_order([prompts[place] for place in taken], seed)
    return [taken[place] for place in order]


def _check(count: int) -> None:
    if count < 0:
        raise ValueError(f"count must not be negative: {count}")


def _drawn(prompts: Sequence[Prompt], places: Iterable[int], seed: int) -> list[int]:
    """Places in an order that the seed draws. SHA-256 is the same in every version of Python and numpy."""

    def lot(place: int) -> tuple[bytes, int]:
        return hashlib.sha256(f"{seed}/{prompts[place].index}".encode()).digest(), place

    return sorted(places, key=lot)


def _interleaved(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """Both, mixed so evenly that each part from the beginning has half a place too many of one at most."""
    total = len(first) + len(second)
    order: list[int] = []
    taken = 0
    for length in range(1, total + 1):
        due = (2 * length * len(first) + total) // (2 * total)
        order.append(first[taken] if due > taken else second[length - 1 - taken])
        taken = due
    return order


def _neighbours(prompts: Sequence[Prompt], window: Sequence[int]) -> list[int]:
    """The window with prompts of the same tools side by side. They swap places with one another only."""
    groups: dict[Hashable, list[int]] = {}
    for place in window:
        if prompts[place].tools:
            groups.setdefault(_shared(prompts[place]), []).append(place)
    together = iter([place for places in groups.values() for place in places])
    return [next(together) if prompts[place].tools else place for place in window]


def _shared(prompt: Prompt) -> str:
    """What a prompt's text begins with: its tools and system message."""
    first: Mapping[str, Any] = prompt.messages[0] if prompt.messages else {}
    system = first if first.get("role") in ("system", "developer") else None
    return prompt.tools_text + json.dumps(system, sort_keys=True)


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """How many of each kind a sample has: as its share says, by largest remainder, at least one each if that fits."""
    total = sum(sizes)
    least = 1 if count >= len(sizes) else 0
    shares = [max(count * size // total, least) for size in sizes]
    while sum(shares) != count:
        step = 1 if sum(shares) < count else -1
        missing = [count * size / total - share for size, share in zip(sizes, shares, strict=True)]
        movable = [
            kind for kind, share in enumerate(shares) if (share < sizes[kind] if step > 0 else share > least)
        ]
        shares[max(movable, key=lambda kind: step * missing[kind])] += step
    return shares
