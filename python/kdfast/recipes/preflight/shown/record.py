"""What the run folder says of its preflight, and whether that still holds. No torch in here."""

from __future__ import annotations

import hashlib
import importlib.metadata
import time
from datetime import datetime
from pathlib import Path

from kdfast.config import Config
from kdfast.errors import DataError
from kdfast.exit_codes import DONE
from kdfast.files import write_document
from kdfast.recipes.preflight.shown.result import Result, read_preflight, skipped_document
from kdfast.runs.folder import RunFolder

HOLDS_S = 24 * 3600.0
"""A preflight that is older is made again."""


def kdfast_version() -> str:
    """The version of this package."""
    return importlib.metadata.version("kdfast")


def input_fingerprints(config: Config, *, trains_next: bool = False) -> dict[str, str]:
    """What decides a preflight beside the config: fingerprints of the files that it reads, and what comes next.

    Of weights it is the size and the time of the last change: hashing gigabytes takes longer than the checks.

    Args:
        config: the config.
        trains_next: training comes next, so that the teacher's answers and its store are read, too.

    Returns:
        name -> SHA-256 (hex), or another text that changes with the file; a file that is not there has none.

    Raises:
        OSError: a file cannot be read.
    """
    data, teacher = config.data, config.teacher
    files: dict[str, Path | None] = {
        "teacher.prompts": teacher.prompts,
        "data.validation": data.validation,
        "data.template": Path(data.template),
        "gates.baseline": config.gates.baseline,
    }
    trained = [file for file in data.train_files if trains_next or file != teacher.out]
    files |= {f"data.train {number}": file for number, file in enumerate(trained)}
    folders = {
        "data.tokenizer": data.tokenizer if data.tokenizer.is_dir() else data.tokenizer.parent,
        "arch.init": Path(config.arch.init),
        "teacher.model": teacher.model,
    }
    for key, folder in folders.items():
        if folder is not None:
            files |= {f"{key} {name}": folder / name for name in _SMALL_FILES}
    found = {"next": "train" if trains_next else "teach"}
    for name, path in files.items():
        if path is not None and path.is_file():
            with path.open("rb") as opened:
                found[name] = hashlib.file_digest(opened, "sha256").hexdigest()
    large = [path for folder in folders.values() if folder is not None for path in _weights(folder)]
    if trains_next and teacher.store is not None:
        large += sorted(teacher.store.glob("*.arrow")) if teacher.store.is_dir() else [teacher.store]
    return found | {str(path): _stamp(path) for path in large if path.is_file()}


_SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""Files of a model's folder that decide how it is read."""


def _weights(model: Path) -> list[Path]:
    return [model] if model.suffix.lower() == ".gguf" else sorted(model.glob("*.safetensors"))


def _stamp(path: Path) -> str:
    about = path.stat()
    return f"{about.st_size} bytes, {about.st_mtime_ns}"


def passed_before(config: Config, *, trains_next: bool = False, now: float | None = None) -> Result | None:
    """The result in the run folder if it still holds.

    It passed in the last day, with this config, these files and this kdfast, before the same next step. Keys, servers
    and disks change by themselves: so a day is the most.

    Args:
        config: the config.
        trains_next: training comes next.
        now: Unix seconds; None = the clock's.

    Returns:
        the result; None = there is none that holds.

    Raises:
        OSError: a file cannot be read.
    """
    try:
        found = read_preflight(RunFolder(config.io.run_dir).preflight)
    except (FileNotFoundError, NotADirectoryError, DataError):
        return None  # none, or a damaged one: it is made again
    if not isinstance(found, Result) or found.exit_code != DONE:
        return None
    age_s = (time.time() if now is None else now) - found.started_at
    same = (
        0 <= age_s <= HOLDS_S
        and found.config_fingerprint == config.fingerprint()
        and found.kdfast_version == kdfast_version()
        and found.inputs == input_fingerprints(config, trains_next=trains_next)
    )
    return found if same else None


def holds_text(result: Result) -> str:
    """That an earlier preflight holds, in one line.

    Args:
        result: what `passed_before` found.
    """
    when = datetime.fromtimestamp(result.started_at).astimezone().strftime("%Y-%m-%d %H:%M")
    return f"preflight: passed on {when}; config and data are the same since"


def record_skipped(config: Config, command: str) -> None:
    """Writes into the run folder that the user chose to have no preflight, unless one holds.

    Args:
        config: the config.
        command: by what: "kdfast teach --no-preflight".

    Raises:
        OSError: it cannot be written.
    """
    if passed_before(config) is None:
        document = skipped_document(command, at=time.time(), config_fingerprint=config.fingerprint())
        write_document(RunFolder(config.io.run_dir).preflight, document)
