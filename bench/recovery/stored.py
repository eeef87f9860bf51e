"""What took minutes is kept in a folder, so that a run that was stopped goes on where it was.

Results are told apart by their settings only: empty the folder after a change of the code that makes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def stored(folder: Path, name: str, made_of: object, make: Callable[[], Any]) -> Any:
    """What `make` gave for the same settings before, else what it gives now.

    Args:
        folder: where results are kept.
        name: in the file's name, for people.
        made_of: the settings; their `repr` tells results apart.
        make: gives what `torch.save` can write.
    """
    digest = hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]
    file = folder / f"{name.replace(' ', '_').replace('+', 'and')}-{digest}.pt"
    if file.exists():
        return torch.load(file)
    made = make()
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part")
    torch.save(made, unfinished)
    unfinished.replace(file)
    return made
