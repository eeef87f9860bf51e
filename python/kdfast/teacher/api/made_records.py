"""Which answers the records of datasets were made from, as `kdfast teach` notes it in each record. No torch in here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdfast.errors import DataError
from kdfast.files import parse_json

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass
class MadeRecords:
    """The records of datasets, and the answers that they were made from.

    Attributes:
        paths: the datasets, JSONL.
        places: request hash -> file and line of the first record that was made from its answer.
        records: the records that were made from an answer, as far as `answers` has read.
        others: the records that do not say so.
        with_logprobs: the records of both kinds that carry log-probabilities (`teacher_topk`).

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "out.jsonl"
        >>> teacher = f'{{"request": "{"ab" * 32}", "response": "{"cd" * 32}"}}'
        >>> _ = path.write_text(f'{{"metadata": {{"teacher": {teacher}}}}}' + chr(10) + '{"prompt": "Hi"}')
        >>> made = MadeRecords([path])
        >>> list(made.answers()) == [("ab" * 32, "cd" * 32)], made.records, made.others
        (True, 1, 1)
    """

    paths: Sequence[Path]
    places: dict[str, str] = field(default_factory=dict)
    records: int = 0
    others: int = 0
    with_logprobs: int = 0

    def answers(self) -> Iterator[tuple[str, str]]:
        """(request hash, digest of the response) of each record that was made from an answer.

        Raises:
            DataError: a line is no JSON object, or names its answer in part only; names file, line and key.
            OSError: a file cannot be read.
        """
        for path in self.paths:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    content = line.removeprefix(_BYTE_ORDER_MARK).strip()
                    record = _object(content, path, number) if content else {"__header__": True}
                    if "__header__" in record:
                        continue
                    self.with_logprobs += _carries_logprobs(record)
                    answer = _answer(record, path, number)
                    if answer is None:
                        self.others += 1
                        continue
                    self.records += 1
                    self.places.setdefault(answer[0], f"{path}:{number}")
                    yield answer


def _object(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = parse_json(line)
    except ValueError as error:
        raise DataError(f"not JSON ({error}); name a dataset in JSONL", str(path), number) from None
    if not isinstance(record, dict):
        kind = type(record).__name__
        raise DataError(f"must be a JSON object; name a dataset in JSONL: {kind}", str(path), number)
    return record


def _answer(record: dict[str, Any], path: Path, number: int) -> tuple[str, str] | None:
    metadata = record.get("metadata")
    if isinstance(metadata, str):  # table exports write objects as texts
        metadata = _encoded(metadata)
    teacher = metadata.get("teacher") if isinstance(metadata, dict) else None
    if isinstance(teacher, str):
        teacher = _encoded(teacher)
    if not isinstance(teacher, dict):
        return None
    request, response = teacher.get("request"), teacher.get("response")
    if request is None and response is None:
        return None
    for key, value in (("request", request), ("response", response)):
        if not isinstance(value, str) or not _DIGEST.fullmatch(value):
            raise DataError(
                f"metadata.teacher.{key}: must be 64 hex digits, as `kdfast teach` writes them; "
                f"write the dataset again: {value!r}",
                str(path),
                number,
            )
    return str(request), str(response)


def _carries_logprobs(record: dict[str, Any]) -> bool:
    """Whether they are there for one token at least; whether they can be read, the reader of records says."""
    found = record.get("teacher_topk")
    if isinstance(found, str):
        found = _encoded(found)
    return isinstance(found, dict) and bool(found.get("ids"))


def _encoded(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return None
