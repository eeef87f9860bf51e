"""Reading what a run left on disk: `read_run` gives its files, and says why one is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from kdfast.config import Config, load_config
from kdfast.errors import ConfigError, DataError
from kdfast.files import parse_json
from kdfast.runs.export_folder import ExportFolder
from kdfast.runs.folder import RunFolder
from kdfast.runs.node import Node
from kdfast.runs.student import Stale, stale_speed, student_step

T = TypeVar("T")
_MAKE_AGAIN = "delete it and make it again (`kdfast train CONFIG --resume`)"


@dataclass(frozen=True)
class Missing:
    """A file that does not exist, or is empty.

    Attributes:
        short: a few words, for places with little room.
        reason: why it is missing, and what would make it.
    """

    short: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """The files of a run folder.

    Attributes:
        name: the run folder's name.
        config: the resolved config.
        metrics: the lines of `metrics.jsonl`.
        torn: whether a kill cut the last line of `metrics.jsonl` short; that line is left out.
        before: `evaluation_before.json`.
        after: `evaluation_after.json`.
        speed: `speed.json`.
        gates: `gates.json`.
        quantization: `quantization.json`.
        preflight: `preflight.json`.
        exports: folder below the run's -> the export there; one that failed ends with `.failed`. No manifest is read
            yet: an export must not keep its own successor from being made.
        written_at: when the newest of the files was written, in Unix seconds.
        student_step: the step of the student's weights, see `kdfast.runs.student`; None = not known.
        stale: why `speed.json` is about another student than the folder's; None = it is about this one, or missing.
    """

    name: str
    config: Config
    metrics: Sequence[Node] | Missing
    torn: bool
    before: Node | Missing
    after: Node | Missing
    speed: Node | Missing
    gates: Node | Missing
    quantization: Node | Missing
    preflight: Node | Missing
    written_at: float
    student_step: int | None = None
    stale: Stale | None = None
    exports: Mapping[str, ExportFolder] = field(default_factory=dict)


def there(file: T | Missing) -> T | None:
    """The file's content, or None where it is missing.

    Examples:
        >>> there(Missing("no file", "It was removed.")), there("content")
        (None, 'content')
    """
    return None if isinstance(file, Missing) else file


def read_run(path: Path) -> RunFiles:
    """Reads the files of a run folder; only its config must be there.

    Args:
        path: `io.run_dir` of the run.

    Raises:
        ConfigError: it is no run folder, or its config is damaged.
        DataError: a file is not JSON.
        OSError: a file cannot be read.
    """
    folder = RunFolder(path)
    if not folder.config.is_file():
        what = f"it has no {folder.config.name}" if path.is_dir() else "no such directory"
        raise ConfigError(f"run: {what}; give the io.run_dir of a `kdfast train`: {path}")
    config = load_config(folder.config)
    before, after = folder.evaluation("before"), folder.evaluation("after")
    files = (folder.metrics, before, after, folder.speed, folder.gates, folder.quantization, folder.preflight)
    metrics, torn = _read_lines(folder.metrics)
    speed = _read(folder.speed, _no_speed(folder.speed, config), "measure again (`kdfast measure`)")
    origin = _read(folder.student_origin, "There is no student yet, or it is older.", _MAKE_AGAIN)
    step = student_step(there(origin), there(metrics) or [])
    return RunFiles(
        name=path.resolve().name,
        config=config,
        metrics=metrics,
        torn=torn,
        before=_read(before, _no_evaluation(before, config, "before"), _MAKE_AGAIN),
        after=_read(after, _no_evaluation(after, config, "after"), _MAKE_AGAIN),
        speed=speed,
        gates=_read(
            folder.gates, _no_gates(folder.gates, config), "evaluate them again (`kdfast gate --json`)"
        ),
        quantization=_read(folder.quantization, _no_quantization(folder.quantization, config), _MAKE_AGAIN),
        preflight=_read(
            folder.preflight,
            f"No {folder.preflight.name}: `kdfast preflight CONFIG` was not run with this io.run_dir.",
            "run `kdfast preflight CONFIG` again",
        ),
        written_at=max(file.stat().st_mtime for file in (folder.config, *files) if file.is_file()),
        student_step=step,
        stale=None if isinstance(speed, Missing) else stale_speed(speed, folder, config, step),
        exports=_exports(folder),
    )


def _exports(folder: RunFolder) -> dict[str, ExportFolder]:
    found = map(ExportFolder, sorted(folder.export("gguf").parent.glob("[!.]*")))
    return {one.path.relative_to(folder.path).as_posix(): one for one in found if one.manifest.is_file()}


def _no_evaluation(file: Path, config: Config, when: str) -> str:
    if not config.train.eval_prompts + config.train.eval_irrelevance_prompts:
        return "train.eval_prompts and train.eval_irrelevance_prompts are 0: this run evaluates nothing."
    if when == "before":
        return f"No {file.name}: the run has not begun, or the file was removed."
    return f"No {file.name}: the run has not reached its end. `kdfast train CONFIG --resume` goes on with it."


def _no_speed(file: Path, config: Config) -> str:
    measure = f"`kdfast measure RUN --prompts FILE --out RUN/{file.name}` makes one."
    if config.data.validation is None:
        return f"No {file.name}: the run has no validation data to measure on. {measure}"
    if not config.speed.every_validations:
        return f"No {file.name}: speed.every_validations is 0. {measure}"
    return (
        f"No {file.name}: no validation has ended yet, or the run was made before kdfast measured. {measure}"
    )


def _no_gates(file: Path, config: Config) -> str:
    judge = f"`kdfast gate --candidate RUN ... --json RUN/{file.name}` makes one."
    if not config.gates.enabled:
        return f"No {file.name}: gates.enabled is []. {judge}"
    if config.data.validation is None:
        return f"No {file.name}: the run has no validation data to measure on. {judge}"
    return (
        f"No {file.name}: the run has not reached its end, or was made before runs evaluated gates. {judge}"
    )


def _no_quantization(file: Path, config: Config) -> str:
    if not config.quant.enabled:
        return f"No {file.name}: quant.enabled is false."
    return f"No {file.name}: the run has not reached its end. `kdfast train CONFIG --resume` goes on with it."


def _read(file: Path, missing: str, remedy: str) -> Node | Missing:
    """Reads a JSON document; `missing` is the reason if it does not exist."""
    try:
        return Node(parse_json(file.read_bytes()), str(file), remedy)
    except FileNotFoundError:
        return Missing(f"no {file.name}", missing)
    except ValueError as error:
        raise DataError(f"not readable JSON ({error}); {remedy}", str(file)) from None


def _read_lines(file: Path) -> tuple[list[Node] | Missing, bool]:
    """The lines of a JSONL file, and whether the last one is torn (a kill cut it short)."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        reason = f"No {file.name}: the run has not begun, or the file was removed."
        return Missing(f"no {file.name}", reason), False
    lines = content.split(b"\n")
    whole = not lines[-1]  # a line that was written to its end has its newline
    lines = lines[:-1] if whole else lines
    remedy = "remove the line; a resumed run writes its own lines again"
    nodes, torn = [], False
    for number, line in enumerate(lines, 1):
        try:
            value = parse_json(line)
        except ValueError as error:
            torn = number == len(lines) and not whole
            if torn:
                break
            raise DataError(f"not a JSON object ({error}); {remedy}", str(file), number) from None
        nodes.append(Node(value, str(file), remedy, number))
    if not nodes:
        reason = f"{file.name} is empty: the run stopped before its first validation ended."
        return Missing(f"{file.name} is empty", reason), torn
    return nodes, torn
