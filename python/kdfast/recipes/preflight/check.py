"""What a check is, and what it finds. No torch in here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "warn", "fail", "skip"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check saw.

    Attributes:
        status: "pass"; "warn" = it may be meant so; "fail" = it must not go on so; "skip" = there is nothing to look
            at, or what the check needs could not be made.
        text: what was seen, with its figures, in one sentence; of "skip", why.
        remedy: what to do; only of "warn" and "fail".
        shown: lines to look at, such as a decoded row.
    """

    status: Status
    text: str
    remedy: str = ""
    shown: tuple[str, ...] = ()


def passed(text: str, *shown: str) -> Finding:
    """All is well.

    Example:
        >>> passed("16 rows come back as they were").status
        'pass'
    """
    return Finding(status="pass", text=text, shown=shown)


def failed(text: str, remedy: str, *shown: str) -> Finding:
    """It must not go on so."""
    return Finding(status="fail", text=text, remedy=remedy, shown=shown)


def warned(text: str, remedy: str, *shown: str) -> Finding:
    """It may be meant so."""
    return Finding(status="warn", text=text, remedy=remedy, shown=shown)


def skipped(text: str) -> Finding:
    """There is nothing to look at."""
    return Finding(status="skip", text=text)


Look = Callable[..., Finding | Sequence[Finding]]
"""A pure function over objects. Its parameters are names of `makers.MAKERS`: it gets what they make. It may give
several findings, one for each thing that it saw."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that must hold.

    Attributes:
        name: its group and its own name: "batch.labels_are_next_tokens".
        proves: what a pass proves, in one sentence.
        look: looks at it.
        owns: objects that this check answers for: if one cannot be made, this check fails, and the others that need
            it are skipped.
        slow: whether it needs the small run, the fake teacher or the network.

    Example:
        >>> check = Check(
        ...     name="batch.labels", proves="Labels are the next tokens.", look=lambda batches: passed("yes")
        ... )
        >>> check.group, check.look(batches=[]).text
        ('batch', 'yes')
    """

    name: str
    proves: str
    look: Look
    owns: tuple[str, ...] = ()
    slow: bool = False

    @property
    def group(self) -> str:
        """The first part of the name."""
        return self.name.partition(".")[0]
