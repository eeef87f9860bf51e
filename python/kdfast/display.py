"""Shows the progress of a run: bars on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LOG_SECONDS = 5.0
"""Least time between two lines of progress, if there is no terminal."""


class Display:
    """Shows the progress of one run. With `quiet` (ranks other than the first) it shows nothing.

    Examples:
        >>> import io
        >>> display = Display(Console(file=io.StringIO()))
        >>> with display.training(num_steps=2, first_step=0):
        ...     display.step(1, {"loss": 0.5, "tokens_per_second": 100.0, "seconds": 1.0})
        >>> "step 1/2" in display.console.file.getvalue()
        True
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self.console = console or Console(quiet=quiet)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._num_steps = 0
        self._shown = 0.0
        self._rate = 0.0

    @contextmanager
    def training(self, num_steps: int, first_step: int) -> Iterator[None]:
        """Shows a bar of the steps inside the block."""
        self._num_steps = num_steps
        with self._progress() as self._bar:
            self._task = self._bar.add_task("train", total=num_steps, completed=first_step, note="")
            yield
        self._bar = None

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Shows one step."""
        seconds = values["seconds"]
        self._rate = seconds if not self._rate else 0.8 * self._rate + 0.2 * seconds
        note = f"loss {values['loss']:.4f}  {values['tokens_per_second']:.0f} tokens/s"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, note=note)
        left = (self._num_steps - step) * self._rate
        due = time.monotonic() - self._shown >= LOG_SECONDS or step == self._num_steps
        if not self.console.is_terminal and due:
            self._shown = time.monotonic()
            self.console.print(
                f"step {step}/{self._num_steps}  {note}  {_duration(left)} left", highlight=False
            )

    def validation(self, step: int, values: Mapping[str, float]) -> None:
        """Shows one validation."""
        numbers = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        self.console.print(
            f"[bold]validation at step {step}[/bold]  {numbers}", highlight=False, soft_wrap=True
        )

    @contextmanager
    def validating(self, rows: int, what: str = "validate") -> Iterator[Callable[[int], None]]:
        """Shows a second bar inside the block; call the result with the number of rows just done.

        Args:
            rows: rows in all.
            what: the label of the bar.
        """
        bar = self._bar
        if bar is None:
            yield lambda _: None
            return
        task = bar.add_task(what, total=rows, note="")
        yield lambda done: bar.advance(task, done)
        bar.remove_task(task)

    @contextmanager
    def working(self, what: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """Shows one bar inside the block; call the result with the number of parts done so far and a note.

        Args:
            what: the label of the bar.
            total: parts in all.
        """
        started = shown = time.monotonic()
        with self._progress() as bar:
            task = bar.add_task(what, total=total, note="")
            ended = False

            def on_progress(done: int, note: str = "") -> None:
                nonlocal shown, ended
                bar.update(task, completed=done, note=note)
                now = time.monotonic()
                due = now - shown >= LOG_SECONDS or (done == total and not ended)
                if not self.console.is_terminal and due:
                    shown, ended = now, done == total
                    left = (total - done) * (now - started) / max(1, done)
                    self.console.print(
                        f"{what} {done}/{total}  {note}  {_duration(left)} left", highlight=False
                    )

            yield on_progress

    def _progress(self) -> Progress:
        return Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
