"""Whether a path holds a model, told from its name and first bytes. No torch in here, and no transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdfast.errors import ConfigError, DataError, KdfastError, TeacherError
from kdfast.files import parse_json

SOURCE_FILE = "kdfast_source.json"
"""A file in a converted directory, with the SHA-256 of the GGUF file that it was made from."""

_MAGIC = b"GGUF"


def check_gguf(path: Path, *, name: str) -> None:
    """Checks that a path is a GGUF file.

    Args:
        path: what the user named.
        name: how the message calls it, such as "teacher.model".

    Raises:
        TeacherError: there is no such file, or it does not begin as GGUF files do.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise TeacherError(f"{name}: no such file (check the path): {path}")
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise TeacherError(f"{name}: this is no GGUF file, fetch it again: {path}")


def converted_directory(gguf: Path) -> Path:
    """Where a GGUF file is converted to, once: a directory beside it.

    Example:
        >>> converted_directory(Path("models/small.gguf")).name
        'small.hf'
    """
    return gguf.with_name(gguf.stem + ".hf")


def check_converted(directory: Path) -> None:
    """Checks that a GGUF file may be converted into a directory, which would be replaced.

    Raises:
        ConfigError: it is a file, or holds files of somebody else.

    Example:
        >>> import tempfile
        >>> directory = Path(tempfile.mkdtemp())
        >>> check_converted(directory)
        >>> (directory / "thesis.txt").touch()
        >>> check_converted(directory)
        Traceback (most recent call last):
        ...
        kdfast.errors.ConfigError: directory: holds other files, which would be lost; name a new directory: ...
    """
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"directory: must be a directory, this is a file; choose another path: {directory}")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / SOURCE_FILE).is_file():
        raise ConfigError(
            f"directory: holds other files, which would be lost; name a new directory: {directory}"
        )


def check_model_directory(path: Path, *, error: type[KdfastError], name: str) -> None:
    """Checks that a path is a directory with a config.json that is a JSON object; no weight is read.

    Args:
        path: what the user named.
        error: the class of the error to raise.
        name: how the message calls it, such as "arch.init".

    Raises:
        KdfastError: of the class `error`: it is not. A GGUF file that lies there instead is named.
        OSError: config.json cannot be read.

    Example:
        >>> check_model_directory(Path("nowhere"), error=ConfigError, name="arch.init")
        Traceback (most recent call last):
        ...
        kdfast.errors.ConfigError: arch.init: no such file or directory; give a Hugging Face model directory: nowhere
    """
    if not path.exists():
        raise error(f"{name}: no such file or directory; give a Hugging Face model directory: {path}")
    if not path.is_dir():
        raise error(f"{name}: this is a file; {_remedy(path)}: {path}")
    config = path / "config.json"
    found = sorted(path.glob("*.gguf"))
    if found and not config.exists():
        raise error(f"{name}: has no config.json, but a GGUF file; {_remedy(found[0])}: {found[0]}")
    try:
        document = json.loads(config.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise error(f"{name}: no readable config.json, give a Hugging Face model directory: {path}")


def written_end_ids(directory: Path) -> tuple[int, ...]:
    """The token ids that end an answer, as a model's own files say; () = they name none.

    generation_config.json goes before config.json, as in transformers.

    Args:
        directory: holds config.json, and maybe generation_config.json.

    Raises:
        DataError: a file is no JSON object, or `eos_token_id` is neither an id nor a list of ids.
        OSError: a file cannot be read.

    Example:
        >>> import tempfile
        >>> directory = Path(tempfile.mkdtemp())
        >>> _ = (directory / "config.json").write_text('{"eos_token_id": [2, 7]}')
        >>> written_end_ids(directory)
        (2, 7)
    """
    for name in ("generation_config.json", "config.json"):
        file = directory / name
        ids = _settings(file).get("eos_token_id") if file.is_file() else None
        if ids is None:
            continue
        listed = ids if isinstance(ids, list) else [ids]
        if not all(type(one) is int and one >= 0 for one in listed):
            raise DataError(f"eos_token_id must be a token id or a list of ids, got {ids!r}", str(file))
        return tuple(listed)
    return ()


def written_context(directory: Path) -> int | None:
    """How many tokens a model reads, as its config.json says (`max_position_embeddings`); None = it does not say.

    Args:
        directory: holds config.json.

    Raises:
        DataError: the file is no JSON object.
        OSError: it cannot be read.
    """
    told = _settings(directory / "config.json").get("max_position_embeddings")
    return told if type(told) is int and told > 0 else None


def _settings(file: Path) -> dict[str, Any]:
    try:
        document = parse_json(file.read_bytes())
    except ValueError as error:
        raise DataError(f"not JSON ({error}); save or export the model again", str(file)) from None
    if not isinstance(document, dict):
        raise DataError(f"must hold a JSON object, got {type(document).__name__}", str(file))
    return document


def _remedy(file: Path) -> str:
    if file.suffix.lower() != ".gguf":
        return "give a Hugging Face model directory"
    return "name it as teacher.model, or make a model directory of it (`kdfast convert FILE DIRECTORY`)"
