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


def kdfast_version() -> str:
    """The version of this package."""
    return importlib.metadata.version("kdfast")


def input_fingerprints(config: Config) -> dict[str, str]:
    """SHA-256 (hex) of the files that decide what a teacher is asked; a file that is not there has none.

    Args:
        config: the config.

    Raises:
        OSError: a file cannot be read.
    """
    data, teacher = config.data, config.teacher
    tokenizer = data.tokenizer / "tokenizer.json" if data.tokenizer.is_dir() else data.tokenizer
    named: dict[str, Path | None] = {
        "teacher.prompts": teacher.prompts,
        "data.validation": data.validation,
        "data.tokenizer": tokenizer,
    }
    for number, file in enumerate(file for file in data.train_files if file != teacher.out):
        named[f"data.train {number}"] = file
    found = {}
    for name, path in named.items():
        if path is not None and path.is_file():
            with path.open("rb") as opened:
                found[name] = hashlib.file_digest(opened, "sha256").hexdigest()
    return found


def passed_before(config: Config) -> Result | None:
    """The result in the run folder if it still holds: it passed, with this config, these files and this kdfast.

    Args:
        config: the config.

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
    same = (
        found.config_fingerprint == config.fingerprint()
        and found.kdfast_version == kdfast_version()
        and found.inputs == input_fingerprints(config)
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
