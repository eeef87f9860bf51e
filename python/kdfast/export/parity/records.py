"""The held-out records, as parity needs them: what training made of each, and the messages that a client would send."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdfast._rust import read_jsonl

if TYPE_CHECKING:
    from kdfast.data import KDDataset

RECORDS = 1000
"""How many records are compared at most. A record takes about 4 ms."""

# The dataset has checked the lines already, by the options of its config.
_ANY_LENGTH = 1 << 62


@dataclass(frozen=True, kw_only=True)
class ParityRecord:
    """One held-out record.

    Attributes:
        file: where it stands.
        line: its line there, from 1.
        shape: the padded length of its row, in tokens.
        ids: the row's token ids, of the whole conversation.
        start: the position of the answer's first token.
        text: the rendered prompt, generation prompt included.
        answer: the right answer's text, or the teacher's where the record has no right one; no turn end.
        messages: the messages before the answer, as training understood them; empty for a plain prompt.
        tools: the tools, as training understood them.
        hides_tools: the chat template shows none of them: they are baked into the student.
        special_in_content: a special token's text stands in a message or a tool. Training learns it as text; llama.cpp
            makes a token of it.
        plain_prompt: the record's prompt is text: no template is applied to it.
        lossy: the tokenizer changes the prompt's text (it normalises), so that `text` is not what was rendered.
    """

    file: Path
    line: int
    shape: int
    ids: tuple[int, ...]
    start: int
    text: str
    answer: str
    messages: tuple[Mapping[str, Any], ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    hides_tools: bool = False
    special_in_content: bool = False
    plain_prompt: bool = False
    lossy: bool = False

    @property
    def prompt_ids(self) -> list[int]:
        """The prompt's token ids."""
        return list(self.ids[: self.start])

    @property
    def sent_tools(self) -> tuple[Mapping[str, Any], ...]:
        """The tools that a client sends: none where they are baked in, as some versions of llama.cpp tell of them."""
        return () if self.hides_tools else self.tools


def read_records(dataset: KDDataset, count: int = RECORDS) -> list[ParityRecord]:
    """The first records of a dataset, one row of each (that with the right answer, if there are two).

    Args:
        dataset: the held-out records, opened with the student's tokenizer and template.
        count: how many at most.

    Raises:
        DataError: a line cannot be read any more.
        OSError: a file cannot be read.
    """
    lines = {
        (path, record["line"]): record
        for path in dict.fromkeys(dataset.paths)
        for record in _read(dataset, path)
    }
    added = _added_tokens(dataset.tokenizer_path)
    return [_record(dataset, index, lines, added) for index in dataset.one_row_a_record()[:count]]


def _read(dataset: KDDataset, path: Path) -> list[dict[str, Any]]:
    records, _ = read_jsonl(
        path,
        lines="records",
        on_error="quarantine" if dataset.rejected else "raise",
        max_rejected_fraction=1.0,
        max_line_bytes=_ANY_LENGTH,
        allow_reasoning=True,
        threads=dataset.threads,
    )
    return records


def _record(
    dataset: KDDataset, index: int, lines: Mapping[tuple[Path, int], Mapping[str, Any]], added: Sequence[int]
) -> ParityRecord:
    number = int(dataset.rows[index])
    row, (path, line) = dataset.store.row(number), dataset.place(number)
    ids, start = tuple(row["ids"].tolist()), int(row["response_start"])
    text, record = dataset.tokenizer.decode(list(ids[:start])), lines[path, line]
    answer = _without_end(ids[start:], dataset.turn_end_ids)
    return ParityRecord(
        file=path,
        line=line,
        shape=next(shape for shape in dataset.shapes if shape >= dataset.lengths[index]),
        ids=ids,
        start=start,
        text=text,
        answer=dataset.tokenizer.decode(list(answer)),
        messages=() if "prompt" in record else tuple(record["messages"]),
        tools=tuple(record.get("tools") or ()),
        hides_tools=dataset.template.hides_tools,
        special_in_content=_holds_special(dataset.encode(text), ids[:start], added),
        plain_prompt="prompt" in record,
        lossy=bool(row["prompt_lossy"]),
    )


def _without_end(answer: Sequence[int], end: Sequence[int]) -> Sequence[int]:
    """An answer's ids without the turn end."""
    size = len(end)
    return answer[: len(answer) - size] if size and list(answer[-size:]) == list(end) else answer


def _holds_special(whole: Sequence[int], ids: Sequence[int], added: Sequence[int]) -> bool:
    """Whether a text encoded as a whole (`whole`) has added tokens that training (`ids`) encoded as text."""
    if list(whole) == list(ids):
        return False
    found, learned = Counter(whole), Counter(ids)
    return any(found[token] > learned[token] for token in added)


def _added_tokens(tokenizer: Path) -> list[int]:
    """The ids of the tokenizer's added tokens: these, and no others, are cut out of a text before it is split."""
    file = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
    return [int(token["id"]) for token in json.loads(file.read_bytes()).get("added_tokens") or ()]
