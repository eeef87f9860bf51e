"""The section of quantisation: the quantised students side by side, and how training under quantisation went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kdfast.page.charts import Estimate, Line, line_chart
from kdfast.page.checks import Check
from kdfast.page.quantization_phase import Phase, cosine_text, read_phase, within
from kdfast.page.wording import number
from kdfast.runs.node import Node
from kdfast.runs.reading import Missing, RunFiles

STATUSES = ("kept", "failed")
SAYS = ("lower", "higher", "not_shown", "too_few")
"""What a difference between QAT and another student can say."""

_MIB = 1 << 20
_QAT = "qat"
_STYLES = ("second", "train", "faint")
_NUMBERS = {
    "loss": "held-out loss",
    "kl": "KL to the float student",
    "nll_names": "NLL of tool names",
    "nll_args": "NLL of arguments",
}
_SHARES = {"schema_valid": "valid calls", "exact_match": "exact calls", "false_calls": "false calls"}


@dataclass(frozen=True, kw_only=True)
class QuantizationSection:
    """What the page shows of quantisation.

    Attributes:
        shown: whether the run has to do with quantisation at all.
        missing: the missing comparison; None = it is there.
        status: one of `STATUSES`; "" = not known.
        reasons: why quantisation was given up.
        format: the formats in words.
        judgement: what the comparison says, in sentences.
        worse: whether QAT is shown to be worse than another student in some number.
        arms: the titles of the students.
        rows: (label, for each student (value, remark)); ("", "") = it has no such number.
        notes: (student, why a number is not there).
        cosines: the chart of cosines by layer.
        phase: the training under quantisation.
    """

    shown: bool
    missing: Missing | None
    phase: Phase
    status: str = ""
    reasons: Sequence[str] = ()
    format: str = ""
    judgement: Sequence[str] = ()
    worse: bool = False
    arms: Sequence[str] = ()
    rows: Sequence[tuple[str, Sequence[tuple[str, str]]]] = ()
    notes: Sequence[tuple[str, str]] = ()
    cosines: Markup | None = None


def quantization_section(files: RunFiles) -> QuantizationSection:
    """Collects what the page shows of quantisation.

    Raises:
        DataError: a file is not as `kdfast train` writes it; the message names file, line and key.
    """
    found, phase = files.quantization, read_phase(files.metrics)
    if isinstance(found, Missing):
        shown = files.config.quant.enabled or phase.began
        return QuantizationSection(shown=shown, missing=found, phase=phase)
    if found["kind"].text() != "kdfast.quantization":
        raise found["kind"].wrong("'kdfast.quantization'")
    arms = found["arms"].list()
    return QuantizationSection(
        shown=True,
        missing=None,
        phase=phase,
        status=_one_of(found["status"], STATUSES),
        reasons=[reason.text() for reason in found["reasons"].list()],
        format=f"{found['format'].text()}, embeddings {found['embeddings'].text()}",
        judgement=[line.text() for line in found["judgement"].list()],
        worse="higher" in [says for pair in found["differences"].list() for says in _says(pair)],
        arms=[arm["title"].text() for arm in arms],
        rows=_rows(arms),
        notes=[(arm["title"].text(), note.text()) for arm in arms for note in _list(arm, "notes")],
        cosines=_cosine_chart(arms),
    )


def quantization_check(section: QuantizationSection) -> Check | None:
    """The question whether training under quantisation held; None where the run has nothing to do with it."""
    question, link = "Quantised as trained", "quantization"
    if not section.shown:
        return None
    if section.status == "failed" or section.phase.gave_up:
        why = section.reasons or [section.phase.gave_up]
        because = f"given up, the student is float: {'; '.join(filter(None, why)) or 'no reason is known'}"
        return Check(question=question, answer="bad", because=because, link=link)
    if section.missing is not None:
        return Check(question=question, answer="unknown", because=section.missing.short, link=link)
    because = section.judgement[0] if section.judgement else "not compared with post-training"
    return Check(question=question, answer="look" if section.worse else "good", because=because, link=link)


def _one_of(node: Node, allowed: Sequence[str]) -> str:
    if node.text() not in allowed:
        raise node.wrong(f"one of {', '.join(allowed)}")
    return node.text()


def _says(pair: Node) -> list[str]:
    """What the differences in loss say; how far it is from the float student is no loss."""
    said = {name: _one_of(node["says"], SAYS) for name, node in pair.items() if name != "against"}
    return [one for name, one in said.items() if name != "kl"]


def _list(node: Node, key: str) -> list[Node]:
    found = node.find(key)
    return found.list() if found is not None else []


def _rows(arms: Sequence[Node]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The rows of the table that at least one student has a number for."""

    def value(key: str) -> Callable[[Node], tuple[str, str]]:
        def read(arm: Node) -> tuple[str, str]:
            found = arm.find(key)
            return (_digits(found.number()), "") if found is not None else ("", "")

        return read

    def call_share(key: str) -> Callable[[Node], tuple[str, str]]:
        def read(arm: Node) -> tuple[str, str]:
            calls = arm.find("calls")
            return _share(calls.find(key) if calls is not None else None)

        return read

    readers: dict[str, Callable[[Node], tuple[str, str]]] = {}
    readers |= {label: value(key) for key, label in _NUMBERS.items()}
    readers["same likeliest token"] = lambda arm: _share(arm.find("top1"))
    readers["worst layer's cosine"] = _worst_cosine
    readers |= {label: call_share(key) for key, label in _SHARES.items()}
    readers["size"] = lambda arm: (f"{number(arm['bytes'].count() / _MIB)} MiB", "")
    rows = [(label, [read(arm) for arm in arms]) for label, read in readers.items()]
    return [(label, cells) for label, cells in rows if any(text for text, _ in cells)]


