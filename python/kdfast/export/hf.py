"""The target `hf`: a student's Hugging Face directory, copied byte by byte, for transformers and vLLM.

Nothing is loaded and saved again: a library that re-saves weights, settings or a template may change them.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from kdfast.errors import ConfigError, DataError
from kdfast.export.parity.result import ParityCheck
from kdfast.files import parse_json
from kdfast.model_files import check_model_directory
from kdfast.pretrained import check_readable, load_causal_lm
from kdfast.quantized import TABLE_FILE, check_saved
from kdfast.runs.folder import STUDENT_ORIGIN

CHAT_TEMPLATE = "chat_template.jinja"
MORE_TEMPLATES = "additional_chat_templates"

_NEEDED = ("config.json", "tokenizer.json")
_WHERE_THERE = (
    "generation_config.json",
    "tokenizer_config.json",
    CHAT_TEMPLATE,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_CHUNK = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_SAVE_AGAIN = "save the model again (`save_pretrained`)"
_MOST_PROBLEMS = 20


def tokenizer_files(source: Path) -> list[Path]:
    """The files that say how a student is prompted and where it stops: all but its weights.

    Args:
        source: the student's Hugging Face directory.

    Returns:
        paths relative to it.

    Raises:
        ConfigError: it is no model directory, has no tokenizer.json, or no chat template; the message has the remedy.
        DataError: tokenizer_config.json is no JSON object.
    """
    check_model_directory(source, error=ConfigError, name="the student")
    for name in _NEEDED:
        if not (source / name).is_file():
            raise ConfigError(f"the student: has no {name}; {_SAVE_AGAIN} with its tokenizer: {source}")
    more = sorted(path.relative_to(source) for path in (source / MORE_TEMPLATES).glob("*.jinja"))
    if not more and not (source / CHAT_TEMPLATE).is_file() and not _template_in_settings(source):
        raise ConfigError(
            f"the student: has no chat template ({CHAT_TEMPLATE}, or chat_template in tokenizer_config.json), so "
            f"nobody could prompt it as it was trained; write the template into {CHAT_TEMPLATE}: {source}"
        )
    return [Path(name) for name in (*_NEEDED, *_WHERE_THERE) if (source / name).is_file()] + more


def copy_tokenizer_files(source: Path, directory: Path) -> list[Path]:
    """Copies what `tokenizer_files` names into an existing directory; an export of another target carries them, too.

    Returns:
        the copies, relative to the directory.

    Raises:
        ConfigError, DataError: as in `tokenizer_files`.
        OSError: a file cannot be read or written.
    """
    return _copy(tokenizer_files(source), source, directory)


def export_hf(source: Path, directory: Path) -> list[Path]:
    """Copies a student into an existing directory: weights, the table of a quantised one, and `tokenizer_files`.

    The file that says from which step the weights are goes along. Everything else stays: checkpoints, locks, pickles.

    Args:
        source: the student's Hugging Face directory.
        directory: an existing, empty directory.

    Returns:
        the copies, relative to the directory.

    Raises:
        ConfigError: as in `tokenizer_files`; or the weights are missing, or are of more than one model.
        DataError: weights, their index or the table are damaged.
        QATError: weights and table do not belong together.
        OSError: a file cannot be read or written.
    """
    files = [*tokenizer_files(source), *_weights(source)]
    if (source / TABLE_FILE).is_file():
        check_saved(source)
        files.append(Path(TABLE_FILE))
    if (source / STUDENT_ORIGIN).is_file():
        files.append(Path(STUDENT_ORIGIN))
    return _copy(files, source, directory)


def check_hf(directory: Path, source: Path) -> ParityCheck:
    """Holds a copy to its source: every tensor, tokenizer, template and setting, and whether transformers loads it.

    Args:
        directory: what `export_hf` wrote.
        source: what it was given.

    Returns:
        the check `weights`. Its figures: files, tensors, bytes, and whether transformers loaded the copy.

    Raises:
        ConfigError, DataError: the source is no student.
        OSError: the source cannot be read.
    """
    files = [*tokenizer_files(source), *_weights(source)]
    files += [Path(name) for name in (TABLE_FILE, STUDENT_ORIGIN) if (source / name).is_file()]
    problems = [problem for file in files for problem in _differences(file, directory, source)]
    strange = sorted({path.relative_to(directory) for path in directory.rglob("*.safetensors")} - set(files))
    problems += [f"{path}: the student has no such file of weights" for path in strange]
    problems += [
        problem for file in files if file.suffix == ".safetensors" for problem in _not_finite(source / file)
    ]
    loads = not problems and _loads(directory, problems)
    tensors = [name for file in files if file.suffix == ".safetensors" for name in _names(source / file)]
    return ParityCheck(
        name="weights",
        status="failed" if problems else "passed",
        figures={
            "files": len(files),
            "tensors": len(tensors),
            "bytes": sum((source / file).stat().st_size for file in files),
            "loads_in_transformers": loads,
        },
        problems=tuple(problems[:_MOST_PROBLEMS]),
    )


def _template_in_settings(source: Path) -> bool:
    path = source / "tokenizer_config.json"
    if not path.is_file():
        return False
    settings = _object(path)
    return bool(settings.get("chat_template"))


def _object(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_bytes())
    except ValueError as error:
        raise DataError(f"not readable JSON ({error}); {_SAVE_AGAIN}", str(path)) from None
    if not isinstance(found, dict):
        raise DataError(f"must hold a JSON object; {_SAVE_AGAIN}, got {type(found).__name__}", str(path))
    return found


def _weights(source: Path) -> list[Path]:
    """The files of the weights, as transformers chooses them, with their index."""
    there = {path.name for path in source.glob("*.safetensors")} - {TABLE_FILE}
    if not there:
        raise ConfigError(
            f"the student: has no weights as safetensors (a pickle is never read); {_SAVE_AGAIN}: {source}"
        )
    wanted = {_SINGLE} if _SINGLE in there else _shards(source)
    if there != wanted:
        odd = sorted(there ^ wanted)[0]
        what = "is missing" if odd in wanted else "does not belong to them"
        raise ConfigError(
            f"the student: its weights are not those of one model; {_SAVE_AGAIN}, {odd} {what}: {source}"
        )
    index = [] if wanted == {_SINGLE} else [Path(_INDEX)]
    return [Path(name) for name in sorted(wanted)] + index


def _shards(source: Path) -> set[str]:
    path = source / _INDEX
    if not path.is_file():
        raise ConfigError(f"the student: has neither {_SINGLE} nor {_INDEX}; {_SAVE_AGAIN}: {source}")
    named = _object(path).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(file, str) for file in named.values()):
        raise DataError(f"weight_map must map tensors to files; {_SAVE_AGAIN}", str(path))
    return set(named.values())


def _copy(files: list[Path], source: Path, directory: Path) -> list[Path]:
    for file in files:
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source / file, directory / file)
        except OSError as error:
            if error.errno in _NO_ROOM:  # copyfile names the source, which is not at fault
                raise OSError(error.errno, error.strerror, str(directory / file)) from None
            raise
    return files


def _differences(file: Path, directory: Path, source: Path) -> Iterator[str]:
    """What differs between a file and its copy; nothing if all bytes are equal."""
    if not (directory / file).is_file():
        yield f"{file}: missing"
    elif not _same_bytes(directory / file, source / file):
        named = _differing_tensors(directory / file, source / file) if file.suffix == ".safetensors" else []
        yield from (f"{file}: {name}" for name in named)
        if not named:
            yield f"{file}: other bytes than the student's"


def _same_bytes(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while chunk := left.read(_CHUNK):
            if chunk != right.read(_CHUNK):
                return False
    return True


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise DataError(f"the weights are damaged ({error}); {_SAVE_AGAIN}", str(path)) from error


def _not_finite(path: Path) -> Iterator[str]:
    with safe_open(path, framework="pt") as file:
        for name in list(file.keys()):
            tensor = file.get_tensor(name)
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                yield f"{path.name}: tensor {name} has a weight that is no finite number; train the student again"


def _differing_tensors(copy: Path, original: Path) -> list[str]:
    try:
        with safe_open(copy, framework="pt") as ours, safe_open(original, framework="pt") as theirs:
            found, wanted = set(ours.keys()), set(theirs.keys())
            told = [f"tensor {name} is missing" for name in sorted(wanted - found)]
            told += [f"tensor {name} is not the student's" for name in sorted(found - wanted)]
            both = sorted(wanted & found)
            return told + [
                f"tensor {name} differs from the student's"
                for name in both
                if not _same_tensor(ours.get_tensor(name), theirs.get_tensor(name))
            ]
    except SafetensorError as error:
        return [f"no readable safetensors file ({error})"]


def _same_tensor(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Bit equality, so that NaN equals itself and 0 does not equal -0."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(
        one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8)
    )


def _loads(directory: Path, problems: list[str]) -> bool:
    try:
        if (directory / "generation_config.json").is_file():  # without one, it would be asked for
            check_readable(directory, error=DataError, name="the export")
        load_causal_lm(directory, dtype=torch.float32, error=DataError, name="the export", families=None)
    except DataError as error:
        said = error.message.replace(str(directory), "the export")  # the manifest leaves this machine
        problems.append(f"transformers does not load it: {said}")
        return False
    return True
