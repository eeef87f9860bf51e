"""Saves the student so that any Hugging Face tool loads it: weights, tokenizer, chat template, turn end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from kdfast.errors import DataError
from kdfast.files import write_document, written_whole
from kdfast.pretrained import quiet_transformers
from kdfast.runs.folder import STUDENT_ORIGIN
from kdfast.student.vocabulary import read_pieces


def write_student(
    model: PreTrainedModel,
    directory: Path,
    *,
    tokenizer: Path,
    chat_template: str,
    turn_end: str,
    tool_use_template: str | None = None,
    weights: bool = True,
) -> None:
    """Writes the student's files into an existing directory, and nothing else.

    Args:
        model: the student.
        directory: the directory to write into.
        tokenizer: a `tokenizer.json`, or the directory that holds one.
        chat_template: the template that the student was trained with.
        turn_end: the token that ends a turn; it becomes the student's end of sequence.
        tool_use_template: the template for conversations with tools, where that is another one.
        weights: False = all but the weights, to try whether it can be written.

    Raises:
        DataError: the tokenizer cannot be read or does not know `turn_end`.
    """
    pieces = read_pieces(tokenizer)
    if turn_end not in pieces:
        raise DataError(f"the tokenizer has no token for the end of a turn: {turn_end!r}", str(tokenizer))
    end = pieces.index(turn_end)
    model.config.eos_token_id = end
    model.config.name_or_path = ""
    generation = model.generation_config
    generation.eos_token_id = end
    if generation.pad_token_id is None:
        generation.pad_token_id = end
    with quiet_transformers():
        if weights:
            model.save_pretrained(directory)
        else:
            model.config.save_pretrained(directory)
            generation.save_pretrained(directory)
    source = tokenizer if tokenizer.is_dir() else tokenizer.parent
    shutil.copyfile(
        source / "tokenizer.json" if tokenizer.is_dir() else tokenizer, directory / "tokenizer.json"
    )
    settings = _tokenizer_settings(source / "tokenizer_config.json")
    settings |= {"eos_token": turn_end, "pad_token": settings.get("pad_token") or turn_end}
    (directory / "tokenizer_config.json").write_text(
        json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (directory / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
    if tool_use_template is not None:
        named = directory / "additional_chat_templates" / "tool_use.jinja"
        named.parent.mkdir(exist_ok=True)
        named.write_text(tool_use_template, encoding="utf-8")


def _tokenizer_settings(path: Path) -> dict[str, Any]:
    """The tokenizer's own settings, without those that name another template or paths of another machine."""
    settings: dict[str, Any] = {}
    if path.exists():
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as cause:
            raise DataError("this is no JSON object", str(path)) from cause
    dropped = ("chat_template", "is_local", "local_files_only", "name_or_path", "auto_map")
    settings = {key: value for key, value in settings.items() if key not in dropped}
    return {"tokenizer_class": "PreTrainedTokenizerFast", **settings}


def save_student(
    model: PreTrainedModel,
    directory: Path,
    *,
    tokenizer: Path,
    chat_template: str,
    turn_end: str,
    tool_use_template: str | None = None,
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Writes the student's directory whole or not at all; an existing one is replaced.

    Args:
        model: as in `write_student`.
        directory: the student's directory; its parent is made if missing.
        tokenizer: as in `write_student`.
        chat_template: as in `write_student`.
        turn_end: as in `write_student`.
        tool_use_template: as in `write_student`.
        origin: where the weights come from, see `RunFolder.student_origin`; None = it is not said.

    Raises:
        DataError: as in `write_student`.
        OSError: it cannot be written.
    """
    with written_whole(directory) as beside:
        write_student(
            model,
            beside,
            tokenizer=tokenizer,
            chat_template=chat_template,
            turn_end=turn_end,
            tool_use_template=tool_use_template,
        )
        if origin is not None:
            write_document(beside / STUDENT_ORIGIN, origin)
