"""The job of an API teacher: asks everything through the journal, a bounded number at once, and loses nothing."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from random import Random

from kdfast.errors import BudgetReached, DataError, TeacherError
from kdfast.teacher.api.client import Client
from kdfast.teacher.api.ending import EndedEarly, Ending, InFlight
from kdfast.teacher.api.finding import Finding, Read
from kdfast.teacher.api.job_report import EndedBy, Event, EventKind, JobResult, JobSettings, Tally
from kdfast.teacher.api.journal import Answer, Attempt, Busy, GivenUp, Journal
from kdfast.teacher.api.journal.entries import ACCEPTED
from kdfast.teacher.api.journal_threads import JournalThreads
from kdfast.teacher.api.pacing import Pacer, Slot
from kdfast.teacher.api.rate_limit import RateLimit
from kdfast.teacher.api.refusals import RECORD_REASONS
from kdfast.teacher.api.retry import Decision, FailuresInARow, Tries, judge_outcome, stop_error
from kdfast.teacher.asked import Asked

_CHUNK = 64
"""Answers that are there already are read, and noted in one commit, by so many."""

_STOP_POLL_S = 0.2

_LARGE_BODY = 65_536
"""Bytes from which on a body is judged beside the event loop."""


class Job:
    """Asks a teacher all that is not answered in the journal. To be run once.

    Answers that are there are read first. Then the others are sent in their order. A response is committed before
    anybody reads it. `docs/journal.md` says what is promised.

    Args:
        asked: the requests, in the order in which they are sent.
        journal: the open journal; other processes, or another job of this one, may use it meanwhile.
        client: sends the requests; already entered.
        read: makes a reading of a stored answer, in a thread beside the event loop, one at a time.
        settings: the limits.
        on_event: is told what happens, in the event loop's thread.
        stop_requested: whether somebody asked to stop: nothing new is sent, and what is in flight is awaited.
    """

    def __init__(
        self,
        asked: Sequence[Asked],
        journal: Journal,
        client: Client,
        read: Read,
        settings: JobSettings,
        *,
        on_event: Callable[[Event], None] = lambda _: None,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        self._asked = asked
        self._journal = JournalThreads(journal, read, settings, self._fail)
        self._client = client
        self._settings = settings
        self._stop_requested = stop_requested
        self._clock = settings.clock
        self._pacer = Pacer(settings.limits, self._clock)
        self._rate = RateLimit(settings.requests_per_minute, settings.tokens_per_minute, self._clock)
        self._failures = FailuresInARow(settings.max_failures_in_a_row)
        self._tally = Tally(on_event)
        self._rng = Random()  # noqa: S311 - of back-offs; two processes must not draw the same
        self._fresh: Iterator[Asked] = iter(())
        self._aside: deque[tuple[float, Asked]] = deque()  # (when to ask again, in flight in another process)
        self._ending, self._in_flight = Ending(), InFlight()
        self._ended: EndedBy = "done"
        self._reason: TeacherError | None = None
        self._error: BaseException | None = None

    async def run(self) -> JobResult:
        """Asks everything, and returns when nothing is in flight any more.

        Raises:
            DataError: the journal is damaged, or a record holds a secret.
            OSError: the disk is full, or the journal cannot be written. What came meanwhile was stored if it could be.
            TeacherError: another process held the journal for too long.
        """
        self._check_secrets()
        with self._journal:
            watching = asyncio.create_task(self._watch())
            watching.add_done_callback(self._watched)
            try:
                await self._run()
            finally:
                watching.cancel()
                await asyncio.wait([watching])
                self._watched(watching)
        if self._error is not None:
            raise self._error
        return self._tally.result(len(self._asked), self._ended, self._reason)

    async def _run(self) -> None:
        try:
            self._fresh = iter(await self._read_what_is_there())
        except EndedEarly:
            return
        workers = {asyncio.create_task(self._work()) for _ in range(self._settings.limits.highest)}
        pending = workers
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
                for worker in done:
                    self._fail(worker.exception())
        finally:
            for worker in pending:  # somebody cancelled the job itself
                worker.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    def _check_secrets(self) -> None:
        hidden = [secret.encode() for secret in self._settings.secrets]
        for one in self._asked:
            if any(secret in one.request.content for secret in hidden):
                words = "the record holds the key of the server, which must not be stored or sent; remove it"
                raise DataError(words, str(one.prompt.source), one.prompt.line)

    # Ending

    async def _watch(self) -> None:
        """Sees a wish to stop while all workers wait."""
        while not self._ending.begun:
            if self._stop_requested():
                self._end("stopped")
            await self._clock.sleep(_STOP_POLL_S)

    def _watched(self, watching: asyncio.Task[None]) -> None:
        """An error of `stop_requested` ends the job: nobody could stop it any more."""
        if not watching.cancelled():
            self._fail(watching.exception())

    def _look(self) -> None:
        """Before each sending: whether to go on."""
        if self._stop_requested():
            self._end("stopped")
        if self._ending.begun:
            raise EndedEarly

    def _end(self, ended: EndedBy, reason: TeacherError | None = None) -> None:
        """Nothing new is sent from now on. The first reason counts."""
        if not self._ending.begun:
            self._ended, self._reason = ended, reason
            self._ending.begin()

    def _fail(self, error: BaseException | None) -> None:
        """Notes the first error, which `run` raises once all that is in flight was stored."""
        if error is not None:
            self._error = self._error or error
            self._end("error")

    # What is in the journal already

    async def _read_what_is_there(self) -> list[Asked]:
        """Reads all answers that are there; gives the rest in its order, repeats of a request at its end."""
        first: list[Asked] = []
        repeats: list[Asked] = []
        seen: set[str] = set()
        for start in range(0, len(self._asked), _CHUNK):
            self._look()
            chunk = self._asked[start : start + _CHUNK]
            stored = await self._journal.stored(chunk)
            pairs = zip(chunk, stored, strict=True)
            taken = await self._take_over([(one, got) for one, got in pairs if got is not None], is_old=True)
            for one in chunk:
                if one.request.hash not in taken:
                    (repeats if one.request.hash in seen else first).append(one)
                    seen.add(one.request.hash)
        return first + repeats

    async def _take_over(self, there: list[tuple[Asked, Answer]], *, is_old: bool) -> set[str]:
        """Reads stored answers; gives the hashes of those that count. One that should stop a job is withdrawn.

        Such a one is left by a kill just after it was stored.
        """
        kept: list[tuple[Asked, Answer, Decision]] = []
        decisions = await self._journal.judge([answer for _, answer in there])
        for (asked, answer), decision in zip(there, decisions, strict=True):
            was_accepted = answer.verdict is not None and answer.verdict.kind == ACCEPTED
            if decision.action == "stop" and not was_accepted:
                await self._journal.withdraw(answer, decision.reason)
            else:
                kept.append((asked, answer, decision))
        findings = await self._journal.find(kept)
        await self._journal.note(findings)
        for one in findings:
            self._tell("reused", one, is_old=is_old)
        return {one.asked.request.hash for one in findings}

    # Workers

    async def _work(self) -> None:
        try:
            while (asked := await self._next()) is not None:
                tries = Tries()
                while (again := await self._try(asked, tries)) is not None:
                    tries = tries.after(again)
                    async with self._ending.breakable():
                        self._tally.tell("retried", asked, decision=again)
                        await self._clock.sleep(again.wait_s)
        except EndedEarly:
            return

    async def _next(self) -> Asked | None:
        """The next request to try; None if there is none left for this worker."""
        while True:
            self._look()
            if self._aside and self._aside[0][0] <= self._clock.now():
                return self._aside.popleft()[1]
            fresh = next(self._fresh, None)
            if fresh is not None or not self._aside:
                return fresh
            async with self._ending.breakable():
                await self._clock.sleep(self._aside[0][0] - self._clock.now())

    async def _try(self, asked: Asked, tries: Tries) -> Decision | None:
        """Sends a request once, if it may be sent; gives the decision to send it again, or None."""
        begun: Attempt | Answer | Busy | GivenUp | None = None
        try:
            async with self._turn(asked) as slot:
                begun = await self._begin(asked)
                if isinstance(begun, Attempt):
                    answer, decision = await self._send(asked, begun, tries)
                    slot.report(decision)
            if isinstance(begun, Attempt):
                return await self._settle(asked, answer, decision)
        finally:
            if isinstance(begun, Attempt):
                self._in_flight.end(was_sent=True)
        await self._leave(asked, begun)
        return None

    @asynccontextmanager
    async def _turn(self, asked: Asked) -> AsyncIterator[Slot]:
        """The place of a request that may be sent now, as far as the server's wishes go."""
        async with AsyncExitStack() as stack:
            async with self._ending.breakable():
                slot = await stack.enter_async_context(self._pacer.slot())
                await self._rate.wait(asked.input_tokens + self._settings.answer_tokens)
                while self._pacer.gate.closed_for_s:  # closed meanwhile: all would go at once when it opens
                    await self._pacer.gate.wait()
                    await self._rate.wait(asked.input_tokens + self._settings.answer_tokens)
            yield slot

    async def _begin(self, asked: Asked) -> Attempt | Answer | Busy | GivenUp:
        """Begins an attempt, if need be when what is in flight has ended and was cheaper than its worst case."""
        while True:
            self._look()
            ended = self._in_flight.ended
            self._in_flight.begin()
            begun: Attempt | Answer | Busy | GivenUp | None = None
            try:
                begun = await self._journal.begin(asked)
            except BudgetReached as error:
                reached = error
            finally:
                if not isinstance(begun, Attempt):
                    self._in_flight.end(was_sent=False)
            if begun is not None:
                return begun
            while ended == self._in_flight.ended:
                if not self._in_flight.count:
                    self._end("budget", reached)
                async with self._ending.breakable():
                    await self._in_flight.change()

    async def _send(self, asked: Asked, attempt: Attempt, tries: Tries) -> tuple[Answer | None, Decision]:
        """Sends once, and stores what came before it is looked at."""
        sent = await self._client.send(asked.request)
        self._tally.sent += sent.outcome.failure != "connect"
        answer = await self._journal.finish(attempt, sent)
        judge = partial(
            judge_outcome,
            sent.outcome,
            tries,
            self._settings.policy,
            now=time.time(),
            rng=self._rng,
            secrets=self._settings.secrets,
        )
        is_large = len(sent.outcome.body) >= _LARGE_BODY
        return answer, await asyncio.to_thread(judge) if is_large else judge()

    async def _settle(self, asked: Asked, answer: Answer | None, decision: Decision) -> Decision | None:
        """Notes what was decided about an outcome; gives the decision to send the request again, or None."""
        if decision.gate_s:
            self._tally.tell("waiting", asked, decision=decision)
        if decision.unknown:
            self._tally.tell("unknown", asked, decision=decision)
        if decision.action == "retry":
            return decision
        status = None if answer is None else answer.status
        is_kept = answer is not None and answer.final
        if decision.action == "stop":
            self._end("error", stop_error(decision, status))
            if answer is not None and is_kept:
                await self._journal.withdraw(answer, decision.reason)
            return None
        stop = self._failures.record(decision)
        if stop is not None:
            self._end("error", stop_error(stop, status))
        if answer is not None and not is_kept and decision.reason in RECORD_REASONS:
            answer, is_kept = await self._journal.make_final(answer), True
        if answer is None or not is_kept:
            self._tally.tell("failed", asked, decision=decision)
            return None
        found = (await self._journal.find([(asked, answer, decision)]))[0]
        await self._journal.note([found])
        self._tell("answered" if decision.action == "accept" else "failed", found)
        return None

    async def _leave(self, asked: Asked, begun: Attempt | Answer | Busy | GivenUp | None) -> None:
        """What becomes of a request that may not be sent now."""
        if isinstance(begun, Answer):
            if not await self._take_over([(asked, begun)], is_old=False):
                self._aside.appendleft((self._clock.now(), asked))
        elif isinstance(begun, Busy):
            self._aside.append((self._clock.now() + self._settings.busy_poll_s, asked))
        elif isinstance(begun, GivenUp):
            words = f"the outcome was unknown {begun.unknown} times; more tries may be charged, too"
            decision = Decision(action="give_up", reason="outcome_unknown", words=words, unknown=True)
            self._tally.tell("failed", asked, decision=decision)

    def _tell(self, kind: EventKind, found: Finding, *, is_old: bool = False) -> None:
        self._tally.tell(
            kind,
            found.asked,
            verdict=found.verdict,
            reading=found.reading,
            decision=found.decision,
            is_old=is_old,
        )
