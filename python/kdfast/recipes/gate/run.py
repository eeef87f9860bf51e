"""`kdfast gate`: may the candidate replace the blessed model?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kdfast.display import Display
from kdfast.errors import ConfigError
from kdfast.gates.evidence import Report
from kdfast.recipes import loaded_model
from kdfast.recipes.first_look.of_model import check_not_failed, check_same_engine, export_warning
from kdfast.recipes.gate.contest import Contest, Side
from kdfast.recipes.gate.judging import Judging
from kdfast.recipes.gate.reports import check_runs
from kdfast.recipes.gate.trial import check_prompts, decide
from kdfast.recipes.loaded_model import LoadedModel
from kdfast.recipes.requests import GateRequest
from kdfast.scoring import quality
from kdfast.speed import (
    Engine,
    SpeedSample,
    read_speed_report,
    speed_report,
    write_speed_report,
)

_OF_TIME = {"ttft": {"ttft_p50", "ttft_p95"}, "tps": {"tps_p50", "tps_p95"}}


def gate(
    request: GateRequest, judging: Judging, *, candidate_engine: Callable[[Engine], Engine] | None = None
) -> int:
    """Runs the models and judges the candidate.

    Args:
        request: what to run.
        judging: how to judge.
        candidate_engine: puts another engine around the candidate's own, such as one that is slower by a known share.

    Returns:
        The exit code: 0, or 3 when a gate failed.

    Raises:
        ConfigError: there is no such model or device; one model is an export and the other is not; an export is not
            what was trained; the models do not read the same prompts; the baseline is of another model than the
            blessed one.
        DataError: bad records, or none; fewer than ten for the gates of time; a prompt that is too long; a damaged
            baseline; logits that are NaN.
        OSError: a file cannot be read or written.
    """
    check_not_failed(request.candidate, name="candidate")
    if request.blessed is not None:
        check_not_failed(request.blessed, name="blessed")
        check_same_engine(request.candidate, request.blessed)
    judging.check()
    if request.reports is not None:
        request.reports.mkdir(parents=True, exist_ok=True)
    baseline = judging.baseline()
    display = Display()
    _warn(request, display)
    with ExitStack() as opened:
        candidate = opened.enter_context(loaded_model.load(request.candidate, request, name="candidate"))
        if request.blessed is None:
            return _alone(request, judging, candidate, baseline, display, candidate_engine)
        if _metrics(judging):
            check_prompts(candidate)
        blessed = opened.enter_context(loaded_model.load(request.blessed, request, name="blessed"))
        _check_alike(candidate, blessed, judging)
        _check_blessed(blessed, baseline)
        return _against(request, judging, (candidate, blessed), display, candidate_engine)


def _warn(request: GateRequest, display: Display) -> None:
    for name, path in (("candidate", request.candidate), ("blessed", request.blessed)):
        warning = None if path is None else export_warning(path)
        if warning:
            display.console.print(
                f"  {'warning':<12} {name}: {warning}", highlight=False, soft_wrap=True, markup=False
            )


def _against(
    request: GateRequest,
    judging: Judging,
    models: tuple[LoadedModel, LoadedModel],
    display: Display,
    wrap: Callable[[Engine], Engine] | None,
) -> int:
    """Runs the candidate and the blessed model in turn."""
    candidate, blessed = models
    contest = Contest(Side.of(candidate, wrap), Side.of(blessed), seed=request.seed)
    contest.warm_up()
    with display.working("answers", len(candidate.prompts)) as on_progress:
        answers = contest.answers(lambda done: on_progress(done, ""))
    metrics, outcome = _metrics(judging), None
    if metrics:
        outcome = decide(contest, judging.limits, display, seed=request.seed, metrics=metrics)
    reports = [report_of(loaded, samples) for loaded, samples in zip(models, answers, strict=True)]
    _keep(request, reports)
    return judging.conclude(
        reports[:1],
        reports[1:],
        display.console,
        paired=outcome.decisions if outcome is not None else None,
        context=_context(reports) | {"paired": outcome.to_json() if outcome is not None else {}},
    )


def gate_reports(files: Sequence[Path], judging: Judging) -> int:
    """Judges speed reports; runs nothing.

    Args:
        files: the candidate's reports, one per run.
        judging: how to judge.

    Returns:
        The exit code: 0, or 3 when a gate failed.

    Raises:
        DataError: a file is damaged, or no speed report; see also `check_runs`.
        OSError: it cannot be read, or a result cannot be written.
    """
    judging.check()
    current = [read_speed_report(file) for file in files]
    check_runs("candidate", list(zip(files, current, strict=True)))
    baseline = judging.baseline()
    return judging.conclude(
        current, baseline, Display().console, context=_context([current[0], *baseline[:1]])
    )


def report_of(loaded: LoadedModel, samples: list[SpeedSample]) -> dict[str, Any]:
    """The speed report of a model's answers, its quality included."""
    return speed_report(
        samples,
        loaded.options,
        loaded.provenance(),
        quality=quality([sample.score(loaded.options.formats) for sample in samples]),
    )


