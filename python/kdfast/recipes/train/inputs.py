"""Whether the data carry what the enabled losses need: said before the first step, not by a loss that stays 0."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kdfast.batch import SOURCES
from kdfast.config import Config
from kdfast.config.data import DataConfig
from kdfast.config.kd import KDConfig
from kdfast.config.section import invalid
from kdfast.data import KDDataset
from kdfast.errors import ConfigError
from kdfast.losses import TERMS, RowFacts, TermSpec
from kdfast.shapes import assign_shapes
from kdfast.teacher.local.scores import call_opening_ids

_OPENING_TERMS = ("early_tool_prior_weight", "early_tool_preamble_weight", "early_tool_negative_weight")
"""The keys of terms that look at the ids that can open a call."""

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
            Or the teacher's log-probabilities are of another temperature, or no id of the tokenizer opens a call.
    """
    if not live_teacher:
        _check_temperature(kd, data)
    _check_openings(kd, data)
    missing = [term for term in TERMS if getattr(kd, term.weight) > 0]
    taught = _taught(data)
    for facts in _facts(data, taught, live_teacher):
        missing = [term for term in missing if not term.present(facts)]
        if not missing:
            break
    if missing:
        raise ConfigError("\n".join(_missing(term, kd) for term in missing))
    return int(taught.sum())


def held_out_loss_problem(config: Config, held_out: KDDataset) -> str:
    """Why validations have no loss: no enabled term acts on a held-out row; "" = they have one.

    Args:
        config: the run's config.
        held_out: the held-out rows, with the run's teacher store.

    Raises:
        ConfigError: something that the config asks for needs that loss.
    """
    enabled = [term for term in TERMS if getattr(config.kd, term.weight) > 0]
    live = config.teacher.live
    facts = _facts(held_out, _taught(held_out), live)
    if any(term.present(fact) for fact in facts for term in enabled):
        return ""
    names = ", ".join(f"kd.{term.weight}" for term in enabled)
    seen = f"no held-out row has what an enabled loss term needs ({names})"
    needed = {
        "io.final: best": config.io.final == "best",
        "train.stop_after_validations": bool(config.train.stop_after_validations),
    }
    asked = [key for key, is_asked in needed.items() if is_asked]
    if asked:
        raise ConfigError(
            f"data.validation: {seen}, so that there is no held-out loss, which {asked[0]} needs; hold out rows like "
            f"those of data.train, or leave {asked[0]} out"
        )
    return f"{seen}: validations have no loss; hold out rows like those of data.train (`kdfast data split`)"


def _missing(term: TermSpec, kd: KDConfig) -> str:
    whose = "" if term.live else ", which no training row carries"
    weight = getattr(kd, term.weight)
    return f"kd.{term.weight}: needs {term.field}{whose}; {term.remedy}, or set it to 0, got {weight}"


def check_live_ids(data: KDDataset, usable: int) -> None:
    """Checks that a live teacher knows every id of the rows.

    Args:
        data: rows that it is going to read.
        usable: ids that it shares with the student.

    Raises:
        ConfigError: a row has another id.
    """
    for number, index in enumerate(data.rows):
        highest = max(data.store.row(int(index))["ids"])
        if highest >= usable:
            raise ConfigError(
                "data.tokenizer: a live teacher must know every id; use the teacher's tokenizer, or set teacher.live "
                f"to false: row {number} has the id {highest}, and only those below {usable} are shared"
            )


def check_shape_weights(data: DataConfig, lengths: NDArray[np.int32]) -> None:
    """Checks that some shape that has rows is ever drawn.

    Args:
        data: the config's section.
        lengths: [rows] tokens of each training row.

    Raises:
        ConfigError: every shape that has rows has the weight 0.

    Example:
        >>> config = DataConfig(train="t.jsonl", tokenizer="t", shapes=[8, 16], shape_probs=[0, 1])
        >>> check_shape_weights(config, np.array([5, 7], dtype=np.int32))
        Traceback (most recent call last):
        ...
        kdfast.errors.ConfigError: data.shape_probs: must be above 0 for a shape that has rows (8), got [0.0, 1.0]
    """
    if not isinstance(data.shape_probs, tuple):
        return
    used = sorted(set(assign_shapes(lengths, data.shapes).tolist()))
    if not any(data.shape_probs[index] > 0 for index in used):
        shapes = ", ".join(str(data.shapes[index]) for index in used)
        allowed = f"above 0 for a shape that has rows ({shapes})"
        raise invalid("data.shape_probs", allowed, list(data.shape_probs))


def _check_temperature(kd: KDConfig, data: KDDataset) -> None:
    teacher = data.teacher
    if teacher is not None and kd.kl_weight > 0 and kd.temperature != teacher.logprob_temperature:
        allowed = f"the temperature of the teacher's log-probabilities ({teacher.logprob_temperature})"
        raise invalid("kd.temperature", allowed, kd.temperature)


def _check_openings(kd: KDConfig, data: KDDataset) -> None:
    enabled = [name for name in _OPENING_TERMS if getattr(kd, name) > 0]
    if enabled and not call_opening_ids(data.pieces(), data.call_openings):
        openings = " or ".join(map(repr, data.call_openings))
        allowed = (
            f"0: no id of the tokenizer can open a call ({openings}); or set another data.tool_call_format"
        )
        raise ConfigError(
            "\n".join(str(invalid(f"kd.{name}", allowed, getattr(kd, name))) for name in enabled)
        )


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
