"""Asks whoever answers the requests of a job: a server, the local teacher, or nobody."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from kdfast.config import ApiConfig, Config
from kdfast.display import Display
from kdfast.errors import TeacherError
from kdfast.recipes.teach.plan import Plan
from kdfast.recipes.teach.screen import TeachScreen
from kdfast.stop import StopRequest
from kdfast.teacher.answers import AnswerReader
from kdfast.teacher.api.client import Client
from kdfast.teacher.api.job import Job
from kdfast.teacher.api.job_report import EndedBy, JobResult, JobSettings
from kdfast.teacher.api.journal import Journal, Leases
from kdfast.teacher.api.pacing import ConcurrencyLimits
from kdfast.teacher.api.price import FREE, cost_micro, to_micro
from kdfast.teacher.api.retry import RetryPolicy
from kdfast.teacher.api.secrets_from_env import Secrets, read_secrets
from kdfast.teacher.asked import Asked

_FIRST_CONCURRENCY = 4
_CONNECT_S = 10.0
_LOCAL_LEASE_S = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How the asking ended.

    Attributes:
        ended: "done", "stopped", "budget" or "error".
        error: the words of the server or the budget; None if it is done or was stopped.
        facts: the summary, as names and texts.
    """

    ended: EndedBy = "done"
    error: TeacherError | None = None
    facts: tuple[tuple[str, str], ...] = ()


def secrets_of(config: Config) -> Secrets:
    """What must appear nowhere; only a server needs any."""
    return read_secrets(config.api, os.environ) if config.teacher.kind == "api" else Secrets()


def leases_of(config: Config) -> Leases:
    """A lease is longer than a request can take."""
    return Leases(2 * config.api.timeout_seconds + 60 if config.teacher.kind == "api" else _LOCAL_LEASE_S)


def ask(
    asked: Sequence[Asked],
    plan: Plan,
    journal: Journal,
    answers: AnswerReader,
    *,
    display: Display,
    stop: StopRequest,
) -> Asking:
    """Lets the teacher answer what is not answered in the journal.

    Args:
        asked: the requests to ask.
        plan: the job's plan.
        journal: the open journal.
        answers: reads answers.
        display: shows progress.
        stop: when it is requested, nothing new is sent and what is in flight is awaited.

    Raises:
        KdfastError, OSError: as the job raises them; what came until then is in the journal.
    """
    if plan.config.teacher.kind == "api":
        return _ask_server(asked, plan, journal, answers, display, stop)
    if plan.config.teacher.kind == "local":
        return _ask_local(asked, plan, journal, answers, display, stop)
    return Asking()


def _ask_server(
    asked: Sequence[Asked],
    plan: Plan,
    journal: Journal,
    answers: AnswerReader,
    display: Display,
    stop: StopRequest,
) -> Asking:
    api, secrets = plan.config.api, secrets_of(plan.config)
    if any(journal.answered(one.request.hash) is None for one in asked):
        check_listening(api)
    spent = journal.money().spent_micro
    screen = TeachScreen(display, len(asked), priced=plan.price != FREE, spent_micro=spent)

    async def run() -> JobResult:
        async with Client(api, secrets) as client:
            job = Job(
                asked,
                journal,
                client,
                answers.read,
                _settings(plan, secrets),
                on_event=screen.on_event,
                stop_requested=_said_once(stop, display),
            )
            return await job.run()

    with screen.shown():
        result = asyncio.run(run())
    facts = screen.facts(journal.money().spent_micro)
    return Asking(ended=result.ended, error=result.error, facts=tuple(facts))


def _settings(plan: Plan, secrets: Secrets) -> JobSettings:
    """The limits of a job, as its config says them."""
    teacher, api = plan.config.teacher, plan.config.api
    return JobSettings(
        budget_micro=None if teacher.budget is None else to_micro(teacher.budget),
        policy=RetryPolicy(max_retries=teacher.max_retries, max_unknown_retries=teacher.max_unknown_retries),
        limits=ConcurrencyLimits(start=min(_FIRST_CONCURRENCY, api.concurrency), highest=api.concurrency),
        max_failures_in_a_row=teacher.max_failures_in_a_row,
        requests_per_minute=api.requests_per_minute,
        tokens_per_minute=api.tokens_per_minute,
        answer_tokens=teacher.max_new_tokens + api.max_reasoning_tokens,
        secrets=secrets.values,
        cost_of=partial(cost_micro, plan.price),
    )


def _said_once(stop: StopRequest, display: Display) -> Callable[[], bool]:
    """Whether to stop; says so when it is seen first."""
    told: list[str] = []

    def stop_requested() -> bool:
        if stop.requested and not told:
            told.append("stopping: the requests in flight are awaited; a second Ctrl-C loses what they cost")
            display.console.print(told[0], markup=False, highlight=False, soft_wrap=True)
        return stop.requested

    return stop_requested


def check_listening(api: ApiConfig) -> None:
    """Checks that a server on this machine or network takes connections. A hosted one may be behind a proxy.

    Raises:
        TeacherError: it takes none; without this check a job would try for minutes.
    """
    parts = urlsplit(api.base_url or "")
    if api.hosted or parts.hostname is None:
        return
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=_CONNECT_S).close()
    except OSError as error:
        raise TeacherError(
            f"no server takes connections ({error.strerror or error}); start it, or correct api.base_url: "
            f"{api.base_url}",
            retryable=True,
        ) from None


def _ask_local(
    asked: Sequence[Asked],
    plan: Plan,
    journal: Journal,
    answers: AnswerReader,
    display: Display,
    stop: StopRequest,
) -> Asking:
    from kdfast.recipes.teach.local import answer

    result = answer(asked, plan.config, journal, answers.read, display=display, stop=stop)
    facts = (
        ("answered", f"{result.answered}"),
        ("from the journal", f"{result.reused} were answered before"),
    )
    return Asking(ended=result.ended, facts=facts)
