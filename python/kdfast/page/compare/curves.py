"""The losses of all runs over their steps: one colour a run, training thin, held-out rows thick."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from kdfast.config.kd import KDConfig
from kdfast.config.quant import QuantConfig
from kdfast.page.charts import Line, line_chart
from kdfast.page.compare.run import Run, style
from kdfast.page.history import series

_TERMS = {
    key.removesuffix("_weight"): KDConfig.key(key).title
    for key in KDConfig.names()
    if KDConfig.key(key).title
} | {"self_kl": QuantConfig.key("self_kd_weight").title}
"""A term's name is that of its weight's key without the ending."""
_MOST_DOTS = 60


def loss_curve(runs: Sequence[Run]) -> Markup | None:
    """The chart of the total loss; None if no run has logged one."""
    return _chart(runs, "loss", "loss (nats)")


def term_curves(runs: Sequence[Run]) -> list[Markup]:
    """A chart of each term of the loss that some run has logged."""
    charts = (_chart(runs, name, title) for name, title in _TERMS.items())
    return [chart for chart in charts if chart is not None]


def _chart(runs: Sequence[Run], name: str, title: str) -> Markup | None:
    training = [
        Line(
            label=f"{run.label}, training",
            points=points,
            style=f"{style(index)} {'raw' if run.history.validation else 'raw alone'}",
        )
        for index, run in enumerate(runs)
        if (points := series(run.history.train, name))
    ]
    # over the thin lines, so that none of them hides it
    held_out = [
        Line(
            label=f"{run.label}, held out",
            points=points,
            style=style(index),
            dots=len(points) <= _MOST_DOTS,
        )
        for index, run in enumerate(runs)
        if (points := series(run.history.validation, name))
    ]
    if not training and not held_out:
        return None
    last = max(run.history.last_step for run in runs)
    return line_chart([*training, *held_out], title=title, steps=(0.0, float(max(last, 1))), legend=False)
