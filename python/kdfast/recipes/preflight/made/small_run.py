"""Runs the small run: all of `kdfast train`, whole, stopped and disturbed, then the exports."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from kdfast.config import Config
from kdfast.display import Display
from kdfast.exit_codes import DONE, INTERRUPTED
from kdfast.qat import weight_quantizers
from kdfast.recipes.export.first_checks import failed_folder, look_before_exporting
from kdfast.recipes.export.of_run import export_requests
from kdfast.recipes.export.run import export
from kdfast.recipes.preflight.facts import Seen, SmallProject, SmallRun
from kdfast.recipes.train.events import Callback, TrainEvent
from kdfast.recipes.train.result import TrainResult
from kdfast.recipes.train.run import train
from kdfast.runs.folder import RunFolder

_IGNORED = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""Python itself does not show them."""


@dataclass
class Captured:
    """What was printed and warned of inside `captured`.

    Attributes:
        output: the text.
        warnings: each distinct warning, in order.
    """

    output: io.StringIO = field(default_factory=io.StringIO)
    warnings: dict[str, None] = field(default_factory=dict)


class _Listener(logging.Handler):
    """Keeps warnings of loggers."""

    def __init__(self, into: Captured) -> None:
        super().__init__(logging.WARNING)
        self._into = into

    def emit(self, record: logging.LogRecord) -> None:
        self._into.warnings[f"{record.name}: {record.getMessage()}"] = None


@contextlib.contextmanager
def captured() -> Iterator[Captured]:
    """Keeps what the block prints and what Python and the libraries warn of; torch's seed and threads are put back."""
    into = Captured()
    listener = _Listener(into)
    loggers = [
        logging.root,
        logging.getLogger("transformers"),
    ]  # transformers' own does not pass its records on
    threads = torch.get_num_threads()
    with (
        contextlib.redirect_stdout(into.output),
        contextlib.redirect_stderr(into.output),
        warnings.catch_warnings(record=True) as caught,
        torch.random.fork_rng(devices=[]),
    ):
        warnings.simplefilter("default")
        for logger in loggers:
            logger.addHandler(listener)
        try:
            yield into
        finally:
            for logger in loggers:
                logger.removeHandler(listener)
            torch.set_num_threads(threads)
            for one in caught:
                if not issubclass(one.category, _IGNORED):
                    into.warnings[f"{one.category.__name__}: {one.message}"] = None


ANSWER_TOKENS = 16
"""Tokens of an answer when the export's calls are compared: a stand-in with random weights makes none."""

DISTURBED_STEPS = 4
"""Steps of the run whose weight breaks."""

TOO_LARGE = 1e8
"""A weight whose scale is infinite in fp16 in every format (above 65504 * 127), and that float32 only finds large."""


def run_small(small: SmallProject) -> SmallRun:
    """Runs all steps at once.

    Raises:
        KdfastError, OSError: as `kdfast.train` raises them.
        KeyboardInterrupt: it was stopped.
    """
    return _run(small, small.config)


