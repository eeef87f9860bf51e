"""Rows for the preflight's checks of data: the clean sample with one thing broken, or datasets of a test's own."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from preflight_objects import clean

from kdfast.config import Config
from kdfast.data import KDDataset
from kdfast.recipes.preflight.made.objects import Objects

Json = dict[str, Any]
_KEPT = (
    "reader", "machine", "plan", "written_rows", "held_out_rows", "sample", "figures", "small", "sample_rows",
    "train_rows", "sampled", "batches", "student", "student_note", "learner", "live_teacher", "objective",
)  # fmt: skip


def write(path: Path, records: list[Json]) -> Path:
    """Writes records to a JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def rows_of(directory: Path, records: list[Json], name: str = "train.jsonl", **keys: Any) -> KDDataset:
    """The dataset of a test's own records, read as the clean project's; `keys` are of the section `data`."""
    data = replace(clean().get("config").data, cache=directory / "stores", **keys)
    return KDDataset.from_config(data, write(directory / name, records))


def with_config(config: Config) -> Objects:
    """The clean objects beside another config, so that only checks of the config itself see the difference."""
    return clean().replaced(config=config, **{name: clean().get(name) for name in _KEPT})


def changed(section: str, **keys: Any) -> Config:
    """The clean project's config with other keys in one section."""
    config: Config = clean().get("config")
    return replace(config, **{section: replace(getattr(config, section), **keys)})


def break_row(which: Callable[[Json], bool], change: Callable[[Json], None]) -> Objects:
    """The clean objects with one of the sampled rows changed: the first that `which` accepts."""
    sampled = [copy.deepcopy(row) for row in clean().get("sampled")]
    change(next(row for row in sampled if which(row)))
    return clean().replaced(sampled=sampled)


def calls(row: Json) -> bool:
    """Whether a row's answer has a call."""
    return len(row["spans"]["tool_call"]) > 0


def any_row(row: Json) -> bool:
    """Any row."""
    return bool(row)
