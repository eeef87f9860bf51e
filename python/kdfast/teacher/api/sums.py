"""Sums over all requests of a journal: counts, money, tokens, latencies, and who answered. No torch in here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from kdfast.files import parse_json
from kdfast.teacher.api.journal import Answer, AttemptRow, Journal, Request
from kdfast.teacher.api.journal.owners import is_gone
from kdfast.teacher.api.overview import read_all, text_of
from kdfast.teacher.api.reply import Origin
from kdfast.teacher.api.usage import Usage, said_usage, usage_from_json

Json = dict[str, Any]

_TOKENS = tuple(one.name for one in fields(Usage))
_ORIGIN = tuple(one.name for one in fields(Origin))
_MOST_NAMED = 5


def sum_up(journal: Journal) -> Json:
    """Counts, money, tokens, latencies and who answered. What nobody measured is null.

    The journal may grow meanwhile: then the counts are older than the other sums.

    Raises:
        DataError: a request or an answer is damaged.
    """
    counts = asdict(journal.stats())
    sums = _Sums()
    for request, attempts, answer in read_all(journal):
        sums.add(request, attempts, answer)
    verdicts = [
        {"kind": kind, "reason": reason, "count": count, "share": count / counts["answered"]}
        for (kind, reason), count in counts.pop("verdicts").items()
    ]
    return {
        **counts,
        "in_flight_of_ended_processes": sums.abandoned,
        "verdicts": verdicts,
        "tokens": sums.tokens if sums.counted else None,
        "answers": len(sums.latencies),
        "answers_with_tokens": sums.counted,
        "latency_ms": sums.latency(),
        "teachers": sums.who_answered(),
        "first_ms": sums.first_ms,
        "last_ms": sums.last_ms,
    }


def changes(teachers: Sequence[Json]) -> list[str]:
    """In words: where requests to one model were answered by different ones; [] = nowhere.

    Args:
        teachers: the `teachers` of `sum_up`.

    Examples:
        >>> one = {"endpoint": "e", "asked": "m", "model": "m-1", "provider": None, "system_fingerprint": None}
        >>> one |= {"answers": 9, "first_ms": 0, "last_ms": 60_000}
        >>> changes([one, one | {"model": "m-2", "answers": 1, "first_ms": 90_000, "last_ms": 90_000}])[0]
        'requests to m were answered by m-1 (9 answers, 1970-01-01 00:00:00 to 00:01:00 UTC), by m-2 (1 answer, ...'
    """
    asked: dict[tuple[str, str], list[Json]] = {}
    for one in teachers:
        asked.setdefault((one["endpoint"], one["asked"]), []).append(one)
    found = []
    for (_, model), origins in asked.items():
        if any(len({one[name] for one in origins} - {None}) > 1 for name in _ORIGIN):
            named = [f"by {_named(one)}" for one in origins[:_MOST_NAMED]]
            more = len(origins) - len(named)
            parts = ", ".join([*named, f"and {more} more"] if more else named)
            found.append(
                f"requests to {model or 'no named model'} were answered {parts}: "
                "these are the answers of different teachers"
            )
    return found


def answered_by(teacher: Json) -> str:
    """Who answered, in words.

    Args:
        teacher: one of the `teachers` of `sum_up`.

    Example:
        >>> answered_by({"model": "m-1", "provider": None, "system_fingerprint": "fp_4", "answers": 9})
        'm-1 / fp_4'
    """
    return Origin(*(teacher[name] for name in _ORIGIN)).text()


def time_text(ms: int) -> str:
    """A time in words.

    Args:
        ms: in milliseconds since 1970.

    Example:
        >>> time_text(1_700_000_000_000)
        '2023-11-14 22:13:20 UTC'
    """
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


@dataclass
class _Sums:
    """What is added up while all requests go by."""

    abandoned: int = 0
    counted: int = 0
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_TOKENS, 0))
    latencies: list[int] = field(default_factory=list)
    first_ms: int | None = None
    last_ms: int | None = None
    origins: dict[tuple[str, str, Origin], list[int]] = field(default_factory=dict)

    def add(self, request: Request, attempts: Sequence[AttemptRow], answer: Answer | None) -> None:
        times = [time for row in attempts for time in (row.begun_ms, row.ended_ms) if time is not None]
        self.first_ms = min(times if self.first_ms is None else [self.first_ms, *times])
        self.last_ms = max(times if self.last_ms is None else [self.last_ms, *times])
        self.abandoned += sum(row.state == "in_flight" and is_gone(row.owner) for row in attempts)
        if answer is None:
            return
        self.latencies.append(answer.latency_ms)
        document = _document(answer.body)
        usage = usage_from_json(answer.usage) or said_usage(document)
        if usage is not None:
            self.counted += 1
            for name in _TOKENS:
                self.tokens[name] += getattr(usage, name)
        origin = Origin(*(text_of(document, name) for name in _ORIGIN))
        if origin != Origin():
            ended = next(row.ended_ms or row.begun_ms for row in attempts if row.id == answer.id)
            key = (request.endpoint, text_of(request.body, "model") or "", origin)
            self.origins.setdefault(key, []).append(ended)

    def latency(self) -> Json | None:
        """Percentiles by nearest rank; None if there is no answer."""
        ordered = sorted(self.latencies)
        if not ordered:
            return None
        return {f"p{rank}": ordered[math.ceil(rank * len(ordered) / 100) - 1] for rank in (50, 95)}

    def who_answered(self) -> list[Json]:
        """By the time of the first answer."""
        return [
            {
                "endpoint": endpoint,
                "asked": asked,
                **asdict(origin),
                "answers": len(times),
                "first_ms": min(times),
                "last_ms": max(times),
            }
            for (endpoint, asked, origin), times in sorted(self.origins.items(), key=lambda one: min(one[1]))
        ]


def _document(body: bytes) -> Json:
    try:
        document = parse_json(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _named(one: Json) -> str:
    first, last = time_text(one["first_ms"]), time_text(one["last_ms"])
    if first[:10] == last[:10]:
        last = last[11:]
    span = first if one["first_ms"] == one["last_ms"] else f"{first.removesuffix(' UTC')} to {last}"
    return f"{answered_by(one)} ({one['answers']} answer{'s' * (one['answers'] != 1)}, {span})"
