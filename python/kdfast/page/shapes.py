"""The section of shapes: which padded lengths the steps had, and how much of them was padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdfast.config import Config
from kdfast.errors import DataError
from kdfast.page.charts import Part, stack
from kdfast.page.history import History


@dataclass(frozen=True, kw_only=True)
class ShapeRow:
    """The logged steps of one shape.

    Attributes:
        shape: the padded length; 0 = all shapes together.
        steps: how many logged steps had this shape.
        rows: how many rows these steps read.
        tokens: how many tokens these rows have, without padding.
        padding: how many positions are padding.
        seconds: how long these steps took.
        chart: the drawing of tokens and padding.
    """

    shape: int
    steps: int
    rows: int
    tokens: int
    padding: int
    seconds: float
    chart: Markup

    @property
    def waste(self) -> float:
        """Which share of all positions is padding."""
        return self.padding / (self.tokens + self.padding)


@dataclass(frozen=True, kw_only=True)
class ShapeSection:
    """What the page shows of shapes.

    Attributes:
        rows: one row per shape, the smallest first; shapes without a logged step are left out.
        total: the sum over all rows; None = no line names a shape.
        unused: the shapes of the config that no logged step had.
        logged: how many steps were logged, and how many were run.
    """

    rows: Sequence[ShapeRow]
    total: ShapeRow | None
    unused: Sequence[int]
    logged: tuple[int, int]


def shape_section(history: History, config: Config) -> ShapeSection:
    """Adds up the logged training steps of each shape.

    Raises:
        DataError: the steps read more tokens than rows of their shape can hold.
    """
    sums: dict[int, tuple[int, float, float]] = {}
    for entry in history.train:
        if {"shape", "tokens"} <= entry.values.keys():
            shape = int(entry.values["shape"])
            seconds = entry.values.get("seconds", 0.0)
            steps, tokens, time = sums.get(shape, (0, 0.0, 0.0))
            sums[shape] = (steps + 1, tokens + entry.values["tokens"], time + seconds)
    rows = [_row(shape, *sums[shape], config.train.batch_size) for shape in sorted(sums)]
    return ShapeSection(
        rows=rows,
        total=_total(rows) if rows else None,
        unused=[shape for shape in config.data.shapes if shape not in sums],
        logged=(sum(row.steps for row in rows), max((entry.step for entry in history.train), default=0)),
    )


def _row(shape: int, steps: int, tokens: float, seconds: float, rows_per_step: int) -> ShapeRow:
    positions = steps * rows_per_step * shape
    if not 0 < tokens <= positions:
        raise DataError(
            f"metrics.jsonl: {steps} steps of {rows_per_step} rows of shape {shape} cannot hold that many tokens; "
            f"config.yaml and metrics.jsonl are of different runs, got {tokens:.0f}"
        )
    padding = positions - int(tokens)
    return _made(shape, steps, steps * rows_per_step, int(tokens), padding, seconds)


def _total(rows: Sequence[ShapeRow]) -> ShapeRow:
    return _made(
        0,
        sum(row.steps for row in rows),
        sum(row.rows for row in rows),
        sum(row.tokens for row in rows),
        sum(row.padding for row in rows),
        sum(row.seconds for row in rows),
    )


def _made(shape: int, steps: int, rows: int, tokens: int, padding: int, seconds: float) -> ShapeRow:
    parts = [
        Part(label="tokens", amount=tokens, style="used"),
        Part(label="padding", amount=padding, style="padding"),
    ]
    return ShapeRow(
        shape=shape,
        steps=steps,
        rows=rows,
        tokens=tokens,
        padding=padding,
        seconds=seconds,
        chart=stack(parts),
    )
