"""A teacher on this machine: its model, and the log-probabilities that it gives to given answers (teacher forcing)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from kdfast.config.teacher import TeacherConfig
from kdfast.errors import DataError, TeacherError
from kdfast.model_files import converted_directory
from kdfast.pretrained import DTYPES, load_causal_lm, load_model_config, resolve_device
from kdfast.runs.student import weights_fingerprint
from kdfast.teacher.local.gguf import convert_gguf
from kdfast.teacher.local.samples import row_uniforms
from kdfast.teacher.local.scores import CHUNK_ROWS, Scores, Wanted, score_logits


@dataclass(frozen=True)
class ScoringRow:
    """One row to score.

    Attributes:
        ids: all tokens of the row, without any shared prefix.
        response_start: index of the first token to score; at least 1.
        key: the row's key in the teacher store; it decides the draws if ids are drawn.
    """

    ids: Sequence[int]
    response_start: int
    key: bytes = b""


class _SharedPrefix(DynamicLayer):  # type: ignore[no-untyped-call]
    """A cache layer that always holds the same prefix: rows read it, and nothing of them is kept.

    So the prefix is computed once, and only one layer at a time holds a copy of it for the whole batch.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self.keys, self.values = self.prefix = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The prefix, then the rows' own keys and values."""
        rows = len(key_states)
        keys, values = self.prefix
        return (
            torch.cat([keys.expand(rows, -1, -1, -1), key_states], 2),
            torch.cat([values.expand(rows, -1, -1, -1), value_states], 2),
        )


def model_directory(path: Path) -> Path:
    """The Hugging Face directory of a teacher; a `.gguf` file is converted once, into a directory beside it.

    Raises:
        TeacherError: the file is missing or damaged.
    """
    if path.suffix.lower() == ".gguf":
        return convert_gguf(path, converted_directory(path))
    return path


def model_fingerprint(directory: Path) -> str:
    """SHA-256 (hex) over a model's config and weights."""
    return weights_fingerprint(directory)


def model_vocab_size(directory: Path) -> int:
    """Rows of a model's output layer; no weight is read.

    Raises:
        TeacherError: there is no model.
    """
    return int(load_model_config(directory, error=TeacherError, name="teacher.model").vocab_size)


