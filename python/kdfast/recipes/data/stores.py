"""Audits stores, and writes the rows of a dataset for other tools."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from kdfast import _rust
from kdfast.config import DataConfig
from kdfast.data import KDDataset
from kdfast.errors import ConfigError, DataError

_KINDS: dict[str, Callable[[Path], _rust.TokenStore | _rust.TeacherStore]] = {
    ".tokens.arrow": _rust.TokenStore.open,
    "teacher.arrow": _rust.TeacherStore.open,
}


def audit(path: Path) -> Iterator[str]:
    """Checks every row of every store below `path` (a store file, or a directory) against its checksum.

    Yields:
        one line of text per store.

    Raises:
        DataError: a row is damaged, or there is no store.
    """
    files = sorted(path.glob("*.arrow")) if path.is_dir() else [path]
    if not files:
        raise DataError("holds no token store and no teacher store (*.arrow)", str(path))
    for file in files:
        store = _open(file)
        damaged = store.audit()
        if damaged:
            raise DataError(
                f"{len(damaged)} of {len(store)} rows do not match their checksum; restore the file, or delete it and "
                f"build it again; the first: {damaged[0]}",
                str(file),
            )
        yield f"{file}: {len(store)} rows, all match their checksums"


def _open(file: Path) -> _rust.TokenStore | _rust.TeacherStore:
    for ending, opener in _KINDS.items():
        if file.name.endswith(ending):
            return opener(file)
    raise DataError("is no store: its name ends neither in .tokens.arrow nor in teacher.arrow", str(file))


def export(
    path: Path,
    out: Path,
    *,
    format: str,  # noqa: A002
    tokenizer: Path,
    template: str = DataConfig.template,
) -> str:
    """Writes the whole rows of a JSONL file: ids, spans and metadata, as the token store holds them.

    Args:
        path: records, JSONL.
        out: the file ("parquet") or directory ("datasets") to write.
        format: "parquet" or "datasets".
        tokenizer: tokenizer.json, or the directory that holds it.
        template: "hermes", "tokenizer" or a .jinja file.

    Returns:
        a line of text that says what was written.

    Raises:
        ConfigError: the output exists already, or `datasets` is not installed.
        DataError: bad data.
    """
    if out.exists():
        raise ConfigError(f"--out: is there already; remove it or choose another path: {out}")
    dataset = KDDataset(path, tokenizer, template=template, max_seq_length=2**31 - 1)
    with pyarrow.memory_map(str(dataset.store.path)) as source, pyarrow.ipc.open_stream(source) as reader:
        table = reader.read_all().drop_columns(["row_checksum"])
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.tmp")
    try:
        if format == "parquet":
            pyarrow.parquet.write_table(table, beside, compression="zstd")
        else:
            _save_datasets(table, beside)
        beside.rename(out)
    finally:
        if beside.is_dir():
            shutil.rmtree(beside)
        else:
            beside.unlink(missing_ok=True)
    return f"{out}: {table.num_rows} rows ({format})"


def _save_datasets(table: pa.Table, directory: Path) -> None:
    try:
        from datasets import Dataset
    except ModuleNotFoundError as error:
        raise ConfigError(
            "--format: datasets needs the package datasets; pip install 'kdfast[datasets]', or choose parquet"
        ) from error
    Dataset(table.replace_schema_metadata(None)).save_to_disk(str(directory))
