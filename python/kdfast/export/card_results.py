"""The numbers of a model card, each from a file of the run or a check of the export; none is made up.

Each function gives Markdown without a heading. What is missing is said to be not measured, and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdfast.export.parity.result import ParityCheck
from kdfast.export.parity.table import measured
from kdfast.runs.node import Node
from kdfast.runs.reading import Missing, RunFiles

_SHARES = {
    "parsed": "a call was found",
    "right_function": "right function",
    "schema_valid": "valid against its schema",
    "exact_match": "exact match (accepted values)",
    "missed_calls": "missed calls",
    "broken_calls": "broken calls",
    "false_calls": "false calls (no tool fits)",
    "cut": "cut at the longest length",
}
_QUALITY = {
    "f1": "F1 of calls",
    "precision": "right calls of those made",
    "recall": "right calls of those due",
}
_SPEED = {
    "ttft_ms": "time to first token",
    "tps": "speed",
    "ttfa_tokens": "tokens to the first valid call",
    "ttfa_ms": "time to the first valid call",
}
_STATUS = {"not_measured": "not measured", "report_only": "report only"}
_FEW = 100


def cell(value: object) -> str:
    r"""A value as the cell of a Markdown table: one line, no markup of its own.

    Example:
        >>> cell("a|b <c>")
        'a\\|b &lt;c&gt;'
    """
    text = " ".join(str(value).split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *([cell(one) for one in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def evaluation_text(run: RunFiles | None) -> str:
    """The held-out evaluation before and after training, with its intervals, and the last validation."""
    if run is None:
        return "Not measured: this model is no run of kdfast."
    if isinstance(run.after, Missing):
        return f"Not measured. {run.after.reason}"
    after = run.after
    before = run.before if isinstance(run.before, Node) else None
    rows = [
        (label, (_share(before, name) if before else "") or "not measured", _share(after, name))
        for name, label in {**_SHARES, **_QUALITY}.items()
        if _share(after, name)
    ]
    prompts, due = after.find("prompts"), after.find("due")
    of = f"{prompts.count():,} held-out prompts" if prompts else "held-out prompts"
    calls = f", {due.count():,} of which need a call" if due else ""
    limit = _limit(after)
    with_intervals = any("[" in text for row in rows for text in row)
    brackets = " Brackets: 95 % intervals of a bootstrap over prompts." if with_intervals else ""
    parts = [
        f"On {of}{calls}, with the student before its export (torch), likeliest token at each step{limit}.{brackets}",
        table(["share", "before training", "after"], rows),
    ]
    if prompts and prompts.count() < _FEW:
        parts.append(
            f"{prompts.count()} prompts are few: the intervals are wide, small differences are chance."
        )
    return "\n\n".join([*parts, *_validation(run), *_quantization(run)])


def gates_text(run: RunFiles | None) -> str:
    """The result of each gate at the end of the run."""
    if run is None:
        return "Not evaluated: this model is no run of kdfast."
    if isinstance(run.gates, Missing):
        return f"Not evaluated. {run.gates.reason}"
    rows = []
    for node in run.gates["results"].list():
        status, unit = node["status"].text(), node["unit"].text()
        infinite = {one.text() for one in node["infinite"].list()}
        shown = [
            "infinite" if key in infinite else _with_unit(node.find(key), unit) for key in ("value", "limit")
        ]
        rows.append((node["name"].text(), _STATUS.get(status, status), *shown, node["reason"].text()))
    passed = "No gate failed." if run.gates["passed"].flag() else "**A gate failed.**"
    skipped = sum(row[1] in ("skipped", "inconclusive") for row in rows)
    more = f" {skipped} of {len(rows)} could not be judged." if skipped else ""
    return f"{passed}{more}\n\n{table(['gate', 'result', 'value', 'limit', 'why'], rows)}"


def speed_text(run: RunFiles | None) -> str:
    """The newest speed report of the run, with its machine."""
    if run is None:
        return "Not measured: this model is no run of kdfast."
    if isinstance(run.speed, Missing):
        return f"Not measured. {run.speed.reason}"
    if run.stale is not None:
        return f"Not measured for this student: the report is about another one ({run.stale.reason})."
    metrics = run.speed["metrics"]
    rows = []
    for name, label in _SPEED.items():
        metric = metrics.find(name)
        if metric is not None:
            unit = metric["unit"].text()
            tail = "p5" if name == "tps" else "p95"
            slow = f"{_level(metric, tail)} {unit} ({tail})"
            rows.append((label, f"{_level(metric, 'p50')} {unit}", slow, metric["count"].count()))
    hardware = run.speed["hardware"]["key"].text()
    exported = run.speed.find("export")
    of_export = exported is not None and exported.flag()
    whose = "an export's" if of_export else "the student's before its export (torch), not this file's"
    note = f"Measured on: {cell(hardware)}. It is {whose}."
    remedy = "`kdfast measure DIR --prompts FILE` measures what ships, on your machine."
    return f"{note} {remedy}\n\n{table(['metric', 'median', 'slow end', 'samples'], rows)}"


def parity_text(parity: Mapping[str, ParityCheck]) -> str:
    """The checks of the exported file against what was trained."""
    if not parity:
        return "Not measured."
    rows = []
    for name, check in parity.items():
        shown = "; ".join(filter(None, [measured(check), check.reason]))
        rows.append((name, _STATUS.get(check.status, check.status), shown))
    problems = [f"- {name}: {cell(one)}" for name, check in parity.items() for one in check.problems]
    listed = "\n\nWhat differs:\n\n" + "\n".join(problems) if problems else ""
    return table(["check", "result", "measured"], rows) + listed


def number(value: float) -> str:
    """Three significant digits, all digits before the point.

    Examples:
        >>> number(0.22457), number(436.94), number(89941248.0), number(2.0)
        ('0.225', '437', '89,941,248', '2')
    """
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _with_unit(node: Node | None, unit: str) -> str:
    return "" if node is None else f"{number(node.number())} {unit}".strip()


def _level(metric: Node, key: str) -> str:
    """A percentile; null in a metric with infinite samples means that the event did not come."""
    found = metric.find(key)
    if found is None and metric["infinite"].count():
        return "never"
    return number(metric[key].number())


def _share(evaluation: Node, name: str) -> str:
    """A share in percent with its interval; "" = the file has none."""
    found = evaluation["table"].find(name)
    if found is not None:
        total = found["total"].count()
        if not total:
            return ""
        count = found["count"].count()
        return f"{_percent(count / total)} ({count} of {total}){_ends(found)}"
    quality = evaluation.find("quality")
    value = quality.find(name) if quality is not None else None
    return "" if value is None else f"{_percent(value['value'].number())}{_ends(value)}"


def _ends(node: Node) -> str:
    low, high = node.find("low"), node.find("high")
    if low is None or high is None:
        return ""
    return f" [{_percent(low.number())}, {_percent(high.number())}]"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _limit(evaluation: Node) -> str:
    decoding = evaluation.find("decoding")
    most = decoding.find("max_new_tokens") if decoding is not None else None
    return f", at most {most.count():,} tokens" if most is not None else ""


def _validation(run: RunFiles) -> list[str]:
    if isinstance(run.metrics, Missing):
        return []
    lines = [line for line in run.metrics if line["kind"].text() == "validation"]
    of_student = [line for line in lines if line["step"].count() == run.student_step]
    if not of_student:
        return []
    line = of_student[-1]
    told = [
        f"{key.replace('_', ' ')} {number(node.number())}"
        for key, node in line.items()
        if key not in ("step", "kind")
    ]
    return [f"Validation at step {line['step'].count():,}: {', '.join(told)}."]


def _quantization(run: RunFiles) -> list[str]:
    """The quantised students side by side, where the run trained under quantisation."""
    if isinstance(run.quantization, Missing):
        return []
    rows = []
    for arm in run.quantization["arms"].list():
        absent = "not measured"
        shown = [_with_unit(arm.find(key), "") or absent for key in ("bytes", "kl", "loss")]
        if arm["name"].text() == "float":
            shown[1] = "-"
        calls = arm.find("calls")
        valid = calls.find("schema_valid") if calls is not None else None
        rows.append(
            (
                arm["title"].text(),
                *shown,
                f"{valid['count'].count()} of {valid['total'].count()}" if valid else "",
            )
        )
    kept = run.quantization["status"].text() == "kept"
    result = "was kept" if kept else "failed, and the float student was kept"
    text = f"Training under quantisation ({run.quantization['format'].text()}) {result}:"
    return [
        text,
        table(
            ["student", "bytes of weights", "KL to the float student", "held-out loss", "valid calls"], rows
        ),
    ]
