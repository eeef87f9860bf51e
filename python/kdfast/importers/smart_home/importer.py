"""Import of a smart home's commands: from templates and a home to the files of a training run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdfast.errors import DataError
from kdfast.importers.bfcl import questions as bfcl_questions
from kdfast.importers.smart_home.automaton import Automaton
from kdfast.importers.smart_home.calls import Calls
from kdfast.importers.smart_home.grammar import Grammar
from kdfast.importers.smart_home.home import load_home
from kdfast.importers.smart_home.no_call import NoCalls
from kdfast.importers.smart_home.pools import Lists
from kdfast.importers.smart_home.records import RecordWriter, check_calls
from kdfast.importers.smart_home.rows import Builder, Built
from kdfast.importers.smart_home.source import read_package
from kdfast.importers.smart_home.summary import ImportSummary, summary
from kdfast.importers.smart_home.templates import (
    TEST,
    TRAIN,
    VALIDATION,
    hold_out,
    read_templates,
)
from kdfast.importers.smart_home.tools import tools
from kdfast.importers.writing import check_directory, to_line, write_files

_NOTE = (
    "the sentences come from templates that people wrote, and from the names of one home; they are not speech "
    "recorded from people"
)

_TRAIN_TOOLS = 4
_LONGEST_QUESTION, _SHORTEST_QUESTION = 75, 12
_ABOUT_A_HOME = re.compile(
    r"light|lamp|weather|forecast|temperature|thermostat|timer|alarm|play |music|song|volume|time|date|list|remind|"
    r"message|turn o[nf]|switch|door|room|home|house|\n"
)
"""Words of questions that could be meant for a home: BFCL's questions are English."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to import, and how much.

    Attributes:
        rows: records of `train.jsonl`.
        labels: records of `labels.jsonl`.
        prompts: records of `prompts.jsonl`.
        validation_rows: records of `validation.jsonl`.
        test_rows: records of `test.jsonl`.
        no_call_fraction: the share of records without a call, in every file.
        held_out_templates: the share of templates that only test (two thirds) and validation (one third) may use.
        tools_per_record: tools that a record offers; None = 4 in `train.jsonl`, all in the other files.
        language: the language of the templates.
        home: the home's file; None = the one that comes with kdfast.
        bfcl: the wheel of `bfcl-eval`, for questions that no tool fits; None = without them.
        seed: another seed draws other rows and holds out other templates.
    """

    rows: int = 50_000
    labels: int = 250
    prompts: int = 8_000
    validation_rows: int = 400
    test_rows: int = 600
    no_call_fraction: float = 0.2
    held_out_templates: float = 0.15
    tools_per_record: int | None = None
    language: str = "en"
    home: Path | None = None
    bfcl: Path | None = None
    seed: int = 0


def import_smart_home(
    source: Path,
    out: Path,
    options: Options = Options(),
    report: Callable[[int, str], None] = lambda done, note: None,  # noqa: ARG005
) -> ImportSummary:
    """Makes the files of a training run from the templates of `home-assistant-intents` and one home.

    `train.jsonl`, `labels.jsonl`, `prompts.jsonl` (without answers), `validation.jsonl`, `test.jsonl` and `tools.json`
    are written under temporary names, and renamed when all are complete. No sentence is in two of them, up to
    case, spaces and punctuation. The same source, options and seed give the same bytes.

    Args:
        source: the wheel of `home-assistant-intents`, or the directory that it was unpacked into.
        out: the directory of the files; created if missing.
        options: what to import, and how much.
        report: called with the number of rows so far, and a note.

    Raises:
        DataError: source, home or options are wrong, or there are not enough distinct sentences.
        OSError: a file cannot be read or written.
    """
    check_directory(Path(out))
    package = read_package(Path(source), options.language)
    home = load_home(options.language, options.home)
    grammar = Grammar(package.rules, f"{source}:data/{options.language}.json")
    lists = Lists(package, home, grammar)
    templates = read_templates(package, home, grammar, lists)
    if not templates.calls:
        raise DataError("no template that this home can use; see the domains of its devices", home.file)
    hold_out(templates.calls, options.held_out_templates, options.seed)
    calls = Calls(templates.calls, home)
    lists.commands.say = calls.command
    reader = Automaton(templates.calls, calls.commands)
    held_out = options.held_out_templates, options.seed
    no_calls = NoCalls(templates, calls, home, reader, _questions(options.bfcl), held_out)
    builder = Builder(calls, no_calls, reader, options.seed)
    _want(builder, options)
    built = builder.build(lambda done: report(done, ""))
    made = tools(package, templates.calls, home)
    for rows in built.files.values():
        check_calls(rows, made)
    paths = _write(out, built, made, options)
    return summary(paths, built, templates.calls, templates.left_out, _notes(options, lists.left_out))


def row_count(options: Options) -> int:
    """How many records all files have together."""
    return options.rows + options.labels + options.prompts + options.validation_rows + options.test_rows


def _want(builder: Builder, options: Options) -> None:
    fraction = options.no_call_fraction
    builder.want("test", options.test_rows, TEST, fraction, check=True)
    builder.want("validation", options.validation_rows, VALIDATION, fraction, check=True)
    builder.want("labels", options.labels, TRAIN, fraction, check=True)
    builder.want("prompts", options.prompts, TRAIN, fraction)
    builder.want("train", options.rows, TRAIN, fraction)


def _questions(wheel: Path | None) -> list[str]:
    """BFCL's questions that no tool of a home answers, in the form that speech recognition gives."""
    if wheel is None:
        return []
    found: dict[str, None] = {}
    for question in bfcl_questions(wheel, ("irrelevance", "live_irrelevance")):
        text = question.strip().rstrip("?.! ").lower()
        short = _SHORTEST_QUESTION < len(text) <= _LONGEST_QUESTION and text.isascii()
        if short and not _ABOUT_A_HOME.search(text):
            found[text] = None
    return list(found)


def _write(out: Path, built: Built, made: dict[str, dict[str, Any]], options: Options) -> dict[str, Path]:
    writer = RecordWriter(made, options.language)
    files = {}
    for name in ("train", "labels", "prompts", "validation", "test"):
        count = (
            _TRAIN_TOOLS if name == "train" and options.tools_per_record is None else options.tools_per_record
        )
        answered = name != "prompts"
        rows = built.files[name]
        files[f"{name}.jsonl"] = writer.lines(rows, name, count, answered=answered, seed=options.seed)
    return write_files(Path(out), {**files, "tools.json": iter([to_line(list(made.values()))])})


def _notes(options: Options, values_left_out: int) -> list[str]:
    notes = [_NOTE]
    if options.bfcl is None:
        notes.append("no rows of the kind 'irrelevant': give BFCL's wheel by --bfcl to have them")
    elif options.language != "en":
        notes.append("the rows of the kind 'irrelevant' are English: BFCL's questions are")
    if values_left_out:
        notes.append(f"left out: {values_left_out} values of lists that mean several arguments at once")
    return notes
