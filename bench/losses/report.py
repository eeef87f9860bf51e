"""The results as a page of Markdown."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path
from typing import Any

from bench.losses.cases import LOSSES
from bench.losses.contenders import FLOOR, KDFAST
from bench.losses.measure import ALL
from bench.losses.results import (
    GOALS,
    CaseResult,
    Goal,
    Outcome,
    memory_ratio,
    outcomes,
    present,
    time_ratio,
)

VALUES = {
    "truncated": "no mass outside the top k: another loss",
    "no entropy": "without the teacher's entropy",
}
METHOD = """Each cell: time and peak memory of forward and backward, divided by kdfast's; *1.5 / 9* is half
again as slow and nine times as large. Time: median over rounds of the ratio within a round, everybody in turns
in one process, in a random order in each round. Peak memory: the high-water mark of a process of its own, less
what was resident before (inputs, code, threads); gradients count, so nobody can be below the weight's. N is the
padded batch; with 10 % only every tenth position is supervised, and *rows* marks those that pick the rows
before they compute."""


def write_markdown(document: dict[str, Any], path: Path) -> None:
    """Writes the page."""
    cases: list[CaseResult] = document["cases"]
    lines = [
        "# Losses from hidden states: time and memory against peers",
        "",
        *_machine(document),
        "",
        METHOD,
    ]
    for loss, title in LOSSES.items():
        if some := [case for case in cases if case["loss"] == loss]:
            lines += ["", f"## {title}", "", *_table(some)]
    lines += ["", "## Goals", "", *_goals(cases), "", "## Who is who", "", *_contenders(document)]
    lines += ["", "## Absent", "", *_absent(cases)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _machine(document: dict[str, Any]) -> list[str]:
    facts, setting = document["machine"], document["setting"]
    shown = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items())
    rounds = (
        f"Up to {setting['rounds']} interleaved rounds, fewer where one took more than {setting['seconds']:g} s in all "
        f"(never fewer than {setting['least_rounds']}). Inputs in fp32."
    )
    note = (
        []
        if "device" in facts
        else ["The same code runs on CUDA (`--device cuda`); its speed there is unmeasured."]
    )
    return [f"Machine: {shown}.", "", " ".join([rounds, *note])]


def _cell(case: CaseResult, name: str) -> str:
    if not present(case, name):
        return "-"
    memory = memory_ratio(case, name)
    return f"{time_ratio(case, name):.2f} / {memory:.1f}" if memory else f"{time_ratio(case, name):.2f} / -"


def _table(cases: list[CaseResult]) -> list[str]:
    names = [
        name
        for name in ALL
        if name not in (KDFAST, FLOOR) and any(name in case["contenders"] for case in cases)
    ]
    heads = [f"{name} (rows)" if ALL[name].rows and "rows" not in name else name for name in names]
    lines = [f"| N | D | V | supervised | kdfast s | MB | GEMM share | {' | '.join(heads)} |"]
    lines.append("|---" * (7 + len(names)) + "|")
    for case in cases:
        size = f"| {case['positions']} | {case['hidden']} | {case['vocab']} | {100 // case['every']} % "
        if not present(case, KDFAST):
            lines.append(size + "| - " * (3 + len(names)) + "|")
            continue
        entry = case["contenders"][KDFAST]
        peak = f"{entry['peak_bytes'] / 1e6:.0f}" if entry["peak_bytes"] else "-"
        share = f"{100 * time_ratio(case, FLOOR):.0f} %" if present(case, FLOOR) else "-"
        cells = " | ".join(_cell(case, name) for name in names)
        lines.append(f"{size}| {statistics.median(entry['seconds']):.3f} | {peak} | {share} | {cells} |")
    return lines


def _goals(cases: list[CaseResult]) -> list[str]:
    lines = [
        "Against the best peer of each case, the fastest for time and the smallest for memory; a goal is met if "
        "every one of its cases meets it. *At most* is what kdfast would reach if it did nothing but its matrix "
        "products (GEMM). *Whole batch* leaves out the peers that pick rows too.",
        "",
        "| goal | cases | met in | lowest to highest | at most, at the lowest | against | whole batch only | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for goal in GOALS:
        everyone, whole = list(outcomes(goal, cases)), list(outcomes(goal, cases, picking=False))
        for what, found in itertools.groupby(sorted(everyone, key=lambda o: o.what), key=lambda o: o.what):
            lines.append(_goal(goal, what, list(found), [o for o in whole if o.what == what]))
    return lines


def _goal(goal: Goal, what: str, found: list[Outcome], whole: list[Outcome]) -> str:
    lowest = min(found, key=lambda outcome: outcome.found)
    met = sum(outcome.met for outcome in found)
    share = "all rows" if goal.every == 1 else "10 % of rows" if goal.every else "any rows"
    named = {"time": "{:.3g} x faster", "memory": "{:.3g} x smaller", "share": "GEMM share {:.2g}"}[what]
    title = f"{', '.join(goal.losses)}, D = {goal.hidden}, {share}: {named.format(lowest.goal)}"
    span = f"{lowest.found:.2f} to {max(outcome.found for outcome in found):.2f}"
    others = (
        f"{min(o.found for o in whole):.2f} to {max(o.found for o in whole):.2f}"
        if whole and what != "share"
        else ""
    )
    against = ", ".join(sorted({outcome.peer for outcome in found} - {""}))
    verdict = "met" if met == len(found) else "missed"
    limit = f"{lowest.limit:.2f}" if what != "share" else ""
    return f"| {title} | {len(found)} | {met} | {span} | {limit} | {against} | {others} | **{verdict}** |"


def _contenders(document: dict[str, Any]) -> list[str]:
    cases = document["cases"]
    lines = ["| contender | version | what | value off by | gradient off by |", "|---|---|---|---|---|"]
    for name, contender in ALL.items():
        entries = [case["contenders"][name] for case in cases if present(case, name)]
        errors = [
            f"{max(found):.0e}" if (found := [entry[key] for entry in entries if key in entry]) else "-"
            for key in ("value_error", "gradient_error")
        ]
        version = document["versions"].get(contender.package, "")
        about = contender.about + (f"; {VALUES[contender.value]}" if contender.value in VALUES else "")
        lines.append(f"| {name} | {version} | {about} | {' | '.join(errors)} |")
    note = "Off by: the largest relative difference from the same definition in float64, over all cases."
    return [*lines, "", note]


def _absent(cases: list[CaseResult]) -> list[str]:
    reasons: dict[tuple[str, str], list[str]] = {}
    for case in cases:
        for name, entry in case["contenders"].items():
            if "absent" in entry:
                size = f"{case['loss']} {case['positions']}/{case['hidden']}/{case['vocab']}/{100 // case['every']} %"
                reasons.setdefault((name, entry["absent"]), []).append(size)
    if not reasons:
        return ["Nobody."]
    return [f"- {name}, {reason} ({', '.join(sizes)})" for (name, reason), sizes in reasons.items()]
