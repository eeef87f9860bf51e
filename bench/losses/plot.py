"""The results as a picture: every contender at every case, in time and in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.losses.cases import LOSSES
from bench.losses.contenders import FLOOR, KDFAST
from bench.losses.measure import ALL
from bench.losses.results import CaseResult, memory_ratio, present, time_ratio

COLOURS = {1: "#1f77b4", 10: "#d95f02"}
MARKERS = {256: "o", 576: "s"}


def plot(document: dict[str, Any], path: Path) -> bool:
    """Writes the picture; False where matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("svg")
    # Text stays text: one can search it, and it needs no outlines. Widths are measured in DejaVu Sans.
    mpl.rcParams.update({"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]})
    mpl.rcParams.update({"svg.hashsalt": "kdfast", "font.size": 9})
    from matplotlib import pyplot as plt

    cases: list[CaseResult] = [case for case in document["cases"] if present(case, KDFAST)]
    losses = [loss for loss in LOSSES if any(case["loss"] == loss for case in cases)]
    names = {loss: _names(cases, loss) for loss in losses}
    heights = [max(len(names[loss]), 1) for loss in losses]
    figure, axes = plt.subplots(
        len(losses),
        2,
        figsize=(11, 1.4 + 0.42 * sum(heights)),
        squeeze=False,
        sharey="row",
        height_ratios=heights,
        layout="constrained",
    )
    for row, loss in zip(axes, losses, strict=True):
        for axis, ratio in zip(row, (time_ratio, memory_ratio), strict=True):
            _panel(axis, [case for case in cases if case["loss"] == loss], names[loss], ratio)
        row[0].set_title(f"{LOSSES[loss]}: time / kdfast's", loc="left", fontsize=9)
        row[1].set_title("peak memory / kdfast's", loc="left", fontsize=9)
    figure.legend(handles=_legend(cases), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return True


def _names(cases: list[CaseResult], loss: str) -> list[str]:
    there = [case for case in cases if case["loss"] == loss]
    return [name for name in reversed(ALL) if name != KDFAST and any(present(case, name) for case in there)]


def _panel(axis: Any, cases: list[CaseResult], names: list[str], ratio: Any) -> None:
    from matplotlib import ticker

    axis.axvline(1, color="black", linewidth=1)
    for every, hidden in sorted({(case["every"], case["hidden"]) for case in cases}):
        alike = [case for case in cases if (case["every"], case["hidden"]) == (every, hidden)]
        shift = 0.16 if every == 1 else -0.16
        dots = [
            (found, height + shift)
            for height, name in enumerate(names)
            for case in alike
            if present(case, name) and (found := ratio(case, name))
        ]
        axis.plot(
            [x for x, _ in dots],
            [y for _, y in dots],
            linestyle="none",
            marker=MARKERS.get(hidden, "o"),
            color=COLOURS.get(every, "grey"),
            markersize=5,
            alpha=0.65,
            markeredgewidth=0,
        )
    axis.set_xscale("log")
    axis.set_yticks(range(len(names)), ["bare matrix products" if name == FLOOR else name for name in names])
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())
    axis.grid(axis="x", which="both", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _legend(cases: list[CaseResult]) -> list[Any]:
    from matplotlib.lines import Line2D

    def dot(marker: str, colour: str, label: str) -> Any:
        return Line2D([], [], linestyle="", marker=marker, color=colour, label=label)

    shares = sorted({case["every"] for case in cases})
    rows = [
        dot("o", COLOURS.get(every, "grey"), f"{100 // every} % of the rows supervised") for every in shares
    ]
    widths = sorted({case["hidden"] for case in cases})
    return rows + [dot(MARKERS.get(width, "o"), "grey", f"D = {width}") for width in widths]
