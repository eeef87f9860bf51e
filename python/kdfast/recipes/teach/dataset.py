"""Writes `teacher.out`: the records with the teacher's answers, made from the journal alone."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kdfast.data.template import Template
from kdfast.data.token_rows import Reader, to_line
from kdfast.files import write_text_whole
from kdfast.teacher.api.journal import Answer, Journal, Verdict
from kdfast.teacher.api.journal.entries import ACCEPTED
from kdfast.teacher.asked import Asked
from kdfast.teacher.reading import DUPLICATE, NOT_LEARNABLE, Reading

OWN_KEY = "teacher"
"""The key of a record's metadata that says where its answer comes from."""

_CHANGES_AT_ONCE = 1000
_MOST_WORDS = 160

Read = Callable[[Asked, Answer], Reading]


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written, and what was not.

    Attributes:
        path: the file.
        records: the records in it.
        unanswered: requests without a final answer.
        left_out: answers that are not in the file, by verdict.
        examples: for each of these verdicts, the place of the first prompt and the reason in words.
        with_logprobs: records with log-probabilities.
        logprobs_unused: why the log-probabilities of other records cannot be used -> how many.
    """

    path: Path
    records: int = 0
    unanswered: int = 0
    left_out: Counter[Verdict] = field(default_factory=Counter)
    examples: dict[Verdict, str] = field(default_factory=dict)
    with_logprobs: int = 0
    logprobs_unused: Counter[str] = field(default_factory=Counter)


def write_dataset(asked: Sequence[Asked], journal: Journal, read: Read, reader: Reader, out: Path) -> Written:
    """Reads the answers to all requests from the journal and writes those that can be learned.

    The same answers and config give the same bytes, whenever and in whatever order the answers came. The verdicts go to
    the journal, if they are not there already.

    Args:
        asked: the requests.
        journal: holds the answers.
        read: reads one answer.
        reader: what training reads records with; a record that it refuses is left out.
        out: the file; it appears whole, and replaces an older one. Without a single record it is left alone.

    Raises:
        DataError: the journal is damaged.
        OSError: a file cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="kdfast-answers-") as folder:
        candidates = _Candidates(
            Path(folder) / "answers.jsonl", journal, read, template_hash(reader.template)
        )
        candidates.write(sorted(asked, key=lambda one: one.request.order))
        refused = reader.rows(candidates.path).refused if candidates.kept else {}
        written = candidates.result(out, refused)
        if written.records:
            write_text_whole(out, candidates.lines(refused))
        candidates.store_verdicts()
    return written


@dataclass(frozen=True)
class _Kept:
    """A line of the temporary file. Answers are long: of each only this is kept in memory."""

    place: str
    answer_id: int
    has_logprobs: bool
    logprobs: str


@dataclass(frozen=True)
class _Outcome:
    """What the journal says of an answer, and what it should say."""

    stored: Verdict | None
    verdict: Verdict


@dataclass
class _Candidates:
    """The records of all accepted answers, in a temporary file."""

    path: Path
    journal: Journal
    read: Read
    template: str
    kept: list[_Kept] = field(default_factory=list)
    unanswered: int = 0
    left_out: Counter[Verdict] = field(default_factory=Counter)
    examples: dict[Verdict, str] = field(default_factory=dict)
    outcomes: dict[int, _Outcome] = field(default_factory=dict)

    def write(self, asked: Sequence[Asked]) -> None:
        seen: set[bytes] = set()
        with self.path.open("w", encoding="utf-8", newline="\n") as file:
            for one in asked:
                answer = self.journal.answered(one.request.hash)
                if answer is None:
                    self.unanswered += 1
                    continue
                reading = self.read(one, answer)
                place = f"{one.prompt.source.name}:{one.prompt.line}"
                record = {**one.prompt.to_record(), **reading.answer}
                verdict, words = reading.verdict, reading.detail
                content = _content(record, one.prompt.tools_text)
                if verdict.kind == ACCEPTED and content in seen:
                    verdict, words = DUPLICATE, "the same prompt has the same answer already"
                # Two prompts may share a request: the first one decides.
                self.outcomes.setdefault(answer.id, _Outcome(answer.verdict, verdict))
                if verdict.kind != ACCEPTED:
                    self._leave_out(verdict, place, words)
                    continue
                seen.add(content)
                record["metadata"] = {
                    **one.prompt.metadata,
                    OWN_KEY: _origin(one, answer, reading) | {"template": self.template},
                }
                file.write(to_line(record) + "\n")
                self.kept.append(_Kept(place, answer.id, "teacher_topk" in record, reading.logprobs))

    def lines(self, refused: dict[int, str]) -> Iterator[str]:
        with self.path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if number not in refused:
                    yield line

    def result(self, out: Path, refused: dict[int, str]) -> Written:
        for number, reason in sorted(refused.items()):
            kept = self.kept[number - 1]
            self._leave_out(NOT_LEARNABLE, kept.place, reason)
            self.outcomes[kept.answer_id] = replace(self.outcomes[kept.answer_id], verdict=NOT_LEARNABLE)
        good = [kept for number, kept in enumerate(self.kept, 1) if number not in refused]
        return Written(
            path=out,
            records=len(good),
            unanswered=self.unanswered,
            left_out=self.left_out,
            examples=self.examples,
            with_logprobs=sum(kept.has_logprobs for kept in good),
            logprobs_unused=Counter(kept.logprobs.partition(": ")[0] for kept in good if kept.logprobs),
        )

    def store_verdicts(self) -> None:
        """Stores the verdicts that the journal does not have yet. What an answer cost is the job's to say."""
        changed = [(key, one.verdict) for key, one in self.outcomes.items() if one.stored != one.verdict]
        for start in range(0, len(changed), _CHANGES_AT_ONCE):
            with self.journal.together():
                for answer_id, verdict in changed[start : start + _CHANGES_AT_ONCE]:
                    self.journal.set_verdict(self.journal.stored(answer_id), verdict)

    def _leave_out(self, verdict: Verdict, place: str, words: str) -> None:
        self.left_out[verdict] += 1
        said = words if len(words) <= _MOST_WORDS else words[:_MOST_WORDS] + " ..."
        self.examples.setdefault(verdict, f"{place}: {said}" if said else place)


def template_hash(template: Template) -> str:
    """SHA-256 (hex) of a chat template's source."""
    return hashlib.sha256(template.source.encode()).hexdigest()


def _content(record: dict[str, Any], tools: str) -> bytes:
    """What makes two records the same: the last bits of log-probabilities do not."""
    apart = ("tools", "metadata", "teacher_topk")
    text = to_line({key: value for key, value in record.items() if key not in apart})
    return hashlib.sha256(f"{text}\n{tools}".encode()).digest()


def _origin(asked: Asked, answer: Answer, reading: Reading) -> dict[str, Any]:
    """Where an answer comes from: what `kdfast journal verify` compares, and who answered."""
    who = reading.origin
    origin: dict[str, Any] = {"request": answer.hash, "response": answer.digest}
    named = {"model": who.model, "provider": who.provider, "system_fingerprint": who.system_fingerprint}
    origin |= {name: value for name, value in named.items() if value is not None}
    return origin | ({"sample": asked.request.sample} if asked.request.sample else {})
