"""What became of the fake teacher's answers: what the journal holds, held against what the server must have said."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kdfast.config import Config
from kdfast.files import parse_json
from kdfast.recipes.preflight.facts import Json, Sample, TaughtSample
from kdfast.recipes.teach.dataset import OWN_KEY
from kdfast.teacher.api.fake_replies import FakeRequest, fake_answer
from kdfast.teacher.api.journal import Journal, Request
from kdfast.teacher.api.reasoning import strip_reasoning


@dataclass(frozen=True, kw_only=True)
class TaughtAnswers:
    """The answers of a `TaughtSample`.

    Attributes:
        prompts: how many prompts there were.
        requests: different requests that were sent.
        unanswered: requests without an answer in the journal.
        accepted: answers that go into the dataset.
        left_out: reason -> answers that do not.
        wrong: what differs from what the server said, one text each.
    """

    prompts: int
    requests: int
    unanswered: int
    accepted: int
    left_out: Counter[str]
    wrong: tuple[str, ...]


def answers_of(taught: TaughtSample) -> TaughtAnswers:
    """Reads the journal and the records of a job of the fake teacher.

    Raises:
        DataError: the journal is damaged.
        OSError: a file cannot be read.
    """
    files = _files(taught.config)
    left_out: Counter[str] = Counter()
    accepted, wrong = 0, []
    with Journal(files.journal, read_only=True) as journal:
        stats = journal.stats()
        for answer in journal.all_answers():
            request = journal.request(answer.hash)
            if request is None or _choices(parse_json(answer.body)) != _choices(said(request)):
                wrong.append(f"the answer to request {answer.hash[:12]} is not what the server said")
            if answer.verdict is not None and answer.verdict.kind == "accepted":
                accepted += 1
            else:
                left_out["nobody has read it" if answer.verdict is None else answer.verdict.reason] += 1
        wrong += _wrong_records(taught.records, journal)
    lines = files.prompts.read_text(encoding="utf-8").splitlines()
    return TaughtAnswers(
        prompts=len(lines),
        requests=stats.requests,
        unanswered=stats.requests - stats.answered,
        accepted=accepted,
        left_out=left_out,
        wrong=tuple(wrong),
    )


def said(request: Request) -> Json:
    """What the fake server says to a request."""
    seen = FakeRequest(
        index=0,
        times_seen=0,
        method="POST",
        path=urlsplit(request.endpoint).path,
        headers={},
        content=dict(request.body),
        digest=request.hash,
    )
    return fake_answer(seen)


def with_own_places(text: str, work: Path, sample: Sample) -> str:
    """A text of the job without the names of its scratch files, which are gone when somebody reads it.

    Args:
        text: what the job said.
        work: the scratch folder.
        sample: where each prompt was drawn from.

    Example:
        >>> drawn = Sample(records=({},), lines=((Path("my.jsonl"), 81),), held_out=(), of=1, asked=True)
        >>> with_own_places("/w/taught/prompts.jsonl:1:5: no prompt; see /w/taught/journal.db", Path("/w"), drawn)
        'my.jsonl:81: no prompt; see journal.db'
    """
    folder = re.escape(str(work / "taught"))

    def place(found: re.Match[str]) -> str:
        line = int(found[1])
        if not 1 <= line <= len(sample.lines):
            return f"record {line} of the sample"
        path, own = sample.lines[line - 1]
        return f"{path}:{own}"

    text = re.sub(rf"{folder}[/\\](?:chat[/\\])?prompts\.jsonl:(\d+)(?::\d+)?", place, text)
    return re.sub(rf"{folder}[/\\](?:chat[/\\])?", "", text)


def _files(config: Config) -> Any:
    files = config.teacher.files
    assert files is not None, "teach_sample names them"  # noqa: S101
    return files


def _choices(document: Any) -> Any:
    return document.get("choices") if isinstance(document, Mapping) else None


def _wrong_records(records: Sequence[Json], journal: Journal) -> Iterator[str]:
    """Records that do not say what the server said, each with its line."""
    for line, record in enumerate(records, 1):
        origin = (record.get("metadata") or {}).get(OWN_KEY) or {}
        found = str(origin.get("request", ""))
        request, answer = journal.request(found), journal.answered(found)
        if request is None or answer is None:
            yield f"record {line} is made from no answer in the journal"
        elif origin.get("response") != hashlib.sha256(answer.body).hexdigest():
            yield f"record {line} is made from another answer than the journal holds"
        elif not says_the_same(record, said(request)["choices"][0]):
            yield f"record {line} says something else than the server did"


def says_the_same(record: Json, choice: Json) -> bool:
    """Whether a record's answer is that of a choice without reasoning and outer blanks, which the reader leaves out."""
    message = record.get("teacher_message") or {"content": record.get("teacher_text")}
    given = choice.get("message") or {"content": choice.get("text")}
    calls = [_arguments(call) for call in given.get("tool_calls") or ()]
    if calls:
        return [_arguments(call) for call in message.get("tool_calls") or ()] == calls
    whole = strip_reasoning(given.get("content") or "").text.strip()
    text = (message.get("content") or "").strip()
    written = [call["function"]["name"] for call in message.get("tool_calls") or ()]
    if not written:
        return bool(text) and text == whole
    # The reader found calls in the text: what stands before them stays, and their names stand after it.
    return whole.startswith(text) and all(name in whole[len(text) :] for name in written)


def _arguments(call: Json) -> Any:
    arguments = call["function"]["arguments"]
    return json.loads(arguments) if isinstance(arguments, str) else arguments
