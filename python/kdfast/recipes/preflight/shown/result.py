"""The result of a preflight, or that there was none: as objects and as the document `preflight.json`. No torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self, cast

from kdfast.exit_codes import DONE, PREFLIGHT_FAILED
from kdfast.files import read_document
from kdfast.recipes.preflight.check import Check, Finding, Status
from kdfast.runs.node import Node

KIND = "kdfast.preflight"
SCHEMA_VERSION = "1.0"

STATUSES: tuple[Status, ...] = ("pass", "warn", "skip", "fail")

_REMEDY = "run `kdfast preflight CONFIG` again"
_STRICT = "a warning, and --strict lets none pass: "
# All that XML 1.0 cannot hold, and what a terminal obeys instead of showing it: controls, half characters.
_UNREADABLE = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def readable(text: str) -> str:
    r"""A text that may be written to a terminal, to XML and as UTF-8: other characters become their escapes.

    Example:
        >>> readable("a\x1b[31mb\ud800\n")
        'a\\x1b[31mb\\ud800\n'
    """
    return _UNREADABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One finding of one check. Its texts are made `readable`.

    Attributes:
        name: the check's name: "batch.labels_are_next_tokens".
        proves: what a pass proves, in one sentence.
        status: "pass", "warn", "fail" or "skip".
        text: what was seen; of "skip", why it was not looked at.
        remedy: what to do; "" = nothing.
        shown: lines to look at.
        seconds: how long the look took.

    Example:
        >>> row = Row(name="batch.padding", proves="Padding is no target.", status="pass", text="none of 512 is")
        >>> row.group, row.own_name
        ('batch', 'padding')
    """

    name: str
    proves: str
    status: Status
    text: str
    remedy: str = ""
    shown: tuple[str, ...] = ()
    seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in ("name", "proves", "text", "remedy"):
            object.__setattr__(self, name, readable(getattr(self, name)))
        object.__setattr__(self, "shown", tuple(map(readable, self.shown)))

    @property
    def group(self) -> str:
        """The first part of the name."""
        return self.name.partition(".")[0]

    @property
    def own_name(self) -> str:
        """The name without its group."""
        return self.name.partition(".")[2] or self.name

    @classmethod
    def of(cls, check: Check, finding: Finding, seconds: float, *, strict: bool = False) -> Self:
        """The row of a finding.

        Args:
            check: who found it.
            finding: what it found.
            seconds: how long it looked.
            strict: a warning fails.
        """
        row = cls(
            name=check.name,
            proves=check.proves,
            status=finding.status,
            text=finding.text,
            remedy=finding.remedy,
            shown=finding.shown,
            seconds=seconds,
        )
        return row.strictly() if strict else row

    def strictly(self) -> Self:
        """The same row, but a warning has failed."""
        return self if self.status != "warn" else replace(self, status="fail", text=f"{_STRICT}{self.text}")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a preflight found.

    Attributes:
        rows: the findings, in the order of the checks. With `strict` no warning is among them: it has failed.
        seconds: how long all of it took.
        config_fingerprint: `Config.fingerprint()` of the config that was looked at.
        started_at: when, in Unix seconds.
        kdfast_version: by which kdfast.
        stand_in: what stood in for the student ("2 layers, 0.4 M parameters, for 134.5 M"); "" = nothing.
        notes: what else a reader must know, in sentences.
        inputs: name of an input -> its fingerprint.
        full: whether the small run took the student itself, however large.
        probe: whether the real teacher was asked one prompt.
        strict: whether a warning failed, too.

    Example:
        >>> row = Row(name="data.leak", proves="No leak.", status="warn", text="1 row leaks", remedy="remove it")
        >>> facts = {"seconds": 1.5, "config_fingerprint": "ab", "started_at": 0.0, "kdfast_version": "1.0"}
        >>> good = Row(name="data.read", proves="It is read.", status="pass", text="8 rows")
        >>> Result(rows=(row, good), **facts).exit_code, Result(rows=(row, good), strict=True, **facts).exit_code
        (0, 4)
    """

    rows: tuple[Row, ...]
    seconds: float
    config_fingerprint: str
    started_at: float
    kdfast_version: str
    stand_in: str = ""
    notes: tuple[str, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    full: bool = False
    probe: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        if self.strict:
            object.__setattr__(self, "rows", tuple(row.strictly() for row in self.rows))
        object.__setattr__(self, "stand_in", readable(self.stand_in))
        object.__setattr__(self, "notes", tuple(map(readable, self.notes)))

    @property
    def counts(self) -> dict[Status, int]:
        """How many rows have each status; all four are there."""
        return {status: sum(row.status == status for row in self.rows) for status in STATUSES}

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows that failed."""
        return tuple(row for row in self.rows if row.status == "fail")

    @property
    def exit_code(self) -> int:
        """0; or 4 if a row failed, or if none passed: then nothing is proven."""
        counts = self.counts
        return PREFLIGHT_FAILED if counts["fail"] or not counts["pass"] else DONE

    def to_json(self) -> dict[str, Any]:
        """The document."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": KIND,
            "kdfast_version": self.kdfast_version,
            "started_at": self.started_at,
            "seconds": self.seconds,
            "exit_code": self.exit_code,
            "counts": self.counts,
            "request": {"full": self.full, "probe": self.probe, "strict": self.strict},
            "config_fingerprint": self.config_fingerprint,
            "inputs": dict(self.inputs),
            "stand_in": self.stand_in,
            "notes": list(self.notes),
            "rows": [asdict(row) | {"shown": list(row.shown)} for row in self.rows],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], source: str = "preflight.json") -> Self:
        """The inverse of `to_json`; `exit_code` and `counts` are counted anew.

        Args:
            document: the document.
            source: the file, for messages.

        Raises:
            DataError: a key is missing or of the wrong type; names file, key and remedy.
        """
        node = Node(dict(document), source, _REMEDY)
        return cls(
            rows=tuple(map(_row, node["rows"].list())),
            seconds=node["seconds"].number(),
            config_fingerprint=node["config_fingerprint"].text(),
            started_at=node["started_at"].number(),
            kdfast_version=node["kdfast_version"].text(),
            stand_in=node["stand_in"].text(),
            notes=tuple(note.text() for note in node["notes"].list()),
            inputs={name: value.text() for name, value in node["inputs"].items()},
            **{name: node["request"][name].flag() for name in ("full", "probe", "strict")},
        )


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """The user chose to have no preflight.

    Attributes:
        command: by what: "kdfast teach --no-preflight".
        at: when, in Unix seconds.
        config_fingerprint: `Config.fingerprint()` of that command's config.
    """

    command: str
    at: float
    config_fingerprint: str


def skipped_document(command: str, *, at: float, config_fingerprint: str) -> dict[str, Any]:
    """The document of a preflight that the user chose not to have.

    Args:
        command: what chose so: "kdfast teach --no-preflight".
        at: when, in Unix seconds.
        config_fingerprint: `Config.fingerprint()` of that command's config.

    Example:
        >>> skipped_document("kdfast teach --no-preflight", at=0.0, config_fingerprint="ab")["skipped"]
        'kdfast teach --no-preflight'
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "skipped": command,
        "at": at,
        "config_fingerprint": config_fingerprint,
    }


def read_preflight(path: str | os.PathLike[str]) -> Result | Skipped:
    """Reads `preflight.json`.

    Raises:
        DataError: it is damaged, or another document; names the file, what is wrong and the remedy.
        OSError: it cannot be read.
    """
    document = read_document(
        path, name="preflight result", remedy=_REMEDY, kinds=[KIND], version=SCHEMA_VERSION
    )
    node = Node(document, str(path), _REMEDY)
    if "skipped" not in document:
        return Result.from_json(document, str(path))
    return Skipped(
        command=node["skipped"].text(),
        at=node["at"].number(),
        config_fingerprint=node["config_fingerprint"].text(),
    )


def _row(node: Node) -> Row:
    if node["status"].text() not in STATUSES:
        raise node["status"].wrong(f"one of {', '.join(STATUSES)}")
    return Row(
        name=node["name"].text(),
        proves=node["proves"].text(),
        status=cast("Status", node["status"].value),
        text=node["text"].text(),
        remedy=node["remedy"].text(),
        shown=tuple(line.text() for line in node["shown"].list()),
        seconds=node["seconds"].number(),
    )
