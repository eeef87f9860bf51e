"""Jobs of an API teacher for tests: requests, a simple reader, a clock that jumps, a server of raw bytes."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from kdfast.config import ApiConfig
from kdfast.teacher.api.client import Client
from kdfast.teacher.api.fake_clock import JumpingClock
from kdfast.teacher.api.finding import Read
from kdfast.teacher.api.job import Job
from kdfast.teacher.api.job_report import Event, JobResult, JobSettings
from kdfast.teacher.api.journal import Answer, Journal, Request, Verdict
from kdfast.teacher.api.pacing import Clock, ConcurrencyLimits
from kdfast.teacher.api.reply import read_reply
from kdfast.teacher.api.retry import RetryPolicy
from kdfast.teacher.api.secrets_from_env import Secrets
from kdfast.teacher.api.usage import Usage, read_usage
from kdfast.teacher.asked import Asked
from kdfast.teacher.prompts import Prompt
from kdfast.teacher.reading import Reading

KEY = "kd-secret-0123456789"
COST_MICRO = 10
WORST_MICRO = 100
POLICY = RetryPolicy(backoff_s=0.001)

ANSWER = ("answered", 200, True)
UNKNOWN = ("unknown", None, False)
"""As `rows` gives them."""


def cost_of(usage: Usage) -> int:
    return COST_MICRO if usage.input_tokens else 0


def settings(
    at_once: int = 8, *, start: int | None = None, clock: Clock | None = None, **changes: object
) -> JobSettings:
    limits = ConcurrencyLimits(start=min(4, at_once) if start is None else start, highest=at_once)
    given: dict[str, object] = {"policy": POLICY, "cost_of": cost_of, "secrets": (KEY,), **changes}
    return JobSettings(limits=limits, clock=clock or JumpingClock(), **given)  # type: ignore[arg-type]


def asked(url: str, number: int, *, model: str = "fake", order: int | None = None) -> Asked:
    text = f"question {number}"
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    place = number if order is None else order
    return Asked(
        prompt=Prompt(source=Path("prompts.jsonl"), line=number + 1, index=number, prompt=text),
        request=Request(f"{url}/chat/completions", body, order=place),
        input_tokens=10,
        worst_micro=WORST_MICRO,
    )


def many(url: str, count: int) -> list[Asked]:
    return [asked(url, number) for number in range(count)]


def read(one: Asked, answer: Answer) -> Reading:
    """Accepts what the fake server says; everything costs the same."""
    document = json.loads(answer.body)
    reply = read_reply(document, one.names)
    usage = read_usage(document)
    message = reply.answers[0].message
    is_right = message is not None and message["content"] == f"echo: {one.prompt.prompt}"
    return Reading(
        verdict=Verdict("accepted") if is_right else Verdict("filtered", "other_text"),
        answer={"teacher_message": message} if is_right else {},
        usage=usage or Usage(input_tokens=one.input_tokens, output_tokens=1),
        usage_counted=usage is None,
        cost_micro=COST_MICRO,
        origin=reply.origin,
    )


@dataclass
class Ran:
    """A job that was run, and what it told."""

    result: JobResult
    events: list[Event]

    def kinds(self, number: int | None = None) -> list[str]:
        """The kinds of the events, of all prompts or of one."""
        return [one.kind for one in self.events if number is None or one.asked.prompt.index == number]


def run_job(
    items: Sequence[Asked],
    journal: Journal,
    limits: JobSettings | None = None,
    *,
    reader: Read = read,
    timeout_s: float = 60.0,
    on_event: Callable[[Event], None] = lambda _: None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> Ran:
    """Runs a job to its end, with the key `KEY`."""
    events: list[Event] = []

    def tell(event: Event) -> None:
        events.append(event)
        on_event(event)

    async def scene() -> JobResult:
        used = limits or settings()
        address = items[0].request.endpoint.removesuffix("/chat/completions")
        api = ApiConfig(
            base_url=address,
            model="fake",
            concurrency=used.limits.highest,
            timeout_seconds=timeout_s,
        )
        async with Client(api, Secrets(key=KEY)) as client:
            job = Job(items, journal, client, reader, used, on_event=tell, stop_requested=stop_requested)
            return await job.run()

    return Ran(asyncio.run(scene()), events)


def rows(journal: Journal, one: Asked) -> list[tuple[str, int | None, bool]]:
    """(state, status, final) of the attempts that were sent."""
    attempts = journal.attempts(one.request.hash)
    return [(row.state, row.status, row.final) for row in attempts if row.state != "not_sent"]


@dataclass
class RawServer:
    """Answers the first connection with the first bytes, the second with the second, ..., and closes each.

    Attributes:
        answers: what is written; None = nothing, until the client goes.
        requests: what came, one a connection, as far as it came at once.
    """

    answers: Sequence[bytes | None]
    requests: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def _serve(self) -> None:
        for answer in self.answers:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.requests.append(_whole_request(connection))
                if answer is None:
                    connection.recv(65536)
                else:
                    connection.sendall(answer)


def _whole_request(connection: socket.socket) -> bytes:
    received = connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    missing = (lengths or [0])[0] - len(body)
    while missing > 0:
        part = connection.recv(missing)
        if not part:
            break
        received += part
        missing -= len(part)
    return received
