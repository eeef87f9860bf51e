"""`manifest.json`: what an export holds, what it was made from, and what was found or not measured.

The file leaves the machine. So it holds names, never paths, and no server's address.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kdfast.errors import DataError
from kdfast.export.parity.result import ParityCheck
from kdfast.files import read_document, write_document
from kdfast.quantized import FORMATS, TABLE_FILE, Quantized, QuantizedTable, read_table
from kdfast.runs.export_folder import EXPORT_KIND, SCHEMA_VERSION, ExportFolder
from kdfast.runs.node import Node

CHECKS = ("weights", "logits", "prompt", "calls")
"""The checks of parity, in the order in which they are told."""

_PACKAGES = ("kdfast", "torch", "transformers", "safetensors", "gguf", "xllamacpp")
_REMEDY = "export again (`kdfast export`)"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """An export, as its manifest tells it.

    Attributes:
        target: the export's target.
        source: which run or model it was made from, see `kdfast.export.origin`.
        fingerprints: SHA-256 of dataset, tokenizer, template, model and config; one that is not known is left out.
        tensors: the parameter's name -> format, shape, bytes and hash, see `describe_tensors`.
        teacher: who taught the student, see `kdfast.export.origin`.
        data: what it was trained on.
        parity: the checks by name.
        not_measured: what -> why. A check that was not measured need not be named here.
        gguf: file, type and origin of the codes; None for another target.
        asked: what the user asked for, such as the differences that were accepted.
        made_at: Unix seconds.
    """

    target: Literal["gguf", "hf"]
    source: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    tensors: Mapping[str, Mapping[str, Any]]
    teacher: Mapping[str, Any]
    data: Mapping[str, Any]
    parity: Mapping[str, ParityCheck]
    not_measured: Mapping[str, str] = field(default_factory=dict)
    gguf: Mapping[str, str] | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    made_at: float = field(default_factory=time.time)

    @property
    def gaps(self) -> dict[str, str]:
        """Everything that was not measured, and why; of a check that was measured in part, the rest."""
        skipped = {f"parity.{name}": check.reason for name, check in self.parity.items() if check.reason}
        return {**skipped, **self.not_measured}

    def to_json(self, files: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """The document.

        Args:
            files: file, bytes and sha256 of each file of the export.
        """
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": EXPORT_KIND,
            "target": self.target,
            "made_at": self.made_at,
            "source": dict(self.source),
            "asked": dict(self.asked),
            "fingerprints": dict(self.fingerprints),
            "versions": versions(),
            "files": [dict(file) for file in files],
            **({"gguf": dict(self.gguf)} if self.gguf is not None else {}),
            "tensors": {name: dict(one) for name, one in self.tensors.items()},
            "teacher": dict(self.teacher),
            "data": dict(self.data),
            "parity": {name: check.to_json() for name, check in self.parity.items()},
            "not_measured": self.gaps,
        }


def not_verified(reason: str) -> dict[str, ParityCheck]:
    """All checks of parity as not measured, such as after `--no-verify`.

    Example:
        >>> not_verified("--no-verify")["logits"].to_json()
        {'status': 'not_measured', 'reason': '--no-verify', 'figures': {}, 'problems': []}
    """
    return {name: ParityCheck(name=name, status="not_measured", reason=reason) for name in CHECKS}


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that made the export; one that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe_tensors(tensors: Iterable[tuple[str, Quantized | Tensor]]) -> dict[str, dict[str, Any]]:
    """Format, shape, stored bytes and SHA-256 of each tensor.

    The hash of a quantised tensor is that of the student's table: format, codes, scales. So the same tensor has the
    same hash in each target.

    Args:
        tensors: (parameter's name, codes and scales or a float tensor), one after the other: they may be read late.

    Example:
        >>> describe_tensors([("norm", torch.ones(4))])["norm"]["format"]
        'float32'
    """
    return {name: _describe(name, one) for name, one in tensors}


def saved_tensors(directory: Path) -> Iterator[tuple[str, Quantized | Tensor]]:
    """The tensors of a Hugging Face directory: by its table where it has one, else as they are saved.

    Raises:
        DataError: weights or table are damaged.
        OSError: a file cannot be read.
    """
    table = read_table(directory).tensors if (directory / TABLE_FILE).is_file() else {}
    for path in sorted(directory.glob("*.safetensors")):
        if path.name == TABLE_FILE:
            continue
        try:
            with safe_open(path, framework="pt") as file:
                for name in sorted(file.keys()):
                    yield name, table[name] if name in table else file.get_tensor(name)
        except SafetensorError as error:
            raise DataError(
                f"the weights are damaged ({error}); save the model again (`save_pretrained`)", str(path)
            ) from error


def write_manifest(manifest: Manifest, directory: Path) -> Path:
    """Writes the manifest over all files that the directory holds; it is the last file of an export.

    Raises:
        ValueError: a figure is NaN or infinite.
        OSError: a file cannot be read or written.
    """
    target = ExportFolder(directory).manifest
    files = [
        {
            "file": path.relative_to(directory).as_posix(),
            "bytes": path.stat().st_size,
            "sha256": _sha256(path),
        }
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path != target
    ]
    write_document(target, manifest.to_json(files))
    return target


def read_manifest(directory: Path) -> Node:
    """The manifest of an export folder.

    Args:
        directory: the export folder.

    Raises:
        DataError: there is none, it is damaged, or of another major version; names the file, the key and the remedy.
        OSError: it cannot be read.
    """
    path = ExportFolder(directory).manifest
    if not path.is_file():
        raise DataError(f"no such file, so this is no export; {_REMEDY}", str(path))
    document = read_document(
        path, name="manifest of an export", remedy=_REMEDY, kinds=[EXPORT_KIND], version=SCHEMA_VERSION
    )
    manifest = Node(document, str(path), _REMEDY)
    if manifest["target"].text() not in ("gguf", "hf"):
        raise manifest["target"].wrong("'gguf' or 'hf'")
    for key in ("source", "fingerprints", "tensors", "teacher", "parity", "not_measured"):
        manifest[key].object()
    for file in manifest["files"].list():
        _check_name(file["file"])
        file["bytes"].count()
        file["sha256"].text()
    if manifest["target"].text() == "gguf":
        _check_name(manifest["gguf"]["file"])
    return manifest


def _check_name(node: Node) -> None:
    """A manifest may come from elsewhere: a name must not lead out of its folder."""
    parts = Path(node.text()).parts
    if not parts or ".." in parts or Path(node.text()).is_absolute():
        raise node.wrong("the name of a file in the export")


def _describe(name: str, one: Quantized | Tensor) -> dict[str, Any]:
    if isinstance(one, Quantized):
        rows, columns = one.codes.shape
        size = FORMATS[one.format].stored_bytes(rows, columns)
        hashed = QuantizedTable({name: one}).hashes()[name]
        return {"format": one.format, "shape": [rows, columns], "bytes": size, "sha256": hashed}
    values = one.detach().cpu().contiguous()
    kind = str(values.dtype).removeprefix("torch.")
    total = hashlib.sha256(json.dumps([kind, list(values.shape)]).encode())
    total.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    size = values.numel() * values.element_size()
    return {"format": kind, "shape": list(values.shape), "bytes": size, "sha256": total.hexdigest()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
