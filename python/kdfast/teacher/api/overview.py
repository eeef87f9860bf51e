"""What a journal tells people and machines: a line for each request, and one request whole.

Everything is a JSON value: what a command prints and what it writes for machines are the same. No torch in here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from kdfast.files import parse_json
from kdfast.teacher.api.journal import Answer, AttemptRow, Journal, Request

Json = dict[str, Any]

_OF_ATTEMPT = (
    "number", "expired", "owner", "worst_micro", "cost_micro", "status", "reason", "begun_ms", "ended_ms",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which requests to list.

    Attributes:
        verdict: only those whose answer has this kind of verdict; None = any.
        reason: only those whose verdict has this reason; None = any.
        state: only those with an attempt in this state; None = any.
        limit: at most so many; 0 = all. The caller counts.
    """

    verdict: str | None = None
    reason: str | None = None
    state: str | None = None
    limit: int = 20

    def takes(self, row: Json) -> bool:
        """Whether a request is one of them."""
        verdict = row["verdict"] or {"kind": None, "reason": None}
        states = [attempt["state"] for attempt in row["attempts"]]
        return (
            self.verdict in (None, verdict["kind"])
            and self.reason in (None, verdict["reason"])
            and (self.state is None or self.state in states)
        )


def list_requests(journal: Journal, wanted: Filter = Filter()) -> Iterator[Json]:
    """A line for each request, by order, then hash.

    Args:
        journal: the open journal.
        wanted: which requests, but for its limit.

    Raises:
        DataError: a request or an answer is damaged.
    """
    for request, attempts, answer in read_all(journal):
        row = {
            "request": request.hash,
            "order": request.order,
            "sample": request.sample,
            "endpoint": request.endpoint,
            "model": text_of(request.body, "model"),
            "question": question(request.body),
            "attempts": [_attempt(row) for row in attempts],
            "cost_micro": sum(charge_micro(row) for row in attempts),
            "cost_is_known": all(row.state == "not_sent" or _cost(row) is not None for row in attempts),
            "status": answer and answer.status,
            "latency_ms": answer and answer.latency_ms,
            "verdict": answer and answer.verdict and asdict(answer.verdict),
        }
        if wanted.takes(row):
            yield row


def whole_request(journal: Journal, request_hash: str) -> Json:
    """A request, all attempts at it, and all responses.

    Args:
        journal: the open journal.
        request_hash: the hash of a request in it.

    Raises:
        DataError: something of it is damaged.
        ValueError: it is not in the journal.
    """
    request, answer = journal.request(request_hash), journal.answered(request_hash)
    if request is None:
        raise ValueError(f"not in the journal: {request_hash}")
    attempts = []
    for row in journal.attempts(request_hash):
        response = _response(journal.stored(row.id)) if row.status is not None else {}
        attempts.append({**_attempt(row), **response})
    return {
        "request": request_hash,
        "order": request.order,
        "sample": request.sample,
        "endpoint": request.endpoint,
        "context": dict(request.context),
        "body": dict(request.body),
        "attempts": attempts,
        "answer": answer and answer.number,
    }


def question(body: Any) -> str:
    """The user's last words in the body of a request, or its prompt; "" if there are none.

    Examples:
        >>> question({"messages": [{"role": "user", "content": "Hi?"}, {"role": "tool", "content": "4"}]})
        'Hi?'
        >>> question({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi?"}]}]})
        'Hi?'
    """
    messages = body.get("messages")
    for message in reversed(messages if isinstance(messages, list) else []):
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            parts = content if isinstance(content, list) else [{"text": content}]
            texts = [part.get("text") for part in parts if isinstance(part, dict)]
            return " ".join(text for text in texts if isinstance(text, str))
    return text_of(body, "prompt") or ""


def charge_micro(row: AttemptRow) -> int:
    """What an attempt counts against the budget, in millionths of the currency: its worst case if nobody knows."""
    if row.state == "not_sent":
        return 0
    cost = _cost(row)
    return row.worst_micro if cost is None else cost


def read_all(journal: Journal) -> Iterator[tuple[Request, list[AttemptRow], Answer | None]]:
    """All requests with their attempts and final answers, by order, then hash.

    Raises:
        DataError: a request or an answer is damaged.
    """
    for hashes in journal.pages():
        for one in hashes:
            request = journal.request(one)
            if request is not None:  # always so: no request is ever removed
                answer = journal.answered(one)  # before the attempts: of a later answer none of them would be
                yield request, journal.attempts(one), answer


def _attempt(row: AttemptRow) -> Json:
    state = "not_final" if row.state == "answered" and not row.final else row.state
    return {"state": state, **{name: getattr(row, name) for name in _OF_ATTEMPT}}


def _cost(row: AttemptRow) -> int | None:
    return row.cost_micro if row.state == "answered" else None


def _response(answer: Answer) -> Json:
    try:
        body: Json = {"response": parse_json(answer.body)}
    except ValueError:
        body = {"response_text": answer.body.decode("utf-8", errors="backslashreplace")}
    return {
        "latency_ms": answer.latency_ms,
        "verdict": answer.verdict and asdict(answer.verdict),
        "usage": answer.usage,
        "headers": answer.headers,
        "digest": answer.digest,
        **body,
    }


def text_of(document: Any, key: str) -> str | None:
    """The text under a key of an object; None if it is missing, empty or no text."""
    value = document.get(key)
    return value if isinstance(value, str) and value else None
