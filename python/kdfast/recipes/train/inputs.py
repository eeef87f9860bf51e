"""Whether the data carry what the enabled losses need: said before the first step, not by a loss that stays 0."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kdfast.config.kd import KDConfig
from kdfast.data import KDDataset
from kdfast.errors import ConfigError
from kdfast.losses import TERMS, TermSpec

SOURCES = {"ce_teacher": 0, "ce_truth": 1}


def check_inputs(kd: KDConfig, data: KDDataset) -> int:
    """Checks that every enabled term finds at least one row to act on.

    Args:
        kd: the config's section.
        data: the training rows.

    Returns:
        rows whose teacher distribution is known; 0 when no term asks for it.

    Raises:
        ConfigError: a term finds none; one line for each such term: its key, the field it needs, and how to get it.
    """
    enabled = [term for term in TERMS if getattr(kd, term.weight) > 0]
    known = _known(data) if any(term.name in ("kl", "sampled_kl") for term in enabled) else 0
    missing = [term for term in enabled if not _present(term, data, known)]
    if missing:
        lines = [
            f"kd.{term.weight}: needs {term.field}, which no training row carries; {term.remedy}, or set it to 0, "
            f"got {getattr(kd, term.weight)}"
            for term in missing
        ]
        raise ConfigError("\n".join(lines))
    return known


def _known(data: KDDataset) -> int:
    teacher = data.teacher
    return int(teacher.contains(data.keys(teacher.fingerprint)).sum()) if teacher is not None else 0


def _present(term: TermSpec, data: KDDataset, known: int) -> bool:
    if term.name == "kl":
        return known > 0
    if term.name == "sampled_kl":
        return known > 0 and data.teacher is not None and data.teacher.samples > 0
    return any(_ROW_HAS[term.name](row, data) for row in _rows(data))


def _rows(data: KDDataset) -> Iterator[dict[str, Any]]:
    return (data.store.row(int(index)) for index in data.rows)


_ROW_HAS: dict[str, Callable[[dict[str, Any], KDDataset], bool]] = {
    "ce_teacher": lambda row, _: int(row["source"]) == SOURCES["ce_teacher"],
    "ce_truth": lambda row, _: int(row["source"]) == SOURCES["ce_truth"],
    "length": lambda row, data: int(row["ids"][-1]) == data.turn_end_ids[-1],
    "early_tool_ce": lambda row, _: bool(row["tool_should_be_used"]) and len(row["teacher_prefix_ids"]) > 0,
    "early_tool_prior": lambda row, _: bool(row["tool_should_be_used"]),
    "early_tool_preamble": lambda row, _: (
        bool(row["tool_should_be_used"]) and len(row["teacher_prefix_ids"]) > 0
    ),
    "early_tool_negative": lambda row, _: not bool(row["tool_should_be_used"]),
}
