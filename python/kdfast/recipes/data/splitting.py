"""Splits a file of records into training and held-out records, so that nothing held out is known from training."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

from kdfast import _rust
from kdfast.config import DataConfig
from kdfast.errors import ConfigError, DataError
from kdfast.files import write_text_whole
from kdfast.importers.components import components

_NO_WORD = re.compile(r"[\W_]+")
BY = ("prompt,tools", "prompt")
"""What two records must not share across the split: a prompt or a set of tools; or a prompt only."""


def split(path: Path, out: Path, *, fraction: float, by: str, seed: int) -> str:
    """Writes `out/train.jsonl` and `out/validation.jsonl`; every record's line goes to one of them, a header to both.

    Records that ask the same (up to case, spaces and punctuation) or offer the same set of tools, directly or through
    others, go to the same side.

    Args:
        path: records, JSONL.
        out: the directory to write into; made if missing.
        fraction: the share of records to hold out, between 0 and 1.
        by: one of `BY`.
        seed: decides which groups are held out.

    Returns:
        a line of text that says what was written.

    Raises:
        ConfigError: an output is there already, or the records are one group and cannot be split.
        DataError: bad data.
        OSError: a file cannot be read or written.
    """
    files = {side: out / f"{side}.jsonl" for side in ("train", "validation")}
    for file in files.values():
        if file.exists():
            raise ConfigError(f"--out: is there already; remove it or choose another directory: {file}")
    records, lines, header = _read(path)
    groups = components([_keys(record, by) for record in records])
    held_out = choose(groups, round(fraction * len(records)), seed)
    if not held_out or len(held_out) == len(records):
        remedy = "take --by prompt if all share one set of tools, or " if by == BY[0] else ""
        found = f"{len(groups)} groups" if len(groups) > 1 else "one group"
        raise ConfigError(
            f"--fraction: {fraction} of {len(records)} records cannot be held out without a leak (they are {found}, "
            f"the largest has {max(map(len, groups))}); {remedy}collect more different records: {path}"
        )
    out.mkdir(parents=True, exist_ok=True)
    for side, file in files.items():
        chosen = [line for index, line in enumerate(lines) if (index in held_out) == (side == "validation")]
        write_text_whole(file, "".join(line + "\n" for line in [*header, *chosen]))
    return (
        f"{files['train']}: {len(records) - len(held_out)} records, {files['validation']}: {len(held_out)} records; "
        f"{len(groups)} groups, none on both sides"
    )


def choose(groups: list[list[int]], count: int, seed: int) -> set[int]:
    """About `count` records in whole groups, drawn with a seed; never more than `count`.

    Args:
        groups: the indices of each group's records.
        count: how many records to choose.
        seed: decides the order in which groups are tried.

    Example:
        >>> sorted(choose([[0, 1, 2], [3], [4]], 2, seed=0))
        [3, 4]
    """
    order = list(groups)
    random.Random(seed).shuffle(order)  # noqa: S311
    chosen: set[int] = set()
    for group in order:
        if len(chosen) + len(group) <= count:
            chosen.update(group)
    return chosen


def _read(path: Path) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """The records, which must all be good, their lines, and the header's line if there is one."""
    records, _ = _rust.read_jsonl(
        path,
        lines="records",
        on_error="raise",
        max_rejected_fraction=0.0,
        max_line_bytes=DataConfig.max_line_bytes,
        allow_reasoning=True,
        threads=0,
    )
    # not read_text: it takes a lone carriage return for the end of a line
    text = [line.removeprefix("\ufeff").rstrip("\r") for line in path.read_bytes().decode().split("\n")]
    lines = [text[record["line"] - 1] for record in records]
    header = [line for line in text[: records[0]["line"] - 1] if line.strip()]
    if len(records) < 2:
        raise DataError("holds one record: there is nothing to split", str(path))
    return records, lines, header


def _keys(record: dict[str, Any], by: str) -> list[tuple[str, str]]:
    prompt = record.get("prompt") or json.dumps(record.get("messages"), ensure_ascii=False)
    question = _NO_WORD.sub(" ", prompt).strip().casefold() or prompt
    tools = record.get("tools")
    keys = [("prompt", question)]
    if by == BY[0] and tools:
        keys.append(("tools", json.dumps(sorted(json.dumps(tool, sort_keys=True) for tool in tools))))
    return keys
