"""Whether tokenizer, student, teacher and export mean the same by ids and by the chat template."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kdfast import _rust
from kdfast.config import Config
from kdfast.data import KDDataset, Template, load_template
from kdfast.data.token_rows import Reader
from kdfast.errors import DataError
from kdfast.model_files import converted_directory
from kdfast.recipes.preflight.check import Finding, failed, passed, skipped, warned
from kdfast.recipes.preflight.facts import Sample
from kdfast.recipes.train.inputs import check_live_ids
from kdfast.recipes.train.live_teacher import shared_ids
from kdfast.student import read_pieces, write_student
from kdfast.student.estimate import student_config

_SAME_TOKENIZER = "set data.tokenizer to the tokenizer of the model that the student starts from"


def vocabularies_agree(
    config: Config, reader: Reader, train_rows: KDDataset, sample_rows: KDDataset
) -> Finding:
    """The ids of the tokenizer fit the student, and mean the same to the models that it comes from and learns from."""
    pieces, rows = read_pieces(config.data.tokenizer), int(student_config(config).vocab_size)
    found = (
        _student_problem(config, pieces, rows)
        or _rows_problem(reader, train_rows)
        or _store_problem(config, len(pieces))
    )
    if found is not None:
        return found
    text = f"the student has {rows} rows of embeddings for the tokenizer's {len(pieces)} ids"
    teacher = _teacher_directory(config)
    if teacher is None:
        return passed(text)
    if not teacher.is_dir():
        return warned(
            f"{text}; {config.teacher.model} is not converted yet, so that its ids are not compared",
            "run `kdfast teach`, which converts it, and then the preflight again",
        )
    own = config.arch.init == "teacher" and _is_same(config.data.tokenizer, teacher)
    usable = len(pieces) if own else shared_ids(config, teacher)
    if config.teacher.live:
        check_live_ids(sample_rows, usable)
    return passed(f"{text}; {usable} ids mean the same to the teacher")


def _student_problem(config: Config, pieces: Sequence[str | None], rows: int) -> Finding | None:
    """A student that has no row for an id, or that was made with another tokenizer."""
    if len(pieces) > rows:
        text = f"the tokenizer has {len(pieces)} ids, and the student {rows} rows of embeddings"
        return failed(text, _SAME_TOKENIZER)
    start = _start_of(config)
    if start is None or not (start / "tokenizer.json").is_file() or _is_same(config.data.tokenizer, start):
        return None
    difference = _difference(pieces, read_pieces(start))
    if not difference:
        return None
    return failed(f"data.tokenizer is not the tokenizer of {start}: {difference}", _SAME_TOKENIZER)


def _rows_problem(reader: Reader, train_rows: KDDataset) -> Finding | None:
    """Rows that another tokenizer made."""
    if reader.tokenizer.fingerprint == train_rows.store.header()["kdfast.tokenizer"]:
        return None
    return failed(
        "the rows of the token store are of another tokenizer than data.tokenizer",
        "remove the token store (data.cache, or .kdfast beside the file)",
    )


def template_is_saved(
    reader: Reader, sample: Sample, sample_rows: KDDataset, student: Any, work: Path
) -> Finding:
    """What a student's saved files render is what training renders."""
    folder = work / "saved-template"
    folder.mkdir(exist_ok=True)
    ends = sample_rows.turn_end_ids[-1:]
    # a copy: writing a student sets the ids of its turn end
    bare: Any = SimpleNamespace(
        config=copy.deepcopy(student.config), generation_config=copy.deepcopy(student.generation_config)
    )
    template = reader.template
    write_student(
        bare,
        folder,
        tokenizer=reader.data.tokenizer,
        chat_template=template.source,
        turn_end=reader.tokenizer.decode(ends),
        tool_use_template=template.tool_use,
        weights=False,
    )
    saved = _saved_template(folder)
    if (saved.source, saved.tool_use) != (template.source, template.tool_use):
        return failed("the chat template in the student's directory is another text", "report it")
    compared = 0
    for number, record in enumerate(sample.records, 1):
        ours, theirs = _render(template, record), _render(saved, record)
        if ours != theirs:
            return failed(
                f"record {number} renders otherwise by the saved student's files than in training: "
                f"{_first_difference(ours or '', theirs or '')}",
                "take a template that does not write eos_token or pad_token: the saved student names the turn's end so",
            )
        compared += ours is not None
    if not compared:
        return skipped("all sampled records have their prompts as text")
    return passed(f"{compared} conversations render the same by the files that a student is saved with")


def _start_of(config: Config) -> Path | None:
    """The directory of the model that the student's weights come from; None = it starts from scratch."""
    init = config.arch.init
    if init == "teacher":
        return _teacher_directory(config)
    return None if config.arch.from_scratch else Path(init)


def _teacher_directory(config: Config) -> Path | None:
    """The teacher's Hugging Face directory, which is made of a GGUF file when it is needed; None = none."""
    model = config.teacher.model
    if model is None:
        return None
    return converted_directory(model) if model.suffix.lower() == ".gguf" else model


def _is_same(tokenizer: Path, directory: Path) -> bool:
    """Whether a tokenizer's file or directory is that of a model's directory: reading both takes seconds."""
    file = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
    return file.resolve() == (directory / "tokenizer.json").resolve()


def _difference(own: Sequence[str | None], other: Sequence[str | None]) -> str:
    """The first id that means different tokens, in words; "" = there is none."""
    for index, (mine, theirs) in enumerate(zip(own, other, strict=False)):
        if mine != theirs:
            return f"id {index} is {mine!r} to the one and {theirs!r} to the other"
    return ""


def _store_problem(config: Config, ids: int) -> Finding | None:
    """A teacher store that is there, and has ids that the tokenizer does not know."""
    path = config.teacher.store
    if path is None or not path.exists() or not config.kd.reads_store(live_teacher=config.teacher.live):
        return None
    for file in sorted(path.glob("*.teacher.arrow")) if path.is_dir() else [path]:
        size = _rust.TeacherStore.open(file).vocab_size
        if size > ids:
            return failed(
                f"the teacher store {file.name} is of a vocabulary of {size} ids, and data.tokenizer has {ids}",
                "set teacher.store to a directory of its own, or data.tokenizer to the teacher's",
            )
    return None


def _saved_template(folder: Path) -> Template:
    """The template of a student's directory, as any program reads it."""
    loaded = load_template(str(folder / "chat_template.jinja"), folder)
    named = folder / "additional_chat_templates" / "tool_use.jinja"
    tool_use = named.read_text(encoding="utf-8") if named.is_file() else None
    return Template(loaded.source, loaded.bos_token, loaded.eos_token, loaded.other_tokens, tool_use)


def _render(template: Template, record: dict[str, Any]) -> str | None:
    """A record's conversation; None if it has none, or the template refuses it as it is written."""
    messages, tools = record.get("messages"), record.get("tools") or record.get("functions")
    if not messages:
        return None
    try:
        return template.compile().render(
            json.dumps(messages),
            json.dumps(tools) if tools else None,
            messages[-1].get("role") != "assistant",
        )
    except DataError:
        return None


def _first_difference(ours: str, theirs: str) -> str:
    at = next(
        (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
    )
    return f"{ours[at : at + 40]!r} and {theirs[at : at + 40]!r}"