def _alone(
    request: GateRequest,
    judging: Judging,
    candidate: LoadedModel,
    baseline: Sequence[Report],
    display: Display,
    wrap: Callable[[Engine], Engine] | None,
) -> int:
    """Runs the candidate without a second model: its times can only be reported, not judged."""
    side = Side.of(candidate, wrap)
    side.warm_up()
    with display.working("answers", len(side.prompts)) as on_progress:
        samples = side.answers(lambda done: on_progress(done, ""))
    report = report_of(candidate, samples)
    _keep(request, [report])
    if _metrics(judging):
        display.console.print(
            "one model alone: its times decide nothing; name the model to run against by --blessed",
            highlight=False,
            soft_wrap=True,
        )
    return judging.conclude([report], baseline, display.console, context=_context([report, *baseline[:1]]))


def _metrics(judging: Judging) -> list[str]:
    """Which of the times `ttft` and `tps` an enabled gate needs."""
    return [name for name, gates in _OF_TIME.items() if not gates.isdisjoint(judging.limits.enabled)]


def _check_alike(candidate: LoadedModel, blessed: LoadedModel, judging: Judging) -> None:
    """Both models must read the same prompts; tokens per second compare only if both have the same tokens."""
    for ours, theirs in zip(candidate.prompts, blessed.prompts, strict=True):
        if (ours.text, ours.tools) != (theirs.text, theirs.tools):
            raise ConfigError(
                "--template: the models' own chat templates write the prompts differently; give both the same one by "
                f"--template (hermes, or a .jinja file); first in line {ours.line} of {candidate.settings.prompts}"
            )
    if "tps" in _metrics(judging):
        for prompt in candidate.prompts:
            if candidate.tokenizer.encode(prompt.text) != blessed.tokenizer.encode(prompt.text):
                raise ConfigError(
                    "gates.enabled: the tokenizers differ, and tokens per second of different tokens do not compare; "
                    f"leave tps_p50 and tps_p95 out, got {list(judging.limits.enabled)}"
                )


def _check_blessed(blessed: LoadedModel, baseline: Sequence[Report]) -> None:
    """With a baseline, the blessed model must be the one that the baseline was made from."""
    for report in baseline:
        known = (report.get("fingerprints") or {}).get("model")
        if known != blessed.fingerprints["model"]:
            raise ConfigError(
                "--blessed: is not the model that the baseline is of; name that one, or bless this one "
                f"(`kdfast bless`): {blessed.named}"
            )


def _keep(request: GateRequest, reports: Sequence[Report]) -> None:
    if request.reports is not None:
        for name, report in zip(("candidate", "blessed"), reports, strict=False):
            write_speed_report(request.reports / f"{name}.json", report)


def _context(reports: Sequence[Report]) -> dict[str, Any]:
    """What was compared: hashes, machine and decoding options of both sides."""
    sides = zip(("candidate", "baseline"), reports, strict=False)
    return {
        name: {
            section: dict(report.get(section) or {}) for section in ("fingerprints", "hardware", "decoding")
        }
        for name, report in sides
    }
