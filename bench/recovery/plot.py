"""The picture of bench/qat_recovery.py."""

from __future__ import annotations

import importlib.util
import statistics
from pathlib import Path
from typing import Any

COLORS = ("#7f7f7f", "#1f77b4", "#d95f02", "#1b9e77")


def plot(document: dict[str, Any], path: Path) -> None:
    """KL and NLL of the arms, seed by seed, and NLL by rate. Does nothing where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        print(f"matplotlib is not installed, so this is not drawn: {path}")
        return
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]})
    mpl.rcParams.update({"svg.hashsalt": "kdfast", "font.size": 9})
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained", width_ratios=(1, 1, 1.1))
    lines = (
        ("float at the start + post-training", "quantised at once", ":"),
        ("float at the start", "float", "--"),
    )
    for axis, column, title in (
        (axes[0], "kl_answer", "KL from float, all tokens"),
        (axes[1], "nll_arguments", "NLL of arguments"),
    ):
        _bars(axis, document, column)
        for name, label, style in lines:
            value = 1000 * document["contenders"][name][column]
            axis.axvline(value, color="#333333", linestyle=style, linewidth=1.1, label=label)
        axis.set_xlabel(f"{title}, 0.001 nat a token")
    axes[1].set_yticklabels([])
    axes[0].legend(fontsize=7, frameon=False, loc="lower right")
    _rates(axes[2], document)
    for axis in axes:
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.suptitle("Q4_0; bars: mean of the seeds, dots: seeds", x=0.01, ha="left", fontsize=9)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _bars(axis: Any, document: dict[str, Any], column: str) -> None:
    arms = document["arms"]
    for place, (one, color) in enumerate(zip(arms.values(), COLORS, strict=True)):
        found = [1000 * seed[column] for seed in one["seeds"]]
        axis.barh(place, statistics.fmean(found), height=0.6, color=color, alpha=0.45)
        axis.plot(found, [place] * len(found), "o", color=color, markersize=4, clip_on=False)
    axis.set_yticks(range(len(arms)), [name.replace(" + ", "\n+ ") for name in arms])
    axis.set_ylim(len(arms) - 0.4, -0.6)


def _rates(axis: Any, document: dict[str, Any]) -> None:
    for (name, tried), color in zip(document["tuning"].items(), COLORS, strict=True):
        rates = sorted(tried, key=float)
        axis.plot(
            [float(rate) for rate in rates],
            [1000 * tried[rate]["nll"] for rate in rates],
            "o-",
            color=color,
            markersize=4,
            label=name,
        )
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("peak learning rate")
    axis.set_ylabel("NLL, rows for tuning, 0.001 nat")
    axis.legend(fontsize=7, frameon=False)
