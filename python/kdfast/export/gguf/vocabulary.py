"""A student's tokenizer.json as a GGUF file's tokens, their types and merges. Byte-level BPE only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdfast.errors import ConfigError, DataError
from kdfast.export.gguf.families import OTHER_TARGET
from kdfast.export.gguf.pre_tokenizers import pre_tokenizer
from kdfast.files import read_document

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Types of tokens: llama.cpp finds the second and third in a text before any cut, and prints the third only."""

_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What a file says of its tokenizer.

    Attributes:
        tokens: the text of each id. llama.cpp wants one for every row of the embedding.
        types: the type of each id.
        merges: the two parts of each merge, with a blank between them.
        pre: llama.cpp's name of the pre-tokenizer.
        named: `bos_token`, `eos_token`, `unk_token`, `pad_token` -> their ids, where the tokenizer has them.
    """

    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    pre: str
    named: Mapping[str, int]

    def id_of(self, token: str) -> int | None:
        """The id of a token's text; None = there is none."""
        try:
            return self.tokens.index(token)
        except ValueError:
            return None


def read_settings(directory: Path) -> dict[str, Any]:
    """The content of tokenizer_config.json; {} where there is none."""
    path = directory / "tokenizer_config.json"
    if not path.is_file():
        return {}
    return read_document(path, name="tokenizer config", remedy="save the student again")


def read_vocabulary(directory: Path, rows: int | None, pre: str | None = None) -> Vocabulary:
    """The tokenizer in a student's directory.

    Args:
        directory: the student's directory.
        rows: rows of the embedding; ids without a token become unused ones. None = not known yet.
        pre: llama.cpp's name of the pre-tokenizer; None = by the table.

    Raises:
        ConfigError: llama.cpp cannot do what this tokenizer does; names it.
        DataError: tokenizer.json is missing or damaged.
        OSError: it cannot be read.
    """
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise DataError("the student has no tokenizer.json; save the student again", str(path))
    document = read_document(path, name="tokenizer", remedy="save the student again")
    model = document.get("model")
    if not isinstance(model, Mapping) or not isinstance(model.get("vocab"), Mapping):
        kind = model.get("type") if isinstance(model, Mapping) else model
        raise ConfigError(f"gguf: the tokenizer must be a byte-level BPE; {OTHER_TARGET}: {kind!r:.40}")
    _check_bpe(document, model)
    tokens, types = _tokens(document, model["vocab"], rows, path)
    ids = {token: index for index, token in enumerate(tokens)}
    return Vocabulary(
        tokens=tuple(tokens),
        types=tuple(types),
        merges=tuple(_merges(model.get("merges"), path)),
        pre=pre or pre_tokenizer(document),
        named=_named(directory, ids, model.get("unk_token")),
    )


def _check_bpe(document: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    level = _types(document.get("pre_tokenizer")) | _types(document.get("decoder"))
    if model.get("type", "BPE") != "BPE" or model.get("byte_fallback") or "ByteLevel" not in level:
        raise ConfigError(
            f"gguf: the tokenizer must be a byte-level BPE; {OTHER_TARGET}: {model.get('type')!r:.40} with "
            f"{', '.join(sorted(level)) or 'no pre-tokenizer'}"
        )
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise ConfigError(
                f"gguf: llama.cpp's BPE has no such setting; {OTHER_TARGET}: {key} {model[key]!r}"
            )


def _types(step: Any) -> set[str]:
    if not isinstance(step, Mapping):
        return set()
    inner = [one for key in ("pretokenizers", "decoders") for one in step.get(key) or []]
    return {str(step.get("type"))} | {kind for one in inner for kind in _types(one)}


def _tokens(
    document: Mapping[str, Any], vocab: Mapping[str, Any], rows: int | None, path: Path
) -> tuple[list[str], list[int]]:
    added = document.get("added_tokens") or []
    try:
        pairs = [(str(text), int(index), NORMAL) for text, index in vocab.items()]
        pairs += [
            (str(one["content"]), int(one["id"]), CONTROL if one.get("special") else USER_DEFINED)
            for one in added
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as cause:
        raise DataError("this is no tokenizer.json of the tokenizers library", str(path)) from cause
    for one in added:
        for key in ("lstrip", "rstrip", "single_word"):
            if one.get(key):
                raise ConfigError(
                    f"gguf: llama.cpp finds an added token wherever it stands and keeps the blanks beside it; "
                    f"{OTHER_TARGET}: {key} of {one['content']!r}"
                )
    most = max((index for _, index, _ in pairs), default=-1) + 1
    rows = most if rows is None else rows
    if most > rows or not pairs:
        raise DataError(
            f"the tokenizer has other ids than the model has rows; save the student again: {most}, {rows}",
            str(path),
        )
    tokens = [f"[PAD{index}]" for index in range(rows)]
    types = [UNUSED] * rows
    texts: dict[int, str] = {}
    for text, index, kind in pairs:
        if texts.setdefault(index, text) != text:
            raise DataError(
                f"two tokens have one id; mend the tokenizer: {texts[index]!r} and {text!r} are both {index}",
                str(path),
            )
        tokens[index], types[index] = text, kind
    _check_distinct(tokens, path)
    return tokens, types


def _check_distinct(tokens: list[str], path: Path) -> None:
    seen: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if seen.setdefault(token, index) != index:
            raise DataError(
                f"llama.cpp needs another text for every id; mend the tokenizer: ids {seen[token]} and {index} are "
                f"both {token!r}",
                str(path),
            )
        if not token:
            raise DataError(f"a token must have a text; mend the tokenizer: id {index} is ''", str(path))


def _merges(merges: Any, path: Path) -> list[str]:
    found = []
    for merge in merges or []:
        parts = merge.split(" ") if isinstance(merge, str) else merge
        fits = isinstance(parts, list) and len(parts) == 2 and all(isinstance(one, str) for one in parts)
        if not fits or not all(parts) or any(" " in one for one in parts):
            raise DataError(
                f"a merge must be two pieces without a blank; save the student again: {merge!r}", str(path)
            )
        found.append(" ".join(parts))
    return found


def _named(directory: Path, ids: Mapping[str, int], unknown: Any) -> dict[str, int]:
    """The special tokens that a template may write by their names."""
    settings = read_settings(directory)
    former = directory / "special_tokens_map.json"
    if "added_tokens_decoder" not in settings and former.is_file():
        settings |= read_document(former, name="map of special tokens", remedy="save the student again")
    settings = {"unk_token": unknown} | settings
    texts = {key: _text(settings.get(key)) for key in _NAMED}
    return {key: ids[text] for key, text in texts.items() if text in ids}


def _text(value: Any) -> str:
    content = value.get("content") if isinstance(value, Mapping) else value
    return content if isinstance(content, str) else ""
