"""Table and picture of bench/latency_losses.py, from its results file."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

TITLES = {
    "A": "A: no end of turn in cross-entropy",
    "B": "B: every end of turn labelled",
    "C": "C: the teacher rambles before the call",
    "D": "D: 19 of 20 answers cut",
}
COLUMNS = {
    "length_mean": "mean length",
    "length_median": "median length",
    "never_ended": "never ended",
    "first_call_p50": "first call, p50",
    "first_call_p95": "first call, p95",
    "exact_match": "exact match",
    "missed_calls": "missed calls",
    "false_calls": "false calls",
    "token_accuracy": "token accuracy",
}
PERCENT = ("never_ended", "exact_match", "missed_calls", "false_calls", "token_accuracy")
PANELS = ("length_mean", "first_call_p50", "exact_match", "false_calls")


def write_report(file: Path) -> None:
    """Writes the .md and the .svg beside a results file."""
    document = json.loads(file.read_text())
    file.with_suffix(".md").write_text(markdown(document))
    plot(document, file.with_suffix(".svg"))


def values(runs: list[dict[str, Any]], column: str) -> list[float]:
    """One figure of some runs; shares in percent."""
    factor = 100 if column in PERCENT else 1
    return [factor * float(run[column]) for run in runs]


def by_arm(document: dict[str, Any], experiment: str) -> dict[str, list[dict[str, Any]]]:
    """Arm's name -> its runs, one a seed."""
    arms: dict[str, list[dict[str, Any]]] = {}
    for run in document["runs"]:
        if run["arm"]["experiment"] == experiment:
            arms.setdefault(run["arm"]["name"], []).append(run)
    seeds = document["setting"]["seeds"]
    return {
        name if len(runs) == seeds else f"{name} ({len(runs)} of {seeds} seeds)": runs
        for name, runs in arms.items()
    }


def _cell(found: list[float]) -> str:
    low, mean, high = (f"{number:.4g}" for number in (min(found), statistics.fmean(found), max(found)))
    return mean if low == high else f"{mean} ({low}..{high})"


def markdown(document: dict[str, Any]) -> str:
    """Mean and range over the seeds, for every arm."""
    setting = document["setting"]
    lines = [
        "# Latency losses, by generation",
        "",
        f"`python bench/latency_losses.py` says in its first lines who learned what. {setting['seeds']} seeds: "
        f"mean (range). Greedy answers to {setting['due']} held-out prompts that need a call and {setting['not_due']} "
        f"that must not get one, at most {setting['max_new_tokens']} tokens. Lengths in tokens; `first call` = tokens "
        "until the first complete call; the rest in percent; token accuracy is teacher-forced, ends of turn left out.",
    ]
    for experiment, title in TITLES.items():
        arms = by_arm(document, experiment)
        if not arms:
            continue
        lines += [
            "",
            f"## {title}",
            "",
            f"| | {' | '.join(COLUMNS.values())} |",
            "|---" * (len(COLUMNS) + 1) + "|",
        ]
        teacher = document["teachers"][experiment]
        cells = [_cell(values([teacher], column)) if column in teacher else "" for column in COLUMNS]
        lines.append(f"| *teacher* | {' | '.join(cells)} |")
        for name, runs in arms.items():
            lines.append(f"| {name} | {' | '.join(_cell(values(runs, column)) for column in COLUMNS)} |")
    machine = f"torch {setting['torch']}, Python {setting['python']}, {setting['system']}, one thread"
    note = [document["note"], ""] if "note" in document else []
    return "\n".join([*lines, "", *note, f"{machine}.", ""])


def plot(document: dict[str, Any], path: Path) -> None:
    """Every arm's seeds as dots, their mean as a bar, the teacher as a line."""
    import matplotlib as mpl

    mpl.use("svg")
    # Text stays text: one can search it, and it needs no outlines. Widths are measured in DejaVu Sans.
    mpl.rcParams.update({"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]})
    mpl.rcParams.update({"svg.hashsalt": "kdfast", "font.size": 9})
    from matplotlib import pyplot as plt

    groups = {experiment: by_arm(document, experiment) for experiment in TITLES}
    groups = {experiment: arms for experiment, arms in groups.items() if arms}
    heights = [len(arms) for arms in groups.values()]
    figure, axes = plt.subplots(
        len(groups),
        len(PANELS),
        figsize=(12, 1.2 + 0.42 * sum(heights)),
        sharex="col",
        sharey="row",
        squeeze=False,
        height_ratios=heights,
        layout="constrained",
    )
    for row, (experiment, arms) in zip(axes, groups.items(), strict=True):
        row[0].set_title(TITLES[experiment], loc="left", fontweight="bold", fontsize=9)
        for axis, column in zip(row, PANELS, strict=True):
            _panel(axis, arms, document["teachers"][experiment], column)
    for axis, column in zip(axes[-1], PANELS, strict=True):
        unit = ", %" if column in PERCENT else ", tokens"
        axis.set_xlabel(COLUMNS[column] + unit)
        finite = [value for value in values(document["runs"], column) if math.isfinite(value)]
        axis.set_xlim(0, 105 if column in PERCENT else 1.05 * max(finite))
    figure.suptitle("dots: seeds, bars: their mean, dotted line: the teacher", x=0.99, ha="right", fontsize=9)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _panel(axis: Any, arms: dict[str, list[dict[str, Any]]], teacher: dict[str, Any], column: str) -> None:
    places = range(len(arms))
    if math.isfinite(line := values([teacher], column)[0]):
        axis.axvline(line, color="#888888", linestyle=":", linewidth=1.2)
    for place, runs in zip(places, arms.values(), strict=True):
        found = [value for value in values(runs, column) if math.isfinite(value)]
        if len(found) < len(runs):
            axis.annotate(
                f"inf: {len(runs) - len(found)}",
                (0.98, place),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="center",
            )
        if found:
            axis.barh(place, statistics.fmean(found), height=0.6, color="#9ecae1" if place else "#d9d9d9")
            axis.plot(found, [place] * len(found), "o", color="#08519c", markersize=4, clip_on=False)
    axis.set_yticks(list(places), list(arms))
    axis.set_ylim(len(arms) - 0.4, -0.6)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
