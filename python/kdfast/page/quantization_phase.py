"""How training under quantisation went: the lines of kind `qat` in `metrics.jsonl`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdfast.page.charts import Line, line_chart
from kdfast.page.wording import counted, number, share
from kdfast.runs.node import Node
from kdfast.runs.reading import Missing

_CHARTS = {
    "cosine": "worst layer's cosine with the same weights in float",
    "kl": "KL to the same weights in float (nats)",
    "changed_fraction": "codes changed since quantisation began",
}
_RANGES = {
    "cosine": (-1.0, 1.0),
    "kl": (0.0, math.inf),
    "changed_fraction": (0.0, 1.0),
    "sign_changes": (0.0, math.inf),
    "flips": (0.0, math.inf),
    "returns": (0.0, math.inf),
}
_ROUNDING = 1e-6
_EVENTS = {
    "start": "quantisation began",
    "rolled_back": "went back to the last good state, at half the learning rate",
    "gave_up": "QAT was given up; the run went on in float",
    "frozen": "scales were frozen",
}


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What the page shows of the phase under quantisation.

    Attributes:
        began: whether there is any line of it.
        gave_up: why it was given up, in words; "" = it was not.
        charts: its numbers over the steps, where at least two checks have them.
        events: (step, what happened, whether it is bad).
        facts: (what, value) of the last check.
    """

    began: bool
    gave_up: str
    charts: Sequence[Markup]
    events: Sequence[tuple[int, str, bool]]
    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class _Line:
    step: int
    event: str
    reason: str
    passed: bool
    values: dict[str, float]


def read_phase(metrics: Sequence[Node] | Missing) -> Phase:
    """Collects the lines of kind `qat`; any of them may lack any number.

    Raises:
        DataError: a line is not as `kdfast train` writes it; the message names file, line and key.
    """
    nodes = [] if isinstance(metrics, Missing) else metrics
    lines = [_line(node) for node in nodes if node["kind"].text() == "qat"]
    gave_up = [line.reason or "no reason is known" for line in lines if line.event == "gave_up"]
    return Phase(
        began=bool(lines),
        gave_up=gave_up[-1] if gave_up else "",
        charts=[
            chart for name, title in _CHARTS.items() if (chart := _chart(lines, name, title)) is not None
        ],
        events=[event for line in lines if (event := _event(line)) is not None],
        facts=_facts(lines),
    )


def within(node: Node, low: float, high: float) -> float:
    """A number in [low, high]; rounding may have left it a little outside. Otherwise raises DataError.

    Examples:
        >>> within(Node(1.0000001, "quantization.json", "make it again", path="cosine"), -1.0, 1.0)
        1.0
    """
    value = node.number()
    if not low - _ROUNDING <= value <= high + _ROUNDING:
        raise node.wrong("at least 0" if high == math.inf else f"a number in [{low:g}, {high:g}]")
    return min(max(value, low), high)


def _line(node: Node) -> _Line:
    event, reason, passed = node.find("event"), node.find("reason"), node.find("passed")
    found = {name: node.find(name) for name in _RANGES}
    return _Line(
        step=node["step"].count(),
        event=event.text() if event is not None else "check",
        reason=reason.text() if reason is not None else "",
        passed=passed.flag() if passed is not None else True,
        values={name: within(value, *_RANGES[name]) for name, value in found.items() if value is not None},
    )


def _chart(lines: Sequence[_Line], name: str, title: str) -> Markup | None:
    points = [(float(line.step), line.values[name]) for line in lines if name in line.values]
    if len({step for step, _ in points}) < 2:
        return None
    read = {"cosine": cosine_text, "changed_fraction": share}.get(name, number)
    bounds = None if name == "cosine" else (0.0, max(value for _, value in points))
    chart = Line(label=title, points=points, style="held", dots=len(points) <= 60)
    return line_chart([chart], title=title, read=read, bounds=bounds)


def cosine_text(value: float) -> str:
    """A cosine with five decimals, without zeros at the end: 1 - cosine is what matters.

    Examples:
        >>> cosine_text(0.99986), cosine_text(0.98), cosine_text(1.0)
        ('0.99986', '0.98', '1')
    """
    return f"{value:.5f}".rstrip("0").rstrip(".")


def _event(line: _Line) -> tuple[int, str, bool] | None:
    """An event in words; a check that passed is none."""
    if line.event == "check":
        return (
            None if line.passed else (line.step, f"check failed: {line.reason or 'no reason is known'}", True)
        )
    told = _EVENTS.get(line.event, line.event)
    return (
        line.step,
        f"{told}: {line.reason}" if line.reason else told,
        line.event in ("rolled_back", "gave_up"),
    )


def _facts(lines: Sequence[_Line]) -> list[tuple[str, str]]:
    """What became of the codes, at the last check that says so."""
    known = [line for line in lines if "changed_fraction" in line.values]
    if not known:
        return []
    last = known[-1]
    facts = [(f"codes changed by step {last.step:,}", share(last.values["changed_fraction"]))]
    if "sign_changes" in last.values:
        facts.append(("scales that turned their sign", counted(round(last.values["sign_changes"]), "block")))
    if "flips" in last.values:
        back = f", {round(last.values['returns']):,} of them back again" if "returns" in last.values else ""
        facts.append(("changed since the check before", f"{round(last.values['flips']):,} codes{back}"))
    rolled = sum(line.event == "rolled_back" for line in lines)
    return [*facts, ("rollbacks", str(rolled))]
