"""What people see while a teacher answers: a bar on a terminal, a line now and then in a log, a summary at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from kdfast.display import LOG_SECONDS, Display
from kdfast.recipes.teach.counts import DONE_KINDS, TeachCounts, failure_of
from kdfast.recipes.teach.facts import counts_text
from kdfast.teacher.api.job_report import Event
from kdfast.teacher.api.price import money
from kdfast.teacher.api.reply import Origin

_WAIT_LOG_SECONDS = 1.0  # as LOG_SECONDS, where a wait begins: nothing else may happen for long
_MOST_NAMED = 3  # other teachers
_LABEL_WIDTH = 10  # as of the bars of a training


class _TwoLines(Progress):
    """A bar, and lines of text below it."""

    below: Sequence[str] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for line in self.below:
            yield Padding(Text(line), (0, 0, 0, _LABEL_WIDTH + 1))


class TeachScreen:
    """Shows a job of a teacher while it runs.

    Args:
        display: where to.
        total: requests of the job, those that have an answer already included.
        priced: whether the teacher costs something; else no money is shown.
        spent_micro: what the journal's requests cost before, in micro-units.
        clock: seconds since any moment.

    Attributes:
        counts: what happened so far.

    Example:
        >>> import io
        >>> from rich.console import Console
        >>> screen = TeachScreen(Display(Console(file=io.StringIO(), width=200)), total=10, priced=True)
        >>> with screen.shown():
        ...     pass  # the job calls screen.on_event
        >>> print(screen.display.console.file.getvalue())
        teach 0/10  0 answered  0 filtered  0 failed  0 retried  0.00 spent  time left unknown
    """

    def __init__(
        self,
        display: Display,
        total: int,
        *,
        priced: bool,
        spent_micro: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.display = display
        self.counts = TeachCounts()
        self._total = total
        self._priced = priced
        self._spent_before = spent_micro
        self._clock = clock
        self._started = self._logged = clock()
        self._last_line = ""
        self._waiting = ""
        self._warned: set[str] = set()
        self._first: Origin | None = None
        self._others: set[str] = set()  # at most `_MOST_NAMED`
        self._bar: tuple[_TwoLines, TaskID] | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows the progress inside the block; in a log, one more line at its end, whatever ended it."""
        console = self.display.console
        self._started = self._logged = self._clock()
        bar = _TwoLines(
            TextColumn(f"{{task.description:>{_LABEL_WIDTH}}}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
            expand=True,
        )
        try:
            with bar:
                self._bar = (bar, bar.add_task("teach", total=self._total, note=self._left()))
                self._show()
                yield
                self._show()
        finally:
            self._bar = None
            if not console.is_terminal and self._line() != self._last_line:
                self._log()

    def on_event(self, event: Event) -> None:
        """Counts an event and shows it; what is new and bad is said once."""
        self.counts.add(event)
        starts_to_wait = event.kind == "waiting" and not self._waiting
        if event.kind == "waiting" and event.decision is not None:
            self._waiting = f"the server asks to wait {event.decision.gate_s or 0:.0f} s"
        elif event.kind in ("answered", "failed"):
            self._waiting = ""
        self._warn(event)
        self._show()
        pause = _WAIT_LOG_SECONDS if starts_to_wait else LOG_SECONDS
        if self._clock() - self._logged >= pause and not self.display.console.is_terminal:
            self._log()

    def facts(self, spent_micro: int) -> list[tuple[str, str]]:
        """The summary at the end, as names and texts for `facts_table`.

        Args:
            spent_micro: what the journal's requests cost in all, in micro-units.
        """
        counts = self.counts
        left = self._total - counts.done
        asked = f"{self._total}" + (f"; {left} of them are left" if left else "")
        facts = [
            ("requests", asked),
            ("answered", f"{counts.answered}"),
            ("from the journal", f"{counts.reused} were answered before and not asked again"),
            ("filtered", _of_reasons(counts.filtered)),
            ("failed", _of_reasons(counts.failed)),
            ("retried", f"{counts.retried} times"),
            ("unknown outcomes", f"{counts.unknown}" + ("; each may be charged" if counts.unknown else "")),
        ]
        if counts.reasoning_tokens:
            facts.append(("reasoning", f"{counts.reasoning_tokens:,} tokens were taken out"))
        if counts.usage_counted:
            text = f"the server did not say the tokens of {counts.usage_counted} answers; kdfast counted them"
            facts.append(("counted by kdfast", text))
        return [*facts, ("spent in all", money(spent_micro))] if self._priced else facts

    def _show(self) -> None:
        if self._bar is None:
            return
        bar, task = self._bar
        bar.below = [self._counts_line(), *([self._waiting] if self._waiting else [])]
        bar.update(
            task, completed=self.counts.done, note="  ".join(filter(None, (self._speed(), self._left())))
        )

    def _log(self) -> None:
        self._logged = self._clock()
        self._last_line = self._line()
        self.display.console.print(self._last_line, highlight=False, markup=False, soft_wrap=True)

    def _line(self) -> str:
        done = f"teach {self.counts.done}/{self._total}"
        parts = (done, self._counts_line(), self._waiting, self._speed(), self._left())
        return "  ".join(filter(None, parts))

    def _counts_line(self) -> str:
        counts = self.counts
        parts = [
            f"{counts.answered} answered",
            f"{counts.filtered.total()} filtered",
            f"{counts.failed.total()} failed",
            f"{counts.retried} retried",
        ]
        if self._priced:
            parts.append(f"{money(self._spent_before + counts.spent_micro)} spent")
        return "  ".join(parts)

    def _speed(self) -> str:
        seconds = self._clock() - self._started
        tokens = self.counts.output_tokens
        return f"{tokens / seconds:.0f} tokens/s" if tokens and seconds else ""

    def _left(self) -> str:
        """By the requests whose outcome came now: those in the journal took no time."""
        left = self._total - self.counts.done
        if not left:
            return "0:00 left"
        if not self.counts.new:
            return "time left unknown"
        minutes, seconds = divmod(round(left * (self._clock() - self._started) / self.counts.new), 60)
        hours, minutes = divmod(minutes, 60)
        return (f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}") + " left"

    def _warn(self, event: Event) -> None:
        """Says once what is new: another teacher, the first failure of a reason, the first unknown outcome."""
        if self._first is None and event.reading is not None and event.kind in DONE_KINDS:
            self._first = event.reading.origin
        place = f"line {event.asked.prompt.line}"
        if event.kind == "origin_changed" and event.reading is not None:
            self._warn_of(event.reading.origin, place)
        elif event.kind == "unknown" and event.decision is not None:
            reason = event.decision.reason
            self._say(
                f"unknown {reason}", f"the outcome at {place} is unknown ({reason}): {event.decision.words}"
            )
        elif event.kind == "retried" and event.decision is not None and not event.decision.unknown:
            reason = event.decision.reason
            self._say(f"retried {reason}", f"{place} is tried again ({reason}): {event.decision.words}")
        elif event.kind in DONE_KINDS and failure_of(event):
            words = event.reading.detail if event.reading is not None else ""
            words = words or (event.decision.words if event.decision is not None else "")
            self._say(
                f"failed {failure_of(event)}", f"{place} failed ({failure_of(event)}): {words or 'no words'}"
            )

    def _warn_of(self, origin: Origin, place: str) -> None:
        now, before = origin.text(), "another one" if self._first is None else self._first.text()
        if now in self._others:
            return
        if len(self._others) == _MOST_NAMED:  # some servers have a new fingerprint for each reply
            self._say("others", "and more teachers answer: see `kdfast journal stats`")
            return
        self._others.add(now)
        self._say(f"other {now}", f"from {place} on another teacher answers: {now}, before {before}")

    def _say(self, key: str, words: str) -> None:
        if key in self._warned:
            return
        self._warned.add(key)
        console = self.display.console
        text = Text.assemble(("warning", "yellow"), " ", words)
        console.print(text, highlight=False, soft_wrap=not console.is_terminal)


def _of_reasons(counts: Counter[str]) -> str:
    return f"{counts.total()}: {counts_text(counts)}" if counts else "0"