def _share(node: Node | None) -> tuple[str, str]:
    if node is None:
        return "", ""
    count, total = node["count"].count(), node["total"].count()
    if total == 0 or count > total:
        raise node["count"].wrong(f"at most the total ({total}), and the total above 0")
    low, high = node.find("low"), node.find("high")
    ends = (within(low, 0, 1), within(high, 0, 1)) if low is not None and high is not None else (None, None)
    estimate = Estimate(value=count / total, low=ends[0], high=ends[1], count=count, total=total)
    return str(estimate), estimate.interval


def _worst_cosine(arm: Node) -> tuple[str, str]:
    cosines = _cosines(arm)
    known = [cosine for cosine in cosines if cosine is not None]
    if not cosines or len(known) < len(cosines):
        return "", ""
    worst = min(known)
    return cosine_text(worst), f"layer {cosines.index(worst)}"


def _cosines(arm: Node) -> list[float | None]:
    return [None if node.value is None else within(node, -1, 1) for node in _list(arm, "cosines")]


def _cosine_chart(arms: Sequence[Node]) -> Markup | None:
    """Cosine by layer, one line per student; None where fewer than two layers are known."""
    lines, styles = [], list(_STYLES)
    for arm in arms:
        points = [(float(layer), value) for layer, value in enumerate(_cosines(arm)) if value is not None]
        if len(points) < 2:
            continue
        own = arm["name"].text() == _QAT
        style = "held" if own or not styles else styles.pop(0)
        lines.append(Line(label=arm["title"].text(), points=points, style=style))
    if not lines:
        return None
    # a chart of one line has no legend
    note = f"{lines[0].label}; " if len(lines) == 1 else ""
    note += "0 = embeddings, then after each block, the last after the last norm"
    return line_chart(
        lines, title="cosine of hidden states with the float student's, by layer", note=note, read=cosine_text
    )


def _digits(value: float) -> str:
    """Four significant digits: students differ in the third.

    Examples:
        >>> _digits(0.05172), _digits(0.0), _digits(1.25e-6)
        ('0.05172', '0', '1.25e-06')
    """
    return f"{value:.4g}"
