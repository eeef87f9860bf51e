"""Writes `teacher.out`: the records with the teacher's answers, made from the journal alone."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdfast.files import write_text_whole
from kdfast.recipes.teach.token_rows import Reader, to_line
from kdfast.teacher.api.finding import usage_json
from kdfast.teacher.api.journal import Answer, Journal, Verdict
from kdfast.teacher.api.journal.entries import ACCEPTED
from kdfast.teacher.asked import Asked
from kdfast.teacher.reading import NOT_LEARNABLE, Reading

OWN_KEY = "teacher"
"""The key of a record's metadata that says where its answer comes from."""

DUPLICATE = Verdict("filtered", "duplicate")
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

    The same answers and config give the same bytes, whenever and in whatever order the answers came. Each verdict and
    cost goes to the journal, if it is not there already.

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
        candidates = _Candidates(Path(folder) / "answers.jsonl", journal, read)
        candidates.write(sorted(asked, key=lambda one: one.request.order))
        refused = reader.rows(candidates.path).refused if candidates.kept else {}
        written = candidates.result(out, refused)
        if written.records:
            write_text_whole(out, candidates.lines(refused))
    return written


@dataclass
class _Kept:
    place: str
    answer: Answer
    reading: Reading


@dataclass
class _Candidates:
    """The records of all accepted answers, in a temporary file."""

    path: Path
    journal: Journal
    read: Read
    kept: list[_Kept] = field(default_factory=list)
    unanswered: int = 0
    left_out: Counter[Verdict] = field(default_factory=Counter)
    examples: dict[Verdict, str] = field(default_factory=dict)
    changes: list[tuple[Answer, Reading]] = field(default_factory=list)

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
                self._judged(answer, reading)
                if reading.verdict.kind != ACCEPTED:
                    self._leave_out(reading.verdict, place, reading.detail)
                    continue
                record = {**one.prompt.to_record(), **reading.answer}
                key = hashlib.sha256(to_line(record | {"metadata": None}).encode()).digest()
                if key in seen:
                    self._leave_out(DUPLICATE, place, "the same prompt has the same answer already")
                    continue
                seen.add(key)
                record["metadata"] = {**one.prompt.metadata, OWN_KEY: _origin(one, answer, reading)}
                file.write(to_line(record) + "\n")
                self.kept.append(_Kept(place, answer, reading))
        self._store_changes()

    def lines(self, refused: dict[int, str]) -> Iterator[str]:
        with self.path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if number not in refused:
                    yield line

    def result(self, out: Path, refused: dict[int, str]) -> Written:
        for number, reason in sorted(refused.items()):
            kept = self.kept[number - 1]
            self._leave_out(NOT_LEARNABLE, kept.place, reason)
            if kept.answer.verdict != NOT_LEARNABLE:
                self.journal.set_verdict(kept.answer, NOT_LEARNABLE)
        good = [kept.reading for number, kept in enumerate(self.kept, 1) if number not in refused]
        return Written(
            path=out,
            records=len(good),
            unanswered=self.unanswered,
            left_out=self.left_out,
            examples=self.examples,
            with_logprobs=sum("teacher_topk" in reading.answer for reading in good),
            logprobs_unused=Counter(
                reading.logprobs.partition(": ")[0] for reading in good if reading.logprobs
            ),
        )

    def _leave_out(self, verdict: Verdict, place: str, words: str) -> None:
        self.left_out[verdict] += 1
        said = words if len(words) <= _MOST_WORDS else words[:_MOST_WORDS] + " ..."
        self.examples.setdefault(verdict, f"{place}: {said}" if said else place)

    def _judged(self, answer: Answer, reading: Reading) -> None:
        """Notes a verdict or cost that the journal does not have yet."""
        stays = answer.verdict == NOT_LEARNABLE and reading.verdict.kind == ACCEPTED
        same_verdict = answer.verdict == reading.verdict or stays
        # The job knows best what a refusal cost.
        cost_stays = reading.verdict.kind == "failed" and answer.cost_micro is not None
        if not same_verdict or not (cost_stays or answer.cost_micro == reading.cost_micro):
            self.changes.append((answer, reading))
        if len(self.changes) >= _CHANGES_AT_ONCE:
            self._store_changes()

    def _store_changes(self) -> None:
        if self.changes:
            with self.journal.together():
                for answer, reading in self.changes:
                    self.journal.set_verdict(answer, reading.verdict)
                    if reading.verdict.kind != "failed" or answer.cost_micro is None:
                        usage = usage_json(reading.usage, is_counted=reading.usage_counted)
                        self.journal.set_cost(answer, reading.cost_micro, usage)
        self.changes = []


def _origin(asked: Asked, answer: Answer, reading: Reading) -> dict[str, Any]:
    """Where an answer comes from: what `kdfast journal verify` compares, and who answered."""
    who = reading.origin
    origin: dict[str, Any] = {"request": answer.hash, "response": answer.digest}
    named = {"model": who.model, "provider": who.provider, "system_fingerprint": who.system_fingerprint}
    origin |= {name: value for name, value in named.items() if value is not None}
    return origin | ({"sample": asked.request.sample} if asked.request.sample else {})
