"""The metrics and the answers of a run as CSV files beside the JSON ones, for spreadsheets and data frames.

The files are RFC 4180 in UTF-8: commas, CRLF, quotes where they are needed; a line break in an answer stays in its
quotes. The JSON file is the original; each function writes its CSV file anew, whole or not at all.

A model may write `=HYPERLINK(...)`, and a spreadsheet would run it. So a text that a spreadsheet takes for a formula
(see `FORMULA_STARTS`) gets a `'` in front, and so does a text that begins with `'` itself: to have the exact text
back, take one leading `'` away. Numbers are never changed.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdfast.errors import DataError
from kdfast.files import parse_json, write_text_whole
from kdfast.runs.node import Node

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - wide forms count too
"""How a text begins that some spreadsheet runs as a formula."""

_FIRST = ("prompt", "mode", "line", "category")
_LAST = ("reference_text", "text")
_REMEDY = "make the evaluation again"


def csv_path(path: Path) -> Path:
    """The CSV file beside a JSON file.

    Examples:
        >>> [csv_path(Path(name)).name for name in ("metrics.jsonl", "evaluation_after.json", "student.v1")]
        ['metrics.csv', 'evaluation_after.csv', 'student.v1.csv']
    """
    return (
        path.with_suffix(".csv") if path.suffix in (".json", ".jsonl") else path.with_name(f"{path.name}.csv")
    )


def write_metrics_csv(metrics: Path) -> Path:
    """Writes `metrics.csv` beside `metrics.jsonl`: one row a line, one column a name, in the order of appearance.

    The run may still be going: a last line that is not whole yet is left out. A cell is empty if its line lacks the
    name, or has null; a list or an object is JSON text.

    Args:
        metrics: the file of `kdfast.runs.metrics.MetricsLog`.

    Returns:
        the CSV file.

    Raises:
        DataError: a line is not a JSON object; names the file and the line.
        OSError: a file cannot be read or written.
    """
    return _write(csv_path(metrics), ("step", "kind"), _whole_lines(metrics), ())


def write_evaluation_csv(evaluation: Path, document: Mapping[str, Any]) -> Path:
    """Writes the answers of an evaluation beside its JSON file: one row an answer, with its scores.

    The rows are in the order of the file, numbered by `prompt`. First come the free answers, then, if the prompts were
    answered a second time, the constrained ones; `mode` says which.

    Args:
        evaluation: the JSON file; it is not read.
        document: its content.

    Returns:
        the CSV file.

    Raises:
        DataError: the document is not an evaluation; names the file and the key.
        OSError: the file cannot be written.
    """
    root = Node(document, str(evaluation), _REMEDY)
    rows = _answers(root, "free")
    constrained = root.find("constrained")
    if constrained is not None:
        rows += _answers(constrained, "constrained")
    return _write(csv_path(evaluation), _FIRST, rows, _LAST)


def _whole_lines(file: Path) -> list[dict[str, Any]]:
    *lines, rest = file.read_bytes().split(b"\n")  # the rest has no newline yet: empty, or being written
    found = []
    for number, line in enumerate([*lines, rest] if rest else lines, 1):
        try:
            value = parse_json(line)
        except ValueError as error:
            if number > len(lines):
                break
            raise DataError(f"not a JSON object: {error}", str(file), number) from None
        if not isinstance(value, dict):
            raise DataError(f"must be a JSON object, got {type(value).__name__}", str(file), number)
        found.append(value)
    return found


def _answers(side: Node, mode: str) -> list[dict[str, Any]]:
    rows = []
    for number, node in enumerate(side["answers"].list(), 1):
        row: dict[str, Any] = {"prompt": number, "mode": mode}
        for name, value in node.object().items():
            row |= _score(node[name]) if name == "score" else {name: value}
        rows.append(row)
    return rows


def _score(score: Node) -> dict[str, Any]:
    """The score's numbers, its mismatch in two cells of its own."""
    row = {name: value for name, value in score.object().items() if name != "mismatch"}
    mismatch = score.find("mismatch")
    found = mismatch.object() if mismatch is not None else {}
    return row | {f"mismatch_{name}": found.get(name) for name in ("reason", "detail")}


def _write(path: Path, first: Sequence[str], rows: Sequence[Mapping[str, Any]], last: Sequence[str]) -> Path:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [*first, *(name for name in names if name not in (*first, *last)), *last]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(map(_cell, columns))
    writer.writerows(_cells(row, columns) for row in rows)
    write_text_whole(path, text.getvalue())
    return path


def _cells(row: Mapping[str, Any], columns: Iterable[str]) -> list[str]:
    return [_cell(row.get(name)) for name in columns]


def _cell(value: Any) -> str:
    """A JSON value as the text of a cell.

    Examples:
        >>> [_cell(value) for value in (None, True, -0.5, [1, "a"], "=1+1", "'tis", "a=b")]
        ['', 'true', '-0.5', '[1, "a"]', "'=1+1", "''tis", 'a=b']
    """
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text.encode("utf-8", "replace").decode("utf-8")  # half of a surrogate pair cannot be written
    formula = isinstance(value, str) and text.startswith((*FORMULA_STARTS, "'"))
    return f"'{text}" if formula else text
