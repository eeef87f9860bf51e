"""One of the runs that are compared, and a name for each that tells it from the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kdfast.page.charts import Estimate
from kdfast.page.checks import Answer, Shown, checks, verdict
from kdfast.page.evaluation import evaluation_section
from kdfast.page.gates import GateSection, gate_section
from kdfast.page.history import History, read_history
from kdfast.page.shares import estimates
from kdfast.page.speed import SpeedSection, speed_section
from kdfast.runs.reading import Missing, RunFiles, there
from kdfast.runs.saved import Saved

COLOURS = 8
"""How many colours the style sheet has for runs; after these the lines are dashed."""
_DASHES = 4


@dataclass(frozen=True)
class Run:
    """A run to compare.

    Attributes:
        label: its name on the page, see `labels`.
        files: its files.
        saved: what its weights and checkpoints say.
    """

    label: str
    files: RunFiles
    saved: Saved

    @cached_property
    def history(self) -> History:
        """Its metrics; no line at all if the file is missing."""
        lines = self.files.metrics
        return (
            History(train=[], validation=[], speed=[]) if isinstance(lines, Missing) else read_history(lines)
        )

    @cached_property
    def speed(self) -> SpeedSection:
        """Its speed report, as its own page shows it."""
        return speed_section(self.files, self.history)

    @cached_property
    def gates(self) -> GateSection:
        """Its gates, as its own page shows them."""
        return gate_section(self.files)

    @cached_property
    def after(self) -> dict[str, Estimate]:
        """The shares of its evaluation after training."""
        return estimates(there(self.files.after))

    @cached_property
    def verdict(self) -> tuple[Answer, str, str]:
        """The verdict of its own page: the answer, a word, and how many checks had each answer."""
        after = self.files.after
        shown = Shown(
            config=self.files.config,
            history=self.history,
            before=estimates(there(self.files.before)),
            after=self.after,
            after_missing=after.short if isinstance(after, Missing) else "",
            speed=self.speed,
            gates=self.gates,
            cut_silent=evaluation_section(self.files).cut_silent,
            student_step=self.files.student_step,
        )
        return verdict(checks(shown))


def style(index: int) -> str:
    """The classes of the run with this index in the style sheet: a colour, and a dash pattern from the ninth on.

    Examples:
        >>> style(0), style(7), style(8)
        ('run c1', 'run c8', 'run c1 d1')
    """
    dash = index // COLOURS % _DASHES
    return f"run c{index % COLOURS + 1}" + (f" d{dash}" if dash else "")


def labels(paths: Sequence[Path]) -> list[str]:
    """The name of each run folder; with as many folders before it as tell it from the others.

    Args:
        paths: resolved paths, no two alike.

    Examples:
        >>> labels([Path("/x/a/run"), Path("/x/b/run"), Path("/x/small")])
        ['a/run', 'b/run', 'small']
    """
    depth = dict.fromkeys(paths, 1)
    while True:
        names = {path: str(Path(*path.parts[-count:])) for path, count in depth.items()}
        counts = Counter(names.values())
        alike = [path for path in paths if counts[names[path]] > 1 and depth[path] < len(path.parts)]
        if not alike:
            return [names[path] for path in paths]
        for path in alike:
            depth[path] += 1
