"""A first look at single files: records, tokenizer, chat template, and where something is to be written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from kdfast.config import DataConfig
from kdfast.errors import ConfigError, DataError

_HEAD_BYTES = 32 * 1024
_RECORD = b'{"prompt": "a", "truth_text": "a"}\n'
_NAMED_TEMPLATES = ("auto", "hermes", "tokenizer")


def file_problem(path: Path, *, or_directory: bool = False) -> str | None:
    """What is wrong with the path of a file to read; None = nothing.

    Args:
        path: what the user named.
        or_directory: a directory is as good.

    Example:
        >>> file_problem(Path("nowhere.jsonl"))
        'no such file (check the path): nowhere.jsonl'
    """
    if not path.exists():
        return f"no such file{' or directory' if or_directory else ''} (check the path): {path}"
    return f"is a directory (name a file instead): {path}" if path.is_dir() and not or_directory else None


def folder_problem(path: Path) -> str | None:
    """What is wrong with the path of a folder that is to be made; None = nothing.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "notes.txt"
        >>> file.touch()
        >>> folder_problem(file / "run") == f"must be a folder, choose another path; this is a file: {file}"
        True
    """
    there = next((place for place in (path, *path.parents) if place.exists()), None)
    if there is None or there.is_dir():
        return None
    return f"must be a folder, choose another path; this is a file: {there}"


def check_named(problems: Iterable[tuple[str, str | None]]) -> None:
    """Refuses what the user named, all problems at once.

    Args:
        problems: pairs of a name, such as "data.train" or "--tokenizer", and what is wrong with it (None = nothing).

    Raises:
        ConfigError: there is a problem; a line for each, which begins with the name.
    """
    lines = [f"{name}: {problem}" for name, problem in problems if problem is not None]
    if lines:
        raise ConfigError("\n".join(lines))


def check_new(path: Path) -> None:
    """Checks that nothing is there yet where a command writes.

    Raises:
        ConfigError: a file or a directory is there.
    """
    if path.exists():
        raise ConfigError(f"--out: is there already; remove it or choose another path: {path}")


def check_records(
    path: Path,
    *,
    lines: str = "records",
    on_error: str = DataConfig.on_error,
    allow_reasoning: bool = DataConfig.allow_reasoning,
    max_line_bytes: int = DataConfig.max_line_bytes,
) -> None:
    """Lets the reader of records read the head of a file, so that a file of another kind is named at once.

    The reader reads a copy of the head, as it reads files whole. A line that the head cuts off is left out.

    Args:
        path: JSONL; what is no regular file, such as a pipe, is not looked at.
        lines: "records", or "prompts" for a teacher.
        on_error: "raise" = a bad line in the head is an error; "quarantine" = it is not.
        allow_reasoning: see the section `data` of a config.
        max_line_bytes: the same.

    Raises:
        DataError: as reading the whole file would raise it.
        OSError: the file cannot be read.
    """
    from kdfast._rust import read_jsonl

    if not path.is_file():
        return
    with path.open("rb") as file:
        head, more = file.read(_HEAD_BYTES), file.read(1)
    if more and b"\n" in head:
        # With a record at its end, a head of blank lines is no file without records.
        head = head[: head.rindex(b"\n") + 1] + _RECORD
    elif more:
        on_error = "quarantine"  # one line, cut off: only the kind of the file can be told
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(head)
        try:
            read_jsonl(
                copy,
                lines=lines,
                on_error=on_error,
                max_rejected_fraction=1.0,
                max_line_bytes=max_line_bytes,
                allow_reasoning=allow_reasoning,
                threads=1,
            )
        except DataError as error:
            raise DataError(error.message, str(path), error.line, error.column) from None


def check_tokenizer(path: Path) -> None:
    """Reads a tokenizer file, as the dataset will.

    Args:
        path: tokenizer.json, or a directory that holds one.

    Raises:
        DataError: it is no tokenizer file, or of a kind that kdfast does not read.
        OSError: there is none, or it cannot be read.
    """
    from kdfast._rust import Tokenizer

    Tokenizer.from_file(path)


def template_problem(template: str) -> str | None:
    """What is wrong with the file of a chat template; None = nothing, or the template is no file.

    A template that is not UTF-8 is left to the code that reads it.

    Example:
        >>> template_problem("hermes"), template_problem("mine.jinja")
        (None, 'no such file (check the path): mine.jinja')
    """
    if template in _NAMED_TEMPLATES:
        return None
    path = Path(template)
    return file_problem(path) or _compile_problem(path)


def _compile_problem(path: Path) -> str | None:
    from kdfast._rust import ChatTemplate

    try:
        ChatTemplate(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        return None
    except DataError as error:
        return f"{error}: {path}"
    return None
