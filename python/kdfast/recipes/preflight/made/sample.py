"""Draws the records of the small run: a few of the user's own, of every kind that there is."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdfast.config import Config
from kdfast.errors import ConfigError, DataError
from kdfast.recipes.preflight.facts import Sample
from kdfast.shapes import assign_shapes

if TYPE_CHECKING:
    from kdfast.data import KDDataset

RECORDS = 16
HELD_OUT = 6
BESIDE = 6
"""Records that are trained on beside the answers that are still to come."""
LOOKED_AT = 4096
"""Rows at most that are looked at to draw from, evenly spread over the file."""

Place = tuple[Path, int]


def draw_sample(
    config: Config, unanswered: bool, written_rows: KDDataset | None, held_out_rows: KDDataset | None
) -> Sample:
    """Some of the records that the config trains on; if answers are still to come, some of its prompts.

    They are spread over shapes, over whose answer it is, over records with and without tools, and over those that
    need a call and those that need none. `train.seed` decides which.

    Args:
        config: the config.
        unanswered: whether answers to prompts are still to come.
        written_rows: the rows that are there to train on; None = none are.
        held_out_rows: the held-out rows.

    Raises:
        ConfigError: there is nothing to draw from.
        DataError: a file has no record that can be used.
        OSError: a file cannot be read.
    """
    seed = config.train.seed
    held_out = () if held_out_rows is None else _texts(_places(held_out_rows, HELD_OUT, seed))
    asked = unanswered or written_rows is None
    beside: tuple[str, ...] = ()
    if written_rows is None or unanswered:
        places, of = _prompts(config, seed)
        if written_rows is not None:
            beside = _texts(_places(written_rows, BESIDE, seed))
    else:
        places = _places(written_rows, RECORDS, seed)
        of = len(written_rows)
    texts = _texts(places)
    return Sample(
        records=tuple(map(json.loads, texts)),
        texts=texts,
        beside_texts=beside,
        lines=tuple(places),
        held_out=tuple(map(json.loads, held_out)),
        held_out_texts=held_out,
        of=of,
        asked=asked,
    )


def spread(kinds: Sequence[Hashable], count: int, seed: int) -> list[int]:
    """Indices of `count` things, from every kind in turn, in ascending order.

    Args:
        kinds: the kind of each thing.
        count: how many to take; all, if there are no more.
        seed: decides which of each kind.

    Example:
        >>> chosen = spread(["a"] * 100 + ["b"] * 2 + ["c"], 6, seed=0)
        >>> len(chosen), [index for index in chosen if index >= 100]
        (6, [100, 101, 102])
    """
    rng = random.Random(seed)  # noqa: S311
    by_kind: dict[Hashable, list[int]] = defaultdict(list)
    for index, kind in enumerate(kinds):
        by_kind[kind].append(index)
    for indices in by_kind.values():
        rng.shuffle(indices)
    chosen: list[int] = []
    while len(chosen) < min(count, len(kinds)):
        for indices in by_kind.values():
            if indices and len(chosen) < count:
                chosen.append(indices.pop())
    return sorted(chosen)


def _places(rows: KDDataset, count: int, seed: int) -> list[Place]:
    """The places of some records, each once."""
    if not len(rows):
        raise DataError("no record can be used", str(rows.path))
    shapes = assign_shapes(rows.lengths, rows.shapes)
    kinds: dict[Place, tuple[Any, ...]] = {}
    for index in range(0, len(rows), 1 + len(rows) // LOOKED_AT):
        row = int(rows.rows[index])
        facts = rows.store.row(row)
        kind = (int(shapes[index]), bool(facts["tool_should_be_used"]), bool(facts["tools"]))
        place = rows.place(row)
        kinds[place] = (*kinds.get(place, ()), int(facts["source"]), kind)
    places = list(kinds)
    return [places[index] for index in spread(list(kinds.values()), count, seed)]


def _prompts(config: Config, seed: int) -> tuple[list[Place], int]:
    """The places of some prompts, and how many prompts there are."""
    from kdfast.teacher.prompts import read_prompts

    files = config.teacher.files
    if files is None:
        raise ConfigError(
            "data.train: not written yet, and there are no teacher.prompts to draw from; write the records, or set "
            f"teacher.prompts: {config.data.train_files[0]}"
        )
    prompts = read_prompts(files.prompts, config.data, {})
    if not prompts:
        raise DataError("no prompt can be used", str(files.prompts))
    sizes = [len(json.dumps(prompt.to_record())) for prompt in prompts]
    middle = sorted(sizes)[len(sizes) // 2]
    kinds = [
        (size > middle, bool(prompt.tools), prompt.should_call)
        for size, prompt in zip(sizes, prompts, strict=True)
    ]
    chosen = spread(kinds, RECORDS, seed)
    return [(files.prompts, prompts[index].line) for index in chosen], len(prompts)


def _texts(places: Iterable[Place]) -> tuple[str, ...]:
    """The lines at these places, as they are written."""
    places = list(places)
    wanted: dict[Path, set[int]] = defaultdict(set)
    for path, line in places:
        wanted[path].add(line)
    found: dict[Place, str] = {}
    for path, lines in wanted.items():
        with path.open("rb") as file:  # not as text: a lone carriage return would count as the end of a line
            for number, content in enumerate(file, 1):
                if number in lines:
                    found[path, number] = content.decode().removeprefix("\ufeff").rstrip("\r\n")
    return tuple(found[place] for place in places)
