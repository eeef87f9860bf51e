"""The journal, used from an event loop: changes in threads that share commits, answers read in another thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from kdfast.errors import TeacherError
from kdfast.teacher.api.client import Sent
from kdfast.teacher.api.finding import Finding, Read, find, is_charged, is_final, judge_stored, note
from kdfast.teacher.api.job_report import JobSettings
from kdfast.teacher.api.journal import Answer, Attempt, Busy, GivenUp, Journal, Response
from kdfast.teacher.api.retry import Decision
from kdfast.teacher.asked import Asked

_T = TypeVar("_T")

_MOST_THREADS = 32
"""Threads that wait for the disk; those that wait together share a commit."""

_TRIES = 3
_WAIT_S = 1.0


class JournalThreads:
    """A journal for the workers of a job; inside `with`.

    A change that fails because the disk is full or the file is held is tried again some times: room may come, and a
    failure of one thread undoes the commits that others share with it.

    Args:
        journal: the open journal.
        read: makes a reading of a stored answer; called for one answer at a time.
        settings: the budget, the tries, the clock.
        on_failure: is told each failure at once, so that nothing more is sent.
    """

    def __init__(
        self, journal: Journal, read: Read, settings: JobSettings, on_failure: Callable[[BaseException], None]
    ) -> None:
        self._journal = journal
        self._read = read
        self._settings = settings
        self._on_failure = on_failure

    def __enter__(self) -> Self:
        self._storing = ThreadPoolExecutor(min(_MOST_THREADS, self._settings.limits.highest))
        self._reading = ThreadPoolExecutor(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._storing.shutdown()
        self._reading.shutdown()

    async def stored(self, asked: Sequence[Asked]) -> list[Answer | None]:
        """The final answers to requests; None where there is none."""
        return await _in(self._reading, lambda: [self._journal.answered(one.request.hash) for one in asked])

    async def begin(self, asked: Asked) -> Attempt | Answer | Busy | GivenUp:
        """As `Journal.begin_attempt`, within the budget and the number of tries.

        Raises:
            BudgetReached: the request may cost more than what is left.
        """
        call = partial(
            self._journal.begin_attempt,
            asked.request,
            asked.worst_micro,
            budget_micro=self._settings.budget_micro,
            max_unknown_retries=self._settings.policy.max_unknown_retries,
        )
        return await _in(self._storing, call)

    async def finish(self, attempt: Attempt, sent: Sent) -> Answer | None:
        """Stores what came for an attempt, before anybody looks at it; None if there was no whole response.

        Raises:
            OSError: the disk is full, and stayed so.
        """
        outcome = sent.outcome
        # An error's status is certain, even if its body is cut.
        if outcome.status is not None and (outcome.failure is None or not is_charged(outcome.status)):
            call = partial(
                self._journal.finish_attempt,
                attempt,
                Response(outcome.status, outcome.headers, outcome.body, sent.latency_ms),
                final=is_final(outcome.status),
                cost_micro=None if is_charged(outcome.status) else 0,
            )
            return await self._surely(call)
        mark = self._journal.mark_not_sent if outcome.failure == "connect" else self._journal.mark_unknown
        await self._surely(partial(mark, attempt, f"{outcome.failure}: {outcome.detail}".rstrip(": ")))
        return None

    async def withdraw(self, answer: Answer, reason: str) -> None:
        """As `Journal.withdraw`."""
        await self._surely(partial(self._journal.withdraw, answer, reason))

    async def make_final(self, answer: Answer) -> Answer:
        """As `Journal.make_final`."""
        return await self._surely(partial(self._journal.make_final, answer))

    async def judge(self, answers: Sequence[Answer]) -> list[Decision]:
        """Judges stored responses."""
        return await _in(self._reading, lambda: [judge_stored(one, self._settings) for one in answers])

    async def find(self, pairs: Sequence[tuple[Asked, Answer, Decision]]) -> list[Finding]:
        """Reads final answers."""
        read, settings = self._read, self._settings
        return await _in(self._reading, lambda: [find(*pair, read, settings) for pair in pairs])

    async def note(self, findings: Sequence[Finding]) -> None:
        """Stores verdicts and costs in one commit, and the smallest place that each request had in any job."""
        await self._surely(partial(note, self._journal, findings))
        lower = [one.asked for one in findings if one.asked.request.order < one.answer.order]
        for begun in await asyncio.gather(*(self.begin(one) for one in lower)):
            if isinstance(begun, Attempt):  # another process has just withdrawn the answer
                await self._surely(partial(self._journal.mark_not_sent, begun, "its answer was withdrawn"))

    async def _surely(self, call: Callable[[], _T]) -> _T:
        for _ in range(1, _TRIES):
            try:
                return await _in(self._storing, call)
            except (OSError, TeacherError) as error:
                self._on_failure(error)
            await self._settings.clock.sleep(_WAIT_S)
        return await _in(self._storing, call)


async def _in(threads: Executor, call: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(threads, call)
