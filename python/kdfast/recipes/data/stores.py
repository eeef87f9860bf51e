"""Writes the rows of a dataset for other tools."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from kdfast.config import DataConfig
from kdfast.data import KDDataset
from kdfast.errors import ConfigError
from kdfast.recipes.first_look.files import check_new


def export(
    path: Path,
    out: Path,
    *,
    format: str,  # noqa: A002
    tokenizer: Path,
    template: str = DataConfig.template,
    template_kwargs: Mapping[str, Any] | None = None,
    show_tools: bool = DataConfig.show_tools,
) -> str:
    """Writes the whole rows of a JSONL file: ids, spans and metadata, as the token store holds them.

    Args:
        path: records, JSONL.
        out: the file ("parquet") or directory ("datasets") to write.
        format: "parquet" or "datasets".
        tokenizer: tokenizer.json, or the directory that holds it.
        template: "hermes", "tokenizer" or a .jinja file.
        template_kwargs: variables that the template reads, by name; None = none.
        show_tools: whether prompts show the tools, see `data.show_tools`.

    Returns:
        a line of text that says what was written.

    Raises:
        ConfigError: the output exists already, or `datasets` is not installed.
        DataError: bad data.
    """
    check_new(out)
    longest = 2**31 - 1
    dataset = KDDataset(
        path,
        tokenizer,
        longest,
        template=template,
        template_kwargs=template_kwargs,
        show_tools=show_tools,
    )
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
