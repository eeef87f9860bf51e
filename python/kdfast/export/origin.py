"""What an export was made from: the run or model, the teacher and its terms, the data, the fingerprints.

All of it leaves the machine. So there are names and no paths, a server's model and no address.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from kdfast._rust import Tokenizer
from kdfast.config import Config
from kdfast.errors import DataError
from kdfast.files import parse_json
from kdfast.runs.folder import STUDENT_ORIGIN, RunFolder
from kdfast.runs.node import Node
from kdfast.runs.student import weights_fingerprint

_CACHED = re.compile(r"models--(?P<name>.+)")
_TOLD = ("final", "ended", "qat", "format", "embeddings", "table")
_SAVE_AGAIN = "save the student again"


def public_name(path: Path | str) -> str:
    """The name of a model or file without its place; a model in the Hugging Face cache by its name on the hub.

    Examples:
        >>> public_name("/home/ada/models/SmolLM2"), public_name("teacher.gguf")
        ('SmolLM2', 'teacher.gguf')
        >>> public_name("/home/ada/.cache/hub/models--org--small/snapshots/0123")
        'org/small'
    """
    text = str(path)
    parts = (PureWindowsPath(text) if "\\" in text else PurePosixPath(text)).parts
    for part in parts:
        found = _CACHED.fullmatch(part)
        if found:
            return found["name"].replace("--", "/", 1)
    return parts[-1] if parts and parts[-1] not in (".", "..", "/") else Path(text).resolve().name


def source_of(named: Path, directory: Path) -> dict[str, Any]:
    """Which run or model was exported, and of which step its weights are.

    Args:
        named: what the user named: a run folder, or a Hugging Face directory.
        directory: the student's Hugging Face directory.

    Raises:
        DataError: the file that says where the weights come from is damaged.
        OSError: it cannot be read.
    """
    kind = "run" if RunFolder(named).holds_run else "model"
    found: dict[str, Any] = {"kind": kind, "name": public_name(named)}
    path = directory / STUDENT_ORIGIN
    if not path.is_file():
        return found
    try:
        origin = Node(parse_json(path.read_bytes()), str(path), _SAVE_AGAIN)
    except ValueError as error:
        raise DataError(f"not readable JSON ({error}); {_SAVE_AGAIN}", str(path)) from None
    step = origin.find("step")
    told = {key: value for key in _TOLD if (value := origin.find(key)) is not None}
    return {
        **found,
        **({"step": step.count()} if step is not None else {}),
        **{key: value.text() for key, value in told.items()},
    }


def teacher_of(config: Config | None) -> dict[str, Any]:
    """Who taught the student, by what, and whether the user has read the terms.

    `terms` is "acknowledged" where the user said so in `teacher.terms`, else "not stated".

    Args:
        config: the run's config; None = the student is no run's, so nothing is known.
    """
    if config is None:
        return {"kind": "unknown", "terms": "not stated"}
    teacher, api = config.teacher, config.api
    terms = teacher.terms or "not stated"
    if teacher.kind != "local":
        hosted = {} if api.base_url is None else {"hosted": api.hosted}
        return {"kind": teacher.kind, **_named(api.model), **hosted, "terms": terms}
    if teacher.model is None:
        return {"kind": "none", "terms": terms}
    gives = (["log-probabilities"] if teacher.store is not None or teacher.live else []) + (
        ["answers"] if teacher.out is not None else []
    )
    return {"kind": "local", **_named(teacher.model), "gives": gives, "terms": terms}


def data_of(config: Config | None) -> dict[str, list[dict[str, Any]]]:
    """The files that the student was trained and validated on: name, and rows and SHA-256 as they are now.

    A file that is no longer there has its name only.

    Raises:
        OSError: a file cannot be read.
    """
    if config is None:
        return {}
    train, held_out = config.data.train, config.data.validation
    named = {
        "train": train if isinstance(train, tuple) else (train,),
        "validation": () if held_out is None else (held_out,),
    }
    return {key: [_data_file(path) for path in paths] for key, paths in named.items()}


def fingerprints_of(directory: Path, config: Config | None, *, dataset: str | None = None) -> dict[str, str]:
    """SHA-256 of model, tokenizer, template and config, made as reports make them.

    Args:
        directory: the student's Hugging Face directory.
        config: the run's config; None = that of config.json is taken.
        dataset: the fingerprint of the held-out records that parity was measured on; None = left out.

    Raises:
        DataError: the tokenizer cannot be read.
        OSError: a file cannot be read.
    """
    settings = directory / "config.json"
    return {
        **({"dataset": dataset} if dataset is not None else {}),
        "tokenizer": Tokenizer.from_file(directory / "tokenizer.json").fingerprint,
        **_template(directory),
        "model": weights_fingerprint(directory),
        "config": config.fingerprint() if config else hashlib.sha256(settings.read_bytes()).hexdigest(),
    }


def _named(model: Path | str | None) -> dict[str, str]:
    """A server's model may be a path on it; a name with one slash is one of a hub."""
    if model is None:
        return {}
    hub = isinstance(model, str) and re.fullmatch(r"[\w.-]+/[\w.:-]+", model)
    return {"model": model if isinstance(model, str) and hub else public_name(model)}


def _data_file(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"file": path.name}
    if not path.is_file():
        return found
    total, rows = hashlib.sha256(), 0
    with path.open("rb") as file:
        for line in file:
            total.update(line)
            rows += bool(line.strip())
    return {**found, "rows": rows, "sha256": total.hexdigest()}


def _template(directory: Path) -> dict[str, str]:
    path = directory / "chat_template.jinja"
    if path.is_file():
        return {"template": hashlib.sha256(path.read_bytes()).hexdigest()}
    settings = directory / "tokenizer_config.json"
    try:
        document = parse_json(settings.read_bytes()) if settings.is_file() else None
    except ValueError as error:
        raise DataError(f"not readable JSON ({error}); {_SAVE_AGAIN}", str(settings)) from None
    given = document.get("chat_template") if isinstance(document, dict) else None
    if not given:
        return {}
    text = given if isinstance(given, str) else json.dumps(given, sort_keys=True)
    return {"template": hashlib.sha256(text.encode()).hexdigest()}
