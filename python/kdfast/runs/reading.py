"""What a run left behind, read and handed to the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from kdfast.config import Config
from kdfast.runs.node import Node

T = TypeVar("T")


@dataclass(frozen=True)
class Missing:
    """A file that is not there, or has nothing in it.

    Attributes:
        short: what to say where there is little room.
        reason: why, and what would make it.
    """

    short: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """The files of a run folder.

    Attributes:
        name: of the run.
        config: the resolved config.
        metrics: the lines of `metrics.jsonl`.
        torn: whether its last line was cut short by a kill, and left out.
        before: `evaluation_before.json`.
        after: `evaluation_after.json`.
        speed: `speed.json`.
        gates: `gates.json`.
        written_at: Unix seconds of the newest of them.
    """

    name: str
    config: Config
    metrics: Sequence[Node] | Missing
    torn: bool
    before: Node | Missing
    after: Node | Missing
    speed: Node | Missing
    gates: Node | Missing
    written_at: float


def there(file: T | Missing) -> T | None:
    """The file's content, or None where it is missing.

    Examples:
        >>> there(Missing("no file", "It was removed.")), there("content")
        (None, 'content')
    """
    return None if isinstance(file, Missing) else file
