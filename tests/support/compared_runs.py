"""Runs to compare, made by hand, and the cells of their table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from made_run import write_run

from kdfast.page.compare import Run
from kdfast.page.compare.comparable import comparability
from kdfast.page.compare.numbers import Cell, number_tables
from kdfast.runs.reading import read_run
from kdfast.runs.saved import Saved, read_saved

INPUTS = {
    "data.validation": "rows",
    "data.tokenizer": "words",
    "data.template": "marks",
    "data.tool_call_format": "hermes",
    "teacher.store": "abc with 40 rows",
}


def made(folder: Path, name: str = "run", inputs: dict[str, str] | None = None, **files: Any) -> Run:
    path = write_run(folder / name, **files)
    saved = read_saved(path)
    return Run(
        label=name,
        files=read_run(path),
        saved=Saved(parameters=saved.parameters, inputs=INPUTS if inputs is None else inputs),
    )


def asked(document: dict[str, Any], prompts: str = "p", truth: str = "t", limit: int = 64) -> dict[str, Any]:
    """An evaluation that says which prompts it has."""
    decoding = {"max_new_tokens": limit, "formats": ["hermes"]}
    return document | {"fingerprints": {"prompts": prompts, "truth": truth}, "decoding": decoding}


def cells(runs: list[Run], label: str) -> list[Cell]:
    (row,) = [
        row for table in number_tables(runs, comparability(runs)) for row in table.rows if row.label == label
    ]
    return list(row.cells)


def letters(runs: list[Run], label: str) -> list[str]:
    tables = number_tables(runs, comparability(runs))
    return next(list(row.letters) for table in tables for row in table.rows if row.label == label)
