"""`kdfast report`: a run folder as one HTML page."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from kdfast.config import Config, load_config
from kdfast.errors import ConfigError, DataError
from kdfast.files import write_text_whole
from kdfast.page import Missing, Node, RunFiles, render_page

NAME = "report.html"
_AGAIN = "delete it and make it again (`kdfast train CONFIG --resume`)"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to report on.

    Attributes:
        run: a run folder.
        out: the page to write; None = `report.html` in the run folder.
    """

    run: Path
    out: Path | None = None


def run(request: Request) -> int:
    """Writes the page.

    Returns:
        0, whatever the verdict: the page is for reading, gates decide.

    Raises:
        ConfigError: there is no run, or its config is damaged.
        DataError: one of its files is damaged; names file, line, key and remedy.
        OSError: a file cannot be read or written.
    """
    out = request.out or request.run / NAME
    if out.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(out))
    document, told = render_page(read_run(request.run))
    write_text_whole(out, document)
    console = Console()
    console.print(f"  {'verdict':<12} {told}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"  {'report':<12} {out}", highlight=False, soft_wrap=True, markup=False)
    return 0


def read_run(folder: Path) -> RunFiles:
    """The files of a run folder; those that a run need not have may be missing.

    Args:
        folder: `io.run_dir` of the run.

    Raises:
        ConfigError: it is no run folder, or its config is damaged.
        DataError: a file is not JSON.
        OSError: a file cannot be read.
    """
    if not (folder / "config.yaml").is_file():
        what = "it has no config.yaml" if folder.is_dir() else "no such directory"
        raise ConfigError(f"run: {what}; give the io.run_dir of a `kdfast train`: {folder}")
    config = load_config(folder / "config.yaml")
    files = [folder / name for name in _NAMES if (folder / name).is_file()]
    metrics, torn = _read_lines(folder / "metrics.jsonl")
    return RunFiles(
        name=folder.resolve().name,
        config=config,
        metrics=metrics,
        torn=torn,
        before=_read(folder / "evaluation_before.json", _no_evaluation(config, "before"), _AGAIN),
        after=_read(folder / "evaluation_after.json", _no_evaluation(config, "after"), _AGAIN),
        speed=_read(folder / "speed.json", _no_speed(config), "measure again (`kdfast measure`)"),
        gates=_read(folder / "gates.json", _no_gates(config), "evaluate them again (`kdfast gate --json`)"),
        written_at=max(file.stat().st_mtime for file in [folder / "config.yaml", *files]),
    )


_NAMES = ("metrics.jsonl", "evaluation_before.json", "evaluation_after.json", "speed.json", "gates.json")


def _no_evaluation(config: Config, when: str) -> str:
    if not config.train.eval_prompts + config.train.eval_irrelevance_prompts:
        return "train.eval_prompts and train.eval_irrelevance_prompts are 0: this run evaluates nothing."
    if when == "before":
        return "No evaluation_before.json: the run has not begun, or the file was removed."
    return "No evaluation_after.json: the run has not reached its end. `kdfast train CONFIG --resume` goes on with it."


def _no_speed(config: Config) -> str:
    measure = "`kdfast measure RUN --prompts FILE --out RUN/speed.json` makes one."
    if config.data.validation is None:
        return f"No speed.json: the run has no validation data to measure on. {measure}"
    if not config.speed.every_validations:
        return f"No speed.json: speed.every_validations is 0. {measure}"
    return (
        f"No speed.json: no validation has ended yet, or the run was made before kdfast measured. {measure}"
    )


def _no_gates(config: Config) -> str:
    judge = "`kdfast gate --candidate RUN ... --json RUN/gates.json` makes one."
    if not config.gates.enabled:
        return f"No gates.json: gates.enabled is []. {judge}"
    if config.data.validation is None:
        return f"No gates.json: the run has no validation data to measure on. {judge}"
    return f"No gates.json: the run has not reached its end, or was made before runs evaluated gates. {judge}"


def _read(file: Path, missing: str, remedy: str) -> Node | Missing:
    """A JSON document."""
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return Missing(f"no {file.name}", missing)
    try:
        return Node(json.loads(text.decode("utf-8"), parse_constant=_refuse), str(file), remedy)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not readable JSON ({error}); {remedy}", str(file)) from None


def _read_lines(file: Path) -> tuple[list[Node] | Missing, bool]:
    """The lines of a JSONL file, and whether the last one was torn: written in part when the run was killed."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return Missing(
            "no metrics.jsonl", "No metrics.jsonl: the run has not begun, or the file was removed."
        ), False
    lines = content.split(b"\n")
    whole = not lines[-1]  # every line that was written to its end has its newline
    lines = lines[:-1] if whole else lines
    remedy = "remove the line; a resumed run writes its own lines again"
    nodes, torn = [], False
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line.decode("utf-8"), parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            torn = number == len(lines) and not whole
            if torn:
                break
            raise DataError(f"not a JSON object ({error}); {remedy}", str(file), number) from None
        nodes.append(Node(value, str(file), remedy, number))
    if not nodes:
        return Missing(
            "metrics.jsonl is empty",
            "metrics.jsonl is empty: the run stopped before its first validation ended.",
        ), torn
    return nodes, torn


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
