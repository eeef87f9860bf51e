"""Files of records, or of prompts without an answer, that a tokenizer is learned from. No torch in here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdfast import _rust
from kdfast.config import DataConfig
from kdfast.data.token_rows import write_lines
from kdfast.errors import DataError
from kdfast.teacher.prompts import read_prompts

_STAND_IN = {"teacher_text": "ok"}
"""A row needs an answer; where a record has none, this one is cut off again."""
_OF_ANOTHER_TOKENIZER = ("teacher_topk", "teacher_attention_mask", "teacher_prefix_ids")
_HEADER = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"__header__"')


@dataclass(frozen=True, kw_only=True)
class RecordFile:
    """A file of records, or of prompts without an answer.

    Attributes:
        path: the user's file.
        read: the file that is read: `path`, or its prompts with an answer each.
        lines: line of `read` -> line of `path`, and whether the answer is the record's own; None = `path` is read.
    """

    path: Path
    read: Path
    lines: Sequence[tuple[int, bool]] | None = None

    @classmethod
    def of(cls, path: Path, folder: Path) -> RecordFile:
        """Looks at the first record: without an answer, the file is one of prompts.

        Args:
            path: JSONL.
            folder: where the prompts are written with an answer each.

        Raises:
            DataError: a line of a file of prompts is bad, or there is none.
            OSError: a file cannot be read or written.
        """
        if not _asks_only(path, folder):
            return cls(path=path, read=path)
        records, lines = [], []
        for prompt in read_prompts(path, DataConfig(train=path, tokenizer=path)):
            record = prompt.to_record()
            answered = "truth_text" in record or "truth_message" in record
            records.append(record if answered else record | _STAND_IN)
            lines.append((prompt.line, answered))
        read = folder / f"prompts-{len(list(folder.iterdir()))}.jsonl"
        write_lines(read, records)
        return cls(path=path, read=read, lines=lines)

    def own_error(self, error: DataError) -> DataError:
        """An error of the file that is read, as one of the user's file."""
        line, column, message = error.line, error.column, error.message
        if self.lines is not None and line is not None:
            line, column = self.lines[line - 1][0], None
        if any(name in message for name in _OF_ANOTHER_TOKENIZER):
            message = f"{message}; it was counted with another tokenizer: remove it"
        return DataError(message, str(self.path), line, column)

    def answered(self, lines: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the answers of these lines of `read` are the records' own, bool [R]."""
        if self.lines is None:
            return np.ones(len(lines), dtype=np.bool_)
        own = np.array([answered for _, answered in self.lines], dtype=np.bool_)
        return own[lines - 1]


def _asks_only(path: Path, folder: Path) -> bool:
    """Whether a file's first record is a prompt without an answer; what is wrong with the file, its reader says."""
    head = folder / "head.jsonl"
    with path.open("rb") as file:
        first = next((line for line in file if line.strip() and not _HEADER.match(line)), b"")
    head.write_bytes(first)
    return not _readable(head, "records") and _readable(head, "prompts")


def _readable(path: Path, lines: str) -> bool:
    try:
        _rust.read_jsonl(
            path,
            lines=lines,
            on_error="raise",
            max_rejected_fraction=0.0,
            max_line_bytes=DataConfig.max_line_bytes,
            allow_reasoning=True,
            threads=1,
        )
    except DataError:
        return False
    return True
