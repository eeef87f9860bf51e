"""The section of the preflight: what was looked at before the run, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kdfast.page.checks import Answer, Check
from kdfast.page.wording import counted, duration
from kdfast.runs.node import Node
from kdfast.runs.reading import Missing, RunFiles

STATUSES = {"fail": "failed", "warn": "inconclusive", "pass": "passed", "skip": "skipped"}
"""The status of a row -> the style in which the page shows it."""

_WORDS = {"fail": "failed", "warn": "warning", "pass": "passed", "skip": "skipped"}
_KIND = "kdfast.preflight"


@dataclass(frozen=True, kw_only=True)
class PreflightRow:
    """One finding of the preflight.

    Attributes:
        name: the check's name.
        status: one of the keys of `STATUSES`.
        proves: what a pass proves.
        text: what was seen, or why the check did not look.
        remedy: what to do; "" = nothing.
        shown: lines to look at, as one text; "" = none.
    """

    name: str
    status: str
    proves: str
    text: str
    remedy: str
    shown: str

    @property
    def word(self) -> str:
        """The status in words."""
        return _WORDS[self.status]

    @property
    def style(self) -> str:
        """The style in which the page shows the status."""
        return STATUSES[self.status]


@dataclass(frozen=True, kw_only=True)
class PreflightSection:
    """What the page shows of the preflight.

    Attributes:
        missing: the missing file; None = it is there.
        skipped: the command whose user chose to have none; "" = the preflight was run.
        when: the time.
        of_this_config: whether it looked at the config of this run.
        rows: its findings, in the order of the file.
        facts: (what, value), such as how long it took.
        notes: what else a reader must know.
    """

    missing: Missing | None = None
    skipped: str = ""
    when: str = ""
    of_this_config: bool = False
    rows: Sequence[PreflightRow] = ()
    facts: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()

    @property
    def urgent(self) -> list[PreflightRow]:
        """What failed, then what was warned of."""
        return [*self.of("fail"), *self.of("warn")]

    @property
    def quiet(self) -> list[PreflightRow]:
        """What passed or was skipped, in the order of the file."""
        return [row for row in self.rows if row.status in ("pass", "skip")]

    @property
    def counts(self) -> str:
        """How many checks found what, in words."""
        parts = [f"{len(self.of('pass'))} passed", counted(len(self.of("warn")), "warning")]
        return ", ".join([*parts, f"{len(self.of('skip'))} skipped", f"{len(self.of('fail'))} failed"])

    def of(self, status: str) -> list[PreflightRow]:
        """The rows of a status."""
        return [row for row in self.rows if row.status == status]


def preflight_section(files: RunFiles) -> PreflightSection:
    """Collects what the page shows of the preflight.

    Raises:
        DataError: the file is no result of a preflight; the message names file and key.
    """
    document = files.preflight
    if isinstance(document, Missing):
        return PreflightSection(missing=document)
    if document["kind"].text() != _KIND:
        raise document["kind"].wrong(f"'{_KIND}'")
    if document["schema_version"].text().partition(".")[0] != "1":
        raise document["schema_version"].wrong("'1.0'")
    same = document["config_fingerprint"].text() == files.config.fingerprint()
    skipped = document.find("skipped")
    if skipped is not None:
        return PreflightSection(skipped=skipped.text(), when=_when(document["at"]), of_this_config=same)
    return PreflightSection(
        when=_when(document["started_at"]),
        of_this_config=same,
        rows=[_row(node) for node in document["rows"].list()],
        facts=_facts(document),
        notes=[note.text() for note in document["notes"].list()],
    )


def preflight_check(section: PreflightSection) -> Check | None:
    """The question whether all was looked at before it was paid; None if there was no preflight."""
    if section.missing:
        return None
    question, link = "Checked before it was paid", "preflight"
    answer, because = _answer(section)
    return Check(question=question, answer=answer, because=because, link=link)


def _answer(section: PreflightSection) -> tuple[Answer, str]:
    if section.skipped:
        return "unknown", f"left out by `{section.skipped}`"
    if not section.of_this_config:
        return "look", f"of another config: {section.counts}"
    failed, warned = section.of("fail"), section.of("warn")
    if failed:
        return "bad", f"{section.counts} ({', '.join(dict.fromkeys(row.name for row in failed))})"
    if not section.of("pass"):
        return "unknown", f"no check passed: {section.counts}"
    return "look" if warned else "good", section.counts


def _facts(document: Node) -> list[tuple[str, str]]:
    asked = [f"--{name}" for name, value in document["request"].items() if value.flag()]
    facts = [
        ("took", duration(document["seconds"].number())),
        ("stand-in for the student", document["stand_in"].text()),
        ("options", " ".join(asked)),
        ("kdfast", document["kdfast_version"].text()),
        ("config", document["config_fingerprint"].text()),
        *((f"input: {name}", value.text()) for name, value in document["inputs"].items()),
    ]
    return [(what, value) for what, value in facts if value]


def _when(node: Node) -> str:
    try:
        return datetime.fromtimestamp(node.number(), tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        raise node.wrong("a time in Unix seconds") from None


def _row(node: Node) -> PreflightRow:
    status = node["status"]
    if status.text() not in STATUSES:
        raise status.wrong(f"one of {', '.join(STATUSES)}")
    return PreflightRow(
        name=node["name"].text(),
        status=status.text(),
        proves=node["proves"].text(),
        text=node["text"].text(),
        remedy=node["remedy"].text(),
        shown="\n".join(line.text() for line in node["shown"].list()),
    )
