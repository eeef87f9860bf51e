"""The prompts of a dataset, to measure with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

from kdfast._rust import Tokenizer, TokenStore, thinking_closing
from kdfast.batch import SOURCES
from kdfast.scoring import FORMATS, read_accepted
from kdfast.speed.sample import SpeedPrompt
from kdfast.speed.shortest import shortest_call_tokens


class Rows(Protocol):
    """The part of a `KDDataset` that this module reads."""

    rows: Any
    lengths: Any
    path: Path
    store: TokenStore
    tokenizer: Tokenizer

    @property
    def shapes(self) -> Sequence[int]:
        """Padded lengths, ascending."""
        ...

    @property
    def turn_end_ids(self) -> list[int]:
        """The token ids that end an assistant's turn."""
        ...

    def one_row_a_record(self) -> list[int]:
        """One row of each record, in the order of the file."""
        ...


def speed_prompts(
    dataset: Rows, count: int = 0, *, spread: bool = False, formats: Sequence[str] = FORMATS
) -> list[SpeedPrompt]:
    """The prompts of a dataset, one per record. If a record has two rows, the one with the ground truth is used.

    Args:
        dataset: a `KDDataset`.
        count: the largest number of prompts; 0 = all.
        spread: choose prompts from all shapes in turn, first those that need a call; else the first of the file.
        formats: the call formats that count, see `kdfast.find_tool_calls`.

    Raises:
        DataError: a record's accepted values do not have BFCL's form.
        SchemaError: the parameters of a prompt's tools are not a valid JSON Schema.
    """
    chosen: Iterable[int] = dataset.one_row_a_record()
    if spread:
        chosen = _spread(dataset, chosen)
    places = list(chosen)
    return [_prompt(dataset, place, formats) for place in (places[:count] if count else places)]


def _spread(dataset: Rows, places: Iterable[int]) -> Iterator[int]:
    groups: dict[bool, dict[int, list[int]]] = {True: {}, False: {}}
    for place in places:
        needed = bool(dataset.store.row(int(dataset.rows[place]))["tool_should_be_used"])
        groups[needed].setdefault(_shape(dataset, place), []).append(place)
    for needed in (True, False):
        shapes = groups[needed]
        for turn in zip_longest(*(shapes[shape] for shape in sorted(shapes))):
            yield from (place for place in turn if place is not None)


def _shape(dataset: Rows, place: int) -> int:
    return next(shape for shape in dataset.shapes if shape >= dataset.lengths[place])


def _prompt(dataset: Rows, place: int, formats: Sequence[str]) -> SpeedPrompt:
    row = dataset.store.row(int(dataset.rows[place]), dataset.shapes[-1])
    ids, start = row["ids"].tolist(), int(row["response_start"])
    tools, needed = row["tools"] or "", bool(row["tool_should_be_used"])
    accepted = read_accepted(row["metadata"], str(dataset.path), int(row["line"]))
    reference = dataset.tokenizer.decode(
        [token for token in ids[start:] if token not in dataset.turn_end_ids]
    )
    text, shortest = dataset.tokenizer.decode(ids[:start]), None
    if needed and (accepted is not None or int(row["source"]) == SOURCES["truth"]):
        shortest = shortest_call_tokens(
            reference,
            accepted,
            tools,
            dataset.tokenizer,
            formats,
            thinking_closing=thinking_closing(text) or "",
        )
    return SpeedPrompt(
        text=text,
        tools=tools,
        needs_call=needed,
        shortest_call_tokens=shortest,
        shape=_shape(dataset, place),
        line=int(row["line"]),
        reference=reference,
        accepted=accepted,
    )
