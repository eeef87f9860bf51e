"""The table of a quantised student: codes q and scales s of each tensor, in one file beside its weights.

Exporters take codes and scales from here and never quantise the saved weights again, so every deployed file holds what
was trained. The weights beside it are q * s in fp32. In bf16 they would fall on other codes.

`quantized.safetensors` holds `NAME.codes` [out,in] int8 and `NAME.scales` [out,in/block] fp16. Its metadata has one
key, `kdfast`, with a JSON object: kind, schema version, and for each tensor its format, block, shape and SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kdfast.errors import DataError, QATError
from kdfast.files import parse_json
from kdfast.quantized.formats import FORMATS, Quantized, check_finite, quantize
from kdfast.quantized.plan import QuantPlan

TABLE_FILE = "quantized.safetensors"
"""The table's file name in a student's directory."""

KIND = "quantized_table"
SCHEMA_VERSION = "1.0"
_METADATA_KEY = "kdfast"
_REMEDY = "convert and save the student again"


@dataclass(frozen=True)
class QuantizedTable:
    """Codes and scales of every quantised tensor.

    Attributes:
        tensors: the parameter's name -> its codes and scales. A tied tensor stands once, under its first name.
    """

    tensors: Mapping[str, Quantized]

    def hashes(self) -> dict[str, str]:
        """SHA-256 (hex) of each tensor: its format, its codes, its scales."""
        return {name: _hash(quantized) for name, quantized in self.tensors.items()}

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the whole table, the same for any order of its tensors."""
        return hashlib.sha256(json.dumps(self.hashes(), sort_keys=True).encode()).hexdigest()

    def check_plan(self, plan: QuantPlan) -> None:
        """Checks that the tensors are exactly the planned ones, in the planned formats and shapes.

        Raises:
            QATError: one is missing, too many, or other than planned.
        """
        planned = {tensor.name: (tensor.format, list(tensor.shape)) for tensor in plan.tensors}
        found = {name: (one.format, list(one.codes.shape)) for name, one in self.tensors.items()}
        for name in (*planned, *found):
            if planned.get(name) != found.get(name):
                raise QATError(
                    f"the table is not the planned one, {_REMEDY} by the same config; tensor {name}: planned "
                    f"{_words(planned.get(name))}, found {_words(found.get(name))}"
                )

    def check_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Checks that weights are q * s, and that the rule gives the table again.

        `int8_channel` is only held to q * s: the rule need not give scales again that were frozen in training.

        Args:
            weights: the parameter's name -> its weight; other names are left alone.

        Raises:
            QATError: a tensor is missing, of another dtype, other than q * s, or quantises to another table.
        """
        for name in self.tensors:
            if name not in weights:
                raise QATError(f"a tensor of the table is not among the weights, {_REMEDY}: {name}")
            self.check_weight(name, weights[name])

    def check_weight(self, name: str, weight: Tensor) -> None:
        """`check_weights` for one tensor."""
        quantized = self.tensors[name]
        if weight.dtype != torch.float32:
            raise QATError(
                f"a quantised weight must be saved in float32, or it falls on other codes; {_REMEDY}: {name} is "
                f"{weight.dtype}"
            )
        made = quantized.dequantize()
        if made.shape != weight.shape or not torch.equal(made, weight.detach().to(made.device)):
            raise QATError(f"a weight is not what the table says (codes times scales); {_REMEDY}: {name}")
        if FORMATS[quantized.format].block == 0:
            return
        again = quantize(made, quantized.format)
        rows, groups = quantized.scales.shape
        # By value: the sign of a zero scale says nothing.
        other = (again.scales != quantized.scales) | (again.codes != quantized.codes).view(
            rows, groups, -1
        ).any(2)
        if bool(other.any()):
            row, group = torch.nonzero(other)[0].tolist()
            raise QATError(
                f"{int(other.sum())} blocks quantise to other codes than the table's, so a file made from the weights "
                f"would be another model; {_REMEDY}: {name}, row {row}, block {group}"
            )


def _hash(quantized: Quantized) -> str:
    total = hashlib.sha256(quantized.format.encode())
    for tensor in (quantized.codes, quantized.scales.view(torch.int16)):
        total.update(json.dumps(list(tensor.shape)).encode())
        total.update(tensor.cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _words(tensor: tuple[str, list[int]] | None) -> str:
    return "nothing" if tensor is None else f"{tensor[0]} {tensor[1]}"


def write_table(table: QuantizedTable, directory: Path) -> Path:
    """Writes the table into a student's directory, whole or not at all.

    Args:
        table: the table.
        directory: an existing directory; a table in it is replaced.

    Returns:
        the file.

    Raises:
        QATError: a scale is not finite.
        OSError: it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    entries: dict[str, Any] = {}
    hashes = table.hashes()
    for name, one in table.tensors.items():
        check_finite(name, one)
        tensors |= {
            f"{name}.codes": one.codes.cpu().contiguous(),
            f"{name}.scales": one.scales.cpu().contiguous(),
        }
        entries[name] = {
            "format": one.format,
            "block": one.block,
            "shape": list(one.codes.shape),
            "sha256": hashes[name],
        }
    header = {"kind": KIND, "schema_version": SCHEMA_VERSION, "tensors": entries}
    path = directory / TABLE_FILE
    beside = directory / f".{TABLE_FILE}.{os.getpid()}.tmp"
    try:
        save_file(tensors, beside, metadata={_METADATA_KEY: json.dumps(header)})
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error
    finally:
        beside.unlink(missing_ok=True)
    return path


