"""`KDDataset`: the token rows of one JSONL file, memory-mapped from its token store."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from kdfast import _rust
from kdfast.batch import SOURCES
from kdfast.config.data import DataConfig
from kdfast.data.call_format import OPENINGS, call_format, template_thinking
from kdfast.data.template import load_template
from kdfast.errors import DataError

DEFAULT_SHAPES = DataConfig.shapes

_COUNTS = ("invalid_calls", "escaped", "ended_already", "raw_text")
_RECORD_K = 32  # log-probabilities of a record's own that are kept for each token: the likeliest

PathLike = str | os.PathLike[str]


class KDDataset(Dataset[dict[str, Any]]):
    """Rows of a distillation dataset, one file or several, ready for a plain torch DataLoader (workers, fork).

    The first use parses, renders, tokenises and annotates the file and writes a token store beside it. Later uses map
    that store into memory and start at once. A record with a teacher's answer and a different ground truth gives two
    rows.

    Attributes:
        store: the token store.
        rows: the indices in the token store of the rows that fit.
        lengths: [rows] int32, tokens of each row after dropping middle turns where it was too long.
        teacher: the store of teacher log-probabilities, if any.
        shapes: padded lengths in tokens, ascending.
        tool_call_format: the format of the calls, one of `kdfast._rust.tool_call_formats()`.
        thinking: "open" if the template's generation prompt opens a thinking block, else "closed".
        reused: whether the token store existed already.
        counts: how many rows have a call that breaks its schema (`invalid_calls`), control tokens in their content
            (`escaped`), an answer that came with its turn end (`ended_already`), a prompt or answer as text
            (`raw_text`).
        rejected: number of bad lines that were set aside (only with `on_error="quarantine"`).
        too_long: lines of the records that were left out because they do not fit (only with `on_error="quarantine"`).

    Example::

        dataset = KDDataset("train.jsonl", "tokenizer.json", max_seq_length=512)
        loader = DataLoader(dataset, batch_size=8, num_workers=2, collate_fn=collate_kd_batch)
    """

    def __init__(  # noqa: PLR0913 - a dataset's settings, each with its name and default
        self,
        path: PathLike | Sequence[PathLike],
        tokenizer_path: PathLike,
        max_seq_length: int = 2048,
        *,
        shapes: Sequence[int] | None = None,
        template: str = DataConfig.template,
        template_kwargs: Mapping[str, Any] | None = None,
        show_tools: bool = DataConfig.show_tools,
        supervise: str = DataConfig.supervise,
        prefix_tokens: int = DataConfig.prefix_tokens,
        on_error: str = DataConfig.on_error,
        max_rejected_fraction: float = DataConfig.max_rejected_fraction,
        max_line_bytes: int = DataConfig.max_line_bytes,
        allow_reasoning: bool = DataConfig.allow_reasoning,
        invalid_calls: str = DataConfig.invalid_calls,
        tool_call_format: str = DataConfig.tool_call_format,
        content_tokens: str = DataConfig.content_tokens,
        cache: PathLike | None = None,
        teacher_store: PathLike | None = None,
        threads: int = DataConfig.threads,
    ) -> None:
        """Opens the file's token store, building it if it does not exist.

        Args:
            path: records, JSONL; or several such files, whose rows follow each other.
            tokenizer_path: tokenizer.json, or a directory that holds it.
            max_seq_length: longest row in tokens; the largest of `shapes` when these are given.
            shapes: padded lengths, ascending; None = 512, 1024, 2048, 4096 up to `max_seq_length`.
            template: "auto", "hermes", "tokenizer" or the path of a .jinja file, see `load_template`.
            template_kwargs: values of variables that the template reads, such as `{"enable_thinking": False}`.
            show_tools: whether the prompt shows the tools; False = they are baked into the model.
            supervise: "last" or "all" assistant turns.
            prefix_tokens: tokens kept of the teacher's first call.
            on_error: "raise", or "quarantine" bad lines.
            max_rejected_fraction: with "quarantine", the load fails above this share.
            max_line_bytes: longest line.
            allow_reasoning: accept `teacher_reasoning_content`.
            tool_call_format: one of `kdfast._rust.tool_call_formats()`; "auto" = the one that the template writes, and
                "hermes" if it writes none.
            content_tokens: control tokens in the content of messages and tools: "escape", "refuse" or "allow" them.
            invalid_calls: "reject" a record with a call that breaks its tool's schema, or "keep" it.
            cache: directory of token stores; None = `.kdfast` beside the file.
            teacher_store: file of the teacher store; None = the log-probabilities that the records carry, if any.
            threads: threads of the Rust core; 0 = one per CPU.

        Raises:
            DataError: a bad record, tokenizer, template or store; the message names file, line and remedy.
            OSError: a file cannot be read or written.
        """
        self.paths = tuple(map(Path, [path] if isinstance(path, str | os.PathLike) else path))
        self.path, self.threads = self.paths[0], threads
        self.shapes = _shapes(shapes, max_seq_length)
        self.template = load_template(template, Path(tokenizer_path), template_kwargs, show_tools=show_tools)
        self.tokenizer_path = Path(tokenizer_path)
        self.tokenizer = _rust.Tokenizer.from_file(tokenizer_path)
        compiled = self.template.compile()
        if tool_call_format == "auto":
            tool_call_format = call_format(compiled) or "hermes"
        self.tool_call_format = tool_call_format
        self.thinking = template_thinking(compiled)
        build = partial(
            _rust.TokenStore.build,
            tokenizer=self.tokenizer,
            template=compiled,
            supervise=supervise,
            prefix_tokens=prefix_tokens,
            formats=self.formats,
            invalid_calls=invalid_calls,
            content_tokens=content_tokens,
            on_error=on_error,
            max_rejected_fraction=max_rejected_fraction,
            max_line_bytes=max_line_bytes,
            allow_reasoning=allow_reasoning,
            record_k=_RECORD_K,
            threads=threads,
        )
        reports = [
            build(file, cache if cache is not None else file.parent / ".kdfast") for file in self.paths
        ]
        self.reused, self.rejected = all(r.reused for r in reports), sum(r.rejected for r in reports)
        self.counts = {name: sum(int(getattr(r, name)) for r in reports) for name in _COUNTS}
        self.store_paths = [report.path for report in reports]
        self.store = _rust.TokenStore.open_all(self.store_paths)
        teacher = teacher_store if teacher_store is not None else self.store.record_teacher_path
        self.teacher = _rust.TeacherStore.open(teacher) if teacher is not None else None
        fitted = self.store.fit(self.shapes[-1])
        self.rows = np.flatnonzero(fitted >= 0)
        self.lengths = fitted[self.rows]
        self.too_long = self._check_fit(fitted, on_error, max_rejected_fraction)

    @classmethod
    def from_config(
        cls, data: DataConfig, path: Path | Sequence[Path], teacher_store: Path | None = None
    ) -> KDDataset:
        """The dataset of a config's `data` section: its `train` files or its `validation` file."""
        return cls(
            path,
            data.tokenizer,
            shapes=data.shapes,
            template=data.template,
            template_kwargs=data.template_kwargs,
            show_tools=data.show_tools,
            supervise=data.supervise,
            prefix_tokens=data.prefix_tokens,
            on_error=data.on_error,
            max_rejected_fraction=data.max_rejected_fraction,
            max_line_bytes=data.max_line_bytes,
            allow_reasoning=data.allow_reasoning,
            invalid_calls=data.invalid_calls,
            tool_call_format=data.tool_call_format,
            content_tokens=data.content_tokens,
            cache=data.cache,
            teacher_store=teacher_store,
            threads=data.threads,
        )

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of calls that count: the one of this data."""
        return (self.tool_call_format,)

    @property
    def call_openings(self) -> tuple[str, ...]:
        """The texts with which a call may begin."""
        return OPENINGS[self.tool_call_format]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the file of records (of several: of theirs), computed when first needed."""
        digests = []
        for path in self.paths:
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()

    @cached_property
    def content(self) -> str:
        """Blake3 (hex) of the file of records, as its token store knows it; of several, one after the other."""
        return " ".join(_rust.TokenStore.open(path).header()["kdfast.content"] for path in self.store_paths)

    def place(self, row: int) -> tuple[Path, int]:
        """The file and the line of a row of the token store."""
        return self.paths[self.store.file(row)], self.store.line(row)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One row, not padded: the fields of a batch (see `collate_kd_batch`) without their batch axis."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"row out of range, the dataset has {len(self)}: {index}")
        index = range(len(self))[index]
        batch = self.collate([index], shapes=[int(self.lengths[index])])
        return {name: value[0] for name, value in batch.items()}

    def __getitems__(self, indices: Sequence[int]) -> Rows:
        """Many rows at once, for `collate_kd_batch`."""
        return Rows(self, indices)

    def open_teacher(self, file: Path) -> None:
        """Switches to the teacher log-probabilities of this store.

        Raises:
            DataError: the file is no teacher store, or is damaged.
        """
        self.teacher = _rust.TeacherStore.open(file)

    def keys(self, fingerprint: str) -> NDArray[np.uint8]:
        """[rows,16] the rows' keys in the teacher store of a fingerprint."""
        return self.store.row_keys(fingerprint)[self.rows]

    @staticmethod
    def teacher_file(directory: Path, fingerprint: str) -> Path:
        """The path of a fingerprint's teacher store in a directory; the file need not exist."""
        return Path(_rust.TeacherStore.path_of(directory, fingerprint))

    @property
    def turn_end_ids(self) -> list[int]:
        """The token ids that end an assistant's turn."""
        return [int(token) for token in self.store.header()["kdfast.turn_end_ids"].split()]

    def ids(self, index: int) -> list[int]:
        """All token ids of a row, before any turn was dropped."""
        ids: list[int] = self.store.row(int(self.rows[index]))["ids"].tolist()
        return ids

    def should_call(self) -> list[bool]:
        """[rows] whether a tool call is due."""
        return [bool(self.store.row(int(row))["tool_should_be_used"]) for row in self.rows]

    def one_row_a_record(self) -> list[int]:
        """One row of each record, in the order of the file. If a record gave two, it is the ground truth's row."""
        chosen: dict[tuple[Path, int], int] = {}
        for index, row in enumerate(self.rows.tolist()):
            record = self.place(row)
            if record not in chosen or self.store.row(row)["source"] == SOURCES["truth"]:
                chosen[record] = index
        return list(chosen.values())

    def encode(self, text: str) -> list[int]:
        """The token ids of a text."""
        return self.tokenizer.encode(text)

    def pieces(self) -> list[str]:
        """The text of every id; bytes that are no UTF-8 become U+FFFD."""
        return [self.tokenizer.decode([token]) for token in range(self.tokenizer.vocab_size)]

    def collate(
        self, indices: Sequence[int], *, shapes: Sequence[int] | None = None, pad_id: int = 0
    ) -> dict[str, Tensor]:
        """A padded batch of the rows `indices`; see `collate_kd_batch`."""
        chosen = np.asarray(indices, dtype=np.int64)
        shape = pick_shape(int(self.lengths[chosen].max()), shapes or self.shapes)
        arrays = _rust.collate(
            self.store, self.rows[chosen], shape, pad_id, teacher=self.teacher, threads=self.threads
        )
        batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
        batch["row"] = torch.from_numpy(chosen)
        return batch

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the stores; the process that unpickles the copy (a spawned DataLoader worker) maps them again."""
        return self.__dict__ | {
            "store": None,
            "teacher": self.teacher.path if self.teacher is not None else None,
            "tokenizer": None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Maps the stores again, see `__getstate__`."""
        self.__dict__.update(state)
        self.store = _rust.TokenStore.open_all(self.store_paths)
        self.teacher = _rust.TeacherStore.open(state["teacher"]) if state["teacher"] is not None else None
        self.tokenizer = _rust.Tokenizer.from_file(self.tokenizer_path)

    def _check_fit(self, fitted: np.ndarray[Any, Any], on_error: str, limit: float) -> list[int]:
        """The lines of the rows that do not fit; raises DataError unless these may be left out."""
        outside = np.flatnonzero(fitted < 0)
        places = sorted({self.place(int(row)) for row in outside})
        if not places:
            return []
        first, lines = int(outside[0]), [line for _, line in places]
        message = (
            f"{len(lines)} record(s) do not fit the largest shape even without the middle turns of their "
            f"conversations (the first has {self.store.lengths()[first]} tokens); add a larger shape, shorten them, or "
            f"set data.on_error to 'quarantine' to leave them out: {self.shapes[-1]}"
        )
        if on_error == "raise" or len(lines) > limit * len(fitted):
            raise DataError(message, str(places[0][0]), lines[0])
        return lines


