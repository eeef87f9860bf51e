"""How much is run, and the run that only shows that it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from recovery.student import Size


@dataclass(frozen=True)
class Setting:
    """How much is run.

    Attributes:
        size: the student and its rows.
        spread: of the student's columns, see recovery/outliers.py.
        steps: of each arm.
        other_steps: other lengths, for some of the arms and one seed.
        other_spreads: other spreads of the columns, for some of the arms and one seed.
        seeds: orders of the rows.
        prompts: of the generation, of one seed.
        rates: tried for each arm, and those beyond them while the best is at an end; one = not tuned.
    """

    size: Size = field(default_factory=Size)
    spread: float = 1.0
    steps: int = 150
    other_steps: tuple[int, ...] = (30, 600)
    other_spreads: tuple[float, ...] = (0.0, 0.7, 1.3)
    seeds: int = 3
    prompts: int = 400
    rates: tuple[float, ...] = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)


QUICK = Setting(
    Size(
        hidden=64,
        layers=1,
        intermediate=64,
        heads=2,
        train_rows=64,
        held_out_rows=12,
        tune_rows=4,
        float_steps=4,
        float_batch=4,
    ),
    steps=2,
    other_steps=(3,),
    other_spreads=(0.5,),
    seeds=1,
    prompts=2,
    rates=(1e-3,),
)
