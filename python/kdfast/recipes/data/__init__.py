"""`kdfast data`: look at records, prepare their token stores, audit stores, export rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdfast.config import Config, DataConfig
from kdfast.recipes.requests import InspectRequest


def inspect(request: InspectRequest) -> int:
    """Shows what training would see of a JSONL file; see `kdfast.recipes.data.inspection`."""
    from kdfast.recipes.data.inspection import inspect as show

    show(request)
    return 0


def prepare(config: Config) -> int:
    """Builds the token stores of a config's files, as training would.

    Raises:
        DataError: bad data.
        OSError: a file cannot be read or written.
    """
    from kdfast.data import KDDataset

    for file in (*config.data.train_files, config.data.validation):
        if file is not None:
            dataset = KDDataset.from_config(config.data, file)
            state = "was there already" if dataset.reused else "built"
            print(
                f"{file}: {len(dataset)} rows, {int(dataset.lengths.sum())} tokens; {state}: {dataset.store.path}"
            )
    return 0


def split(path: Path, out: Path, *, fraction: float, by: str, seed: int) -> int:
    """Splits records into training and held-out ones without a leak; see `kdfast.recipes.data.splitting`."""
    from kdfast.recipes.data.splitting import split as write

    print(write(path, out, fraction=fraction, by=by, seed=seed))
    return 0


def audit(path: Path) -> int:
    """Reads every byte of a store, or of all stores in a directory, and compares the checksums.

    Raises:
        DataError: a store is damaged, or there is none.
    """
    from kdfast.recipes.data.auditing import audit as check

    for message in check(path):
        print(message)
    return 0


def export(
    path: Path,
    out: Path,
    *,
    format: str,  # noqa: A002
    tokenizer: Path,
    template: str = DataConfig.template,
    **options: Any,
) -> int:
    """Writes the rows of a JSONL file as Parquet or as a `datasets` directory; see `kdfast.recipes.data.stores`."""
    from kdfast.recipes.data.stores import export as write

    print(write(path, out, format=format, tokenizer=tokenizer, template=template, **options))
    return 0
