"""A run goes on with what it was started with: its records, tokenizer, template, teacher and first weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdfast.config import Config
from kdfast.data import KDDataset
from kdfast.errors import ConfigError
from kdfast.recipes.train.data import RunData
from kdfast.teacher import model_directory, model_fingerprint

STATE_KEY = "inputs"
"""The key of the fingerprints in a checkpoint's state."""

_NONE = "none"


def input_fingerprints(config: Config, data: RunData) -> dict[str, str]:
    """What each input of a run is, by its content: a file may be moved or renamed, but not changed.

    Args:
        config: the run's config.
        data: the run's rows.

    Returns:
        config key -> hash, or "none" for an input that the run does not have.

    Raises:
        ConfigError: the model that the student starts from, or the live teacher, is not there.
        OSError: it cannot be read.
    """
    header = data.train.store.header()
    teacher = data.train.teacher
    return {
        "data.train": data.train.content,
        "data.validation": _content(data.validation),
        "data.tokenizer": header["kdfast.tokenizer"],
        "data.template": header["kdfast.template"],
        "data.tool_call_format": header["kdfast.formats"],
        "teacher.store": _NONE if teacher is None else f"{teacher.fingerprint} with {len(teacher)} rows",
        "teacher.live": _live_teacher(config),
        "arch.init": _first_weights(config),
    }


def check_same_inputs(state: Mapping[str, Any], now: Mapping[str, str], checkpoint: Path) -> str:
    """Refuses to go on with other inputs.

    Args:
        state: what the checkpoint holds of the loop.
        now: see `input_fingerprints`.
        checkpoint: its directory, for the message.

    Returns:
        a warning; "" = everything was compared.

    Raises:
        ConfigError: an input changed; the message names each, with both fingerprints.
    """
    saved = state.get(STATE_KEY)
    if saved is None:
        return (
            "the checkpoint is of an older kdfast and does not say which inputs it was made with: they are not "
            f"compared ({checkpoint})"
        )
    changed = [
        f"{key} is {_short(now[key])}, the run has {_short(saved[key])}"
        for key in now
        if key in saved and saved[key] != now[key]
    ]
    if changed:
        raise ConfigError(
            f"{changed[0].split()[0]}: changed since the checkpoint was written, and the run would go on with other "
            f"inputs ({'; '.join(changed)}); put back what it was, or start a new run in another io.run_dir: "
            f"{checkpoint}"
        )
    return ""


def _short(fingerprint: str) -> str:
    return fingerprint if " " in fingerprint else fingerprint[:12]


def _content(dataset: KDDataset | None) -> str:
    return _NONE if dataset is None else dataset.content


def _live_teacher(config: Config) -> str:
    """The model that runs beside the student; it may be moved, but not changed."""
    model = config.teacher.model if config.teacher.live else None
    return _NONE if model is None else model_fingerprint(model_directory(model))


def _first_weights(config: Config) -> str:
    """The model that the student starts from; once there is a checkpoint it is not read again, but it names the run."""
    init = config.arch.init
    if init == "scratch":
        return "scratch"
    source = config.teacher.model if init == "teacher" else Path(init)
    return _NONE if source is None else model_fingerprint(model_directory(source))
