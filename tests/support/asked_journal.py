"""A small journal in which every state of an attempt occurs, with a clock that is set by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import journals
from journals import Clock, begun, request

from kdfast.teacher.api.journal import Answer, Journal, Response, Verdict
from kdfast.teacher.api.usage import Usage

USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


def reply(model: str = "m-1", *, usage: object = USAGE) -> bytes:
    message = {"role": "assistant", "content": "It is 21 degrees."}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    return json.dumps({"model": model, "choices": choices, "usage": usage}).encode()


def answered(journal: Journal, number: int, body: bytes, latency_ms: int = 500) -> Answer:
    response = Response(200, {"Content-Type": "application/json"}, body, latency_ms)
    return journal.finish_attempt(begun(journal, request(number), 900), response, final=True)


def build(path: Path) -> Journal:
    """The journal, open: the caller closes it.

    Request 0: refused once with status 429, then accepted. 1: filtered, it was cut; the server's own count of tokens.
    2: not read yet, no JSON. 3: unknown outcome. 4: not sent. 5: in flight. 6: accepted, by another model.
    """
    clock = Clock(1_764_480_000.0)
    journal = Journal(path, leases=journals.leases("one", clock))
    refused = Response(429, {"Retry-After": "1"}, b'{"error": {"message": "slow down"}}', 30)
    journal.finish_attempt(begun(journal, request(0), 900), refused, final=False, cost_micro=0)
    clock.now += 1
    first = answered(journal, 0, reply(), 400)
    journal.set_cost(first, 150, asdict(Usage(input_tokens=100, output_tokens=12, cached_tokens=60)))
    journal.set_verdict(first, Verdict("accepted"))
    clock.now += 1
    cut = answered(journal, 1, reply(), 1200)
    journal.set_cost(cut, 160)
    journal.set_verdict(cut, Verdict("filtered", "cut"))
    answered(journal, 2, b"<h1>\x1b[31mno JSON\xff</h1>")
    clock.now += 60
    journal.mark_unknown(begun(journal, request(3), 900), "no whole response came: read timeout")
    journal.mark_not_sent(begun(journal, request(4), 900), "no connection: refused")
    begun(journal, request(5), 900)
    clock.now += 60
    other = answered(journal, 6, reply("m-2", usage=None), 800)
    journal.set_cost(other, 140)
    journal.set_verdict(other, Verdict("accepted"))
    return journal
