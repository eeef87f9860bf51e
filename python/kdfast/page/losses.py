"""The section of curves: the loss, each of its terms, and every other logged number over the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdfast.config import Config
from kdfast.config.kd import KDConfig
from kdfast.config.quant import QuantConfig
from kdfast.page.charts import Line, line_chart, smooth
from kdfast.page.history import History, series
from kdfast.page.wording import number, share

# a term's name is that of its weight's key without the ending; its title stands in the config
_TERMS = {
    key.removesuffix("_weight"): KDConfig.key(key).title
    for key in KDConfig.names()
    if KDConfig.key(key).title
} | {"self_kl": QuantConfig.key("self_kd_weight").title}
_AGREEMENT = {
    "token_accuracy": "next token is the label",
    "token_agreement": "next token is the teacher's",
    "false_opening_rate": "opens a call where none is due",
}
_OPTIMISER = {
    "learning_rate": "learning rate",
    "grad_norm": "norm of the gradient",
    "tokens_per_second": "training tokens per second",
}
_EXACT = {"learning_rate"}
"""A schedule has no noise. An average would only be late."""
_ELSEWHERE = {"loss", "tokens", "seconds", "shape"}
SMOOTHED_FROM = 60
"""From this many logged steps on, a smoothed line is drawn over the faint raw one, and the chart says how."""


@dataclass(frozen=True, kw_only=True)
class LossSection:
    """The curves.

    Attributes:
        loss: the chart of the total loss; None = it was not logged.
        groups: (heading, charts) for all other numbers.
        validations: the table of validations: the names, then rows of (step, the value of each name or "").
    """

    loss: Markup | None
    groups: Sequence[tuple[str, Sequence[Markup]]]
    validations: tuple[Sequence[str], Sequence[tuple[int, Sequence[str]]]]


def loss_section(history: History, config: Config) -> LossSection:
    """Collects what the page shows of the losses."""
    logged = {name for entry in (*history.train, *history.validation) for name in entry.values} - _ELSEWHERE
    known = (_TERMS, _AGREEMENT, _OPTIMISER)
    rest = {name: name for name in sorted(logged) if not any(name in names for names in known)}
    headings = ("Terms of the loss", "Agreement on held-out answers", "Optimiser", "Diagnostics")
    steps = (0.0, float(max(history.last_step, 1)))
    groups = []
    for heading, names in zip(headings, (*known, rest), strict=True):
        read = share if names is _AGREEMENT else number
        charts = [
            _chart(history, name, title, read, steps, note=_weight(config, name) if names is _TERMS else "")
            for name, title in names.items()
            if name in logged
        ]
        if charts:
            groups.append((heading, charts))
    there = any("loss" in entry.values for entry in (*history.train, *history.validation))
    return LossSection(
        loss=_chart(history, "loss", "loss (nats)", number, steps) if there else None,
        groups=groups,
        validations=_validations(history),
    )


def _chart(
    history: History,
    name: str,
    title: str,
    read: Callable[[float], str],
    steps: tuple[float, float],
    note: str = "",
) -> Markup:
    train, held = series(history.train, name), series(history.validation, name)
    window = 0 if name in _EXACT else _window(len(train))
    lines = [
        Line(
            label="training, as logged" if window else "training",
            points=train,
            style="faint" if window else "train",
        ),
        Line(label="training, averaged", points=smooth(train, window) if window else [], style="train"),
        Line(label="held out", points=held, style="held", dots=len(held) <= 60),
    ]
    smoothing = f"strong line: exponential average over about {window} logged steps" if window else ""
    return line_chart(
        lines,
        title=title,
        note="; ".join(filter(None, [note, smoothing])),
        read=read,
        steps=steps,
        bounds=(0.0, 1.0) if name in _AGREEMENT else None,
        legend=name == "loss",
    )


def _window(count: int) -> int:
    return round(count / 30) if count >= SMOOTHED_FROM else 0


def _weight(config: Config, name: str) -> str:
    weight = getattr(config.kd, f"{name}_weight", None)
    final = getattr(config.kd, f"{name}_final_weight", None)
    if weight is None:
        return ""
    return f"weight {number(weight)}" + (f" to {number(final)}" if final is not None else "")


def _validations(history: History) -> tuple[list[str], list[tuple[int, list[str]]]]:
    names = list(dict.fromkeys(name for entry in history.validation for name in entry.values))
    rows = []
    for entry in history.validation:
        cells = [
            (share if name in _AGREEMENT else number)(entry.values[name]) if name in entry.values else ""
            for name in names
        ]
        rows.append((entry.step, cells))
    return names, rows
