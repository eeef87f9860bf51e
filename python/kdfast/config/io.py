"""Section `io`: where a run is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from kdfast.config.section import Key, Section


@dataclass(frozen=True, kw_only=True)
class IOConfig(Section):
    """The run folder and what is written besides.

    Examples:
        >>> IOConfig(run_dir="runs/first").tensorboard
        False
    """

    section: ClassVar[str] = "io"

    run_dir: Annotated[
        Path,
        Key(
            "Folder of the run: config, metrics, checkpoints, the final student. One config a folder.",
            on_resume=True,
        ),
    ]
    tensorboard: Annotated[
        bool, Key("Also write TensorBoard events (needs the extra kdfast[tensorboard]).", on_resume=True)
    ] = False
    final: Annotated[
        Literal["last", "best"],
        Key(
            "The weights of student/: the 'last' step's, or those of the checkpoint with the lowest held-out loss"
            " ('best').",
            on_resume=True,
        ),
    ] = "last"
