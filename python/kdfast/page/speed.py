"""The section of speed: how times and first actions are distributed, and how they changed during training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdfast.page.history import History
from kdfast.page.speed_charts import distribution, marks_of, speed_history
from kdfast.page.speed_metric import SpeedMetric, read_metric
from kdfast.page.wording import counted, number
from kdfast.runs.node import Node
from kdfast.runs.reading import Missing, RunFiles
from kdfast.runs.student import Stale

_DRAWN = {
    "ttft_ms": "time to first token",
    "ttfa_tokens": "tokens to the first action",
    "tps": "tokens per second",
}
_FEW = 20
"""With fewer samples the p95 is simply the largest one."""


@dataclass(frozen=True, kw_only=True)
class SpeedSection:
    """What the page shows of speed.

    Attributes:
        missing: the missing report; None = it is there.
        stale: why the report is about another student than the run's, so that it decides nothing; None = it is not.
        metrics: the metrics by name.
        shapes: (shape, the median of each metric that it has, as text).
        absent: (reason, names) of metrics that were not measured.
        charts: the distributions.
        history: the charts over the training steps.
        warnings: why the numbers may mislead: few samples, or other work on the machine.
        facts: (name, value) about the machine and the decoding.
    """

    missing: Missing | None
    stale: Stale | None
    metrics: dict[str, SpeedMetric]
    shapes: Sequence[tuple[str, dict[str, str]]]
    absent: Sequence[tuple[str, str]]
    charts: Sequence[Markup]
    history: Sequence[Markup]
    warnings: Sequence[str]
    facts: Sequence[tuple[str, str]]


def speed_section(files: RunFiles, history: History) -> SpeedSection:
    """Collects what the page shows of speed.

    Raises:
        DataError: the report is not as `kdfast train` writes it; the message names file and key.
    """
    report = files.speed
    curves = speed_history(history.speed)
    if isinstance(report, Missing):
        return SpeedSection(
            missing=report,
            stale=None,
            metrics={},
            shapes=[],
            absent=[],
            charts=[],
            history=curves,
            warnings=[],
            facts=[],
        )
    if report["kind"].text() != "kdfast.speed_report":
        raise report["kind"].wrong("'kdfast.speed_report'")
    asked = report.find("prompts")
    answers = asked.list() if asked is not None else None
    metrics = {name: read_metric(name, node, answers) for name, node in report["metrics"].items()}
    prompts = max((metric.count for name, metric in metrics.items() if name != "itl_ms"), default=0)
    slices = report.find("shapes")
    return SpeedSection(
        missing=None,
        stale=files.stale,
        metrics=metrics,
        shapes=[(shape, _medians(part)) for shape, part in (slices.items() if slices else ())],
        absent=_absent(report["absent"]),
        charts=[
            distribution(metrics[name], title, marks_of(metrics[name], report, files.config.gates))
            for name, title in _DRAWN.items()
            if name in metrics and metrics[name].samples
        ],
        history=curves,
        warnings=_warnings(prompts, report["hardware"]),
        facts=_facts(report),
    )


def _medians(part: Node) -> dict[str, str]:
    medians = {}
    for name, node in part["metrics"].items():
        metric = read_metric(name, node)
        medians[name] = metric.text(metric.median)
    return medians


def _absent(absent: Node) -> list[tuple[str, str]]:
    reasons: dict[str, list[str]] = {}
    for name, reason in absent.items():
        reasons.setdefault(reason.text(), []).append(name)
    return [(reason, ", ".join(names)) for reason, names in reasons.items()]


def _warnings(prompts: int, hardware: Node) -> list[str]:
    warnings = []
    if 0 < prompts < _FEW:
        warnings.append(f"Only {counted(prompts, 'prompt')}: p90 and p95 are about the slowest.")
    load, cores = hardware.find("load_average"), hardware.find("cores")
    if load is not None and cores is not None and load.list():
        busy = load.list()[0].number()
        if busy > cores.number():
            told = f"load {number(busy)} on {number(cores.number())} cores"
            warnings.append(f"Other work ran on this machine ({told}): times are longer than they would be.")
    return warnings


def _facts(report: Node) -> list[tuple[str, str]]:
    hardware = report["hardware"]
    facts = [("hardware", hardware["key"].text())]
    load = hardware.find("load_average")
    if load is not None:
        facts.append(("load average", " / ".join(number(one.number()) for one in load.list())))
    versions = hardware.find("versions")
    if versions is not None:
        facts.append(("versions", ", ".join(f"{name} {one.text()}" for name, one in versions.items())))
    decoding = report.find("decoding")
    if decoding is not None:
        facts.append(("decoding", ", ".join(f"{name} {one.value}" for name, one in decoding.items())))
    step = report.find("step")
    facts.append(("measured", f"at step {step.count():,}, in training" if step else "on a finished model"))
    return facts