def read_table(directory: Path) -> QuantizedTable:
    """Reads the table of a student's directory, and believes nothing that it can check.

    Args:
        directory: the student's directory, as `write_table` was given it.

    Raises:
        DataError: there is none, or it is damaged; names the file, the tensor and the remedy.
        OSError: it cannot be read.
    """
    path = directory / TABLE_FILE
    if not path.is_file():
        raise DataError(f"no table of a quantised student; {_REMEDY}, or export it as float", str(path))
    try:
        with safe_open(path, framework="pt") as file:
            entries = _entries(file.metadata(), path)
            wanted = {f"{name}.{part}" for name in entries for part in ("codes", "scales")}
            strange = sorted(wanted ^ set(file.keys()))
            if strange:
                raise _damaged(path, f"its header and its tensors differ: {strange[0]}")
            tensors = {
                name: _read_tensor(
                    path,
                    name,
                    entry,
                    file.get_tensor(f"{name}.codes"),
                    file.get_tensor(f"{name}.scales"),
                )
                for name, entry in entries.items()
            }
    except SafetensorError as error:
        raise _damaged(path, f"no safetensors file ({error})") from error
    return QuantizedTable(tensors)


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"the table of the quantised student is damaged, {_REMEDY}; {why}", str(path))


def _entries(metadata: Mapping[str, str] | None, path: Path) -> dict[str, dict[str, Any]]:
    text = (metadata or {}).get(_METADATA_KEY)
    if text is None:
        raise _damaged(path, f"its metadata lack the key {_METADATA_KEY!r}")
    try:
        header = parse_json(text)
    except ValueError as error:
        raise _damaged(path, f"its header is no JSON ({error})") from None
    kind = header.get("kind") if isinstance(header, dict) else header
    if kind != KIND:
        raise _damaged(path, f"kind must be {KIND!r}, got {kind!r}")
    version = header.get("schema_version")
    if not isinstance(version, str) or version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise DataError(
            f"the table has another version; read it with the kdfast that wrote it, or {_REMEDY}: schema_version must "
            f"be {SCHEMA_VERSION!r}, got {version!r}",
            str(path),
        )
    entries = header.get("tensors")
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise _damaged(path, "its header's key 'tensors' must map names to objects")
    return entries


def _read_tensor(path: Path, name: str, entry: Mapping[str, Any], codes: Tensor, scales: Tensor) -> Quantized:
    for problem in _problems(entry, codes, scales):
        raise _damaged(path, f"{name}: {problem}")
    quantized = Quantized(entry["format"], codes, scales)
    if _hash(quantized) != entry.get("sha256"):
        raise _damaged(path, f"{name}: its contents do not have the hash that was written with them")
    return quantized


def _problems(entry: Mapping[str, Any], codes: Tensor, scales: Tensor) -> Iterator[str]:
    name, shape = entry.get("format"), entry.get("shape")
    if not isinstance(name, str) or name not in FORMATS:
        yield f"its format must be one of {', '.join(FORMATS)}, got {name!r}"
        return
    if codes.dim() != 2 or not codes.shape[1] or codes.dtype != torch.int8 or list(codes.shape) != shape:
        yield f"its codes must be int8 {shape}, got {codes.dtype} {list(codes.shape)}"
        return
    found, columns = FORMATS[name], codes.shape[1]
    block = found.block_of(columns)
    if entry.get("block") != block or columns % block:
        yield f"its block must be {block} and divide its width {columns}, got {entry.get('block')!r}"
        return
    if scales.dtype != torch.float16 or list(scales.shape) != [len(codes), columns // block]:
        yield f"its scales must be float16 [{len(codes)}, {columns // block}], got {scales.dtype} {list(scales.shape)}"
    if not bool(torch.isfinite(scales).all()):
        yield "a scale is not finite"
    if codes.numel() and not found.lowest <= int(codes.min()) <= int(codes.max()) <= found.highest:
        yield f"a code is outside {found.lowest}..{found.highest}"


def check_saved(directory: Path, plan: QuantPlan | None = None) -> QuantizedTable:
    """Checks that a saved student's weights and table are one model.

    Args:
        directory: a student's directory: `*.safetensors` of weights, and the table.
        plan: the plan that it was made by; None = it is not known.

    Returns:
        the table.

    Raises:
        DataError: the table or the weights are damaged.
        QATError: they do not belong together, or the table is not the planned one.
        OSError: a file cannot be read.
    """
    table = read_table(directory)
    if plan is not None:
        table.check_plan(plan)
    seen = set()
    for path in sorted(directory.glob("*.safetensors")):
        if path.name == TABLE_FILE:
            continue
        try:
            with safe_open(path, framework="pt") as file:
                for name in sorted(table.tensors.keys() & set(file.keys())):
                    table.check_weight(name, file.get_tensor(name))
                    seen.add(name)
        except SafetensorError as error:
            raise DataError(
                f"the weights are damaged ({error}); save the student again", str(path)
            ) from error
    absent = sorted(table.tensors.keys() - seen)
    if absent:
        raise QATError(f"a tensor of the table is not among the saved weights, {_REMEDY}: {absent[0]}")
    return table
