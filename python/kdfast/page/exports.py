"""The section of exports: what the student left as, and what llama.cpp said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdfast.page.checks import Check
from kdfast.page.wording import number
from kdfast.runs.export_folder import ExportFolder
from kdfast.runs.node import Node
from kdfast.runs.reading import RunFiles

STATUSES = {"passed": "passed", "waived": "inconclusive", "failed": "failed", "not_measured": "skipped"}
"""The status of a check -> the style in which the page shows it."""

_FIGURES: Mapping[str, Sequence[tuple[str, Sequence[str]]]] = {
    "weights": [("{:.0f} tensors", ("tensors",))],
    "logits": [
        ("mean KL {:.2g} nats at {:.0f} positions", ("mean_kl", "positions")),
        ("the likeliest token equal at {:.1%} of {:.0f}", ("top1_equal", "top1_positions")),
    ],
    "prompt": [("{:.0f} of {:.0f} equal", ("equal", "compared"))],
    "calls": [
        ("{:.0f} of {:.0f} right answers parsed alike", ("forced_equal", "forced_answers")),
        ("{:.0f} of {:.0f} answers end rightly", ("stopped_right", "ended")),
    ],
}
"""A check -> its figures in words, and the keys of each; left out where the first key is."""

_EQUAL = {"hf": "weights and prompts equal; logits and calls are not measured"}
"""What is known of a target whose checks are not all measured."""

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
        failed: the checks in which it differs from what was trained.
        waived: those in which it differs, and the user accepted that by name.
        missing: those that its target asks for, and that were not measured or only in part.
        verified: whether anything was compared.
        equal: what is equal if no check is named above.
    """

    title: str
    file: str
    size: str
    checks: Sequence[Parity]
    failed: Sequence[str]
    waived: Sequence[str]
    missing: Sequence[str]
    verified: bool
    equal: str


def export_section(files: RunFiles) -> list[Export]:
    """Every export in the run's folder, those that failed too; [] = there is none.

    Raises:
        DataError: a manifest is not as `kdfast export` writes it; the message names file and key.
        OSError: it cannot be read.
    """
    return [_export(place, folder) for place, folder in files.exports.items()]


def export_check(exports: Sequence[Export], files: RunFiles) -> Check | None:
    """The question whether the student leaves as it was trained; None where the run exports nothing."""
    question, link = "Exported as trained", "exports"
    failed = [one for one in exports if one.failed]
    if failed:
        because = f"{failed[0].title} differs: {', '.join(failed[0].failed)}"
        return Check(question=question, answer="bad", because=because, link=link)
    if exports:
        doubts = [doubt for doubt in map(_doubt, exports) if doubt]
        because = "; ".join(doubts or [f"{one.title}: {one.equal}" for one in exports])
        return Check(question=question, answer="look" if doubts else "good", because=because, link=link)
    if not files.config.export.targets:
        return None
    return Check(question=question, answer="unknown", because="the student has not left yet", link=link)


def _doubt(export: Export) -> str:
    """Why an export that did not fail is not known to be what was trained; "" = it is."""
    if not export.verified:
        return f"{export.title} was not compared"
    parts = []
    if export.waived:
        parts.append(f"differs in {', '.join(export.waived)}, which was accepted by name")
    if export.missing:
        parts.append(f"not compared: {', '.join(export.missing)}")
    return f"{export.title}: {'; '.join(parts)}" if parts else ""


def _export(place: str, folder: ExportFolder) -> Export:
    manifest, target = folder.node, folder.target
    gguf = manifest.find("gguf")
    kind = ""
    if gguf is not None:
        origin = gguf["origin"].text()
        kind = f" {gguf['type'].text()}, {_ORIGINS.get(origin, origin)}"
    checks = [_parity(name, check) for name, check in manifest["parity"].items()]
    size = max((one["bytes"].count() for one in manifest["files"].list()), default=0)
    return Export(
        title=f"{target}{kind}",
        file=place,
        size=f"{number(size / 1e6)} MB",
        checks=checks,
        failed=folder.failed_checks,
        waived=[check.name for check in checks if check.status == "waived"],
        missing=folder.unverified,
        verified=any(check.style != "skipped" for check in checks),
        equal=_EQUAL.get(target, "equal to what was trained"),
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
    return "; ".join(
        text.format(*(figures[key].number() for key in keys))
        for text, keys in _FIGURES.get(name, [])
        if figures.find(keys[0]) is not None
    )
