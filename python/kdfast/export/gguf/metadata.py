"""Every key of a GGUF file beside its tensors: made from the student's directory, written and checked from here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdfast.config.export import GgufType
from kdfast.export.gguf.chat_templates import TOOL_USE, read_templates
from kdfast.export.gguf.end_tokens import end_ids, end_keys
from kdfast.export.gguf.families import StudentShape
from kdfast.export.gguf.rope import Rope
from kdfast.export.gguf.vocabulary import Vocabulary

FILE_TYPES: dict[GgufType, int] = {"f16": 1, "q4_0": 2, "q8_0": 7}
"""GGUF's numbers for what most weights are."""

QUANTIZATION_VERSION = 2
"""The version of GGUF's blocks."""

ARCHITECTURE = "general.architecture"
NAME = "general.name"
TEMPLATE = "tokenizer.chat_template"
PRE = "tokenizer.ggml.pre"

_NO_MERGE = "ĠĠ ĠĠ"
"""Stands for no merges: llama.cpp wants one. Text starts as single signs, so a merge of longer parts never happens."""

Value = int | float | bool | str | tuple[str, ...] | tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """A value and the type that llama.cpp asks for."""

    kind: Literal["uint32", "float32", "bool", "string", "strings", "int32s"]
    value: Value


def metadata(
    shape: StudentShape, vocabulary: Vocabulary, directory: Path, *, type_: GgufType, name: str
) -> dict[str, Entry]:
    """The keys of a student's file, in their order; no date, so the same student gives the same bytes.

    Args:
        shape: the student's figures.
        vocabulary: its tokenizer.
        directory: its directory, for templates and end tokens.
        type_: what the file is called by.
        name: the model's name.

    Raises:
        ConfigError: it has no chat template, no end token, or too many.
        OSError: a file cannot be read.
    """
    general = {
        ARCHITECTURE: Entry("string", shape.family.arch),
        "general.type": Entry("string", "model"),
        NAME: Entry("string", safe_name(name)),
        "general.file_type": Entry("uint32", FILE_TYPES[type_]),
        "general.quantization_version": Entry("uint32", QUANTIZATION_VERSION),
    }
    return general | _figures(shape, len(vocabulary.tokens)) | _tokenizer(vocabulary, directory)


def safe_name(name: str) -> str:
    """The name, but none at which llama.cpp changes how special tokens are read ("phi-3", "modern-bert").

    Example:
        >>> safe_name("from Phi-3"), safe_name("lights")
        ('from Phi 3', 'lights')
    """
    return re.sub(r"(phi)-?(3)|(modern)-(bert)", r"\1\3 \2\4", name, flags=re.IGNORECASE)


def _figures(shape: StudentShape, rows: int) -> dict[str, Entry]:
    numbers = {
        "vocab_size": rows,
        "context_length": shape.context,
        "embedding_length": shape.width,
        "block_count": shape.layers,
        "feed_forward_length": shape.inner,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.key_heads,
        "attention.key_length": shape.head_width,
        "attention.value_length": shape.head_width,
        "rope.dimension_count": shape.head_width,
    }
    entries = {key: Entry("uint32", value) for key, value in numbers.items()}
    entries["attention.layer_norm_rms_epsilon"] = Entry("float32", shape.epsilon)
    entries |= _rope(shape.rope)
    return {f"{shape.family.arch}.{key}": entry for key, entry in entries.items()}


def _rope(rope: Rope) -> dict[str, Entry]:
    entries = {"rope.freq_base": Entry("float32", rope.theta)}
    if rope.kind in ("linear", "yarn"):
        entries["rope.scaling.type"] = Entry("string", rope.kind)
        entries["rope.scaling.factor"] = Entry("float32", rope.factor)
    if rope.kind == "yarn":
        entries["rope.scaling.original_context_length"] = Entry("uint32", rope.original)
    return entries


def _tokenizer(vocabulary: Vocabulary, directory: Path) -> dict[str, Entry]:
    prefix = "tokenizer.ggml."
    entries = {
        f"{prefix}model": Entry("string", "gpt2"),
        PRE: Entry("string", vocabulary.pre),
        f"{prefix}tokens": Entry("strings", vocabulary.tokens),
        f"{prefix}token_type": Entry("int32s", vocabulary.types),
        f"{prefix}merges": Entry("strings", vocabulary.merges or (_NO_MERGE,)),
    }
    ends = end_keys(end_ids(directory), vocabulary)
    names = {"bos": "bos_token", "unknown": "unk_token", "padding": "pad_token"}
    ids = ends | {key: vocabulary.named[name] for key, name in names.items() if name in vocabulary.named}
    for key, index in ids.items():
        entries[f"{prefix}{key}_token_id"] = Entry("uint32", index)
    # Training adds neither: the template writes what it wants.
    entries[f"{prefix}add_bos_token"] = Entry("bool", False)
    entries[f"{prefix}add_eos_token"] = Entry("bool", False)
    return entries | _templates(read_templates(directory))


def _templates(templates: Mapping[str, str]) -> dict[str, Entry]:
    entries = {TEMPLATE: Entry("string", templates["default"])}
    if TOOL_USE in templates:
        entries["tokenizer.chat_templates"] = Entry("strings", (TOOL_USE,))
        entries[f"{TEMPLATE}.{TOOL_USE}"] = Entry("string", templates[TOOL_USE])
    return entries
