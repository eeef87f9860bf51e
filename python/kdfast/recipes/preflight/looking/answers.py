"""Rows of a token store read back into text, and the records that they come from: the slow, obvious way."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kdfast import _rust
from kdfast.batch import SOURCES
from kdfast.data import KDDataset
from kdfast.recipes.preflight.facts import Sample
from kdfast.scoring import thinking_after

MOST_ROWS = 2000
"""Rows of the whole data that a check looks at, evenly spread."""

REBUILD = "remove the token store (data.cache, or .kdfast beside the file); if it stays so, report it"
"""The remedy for a row that is not what its record says."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """The answer of a row, read back from its tokens.

    Attributes:
        where: file and line, for messages; with a sample, those of the user's own file.
        row: what the token store gives.
        prompt: the text before the answer.
        text: the answer, without the end of its turn.
        calls: the calls in it.
        read_from: file and line that the row was read from.
    """

    where: str
    row: Row
    prompt: str
    text: str
    calls: list[_rust.ToolCall]
    read_from: str

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The calls of the answer as the row has them, [start, end) in tokens; those of earlier turns are left out."""
        first = self.row["response_start"]
        return [(start, end) for start, end in self.row["spans"]["tool_call"].tolist() if start >= first]

    @cached_property
    def tools(self) -> list[dict[str, Any]]:
        """The definitions of the row's tools, without OpenAI's envelope."""
        return definitions(self.row["tools"])


def definitions(tools: str | None) -> list[dict[str, Any]]:
    """Tools as a row has them (JSON text), without OpenAI's envelope.

    Example:
        >>> definitions('[{"type": "function", "function": {"name": "f"}}]')
        [{'name': 'f'}]
    """
    return [tool.get("function", tool) for tool in json.loads(tools or "[]")]


def read_answer(rows: KDDataset, index: int, row: Row, sample: Sample | None = None) -> Answer:
    """The answer of one row.

    Args:
        rows: the dataset.
        index: the row's number in the token store.
        row: what the token store gives for it.
        sample: the sample, if the rows are those of the small run and the user's own places are to be named.
    """
    ids, first = row["ids"].tolist(), row["response_start"]
    answer, ends = ids[first : first + row["response_length"]], rows.turn_end_ids
    if ends and answer[-len(ends) :] == ends:
        answer = answer[: -len(ends)]
    prompt, text = rows.tokenizer.decode(ids[:first]), rows.tokenizer.decode(answer)
    calls = _rust.find_tool_calls(text, rows.formats, tools=row["tools"], thinking=thinking_after(prompt))
    read_from = place(rows, index)
    where = read_from if sample is None else own_place(rows, index, sample)
    return Answer(where, row, prompt, text, calls, read_from)


def place(rows: KDDataset, index: int) -> str:
    """Where a row of the token store comes from, for messages: "train.jsonl:5"."""
    path, line = rows.place(index)
    return f"{path.name}:{line}"


def own_place(rows: KDDataset, index: int, sample: Sample) -> str:
    """Where a row of the small run comes from in the user's files, for messages: its own file is gone afterwards.

    Args:
        rows: the rows of the small run.
        index: the row's number in the token store.
        sample: where each record was drawn from.
    """
    path, line = rows.place(index)
    with path.open("rb") as file:
        answers = sum(1 for _ in file) - len(sample.beside_texts)
    if line > answers:
        return f"record {line - answers} of data.train in the sample"
    if answers != len(sample.lines):  # some prompts have no answer to learn from
        return f"answer {line} of the fake teacher"
    own, number = sample.lines[line - 1]
    return f"{own.name}:{number}"


def spread_rows(rows: KDDataset, most: int = MOST_ROWS) -> list[int]:
    """Numbers of rows in the token store: all, or `most` of them, evenly spread."""
    chosen: list[int] = rows.rows.tolist()
    if len(chosen) > most:
        chosen = rows.rows[np.linspace(0, len(chosen) - 1, most).astype(int)].tolist()
    return chosen


def of_all(looked_at: int, rows: KDDataset, what: str = "rows") -> str:
    """How many were looked at, in words.

    Example:
        >>> class Rows(list):
        ...     pass
        >>> of_all(2, Rows([1, 2])), of_all(2, Rows(range(5)))
        ('2 rows', '2 of 5 rows, evenly spread')
    """
    return (
        f"{looked_at} {what}"
        if looked_at == len(rows)
        else f"{looked_at} of {len(rows)} {what}, evenly spread"
    )


def spread_answers(rows: KDDataset, sample: Sample | None = None) -> Iterator[Answer]:
    """The answers of rows that are spread over the data; `sample` if these may be the rows of the small run."""
    drawn = sample if sample is not None and sample.asked else None
    for index in spread_rows(rows):
        yield read_answer(rows, index, rows.store.row(index), drawn)


def sampled_answers(
    sample_rows: KDDataset, sampled: list[dict[str, Any]], sample: Sample | None = None
) -> Iterator[Answer]:
    """The answers of the sampled rows; with `sample`, their places are those of the user's own files."""
    for index, row in zip(sample_rows.rows.tolist(), sampled, strict=True):
        yield read_answer(sample_rows, index, row, sample)


def raw_records(sample_rows: KDDataset) -> dict[str, dict[str, Any]]:
    """The records of the sample as they are written, by their place; keys that are null are left out."""
    found: dict[str, dict[str, Any]] = {}
    for path in sample_rows.paths:
        with path.open("rb") as file:  # not as text: a lone carriage return would count as the end of a line
            for number, line in enumerate(file, 1):
                if line.strip():
                    record = json.loads(line.decode("utf-8-sig"))
                    found[f"{path.name}:{number}"] = {k: v for k, v in record.items() if v is not None}
    return found


def said_message(record: Mapping[str, Any], source: int) -> Mapping[str, Any] | None:
    """The message of a record that a row's answer comes from; None = the record gives it as text.

    Args:
        record: the record.
        source: whose answer the row holds, see `kdfast.batch.SOURCES`.

    Example:
        >>> said_message({"messages": [{"role": "user"}, {"role": "assistant", "content": "a"}]}, SOURCES["truth"])
        {'role': 'assistant', 'content': 'a'}
    """
    if source == SOURCES["teacher"]:
        return record.get("teacher_message")
    if "truth_message" in record or "truth_text" in record:
        return record.get("truth_message")
    messages = record.get("messages") or [{}]
    return messages[-1] if messages[-1].get("role") == "assistant" else None


def is_of_teacher_fields(record: Mapping[str, Any], source: int) -> bool:
    """Whether `teacher_prefix_ids` and `teacher_attention_mask` of a record are about this row."""
    has_teacher = "teacher_text" in record or "teacher_message" in record
    return source == SOURCES["teacher"] or not has_teacher


def some(lines: list[str], most: int = 5) -> str:
    """A few places in words.

    Example:
        >>> some(["a:1", "a:2", "a:3"], most=2)
        'a:1, a:2, ...'
    """
    return ", ".join(lines[:most]) + (", ..." if len(lines) > most else "")


def short(value: Any) -> str:
    """A value in at most 120 characters."""
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
