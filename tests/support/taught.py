"""The config of a local teacher, the records that it wrote, and stores that hold some of their rows; no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tiny_store
import yaml
from tiny import write_tokenizer

from kdfast import _rust
from kdfast.config import Config, load_config
from kdfast.data.token_rows import Reader

K = 4


@dataclass(frozen=True)
class Taught:
    """A job of a local teacher that has ended.

    Attributes:
        config: its config, `teacher.k` 4.
        config_file: the file of it.
        out: `teacher.out`, the records of `tiny_store`.
        rows: its rows.
        logp: the log-probability of every id in a store.
    """

    config: Config
    config_file: Path
    out: Path
    rows: _rust.TokenStore
    logp: float = -1.75

    def write_store(
        self, directory: Path, held: Iterable[int], *, fingerprint: str = "teacher", k: int = K
    ) -> Path:
        """Writes a store of some of the rows, all in one batch."""
        chosen = list(held)
        keys = self.rows.row_keys(fingerprint)
        lengths = [sum(int(end - start) for start, end in self.rows.row(row)["supervised"]) for row in chosen]
        total = sum(lengths)
        with _rust.TeacherWriter.open(directory, fingerprint, k=k, vocab_size=500, samples=0) as writer:
            if chosen:
                writer.append(
                    np.ascontiguousarray(keys[chosen]),
                    np.tile(np.arange(k, dtype=np.int32), (total, 1)),
                    np.full((total, k), self.logp, np.float32),
                    np.full(total, -2.0, np.float32),
                    np.array(lengths, dtype=np.int64),
                )
            return Path(writer.path)


def taught(folder: Path, **teacher: Any) -> Taught:
    """Writes the files of a job into a folder, which is made; its section `teacher` gets these keys."""
    folder.mkdir(exist_ok=True)
    out = tiny_store.write_records(folder / "out.jsonl", tiny_store.RECORDS)
    keys = {
        "model": str(folder / "teacher"),
        "store": str(folder / "store"),
        "prompts": str(folder / "prompts.jsonl"),
        "out": str(out),
        "k": K,
        **teacher,
    }
    sections: dict[str, Any] = {
        "arch": {"init": str(folder / "student")},
        "io": {"run_dir": str(folder / "run")},
        "data": {
            "train": str(out),
            "tokenizer": str(write_tokenizer(folder / "tokenizer")),
            "shapes": [512],
            "threads": 1,
        },
        "teacher": {name: value for name, value in keys.items() if value is not None},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(sections), encoding="utf-8")
    config = load_config(path)
    copy = folder / "rows" / out.name
    copy.parent.mkdir()
    copy.write_bytes(out.read_bytes())
    return Taught(config, path, out, Reader.of(config.data).rows(copy).store)
