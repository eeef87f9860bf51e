"""Parity of a GGUF file's keys: what the student's directory says, against what the file says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdfast.errors import ConfigError
from kdfast.export.gguf.families import read_shape
from kdfast.export.gguf.metadata import NAME, PRE, TEMPLATE, Entry, metadata
from kdfast.export.gguf.read import GgufFile
from kdfast.export.gguf.vocabulary import Vocabulary, read_vocabulary
from kdfast.export.shipped import Shipped
from kdfast.quantized import Quantized

_ENDS = {f"tokenizer.ggml.{key}_token_id" for key in ("eos", "eot", "eom")}
_EMBEDDING = "model.embed_tokens.weight"


def metadata_problems(file: GgufFile, shipped: Shipped, directory: Path, pre: str | None) -> Iterator[str]:
    """What differs, one sentence each.

    Args:
        file: the file, read back.
        shipped: the weights; the embedding's rows are the ids.
        directory: the student's directory.
        pre: llama.cpp's name of the pre-tokenizer; None = by the table.

    Raises:
        ConfigError: the student is none that can be a GGUF file.
        DataError: a file of its directory is damaged.
        OSError: a file cannot be read.
    """
    embedding = shipped.tensors.get(_EMBEDDING)
    if embedding is None:
        raise ConfigError(f"gguf: the student has no embedding of that name; save it again: {_EMBEDDING}")
    rows = len(embedding.codes if isinstance(embedding, Quantized) else embedding)
    vocabulary = read_vocabulary(directory, rows, pre)
    expected = metadata(read_shape(directory), vocabulary, directory, type_=shipped.type, name="")
    del expected[NAME]  # any name will do
    for key, entry in expected.items():
        yield from _problem(key, entry, file.metadata, vocabulary)
    for key in sorted(file.metadata.keys() - expected.keys() - {NAME}):
        yield f"the key {key} is too many: {file.metadata[key]!r:.80}"


def _problem(key: str, entry: Entry, found: Mapping[str, Any], vocabulary: Vocabulary) -> Iterator[str]:
    value = found.get(key)
    if key in _ENDS and value != entry.value:
        how = "absent" if value is None else value
        token = vocabulary.tokens[int(entry.value)]  # type: ignore[arg-type]
        yield f"the end token {token} ({entry.value}) is missing: {key} is {how}"
    elif value is None:
        yield f"the key {key} is missing, it must be {entry.value!r:.80}"
    elif key.startswith(TEMPLATE) and isinstance(entry.value, str):
        if value != entry.value:
            yield f"the {_template_name(key)} differs {_text_difference(str(value), entry.value)}"
    elif isinstance(entry.value, tuple):
        if not isinstance(value, list) or tuple(value) != entry.value:
            yield f"{key} differs {_list_difference(value, entry.value)}"
    elif not _same(value, entry):
        yield f"{key} is {value!r}, it must be {entry.value!r}" + (
            "; text is cut otherwise" if key == PRE else ""
        )


def _same(value: Any, entry: Entry) -> bool:
    if isinstance(value, bool) is not isinstance(entry.value, bool):
        return False
    if entry.kind == "float32":
        return isinstance(value, float) and np.float32(value) == np.float32(entry.value)  # type: ignore[arg-type]
    return bool(value == entry.value)


def _template_name(key: str) -> str:
    rest = key.removeprefix(TEMPLATE).lstrip(".")
    return f"chat template {rest!r}" if rest else "chat template"


def _text_difference(found: str, expected: str) -> str:
    r"""Where two texts part.

    Example:
        >>> _text_difference("a\nbd", "a\nbc")
        "at line 2, column 2: the file has 'd', the student's has 'c'"
    """
    pairs = zip(found, expected, strict=False)
    at = next(
        (index for index, (one, other) in enumerate(pairs) if one != other), min(len(found), len(expected))
    )
    line, start = expected.count("\n", 0, at) + 1, expected.rfind("\n", 0, at) + 1
    mine, theirs = (repr(text[at : at + 20]) if text[at:] else "nothing more" for text in (found, expected))
    return f"at line {line}, column {at - start + 1}: the file has {mine}, the student's has {theirs}"


def _list_difference(found: Any, expected: Sequence[Any]) -> str:
    values = found if isinstance(found, list) else [found]
    pairs = zip(values, expected, strict=False)
    at = next((index for index, (one, other) in enumerate(pairs) if one != other), None)
    if at is None:
        return f"in its length: {len(values)} entries in the file, {len(expected)} of the student"
    return f"at entry {at}: the file has {values[at]!r:.40}, the student's has {expected[at]!r:.40}"
