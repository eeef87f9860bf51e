"""The folder of an export: what counts as one, what its manifest says, and files that are not as it says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from kdfast.errors import DataError
from kdfast.runs.export_folder import ExportFolder, export_around

MODEL = b"GGUF and weights"


def write(folder: Path, **changes: Any) -> ExportFolder:
    folder.mkdir(exist_ok=True)
    (folder / "m.gguf").write_bytes(MODEL)
    document = {
        "schema_version": "1.0",
        "kind": "kdfast.export",
        "target": "gguf",
        "fingerprints": {"config": "abc"},
        "files": [{"file": "m.gguf", "bytes": len(MODEL), "sha256": hashlib.sha256(MODEL).hexdigest()}],
        "gguf": {"file": "m.gguf"},
    }
    (folder / "manifest.json").write_text(json.dumps(document | changes))
    return ExportFolder(folder)


def test_an_export_and_its_files(tmp_path: Path) -> None:
    folder = write(tmp_path)
    assert folder.holds_export
    assert (folder.target, folder.gguf) == ("gguf", tmp_path / "m.gguf")
    assert (folder.fingerprint("config"), folder.fingerprint("model")) == ("abc", None)
    names = (folder.manifest, folder.card, folder.modelfile, folder.grammar)
    assert [path.name for path in names] == ["manifest.json", "README.md", "Modelfile", "tools.gbnf"]
    assert export_around(tmp_path / "m.gguf") == tmp_path
    assert write(tmp_path / "hf", target="hf").gguf is None


def test_other_folders_are_no_exports(tmp_path: Path) -> None:
    assert not ExportFolder(tmp_path).holds_export
    assert not ExportFolder(tmp_path / "none").holds_export
    for content in ("{}", '{"kind": "web_app"}', "[]", "not JSON", ""):
        (tmp_path / "manifest.json").write_text(content)
        assert not ExportFolder(tmp_path).holds_export, content
    assert export_around(tmp_path / "m.gguf") is None


@pytest.mark.parametrize("broken", ["cut", "other version", "not UTF-8"])
def test_a_damaged_manifest_is_an_export_that_says_so(tmp_path: Path, broken: str) -> None:
    folder = write(tmp_path, **({"schema_version": "9.0"} if broken == "other version" else {}))
    content = folder.manifest.read_bytes()
    if broken == "cut":
        folder.manifest.write_bytes(content[: len(content) // 2])
    elif broken == "not UTF-8":
        folder.manifest.write_bytes(content.replace(b'"abc"', b'"\xff"'))
    assert folder.holds_export
    with pytest.raises(DataError, match=r"manifest\.json: not .*export manifest.*kdfast export"):
        _ = folder.gguf


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": None}, "target must be a text.*got None"),
        ({"gguf": None}, r"gguf\.file must be a text.*got None"),
        ({"gguf": {"file": ""}}, r"gguf\.file must be a text"),
        ({"gguf": {"file": "../m.gguf"}}, r"gguf\.file must be a name without a folder"),
        ({"gguf": {"file": "/etc/passwd"}}, r"gguf\.file must be a name without a folder"),
    ],
)
def test_a_manifest_that_names_no_file_of_the_folder(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _ = write(tmp_path, **changes).gguf


def test_files_that_are_not_as_they_were_exported(tmp_path: Path) -> None:
    folder, model = write(tmp_path), tmp_path / "m.gguf"
    folder.check_size(model)
    assert folder.checked_hash(model) == hashlib.sha256(MODEL).hexdigest()
    model.write_bytes(MODEL[::-1])
    folder.check_size(model)
    with pytest.raises(DataError, match=r"m\.gguf: not as it was exported: its SHA-256 is not"):
        folder.checked_hash(model)
    model.write_bytes(MODEL[:-1])
    with pytest.raises(DataError, match=rf"the manifest says {len(MODEL)} bytes.*got {len(MODEL) - 1}"):
        folder.check_size(model)
    model.unlink()
    with pytest.raises(DataError, match=r"m\.gguf: this file of the export is missing"):
        folder.check_size(model)


@pytest.mark.parametrize(
    "files", [None, [], [{"file": "other"}], ["m.gguf"], [{"file": "m.gguf", "bytes": None}]]
)
def test_a_manifest_without_sizes_asks_for_none(tmp_path: Path, files: Any) -> None:
    folder = write(tmp_path, files=files, fingerprints=None)
    folder.check_size(tmp_path / "m.gguf")
    assert folder.checked_hash(tmp_path / "m.gguf") == hashlib.sha256(MODEL).hexdigest()
    assert folder.fingerprint("config") is None


def test_the_entry_of_a_file_is_found_by_its_whole_path(tmp_path: Path) -> None:
    """A file of the same name in a folder of the export is another file."""
    nested = {"file": "more/m.gguf", "bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
    own = {"file": "m.gguf", "bytes": len(MODEL), "sha256": hashlib.sha256(MODEL).hexdigest()}
    folder = write(tmp_path, files=[nested, own])
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "m.gguf").write_bytes(b"abc")
    for file, content in ((tmp_path / "m.gguf", MODEL), (tmp_path / "more" / "m.gguf", b"abc")):
        folder.check_size(file)
        assert folder.checked_hash(file) == hashlib.sha256(content).hexdigest()


def statuses(**found: str) -> dict[str, Any]:
    checks = {"weights": "passed", "logits": "passed", "prompt": "passed", "calls": "passed"} | found
    return {name: {"status": status} for name, status in checks.items()}


@pytest.mark.parametrize(
    ("changes", "failed", "unverified"),
    [
        ({"parity": statuses()}, (), ()),
        ({"parity": statuses(prompt="waived")}, (), ()),
        ({"parity": statuses(prompt="failed", calls="failed")}, ("prompt", "calls"), ()),
        ({"parity": statuses(logits="not_measured")}, (), ("logits",)),
        ({"parity": statuses() | {"calls": {"status": "passed", "reason": "refused"}}}, (), ("calls",)),
        ({"parity": statuses() | {"calls": {"status": "failed", "reason": "refused"}}}, ("calls",), ()),
        ({"parity": {"weights": {"status": "passed"}}}, (), ("logits", "prompt", "calls")),
        ({"parity": {}}, (), ("weights", "logits", "prompt", "calls")),
        ({}, (), ("weights", "logits", "prompt", "calls")),
        ({"target": "hf", "parity": statuses(logits="not_measured", calls="not_measured")}, (), ()),
        ({"target": "hf", "parity": statuses(prompt="not_measured")}, (), ("prompt",)),
    ],
)
def test_what_failed_and_what_was_not_compared(
    tmp_path: Path, changes: Any, failed: tuple[str, ...], unverified: tuple[str, ...]
) -> None:
    folder = write(tmp_path, **changes)
    assert (folder.failed_checks, folder.unverified) == (failed, unverified)


@pytest.mark.parametrize(
    ("parity", "message"),
    [
        ([], "parity must be an object"),
        ({"prompt": "passed"}, r"parity\.prompt must be an object"),
        ({"prompt": {}}, r"parity\.prompt\.status is missing"),
        ({"prompt": {"status": "Failed"}}, r"parity\.prompt\.status must be one of passed.*got 'Failed'"),
    ],
)
def test_checks_that_nobody_can_read_are_refused(tmp_path: Path, parity: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"manifest\.json: {message}"):
        _ = write(tmp_path, parity=parity).failed_checks