def run_resumed(small: SmallProject) -> SmallRun:
    """Runs the same steps in a folder of its own, stopped in the middle and resumed from the checkpoint.

    Raises:
        KdfastError, OSError: as `kdfast.train` raises them.
        KeyboardInterrupt: it was stopped.
    """
    config = _only_training(small.config, "resumed")
    return _run(small, config, stop_at=config.train.num_steps // 2 + 1)


def run_disturbed(small: SmallProject) -> SmallRun | None:
    """Runs a few steps in a folder of its own; one step after quantisation began a weight breaks, once.

    The weight is then so large that it rounds to NaN, and is finite in float: kdfast must go back.

    Returns:
        what the run left; None = `quant.enabled` is false.

    Raises:
        KdfastError, OSError: as `kdfast.train` raises them.
        KeyboardInterrupt: it was stopped.
    """
    if not small.config.quant.enabled:
        return None
    config = _only_training(small.config, "disturbed")
    config = replace(
        config,
        train=replace(
            config.train,
            num_steps=DISTURBED_STEPS,
            gradient_accumulation_steps=1,
            validation_rows=2,
            validate_every_steps=DISTURBED_STEPS,
            checkpoint_every_steps=DISTURBED_STEPS,
        ),
        # frozen scales would clip the weight, and without a rollback there is no going back
        quant=replace(config.quant, freeze_fraction=0.0, max_rollbacks=max(config.quant.max_rollbacks, 1)),
    )
    after = config.quant.phase_start(DISTURBED_STEPS) + 1
    return _run(small, config, more=[_break_once(after)])


def _only_training(config: Config, folder: str) -> Config:
    """The config of a run in another folder, without what only looks at the student."""
    return replace(
        config,
        io=replace(config.io, run_dir=config.io.run_dir.with_name(folder)),
        train=replace(config.train, eval_prompts=0, eval_irrelevance_prompts=0),
        speed=replace(config.speed, every_validations=0),
        gates=replace(config.gates, enabled=()),
    )


def _break_once(step: int) -> Callback:
    """A callback that breaks a weight after a step, the first time that it is made."""
    left = [step]

    def break_weight(event: TrainEvent) -> None:
        if event.kind == "step" and event.step in left:
            left.clear()
            with torch.no_grad():
                _weight_to_break(event.student)[0, 0] = TOO_LARGE

    return break_weight


def _weight_to_break(student: nn.Module) -> Tensor:
    """A rounded weight [out,in] that only adds to the residual stream, if there is one: in float it breaks nothing."""
    weights = {name: weight for name, (_, weight) in weight_quantizers(student).items()}
    wanted = [name for name in weights if "down_proj" in name] or [
        one for one in weights if ".layers." in one
    ]
    return weights[(wanted or list(weights))[0]]


def _run(
    small: SmallProject, config: Config, *, stop_at: int | None = None, more: Sequence[Callback] = ()
) -> SmallRun:
    seen: list[Seen] = []
    started = time.perf_counter()
    with captured() as kept:
        if stop_at is not None:
            stopped = train(config, callbacks=[_keep(seen), lambda event: event.step >= stop_at])
            if stopped.step != stop_at:  # a Ctrl-C came first
                raise KeyboardInterrupt
        result = train(config, resume=stop_at is not None, callbacks=[_keep(seen), *more])
        _check_interrupted(result)
    metrics = RunFolder(config.io.run_dir).metrics.read_text(encoding="utf-8")
    return SmallRun(
        project=replace(small, config=config),
        result=result,
        seen=seen,
        lines=[json.loads(line) for line in metrics.splitlines()],
        output=kept.output.getvalue(),
        warnings=tuple(kept.warnings),
        seconds=time.perf_counter() - started,
    )


def _keep(seen: list[Seen]) -> Callback:
    def keep(event: TrainEvent) -> None:
        seen.append(Seen(kind=event.kind, step=event.step, values=dict(event.values)))

    return keep


def _check_interrupted(result: TrainResult) -> None:
    if result.exit_code == INTERRUPTED:
        raise KeyboardInterrupt


@dataclass(frozen=True)
class Exported:
    """The exports of the small student.

    Attributes:
        folders: target -> the export's folder; one that differs from the student has `.failed` at its end.
        warnings: what the converters warned of, each once.
    """

    folders: Mapping[str, Path]
    warnings: tuple[str, ...] = ()


def export_small(run: SmallRun) -> Exported:
    """Exports the student of the small run to every target of the config.

    Raises:
        KdfastError, OSError: as `kdfast export` raises them.
    """
    folders: dict[str, Path] = {}
    warned: dict[str, None] = {}
    for asked in export_requests(run.project.config):
        request = replace(asked, answer_tokens=ANSWER_TOKENS)
        with captured() as kept:
            code = export(look_before_exporting(request), Display())
        folders[request.target] = request.out if code == DONE else failed_folder(request.out)
        warned |= kept.warnings
    return Exported(folders, tuple(warned))
