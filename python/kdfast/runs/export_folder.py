"""The folder of an export, and the one place where the names of its files are spelled. No torch in here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kdfast.errors import DataError
from kdfast.files import parse_json, read_document
from kdfast.runs.node import Node

EXPORT_KIND = "kdfast.export"
SCHEMA_VERSION = "1.0"
TARGET_CHECKS = {"gguf": ("weights", "logits", "prompt", "calls"), "hf": ("weights", "prompt")}
"""A target -> the checks that an export must pass. For `hf`, logits and calls are never measured."""

STATUSES = ("passed", "waived", "failed", "not_measured")
"""How a check can end."""

_REMEDY = "export again (`kdfast export`)"


@dataclass(frozen=True)
class ExportFolder:
    """The paths of an export. None of them need exist.

    Attributes:
        path: the folder.

    Examples:
        >>> folder = ExportFolder(Path("runs/first/export/gguf"))
        >>> folder.manifest.name, folder.grammar.name, folder.holds_export
        ('manifest.json', 'tools.gbnf', False)
    """

    path: Path

    @property
    def manifest(self) -> Path:
        """What was exported, from what, and what was compared; written last."""
        return self.path / "manifest.json"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.path / "README.md"

    @property
    def modelfile(self) -> Path:
        """Ollama's Modelfile."""
        return self.path / "Modelfile"

    @property
    def grammar(self) -> Path:
        """The grammar of the tool set, in llama.cpp's GBNF."""
        return self.path / "tools.gbnf"

    @property
    def holds_export(self) -> bool:
        """Whether an export is here. A damaged manifest counts if it still has the words of its kind."""
        try:
            content = self.manifest.read_bytes()
        except OSError:
            return False
        try:
            document = parse_json(content)
        except ValueError:
            return EXPORT_KIND.encode() in content
        return isinstance(document, dict) and document.get("kind") == EXPORT_KIND

    @cached_property
    def document(self) -> dict[str, Any]:
        """The manifest.

        Raises:
            DataError: it is damaged, or of another kind or version.
            OSError: it cannot be read.
        """
        return read_document(
            self.manifest,
            name="export manifest",
            remedy=_REMEDY,
            kinds=(EXPORT_KIND,),
            version=SCHEMA_VERSION,
        )

    @property
    def node(self) -> Node:
        """The manifest, whose values know their place.

        Raises:
            DataError, OSError: as for `document`.
        """
        return Node(self.document, str(self.manifest), _REMEDY)

    @property
    def failed_checks(self) -> tuple[str, ...]:
        """The checks that failed: in these the export differs from what was trained.

        Raises:
            DataError, OSError: as for `document`; or a check is not as `kdfast export` writes it.
        """
        return tuple(name for name, status in self._statuses().items() if status == "failed")

    @property
    def unverified(self) -> tuple[str, ...]:
        """The checks that the target asks for, and that were not measured or only in part; () = none.

        Raises:
            DataError, OSError: as for `failed_checks`.
        """
        statuses = self._statuses()
        asked = TARGET_CHECKS.get(self.target, TARGET_CHECKS["gguf"])
        return tuple(name for name in asked if statuses.get(name, "not_measured") == "not_measured")

    @property
    def target(self) -> str:
        """What the export is for: "gguf" or "hf".

        Raises:
            DataError, OSError: as for `document`; or the manifest names no target.
        """
        return self._text(self.document.get("target"), "target")

    @property
    def gguf(self) -> Path | None:
        """The GGUF file that the manifest names; None = the export is for something else.

        Raises:
            DataError, OSError: as for `document`; or the manifest names no file of this folder.
        """
        if self.target != "gguf":
            return None
        part = self.document.get("gguf")
        name = self._text(part.get("file") if isinstance(part, dict) else None, "gguf.file")
        if name != Path(name).name:
            raise DataError(
                f"not an export manifest: gguf.file must be a name without a folder; {_REMEDY}: {name}",
                str(self.manifest),
            )
        return self.path / name

    def check_size(self, file: Path) -> None:
        """Checks that a file is there, and as long as the manifest says.

        Raises:
            DataError: it is missing, or of another length; or as for `document`.
            OSError: it cannot be looked at.
        """
        if not file.is_file():
            raise DataError(f"this file of the export is missing; {_REMEDY}", str(file))
        told, found = self._entry(file).get("bytes"), file.stat().st_size
        if isinstance(told, int) and told != found:
            raise DataError(
                f"not as it was exported: the manifest says {told} bytes; {_REMEDY}, got {found}", str(file)
            )

    def checked_hash(self, file: Path) -> str:
        """SHA-256 (hex) of a file of the export, which must be what the manifest says, if it says one.

        Raises:
            DataError: the file has changed since it was exported.
            OSError: it cannot be read.
        """
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        told = self._entry(file).get("sha256")
        if isinstance(told, str) and told != found:
            raise DataError(
                f"not as it was exported: its SHA-256 is not that of the manifest ({told[:12]}); {_REMEDY}, "
                f"got {found[:12]}",
                str(file),
            )
        return found

    def fingerprint(self, name: str) -> str | None:
        """A fingerprint of what was exported, such as "config"; None = the manifest has none of this name.

        Raises:
            DataError, OSError: as for `document`.
        """
        known = self.document.get("fingerprints")
        value = known.get(name) if isinstance(known, dict) else None
        return value if isinstance(value, str) and value else None

    def _statuses(self) -> dict[str, str]:
        """A check -> how it ended; one that was measured in part, and did not fail, counts as not measured."""
        parity = self.node.find("parity")
        found = {}
        for name, check in parity.items() if parity is not None else ():
            status = check["status"].text()
            if status not in STATUSES:
                raise check["status"].wrong(f"one of {', '.join(STATUSES)}")
            in_part = check.find("reason") is not None and status != "failed"
            found[name] = "not_measured" if in_part else status
        return found

    def _entry(self, file: Path) -> dict[str, Any]:
        """What the manifest's list of files says of a file; empty = nothing.

        Raises:
            ValueError: the file is not in the folder.
        """
        name = file.relative_to(self.path).as_posix()
        files = self.document.get("files")
        entries = files if isinstance(files, list) else []
        found = (one for one in entries if isinstance(one, dict) and one.get("file") == name)
        return next(found, {})

    def _text(self, value: Any, key: str) -> str:
        if not isinstance(value, str) or not value:
            raise DataError(
                f"not an export manifest: {key} must be a text; {_REMEDY}, got {value!r}", str(self.manifest)
            )
        return value


def export_around(file: Path) -> Path | None:
    """The export folder in which a file lies; None = it lies in none.

    Example:
        >>> export_around(Path("models/small.gguf")) is None
        True
    """
    return file.parent if ExportFolder(file.parent).holds_export else None
