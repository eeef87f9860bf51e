"""`kdfast bless`: writes the baseline bundle of the model in use, with the noise of this machine."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from rich.console import Console

from kdfast.display import Display
from kdfast.files import check_file
from kdfast.gates import PairedDecision, baseline_bundle, noise_floor, write_baseline
from kdfast.recipes import loaded_model
from kdfast.recipes.first_look.of_model import check_not_failed, export_warning
from kdfast.recipes.gate.contest import Contest, Side
from kdfast.recipes.gate.run import report_of
from kdfast.recipes.gate.trial import check_prompts, decide
from kdfast.recipes.loaded_model import LoadedModel
from kdfast.recipes.requests import BlessRequest
from kdfast.speed import SpeedSample, absences, aggregate_speed_metrics, speed_table

_LABELS = {"ttft": "time to the first token", "tps": "time of a token"}


def bless(request: BlessRequest) -> int:
    """Runs the model against itself (A/A), as a gate would run it against another, and writes the bundle.

    The model is loaded twice, as for a gate: the place of the weights in memory is part of the noise.

    Returns:
        0.

    Raises:
        ConfigError: there is no such model or device; or it is an export that is not what was trained.
        DataError: bad records, or fewer than ten; a prompt that is too long; logits that are NaN; an answer whose
            times cannot be measured.
        OSError: a file cannot be read or written.
    """
    check_not_failed(request.model)
    check_file(request.out)
    display = Display()
    warning = export_warning(request.model)
    if warning:
        display.console.print(f"  {'warning':<12} {warning}", highlight=False, soft_wrap=True, markup=False)
    with ExitStack() as opened:
        model = opened.enter_context(loaded_model.load(request.model, request))
        check_prompts(model)
        twin = opened.enter_context(loaded_model.load(request.model, request))
        _run(request, model, twin, display)
    return 0


def _run(request: BlessRequest, model: LoadedModel, twin: LoadedModel, display: Display) -> None:
    side = Side.of(model)
    contest = Contest(Side.of(twin), side, seed=request.seed)
    contest.warm_up()
    with display.working("answers", len(model.prompts)) as on_progress:
        samples = side.answers(lambda done: on_progress(done, ""))
    outcome = decide(contest, request.limits, display, seed=request.seed)
    noise = {name: noise_floor(pairs) for name, pairs in outcome.pairs.items()}
    unsteady = {
        name: _why(decision) for name, decision in outcome.decisions.items() if decision.status != "pass"
    }
    bundle = baseline_bundle([report_of(model, samples)], noise, unsteady)
    write_baseline(request.out, bundle)
    _show(display.console, samples, bundle)
    display.console.print(f"  {'baseline':<12} {request.out}", highlight=False, soft_wrap=True, markup=False)


def _why(decision: PairedDecision) -> str:
    """The reason of the half of the decision (median or p95) that did not pass."""
    return (decision.p95 if decision.median.status == "pass" else decision.median).reason


def _show(console: Console, samples: list[SpeedSample], bundle: dict[str, Any]) -> None:
    speed = aggregate_speed_metrics(samples)
    console.print(speed_table(speed))
    for line in absences(speed):
        console.print(line, highlight=False, soft_wrap=True)
    for name, noise in bundle["noise_floor"].items():
        console.print(
            f"  noise (A/A)  {_LABELS[name]}: {noise['sd_log_ratio']:.1%} over {noise['pairs']} pairs, median ratio "
            f"{noise['median_ratio']:.3f}; a gate will take about {noise['planned_pairs']} pairs here",
            highlight=False,
            soft_wrap=True,
        )
    for name, reason in bundle["unsteady"].items():
        console.print(
            f"[bold red]unsteady[/bold red]: in the {_LABELS[name]} the model did not pass against itself ({reason}); "
            "a gate on this machine cannot be trusted now. Quiet it and bless again",
            highlight=False,
            soft_wrap=True,
        )
    hardware = bundle["hardware"]["key"]
    console.print(f"  {'hardware':<12} {hardware}", highlight=False, soft_wrap=True, markup=False)
