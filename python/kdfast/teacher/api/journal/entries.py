"""What goes into the journal and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["in_flight", "answered", "unknown", "not_sent"]
"""How an attempt stands.

`in_flight`: it may have been sent. `answered`: a whole response came, of whatever status. `unknown`: it may have been
received, and no whole response came. `not_sent`: the server surely did not receive it.
"""

MOST_MICRO = 10**15
"""The largest cost of one attempt: a thousand million of the currency."""


ACCEPTED = "accepted"
"""The kind of verdict of an answer that goes into the dataset."""


@dataclass(frozen=True)
class Attempt:
    """A request that this process may now send once.

    Attributes:
        id: its number in the journal.
        hash: the request's hash.
        number: which attempt at this request it is, from 1.
        until_ms: end of its lease, in milliseconds since 1970.
    """

    id: int
    hash: str
    number: int
    until_ms: int


@dataclass(frozen=True)
class Busy:
    """The request is in flight; send it later, or not at all.

    Attributes:
        hash: the request's hash.
        owner: the process that sends it.
        until_ms: end of its lease, in milliseconds since 1970.
    """

    hash: str
    owner: str
    until_ms: int


@dataclass(frozen=True)
class GivenUp:
    """The request was sent as often as allowed, each time without a known outcome.

    Attributes:
        hash: the request's hash.
        unknown: its attempts with an unknown outcome.
    """

    hash: str
    unknown: int


@dataclass(frozen=True)
class Response:
    """A whole response, as it came.

    Attributes:
        status: HTTP status.
        headers: all headers; the journal keeps only those that hold no secret.
        body: the raw bytes, after `Content-Encoding` was undone.
        latency_ms: from the start of sending to the last byte.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    latency_ms: int


@dataclass(frozen=True)
class Verdict:
    """What a reader of an answer made of it; it can be set again at any time.

    Attributes:
        kind: such as `accepted`, `filtered` or `error`.
        reason: why, such as `no_valid_call`; "" = none.
    """

    kind: str
    reason: str = ""


@dataclass(frozen=True)
class Answer:
    """A stored response.

    Attributes:
        id: the attempt's number in the journal.
        hash: the request's hash.
        sample: the request's sample index.
        order: the smallest place that the request had in any job.
        number: which attempt at the request it is, from 1.
        final: whether the request is never sent again because of it.
        status: HTTP status.
        headers: the headers that were kept, names in lower case.
        body: the raw bytes.
        digest: SHA-256 of the body, in hex.
        latency_ms: from the start of sending to the last byte.
        usage: what the server counted; None = not known.
        cost_micro: the cost in millionths of the currency; None = not known, counted with its worst case.
        verdict: None = nobody has read the answer.
    """

    id: int
    hash: str
    sample: int
    order: int
    number: int
    final: bool
    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)
    digest: str
    latency_ms: int
    usage: dict[str, Any] | None
    cost_micro: int | None
    verdict: Verdict | None


@dataclass(frozen=True)
class AttemptRow:
    """One attempt, without its response.

    Attributes:
        id: its number in the journal.
        hash: the request's hash.
        number: which attempt at the request it is, from 1.
        state: how it stands.
        final: whether the request is never sent again because of it.
        expired: whether its outcome became unknown because its lease ended or its process did.
        owner: the process that made it.
        worst_micro: its worst case, in millionths of the currency.
        cost_micro: its cost; None = not known.
        status: HTTP status; None = no response.
        reason: why the outcome is unknown, why it was not sent, or why the answer was withdrawn; "" = none.
        begun_ms: when it was begun, in milliseconds since 1970.
        ended_ms: when it ended; None = in flight.
    """

    id: int
    hash: str
    number: int
    state: State
    final: bool
    expired: bool
    owner: str
    worst_micro: int
    cost_micro: int | None
    status: int | None
    reason: str
    begun_ms: int
    ended_ms: int | None


@dataclass(frozen=True)
class Money:
    """What the journal's requests cost, in millionths of the currency.

    Attributes:
        spent_micro: attempts that ended; one whose cost is not known counts with its worst case.
        in_flight_micro: the worst case of the attempts in flight.
    """

    spent_micro: int
    in_flight_micro: int


@dataclass(frozen=True)
class Stats:
    """Counts of the whole journal.

    Attributes:
        requests: different requests of which an attempt was begun.
        answered: requests with a final answer.
        in_flight: attempts in flight.
        unknown: attempts with an unknown outcome.
        late: responses that came after their attempt's lease had ended.
        not_sent: attempts that the server surely did not receive.
        not_final: responses because of which the request may be sent again, such as status 429.
        uncosted: responses whose cost is not known; they count with their worst case.
        unread: final answers without a verdict.
        verdicts: final answers by kind and reason of their verdict.
        money: what they cost.
    """

    requests: int
    answered: int
    in_flight: int
    unknown: int
    late: int
    not_sent: int
    not_final: int
    uncosted: int
    unread: int
    verdicts: dict[tuple[str, str], int]
    money: Money