class LocalTeacher:
    """A Hugging Face causal language model that scores given answers, and can be generated with.

    Args:
        path: the model's directory, or a `.gguf` file.
        device: "auto", "cpu", "cuda" or "mps".
        dtype: "fp32" or "bf16".

    Attributes:
        directory: the model's Hugging Face directory.
        vocab_size: rows of its output layer.

    Raises:
        TeacherError: the model is missing, damaged, or of a family that is not supported.
        ConfigError: this machine lacks the device.
    """

    def __init__(
        self, path: Path, *, device: str = TeacherConfig.device, dtype: str = TeacherConfig.dtype
    ) -> None:
        self.device = resolve_device(device, key="teacher.device")
        self.directory = model_directory(Path(path))
        model: Any = load_causal_lm(
            self.directory, dtype=DTYPES[dtype], error=TeacherError, name="teacher.model"
        )
        self._model = model.to(self.device)
        self.vocab_size = int(model.lm_head.weight.shape[0])

    @property
    def model(self) -> torch.nn.Module:
        """The model, on its device, in evaluation mode."""
        module: torch.nn.Module = self._model
        return module

    @cached_property
    def fingerprint(self) -> str:
        """See `model_fingerprint`."""
        return model_fingerprint(self.directory)

    def score(
        self,
        rows: Sequence[ScoringRow],
        wanted: Wanted,
        *,
        prefix_ids: Sequence[int] = (),
        batch_tokens: int = TeacherConfig.batch_tokens,
    ) -> Iterator[list[tuple[int, Scores]]]:
        """The teacher's distribution at every response token of every row.

        Rows are scored in batches of about equal length, the longest first.

        Args:
            rows: the rows to score.
            wanted: what to keep of each distribution.
            prefix_ids: tokens put before every row (demonstrations); their cache is computed once.
            batch_tokens: most padded tokens of a batch, without the prefix; a batch of one row may exceed it.

        Yields:
            for each batch, pairs of a row's index in `rows` and its scores.

        Raises:
            DataError: a row has no response, or an id that the teacher does not know; or it has no key although ids
                shall be drawn.
            TeacherError: the teacher gives NaN, or its attention cannot use a prefix.
        """
        self._check_rows(rows, prefix_ids, wanted)
        prefix = self._prefix(prefix_ids)
        for batch in token_batches([len(row.ids) for row in rows], batch_tokens):
            scores = self._score_batch([rows[index] for index in batch], wanted, prefix)
            yield list(zip(batch, scores, strict=True))

    def _check_rows(self, rows: Sequence[ScoringRow], prefix_ids: Sequence[int], wanted: Wanted) -> None:
        if wanted.usable > self.vocab_size:
            raise DataError(
                f"the teacher has {self.vocab_size} ids, usable must not be more: {wanted.usable}"
            )
        for number, row in enumerate(rows):
            if not 1 <= row.response_start < len(row.ids):
                raise DataError(
                    f"row {number} has no response to score: "
                    f"it starts at {row.response_start} of {len(row.ids)}"
                )
            if wanted.samples and not row.key:
                raise DataError(f"row {number} has no key that its draws could depend on")
            highest = max(row.ids)
            if min(row.ids) < 0 or highest >= wanted.usable:
                raise DataError(f"row {number} has an id that the teacher does not know: {highest}")
        if any(not 0 <= index < wanted.usable for index in prefix_ids):
            raise DataError("the prefix has an id that the teacher does not know")

    @torch.inference_mode()
    def _prefix(self, prefix_ids: Sequence[int]) -> DynamicCache | None:
        if not prefix_ids:
            return None
        cache: Any = DynamicCache(config=self._model.config)
        if any(layer.is_sliding for layer in cache.layers):
            raise TeacherError(
                "teacher.demonstrations: must be 0 with a teacher whose attention slides over a window"
            )
        ids = torch.tensor([list(prefix_ids)], device=self.device)
        self._model.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
        cache.layers = [_SharedPrefix(layer.keys, layer.values) for layer in cache.layers]
        shared: DynamicCache = cache
        return shared

    @torch.inference_mode()
    def _score_batch(
        self, rows: Sequence[ScoringRow], wanted: Wanted, prefix: DynamicCache | None
    ) -> list[Scores]:
        longest = max(len(row.ids) for row in rows)
        # padded on the right with any id: in a causal model no token sees what comes after it
        ids = torch.tensor([[*row.ids, *[0] * (longest - len(row.ids))] for row in rows], device=self.device)
        hidden = self._model.base_model(
            input_ids=ids, past_key_values=prefix, use_cache=prefix is not None
        ).last_hidden_state
        places = [
            (number, position)
            for number, row in enumerate(rows)
            for position in range(row.response_start, len(row.ids))
        ]
        row_of, position_of = torch.tensor(places, device=self.device).T
        # the logits at a position predict the next token
        picked, targets = hidden[row_of, position_of - 1], ids[row_of, position_of]
        chunks = zip(
            torch.split(picked, CHUNK_ROWS),
            torch.split(targets, CHUNK_ROWS),
            _uniforms(rows, wanted, len(picked)),
            strict=True,
        )
        parts = [
            score_logits(self._model.lm_head(some), target, wanted, uniforms)
            for some, target, uniforms in chunks
        ]
        columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        if not bool((columns[1][:, 0] <= 0).all()):
            raise TeacherError(
                "teacher.model: gives NaN on these rows; try teacher.dtype fp32, or fetch the model again: "
                f"{self.directory}"
            )
        lengths = [len(row.ids) - row.response_start for row in rows]
        arrays = [torch.split(column.cpu(), lengths) for column in columns]
        return [Scores(*(part.numpy() for part in row)) for row in zip(*arrays, strict=True)]


def _uniforms(rows: Sequence[ScoringRow], wanted: Wanted, tokens: int) -> Sequence[Tensor | None]:
    """The uniform numbers for the draws, one tensor per chunk of `CHUNK_ROWS` tokens; None where nothing is drawn."""
    if not wanted.samples:
        return [None] * math.ceil(tokens / CHUNK_ROWS)
    parts = [row_uniforms(row.key, len(row.ids) - row.response_start, wanted.samples) for row in rows]
    return torch.split(torch.from_numpy(np.concatenate(parts)), CHUNK_ROWS)


def token_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Groups rows of about equal length, longest first; each padded group has at most `batch_tokens` tokens.

    Example:
        >>> list(token_batches([3, 9, 2, 4], 8))
        [[1], [3, 0], [2]]
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // lengths[order[start]])
        yield order[start : start + size]
        start += size
