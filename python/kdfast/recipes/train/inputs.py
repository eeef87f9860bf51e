"""Whether the data carry what the enabled losses need: said before the first step, not by a loss that stays 0."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kdfast.batch import SOURCES
from kdfast.config.kd import KDConfig
from kdfast.data import KDDataset
from kdfast.errors import ConfigError
from kdfast.losses import TERMS, RowFacts

_NAMES = {number: name for name, number in SOURCES.items()}


def check_inputs(kd: KDConfig, data: KDDataset, *, live_teacher: bool = False) -> int:
    """Checks that every enabled term finds at least one row to act on.

    Args:
        kd: the config's section.
        data: the training rows.
        live_teacher: whether a teacher runs beside the student.

    Returns:
        rows whose teacher distribution is known.

    Raises:
        ConfigError: a term finds none; one line for each such term: its key, the field it needs, and how to get it.
    """
    missing = [term for term in TERMS if getattr(kd, term.weight) > 0]
    taught = _taught(data)
    for facts in _facts(data, taught, live_teacher):
        missing = [term for term in missing if not term.present(facts)]
        if not missing:
            break
    if missing:
        lines = [
            f"kd.{term.weight}: needs {term.field}, which no training row carries; {term.remedy}, or set it to 0, "
            f"got {getattr(kd, term.weight)}"
            for term in missing
        ]
        raise ConfigError("\n".join(lines))
    return int(taught.sum())


def _taught(data: KDDataset) -> np.ndarray:
    """[rows] bool, whether the teacher store holds the row."""
    teacher = data.teacher
    if teacher is None:
        return np.zeros(len(data), dtype=bool)
    return np.asarray(teacher.contains(data.keys(teacher.fingerprint)), dtype=bool)


def _facts(data: KDDataset, taught: np.ndarray, live_teacher: bool) -> Iterator[RowFacts]:
    samples = data.teacher.samples if data.teacher is not None else 0
    for number, index in enumerate(data.rows):
        row = data.store.row(int(index))
        yield RowFacts(
            source=_NAMES[int(row["source"])],
            ended=int(row["ids"][-1]) == data.turn_end_ids[-1],
            should_call=bool(row["tool_should_be_used"]),
            has_prefix=len(row["teacher_prefix_ids"]) > 0,
            taught=bool(taught[number]),
            drawn=bool(taught[number]) and samples > 0,
            live_teacher=live_teacher,
        )
