"""A teacher on this machine answers the requests of a job: in batches, each answer into the journal as it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from kdfast.config import Config
from kdfast.display import Display
from kdfast.errors import KdfastError
from kdfast.evaluate.draws import Draws
from kdfast.evaluate.generate import generate
from kdfast.recipes.teach.loaded_teacher import LoadedTeacher, named_failures
from kdfast.stop import StopRequest
from kdfast.teacher.api.finding import Read, find, judge_stored, note
from kdfast.teacher.api.job_report import Event, JobResult, JobSettings, Tally
from kdfast.teacher.api.journal import Answer, Attempt, Journal, Response
from kdfast.teacher.api.usage import Usage, usage_json
from kdfast.teacher.asked import Asked
from kdfast.teacher.local.requests import local_reply

OnProgress = Callable[[int, str], None]  # answers ended so far, a note

_POLL_S = 1.0
"""Between two looks at requests that another process is at."""

_MOST_WRITERS = 8
"""Threads that write to the journal: changes that wait for the disk share a commit."""

_READ_AT_ONCE = 256
"""Answers whose verdicts are committed together."""


def answer(
    asked: Sequence[Asked],
    config: Config,
    journal: Journal,
    read: Read,
    *,
    display: Display,
    stop: StopRequest,
    on_event: Callable[[Event], None] = lambda _: None,
) -> JobResult:
    """Lets the local teacher answer the requests that have no answer in the journal yet.

    An answer is in the journal as soon as it has ended, whatever the rest of its batch does. After a stop, an error or
    a kill, the next call asks for the others only. The answers do not depend on the batches (but see `generate`).

    Args:
        asked: the requests, see `local_request`; of one teacher, with one set of settings.
        config: names the teacher, the tokenizer and the batches.
        journal: open for writing; other processes may be at work with it.
        read: reads an answer; its cost and verdict go into the journal.
        display: shows progress.
        stop: when it is requested, the batch in work is ended and no other one begins.
        on_event: is told of each answer.

    Returns:
        what came of the job; nothing fails or is retried here.

    Raises:
        ConfigError: no teacher is named, or this machine lacks the device.
        DataError: a prompt that the teacher cannot read, or that leaves too little room for an answer, or a vocabulary
            that does not fit; before anything is asked.
        TeacherError: the teacher cannot be loaded, gives NaN, or lacks memory.
        OSError: the journal cannot be written.
    """
    job = _Job(journal, read, Tally(on_event))
    missing = job.take_stored(asked, is_old=True)
    first_of = {one.request.hash: one for one in reversed(missing)}
    first = [one for one in missing if first_of[one.request.hash] is one]
    text = f"{len(asked)} requests, {len(first)} of them to be answered into {journal.path}"
    display.console.print(text, highlight=False, soft_wrap=True)
    if first and not stop.requested:
        with ThreadPoolExecutor(_MOST_WRITERS, "journal") as writers:
            generation = _Generation(LoadedTeacher.of(config, first), job, writers, display, len(first))
            generation.run(first, config.teacher.batch_size, stop)
        # the same requests once more
        job.take_stored([one for one in missing if first_of[one.request.hash] is not one], is_old=False)
    taken = job.tally.counts["answered"] + job.tally.counts["reused"]
    return job.tally.result(len(asked), "done" if taken == len(asked) else "stopped", None)


@dataclass
class _Job:
    """Reads answers, and notes in the journal what was made of them."""

    journal: Journal
    read: Read
    tally: Tally
    settings: JobSettings = field(default_factory=JobSettings)

    def take_stored(self, asked: Sequence[Asked], *, is_old: bool) -> list[Asked]:
        """Reads the answers that are in the journal; returns the requests that have none."""
        missing: list[Asked] = []
        for start in range(0, len(asked), _READ_AT_ONCE):
            there: list[tuple[Asked, Answer]] = []
            for one in asked[start : start + _READ_AT_ONCE]:
                found = self.journal.answered(one.request.hash)
                if found is None:
                    missing.append(one)
                else:
                    there.append((one, found))
            self.take(there, "reused", is_old=is_old)
            for one, found in there:
                if one.request.order < found.order:  # the smallest place in any job is kept
                    self.journal.begin_attempt(one.request, worst_micro=0)
        return missing

    def take(
        self,
        answers: Sequence[tuple[Asked, Answer]],
        kind: Literal["reused", "answered"],
        *,
        is_old: bool = False,
    ) -> None:
        """Reads answers, and stores their costs and verdicts in one commit."""
        findings = [
            find(one, found, judge_stored(found, self.settings), self.read, self.settings)
            for one, found in answers
        ]
        note(self.journal, findings)
        for one in findings:
            self.tally.tell(kind, one.asked, verdict=one.verdict, reading=one.reading, is_old=is_old)


@dataclass
class _Generation:
    """Generates answers, batch by batch.

    Attributes:
        ended: how many answers have ended.
        tokens: how many tokens were generated in the batches that ended.
        said: whether it was said that another process is waited for.
    """

    teacher: LoadedTeacher
    job: _Job
    writers: ThreadPoolExecutor
    display: Display
    total: int
    ended: int = 0
    tokens: int = 0
    said: bool = False
    started: float = field(default_factory=time.perf_counter)

    def run(self, asked: Sequence[Asked], batch_size: int, stop: StopRequest) -> None:
        """Answers the requests, or those until a stop request."""
        # the longest come first, so that a lack of memory shows at once
        waiting = sorted(asked, key=lambda one: (-len(one.request.body["prompt"]), one.request.order))
        with self.display.working("answer", self.total) as on_progress:
            while waiting and not stop.requested:
                waiting = self._pass(waiting, batch_size, stop, on_progress)
                if waiting:
                    self._say_once(
                        f"{len(waiting)} requests are in flight in another process; waiting for it"
                    )
                    time.sleep(_POLL_S)

    def _say_once(self, text: str) -> None:
        if not self.said:
            self.display.console.print(text, highlight=False, soft_wrap=True)
        self.said = True

    def _pass(
        self, waiting: Sequence[Asked], batch_size: int, stop: StopRequest, on_progress: OnProgress
    ) -> list[Asked]:
        """Answers the requests once through; returns those that another process is at."""
        busy: list[Asked] = []
        for start in range(0, len(waiting), batch_size):
            if stop.requested:
                break
            busy += self._batch(waiting[start : start + batch_size], on_progress)
            on_progress(self.ended, self._note(0))
        return busy

    def _note(self, tokens: int) -> str:
        verdicts = self.job.tally.verdicts.items()
        filtered = sum(count for verdict, count in verdicts if verdict.kind == "filtered")
        rate = (self.tokens + tokens) / (time.perf_counter() - self.started)
        return f"{filtered} filtered  {rate:.0f} tokens/s"

    def _batch(self, batch: Sequence[Asked], on_progress: OnProgress) -> list[Asked]:
        """Answers a batch; returns the requests that another process is at."""
        begun: list[tuple[Asked, Attempt]] = []
        there: list[tuple[Asked, Answer]] = []
        busy: list[Asked] = []
        journal = self.job.journal
        states = self.writers.map(lambda one: journal.begin_attempt(one.request, worst_micro=0), batch)
        for one, state in zip(batch, states, strict=True):
            if isinstance(state, Attempt):
                begun.append((one, state))
            elif isinstance(state, Answer):  # another process was quicker
                there.append((one, state))
            else:
                busy.append(one)
        self.job.take(there, "reused")
        if begun:
            self.job.take(self._generate(begun, on_progress), "answered")
        self.ended += len(there) + len(begun)
        return busy

    def _generate(
        self, begun: Sequence[tuple[Asked, Attempt]], on_progress: OnProgress
    ) -> list[tuple[Asked, Answer]]:
        started, stored = time.perf_counter(), dict[int, Future[Answer]]()
        self.job.tally.sent += len(begun)

        def on_answer(index: int, ids: list[int]) -> None:
            one, attempt = begun[index]
            seconds = time.perf_counter() - started
            stored[index] = self.writers.submit(self._finish, one, attempt, ids, seconds)

        def on_step(ended: int, tokens: int) -> None:
            if ended < len(begun):
                on_progress(self.ended + ended, self._note(tokens))

        teacher = self.teacher
        keys = [one.request.hash for one, _ in begun]
        try:
            with named_failures(teacher.directory, len(begun)):
                answers = generate(
                    teacher.model,
                    [one.request.body["prompt"] for one, _ in begun],
                    teacher.decoding,
                    on_step,
                    constraint=Draws(keys, teacher.temperature, teacher.usable, teacher.decoding.eos_ids),
                    on_answer=on_answer,
                )
        finally:
            self._give_back([attempt for index, (_, attempt) in enumerate(begun) if index not in stored])
        self.tokens += sum(map(len, answers))
        return [(one, stored[index].result()) for index, (one, _) in enumerate(begun)]

    def _give_back(self, attempts: Sequence[Attempt]) -> None:
        """Says that answers were not generated to their end; nobody else knows of them."""
        with suppress(OSError, KdfastError):
            for attempt in attempts:
                self.job.journal.mark_not_sent(attempt, "the answer was not generated to its end")

    def _finish(self, one: Asked, attempt: Attempt, ids: list[int], seconds: float) -> Answer:
        body = one.request.body
        reply = local_reply(
            body["model"],
            self.teacher.tokenizer.decode(ids),
            ids,
            cut=len(ids) == body["max_tokens"],
            prompt_tokens=len(body["prompt"]),
        )
        response = Response(200, {"content-type": "application/json"}, reply, round(seconds * 1000))
        usage = Usage(input_tokens=len(body["prompt"]), output_tokens=len(ids))
        # Whatever `price` says: nobody charges it, and it takes nothing off a budget.
        return self.job.journal.finish_attempt(
            attempt, response, final=True, cost_micro=0, usage=usage_json(usage, is_counted=False)
        )
