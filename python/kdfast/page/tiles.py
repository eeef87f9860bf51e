"""The headline numbers of the page."""

from __future__ import annotations

from dataclasses import dataclass

from kdfast.page.charts import Estimate
from kdfast.page.checks import Shown
from kdfast.page.history import series, total
from kdfast.page.speed_metric import SpeedMetric
from kdfast.page.wording import change, duration, number, share


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One headline number.

    Attributes:
        label: the number's name.
        value: the number as text; "" = not known.
        unit: the number's unit.
        details: lines below it, such as its value before training; or why it is not known.
        tone: `better` or `worse` than before training; `stale` = of another student, so that it decides nothing; "" =
            equal, or nothing to compare with.
    """

    label: str
    value: str
    unit: str = ""
    details: tuple[str, ...] = ()
    tone: str = ""


def tiles(shown: Shown) -> list[Tile]:
    """The headline numbers of a run, also those that are not known."""
    why = shown.after_missing or "no such prompt in the evaluation"
    return [
        _loss(shown),
        _share("valid calls", "schema_valid", shown, why),
        _share("exact matches", "exact_match", shown, why),
        _share("false calls", "false_calls", shown, why, fewer_is_better=True),
        _speed("time to first token", "ttft_ms", shown),
        _speed("first action", "ttfa_tokens", shown),
        _speed("generation", "tps", shown),
        _training(shown),
    ]


def _loss(shown: Shown) -> Tile:
    losses = series(shown.history.validation, "loss")
    if not losses:
        return Tile(label="held-out loss", value="", details=("no validation in metrics.jsonl",))
    first, last = losses[0][1], losses[-1][1]
    if len(losses) == 1:
        return Tile(
            label="held-out loss", value=number(last), unit="nats", details=(f"at step {losses[0][0]:,.0f}",)
        )
    of_student = dict(losses[1:]).get(shown.student_step or -1)
    takes_other = of_student is not None and shown.student_step != losses[-1][0]
    if of_student is not None:
        last = of_student
    changed = change(first, last)
    detail = f"from {number(first)}" + (f" ({changed})" if changed else "")
    if takes_other:
        detail += f", at step {shown.student_step:,}: the student's"
    tone = "better" if last < first else "worse" if last > first else ""
    return Tile(label="held-out loss", value=number(last), unit="nats", details=(detail,), tone=tone)


def _share(label: str, name: str, shown: Shown, why: str, *, fewer_is_better: bool = False) -> Tile:
    after, before = shown.after.get(name), shown.before.get(name)
    if after is None:
        return Tile(label=label, value="", details=(why,))
    counted = f"{after.count} of {after.total}" if after.count is not None else ""
    was = f"{share(before.value)} before" if before is not None else ""
    lines = (", ".join(filter(None, (counted, was))), f"95 %: {after.interval}" if after.interval else "")
    return Tile(
        label=label,
        value=share(after.value),
        details=tuple(filter(None, lines)),
        tone=_tone(before, after, fewer_is_better=fewer_is_better),
    )


def _tone(before: Estimate | None, after: Estimate, *, fewer_is_better: bool) -> str:
    if before is None or before.value == after.value:
        return ""
    return "better" if (after.value < before.value) == fewer_is_better else "worse"


def _speed(label: str, name: str, shown: Shown) -> Tile:
    metric = shown.speed.metrics.get(name)
    if metric is None:
        reasons = "; ".join(reason for reason, names in shown.speed.absent if name in names.split(", "))
        why = shown.speed.missing.short if shown.speed.missing else reasons or "not in speed.json"
        return Tile(label=label, value="", details=(why,))
    stale = shown.speed.stale
    return Tile(
        label=label,
        value=metric.text(metric.median),
        unit=_unit(metric),
        details=(*_details(metric), *([f"stale: {stale.reason}"] if stale else [])),
        tone="stale" if stale else "",
    )


def _unit(metric: SpeedMetric) -> str:
    return "" if metric.median == float("inf") else metric.unit


def _details(metric: SpeedMetric) -> tuple[str, ...]:
    tail = "p5" if metric.name == "tps" else "p95"
    middle = f"median; {tail} {metric.text(metric.tail[1])}"
    return (middle, metric.without()) if metric.infinite else (middle,)


def _training(shown: Shown) -> Tile:
    history, steps = shown.history, shown.config.train.num_steps
    seconds, tokens = total(history.train, "seconds"), total(history.train, "tokens")
    details = (duration(seconds), f"{number(tokens)} tokens in logged steps") if seconds else ()
    return Tile(
        label="training steps",
        value=f"{history.last_step:,}",
        unit=f"of {steps:,}",
        details=details,
    )
