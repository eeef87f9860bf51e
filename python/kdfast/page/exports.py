"""The section of exports: what the student left as, and what llama.cpp said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdfast.page.checks import Check
from kdfast.page.wording import number
from kdfast.runs.node import Node
from kdfast.runs.reading import RunFiles

STATUSES = {"passed": "passed", "waived": "passed", "failed": "failed", "not_measured": "skipped"}
"""The status of a check -> the style in which the page shows it."""

_ORIGINS = {
    "trained": "with the codes and scales of training",
    "post-training": "quantised after training",
    "float": "not quantised",
}


@dataclass(frozen=True, kw_only=True)
class Parity:
    """One check of an export.

    Attributes:
        name: the check.
        status: in words.
        style: one of the values of `STATUSES`.
        measured: its figures in words; "" = none.
        notes: what is wrong, or why it was not measured.
    """

    name: str
    status: str
    style: str
    measured: str
    notes: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Export:
    """One export of the run.

    Attributes:
        title: target and type of weights.
        file: the folder, below the run's.
        size: megabytes of its largest file, in words.
        checks: its checks.
        failed: whether it differs from what was trained.
        verified: whether anything was compared.
    """

    title: str
    file: str
    size: str
    checks: Sequence[Parity]
    failed: bool
    verified: bool


def export_section(files: RunFiles) -> list[Export]:
    """Every export in the run's folder, those that failed too; [] = there is none.

    Raises:
        DataError: a manifest is not as `kdfast export` writes it; the message names file and key.
    """
    return [_export(folder, manifest) for folder, manifest in files.exports.items()]


def export_check(exports: Sequence[Export], files: RunFiles) -> Check | None:
    """The question whether the student leaves as it was trained; None where the run exports nothing."""
    question, link = "Exported as trained", "exports"
    failed = [one for one in exports if one.failed]
    if failed:
        names = ", ".join(check.name for check in failed[0].checks if check.style == "failed")
        return Check(
            question=question, answer="bad", because=f"{failed[0].title} differs: {names}", link=link
        )
    if exports:
        unproven = [one.title for one in exports if not one.verified]
        because = (
            f"{', '.join(unproven)} was not compared"
            if unproven
            else f"{', '.join(one.title for one in exports)}: equal to what was trained"
        )
        return Check(question=question, answer="look" if unproven else "good", because=because, link=link)
    if not files.config.export.targets:
        return None
    return Check(question=question, answer="unknown", because="the student has not left yet", link=link)


def _export(folder: str, manifest: Node) -> Export:
    target, gguf = manifest["target"].text(), manifest.find("gguf")
    kind = ""
    if gguf is not None:
        origin = gguf["origin"].text()
        kind = f" {gguf['type'].text()}, {_ORIGINS.get(origin, origin)}"
    checks = [_parity(name, check) for name, check in manifest["parity"].items()]
    size = max((one["bytes"].count() for one in manifest["files"].list()), default=0)
    return Export(
        title=f"{target}{kind}",
        file=folder,
        size=f"{number(size / 1e6)} MB",
        checks=checks,
        failed=any(check.style == "failed" for check in checks),
        verified=any(check.style != "skipped" for check in checks),
    )


def _parity(name: str, check: Node) -> Parity:
    status = check["status"].text()
    if status not in STATUSES:
        raise check["status"].wrong(f"one of {', '.join(STATUSES)}")
    reason = check.find("reason")
    return Parity(
        name=name,
        status=status.replace("_", " "),
        style=STATUSES[status],
        measured=_measured(name, check["figures"]),
        notes=[*(one.text() for one in check["problems"].list()), *([reason.text()] if reason else [])],
    )


def _measured(name: str, figures: Node) -> str:
    values = {key: node.number() for key, node in figures.items() if isinstance(node.value, int | float)}
    parts = {
        "weights": [("{tensors:.0f} tensors", "tensors")],
        "logits": [
            ("mean KL {mean_kl:.2g} nats at {positions:.0f} positions", "mean_kl"),
            ("the likeliest token equal at {top1_equal:.1%} of {top1_positions:.0f}", "top1_equal"),
        ],
        "prompt": [("{equal:.0f} of {compared:.0f} equal", "equal")],
        "calls": [
            ("{forced_equal:.0f} of {forced_answers:.0f} right answers parsed alike", "forced_answers"),
            ("{stopped_right:.0f} of {ended:.0f} answers end rightly", "ended"),
        ],
    }
    return "; ".join(text.format(**values) for text, key in parts.get(name, []) if key in values)
