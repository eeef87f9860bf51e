"""Every fault that a teacher's server can make, tried on this machine: nothing may be lost, nothing paid twice."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdfast.config import ApiConfig, Config
from kdfast.teacher.api.client import Client
from kdfast.teacher.api.fake_clock import JumpingClock
from kdfast.teacher.api.fake_replies import BEHAVIOURS, FakeRequest, fake_answer
from kdfast.teacher.api.fake_server import FakeServer
from kdfast.teacher.api.job import Job
from kdfast.teacher.api.job_report import JobSettings
from kdfast.teacher.api.journal import Answer, Journal, Request, Verdict
from kdfast.teacher.api.journal.reading import Reader
from kdfast.teacher.api.pacing import ConcurrencyLimits
from kdfast.teacher.api.reply import read_reply
from kdfast.teacher.api.retry import RetryPolicy
from kdfast.teacher.api.secrets_from_env import Secrets
from kdfast.teacher.api.usage import Usage, read_usage
from kdfast.teacher.asked import Asked
from kdfast.teacher.prompts import Prompt
from kdfast.teacher.reading import Reading

PROMPTS = 3
"""Prompts of each trial."""
AT_FAULT = 1
"""Which of them meets the fault: one is sent before it, one after it."""

WHOLE = frozenset(BEHAVIOURS[:4])
"""After these the client has a whole answer."""
PAID = frozenset(
    {"truncated_json", "short_length", "bad_json", "error_in_200", "no_choices", "empty_choices"}
)
"""A whole response that is no answer, and was charged: it is kept, and not asked for again."""
REFUSED = frozenset({"bad_request", "content_filter", "context_length", "refused_schema"})
"""A refusal of this very prompt: it is kept, and not asked for again."""

_KEY = "kdfast-preflight-key"
_TRIALS_AT_ONCE = 8
_TIMEOUT_S = 30.0
_TIMEOUT_OF_HANG_S = 1.0
_WAIT_S = 0.2
_DRIP_S = 0.0002


@dataclass(frozen=True, kw_only=True)
class FaultTrial:
    """What a fault led to.

    Attributes:
        behaviour: the fault, one of `fake_replies.BEHAVIOURS`.
        kept: whether nothing was lost and nothing paid twice.
        text: what became of the prompts.
    """

    behaviour: str
    kept: bool
    text: str


@dataclass(frozen=True)
class Served:
    """What the server did about one request.

    Attributes:
        behaviour: what it played.
        body: the answer that it gives if it plays no fault.
    """

    behaviour: str
    body: bytes


class _Script:
    """Plays the fault that a prompt names the first time that it comes, and notes what was served to whom."""

    def __init__(self) -> None:
        self.served: dict[str, list[Served]] = defaultdict(list)

    def __call__(self, request: FakeRequest) -> str:
        behaviour, _, number = request.text.partition(" ")
        played = behaviour if int(number) == AT_FAULT and not request.times_seen else "ok"
        body = json.dumps(fake_answer(request), ensure_ascii=False).encode()
        self.served[request.text].append(Served(played, body))
        return played


def try_faults(config: Config, work: Path) -> tuple[FaultTrial, ...]:
    """Lets a small job meet each fault of the fake server, then a second job that meets none.

    Client, job and journal are those of `kdfast teach`; the waits that a server asks for are skipped. Kept is what
    holds all of this: in the end every prompt has its answer, or the refusal that belongs to it; every response that
    was sent whole is in the journal, an answer byte by byte; no prompt whose answer came whole is sent again; the
    journal holds no key.

    Args:
        config: the config; only one whose `teacher.kind` is "api" asks a server.
        work: a scratch folder; gets the journal `faults.db`, which is made anew.

    Returns:
        a trial for each behaviour; () if the config asks no server.

    Raises:
        KdfastError, OSError: as a job raises them.
    """
    if config.teacher.kind != "api":
        return ()
    path = work / "faults.db"
    path.unlink(missing_ok=True)
    script, secrets = _Script(), Secrets(key=_KEY)
    with (
        FakeServer(script, wait_s=_WAIT_S, drip_s=_DRIP_S) as server,
        Journal(path, secrets=secrets.values) as journal,
    ):
        asked = {behaviour: _asked(server.url, behaviour) for behaviour in BEHAVIOURS}
        asyncio.run(_run_all(asked, server.url, journal, secrets))
        return tuple(judge(one, journal, asked[one], script.served) for one in BEHAVIOURS)


def judge(
    behaviour: str, journal: Reader, asked: Sequence[Asked], served: dict[str, list[Served]]
) -> FaultTrial:
    """Compares what the server did with what the journal holds.

    Args:
        behaviour: the fault.
        journal: the journal, after both jobs.
        asked: the trial's prompts.
        served: a prompt's text -> what was served to it, in order.
    """
    for one in asked:
        text = str(one.prompt.prompt)
        lost = next(_losses(behaviour, journal, one, served.get(text, [])), None)
        if lost is not None:
            return FaultTrial(behaviour=behaviour, kept=False, text=f"the prompt {text!r} {lost}")
    answers = [journal.answered(one.request.hash) for one in asked]
    whole = sum(_is_accepted(answer) for answer in answers)
    ends = [_reason(answer) for answer in answers if not _is_accepted(answer)]
    tries = sum(len(served.get(str(one.prompt.prompt), [])) for one in asked)
    kept = f"; kept for good: {', '.join(ends)}" if ends else ""
    text = f"{whole} of {len(asked)} prompts answered with {tries} requests{kept}"
    return FaultTrial(behaviour=behaviour, kept=True, text=text)


def _losses(behaviour: str, journal: Reader, one: Asked, served: Sequence[Served]) -> Iterator[str]:
    """What is wrong with a prompt, in words that follow its name."""
    attempts = [row for row in journal.attempts(one.request.hash) if row.state != "not_sent"]
    if len(attempts) != len(served):
        yield f"was sent {len(served)} times, and the journal knows of {len(attempts)}"
    for number, (row, sent) in enumerate(zip(attempts, served, strict=False), 1):
        is_whole = sent.behaviour in WHOLE
        if is_whole and (row.state != "answered" or journal.stored(row.id).body != sent.body):
            yield "got a whole answer that is not in the journal"
        if row.state == "answered" and _KEY.encode() in journal.stored(row.id).body:
            yield "got the server's key in its answer, and the journal holds it"
        if sent.behaviour in PAID and row.state != "answered":
            yield "got a whole response that is not in the journal"
        if (is_whole or sent.behaviour in PAID) and number < len(served):
            yield "was sent again, though its answer had come whole"
    answer = journal.answered(one.request.hash)
    if answer is None:
        yield "has no answer in the end"
    elif not _is_accepted(answer) and not (_meets_fault(one) and behaviour in PAID | REFUSED):
        yield f"was given up for good ({_reason(answer)}), though it could be answered"


def _meets_fault(one: Asked) -> bool:
    return one.prompt.index == AT_FAULT


def _is_accepted(answer: Answer | None) -> bool:
    return answer is not None and answer.verdict is not None and answer.verdict.kind == "accepted"


def _reason(answer: Answer | None) -> str:
    return "nobody has read it" if answer is None or answer.verdict is None else answer.verdict.reason


def _asked(url: str, behaviour: str) -> list[Asked]:
    first = BEHAVIOURS.index(behaviour) * PROMPTS
    asked = []
    for number in range(PROMPTS):
        text = f"{behaviour} {number}"
        body = {"model": "fake", "messages": [{"role": "user", "content": text}]}
        asked.append(
            Asked(
                prompt=Prompt(source=Path("prompts.jsonl"), line=number + 1, index=number, prompt=text),
                request=Request(f"{url}/chat/completions", body, order=first + number),
                input_tokens=len(text),
            )
        )
    return asked


async def _run_all(asked: dict[str, list[Asked]], url: str, journal: Journal, secrets: Secrets) -> None:
    def api(timeout_s: float) -> ApiConfig:
        return ApiConfig(base_url=url, model="fake", concurrency=32, timeout_seconds=timeout_s)

    turn = asyncio.Semaphore(_TRIALS_AT_ONCE)

    async def one_of_many(items: Sequence[Asked], client: Client) -> None:
        async with turn:
            await _run(items, journal, client)

    async with Client(api(_TIMEOUT_S), secrets) as client:
        trials = [one_of_many(items, client) for behaviour, items in asked.items() if behaviour != "hang"]
        await asyncio.gather(*trials)
    # Alone: its short time-out must not meet answers that are slow because all the others are under way.
    async with Client(api(_TIMEOUT_OF_HANG_S), secrets) as client:
        await _run(asked["hang"], journal, client)
    async with Client(api(_TIMEOUT_S), secrets) as client:
        await _run([one for items in asked.values() for one in items], journal, client)


async def _run(items: Sequence[Asked], journal: Journal, client: Client) -> None:
    settings = JobSettings(
        policy=RetryPolicy(backoff_s=0.01),
        limits=ConcurrencyLimits(start=2, highest=2),
        secrets=Secrets(key=_KEY).values,
        clock=JumpingClock(),
    )
    await Job(items, journal, client, _read, settings).run()


def _read(one: Asked, answer: Answer) -> Reading:
    """Accepts every answer that can be read."""
    document = json.loads(answer.body)
    usage = read_usage(document)
    return Reading(
        verdict=Verdict("accepted"),
        usage=usage or Usage(input_tokens=one.input_tokens, output_tokens=1),
        usage_counted=usage is None,
        origin=read_reply(document, one.names).origin,
    )