class Rows(Sequence[dict[str, Any]]):
    """Some rows of a dataset, not loaded yet: `KDDataset.__getitems__` returns them, `collate_kd_batch` loads them."""

    def __init__(self, dataset: KDDataset, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | Rows:
        if isinstance(index, slice):
            return Rows(self.dataset, self.indices[index])
        return self.dataset[self.indices[index]]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self.dataset[index] for index in self.indices)


def pick_shape(longest: int, shapes: Sequence[int] | None) -> int:
    """The smallest shape that holds `longest` tokens; `longest` itself if `shapes` is None.

    Raises:
        DataError: no shape is long enough.

    Examples:
        >>> pick_shape(100, [64, 128, 256])
        128
    """
    if shapes is None:
        return longest
    fitting = [shape for shape in shapes if shape >= longest]
    if not fitting:
        raise DataError(f"a row of {longest} tokens is longer than the largest shape: {max(shapes)}")
    return min(fitting)


def _shapes(shapes: Sequence[int] | None, max_seq_length: int) -> tuple[int, ...]:
    """The given shapes; else the default ones below `max_seq_length`, then `max_seq_length` itself."""
    if shapes is not None:
        return tuple(shapes)
    return (*(shape for shape in DEFAULT_SHAPES if shape < max_seq_length), max_seq_length)
