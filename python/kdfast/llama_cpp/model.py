"""A GGUF file in llama.cpp, in this process: its tokenizer and its logits."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kdfast.llama_cpp.library import Batch, load_library, omp_threads, usable_cores
from kdfast.llama_cpp.loading import BATCH, check_gguf, create_context, load_model

DEFAULT_CONTEXT = 4096


class LlamaCppModel:
    """A model file as llama.cpp runs it, with one sequence in its cache. Threads must not share it.

    The cache's number format and flash attention are llama.cpp's defaults (an fp16 cache), which is what its users get.

    Args:
        gguf: the model.
        context: the most tokens in the cache; 0 = what the file says it was made for, at most 4096, because the
            cache's memory is taken at once. More than the file says is allowed, as in llama.cpp.
        threads: threads that compute; 0 = OMP_NUM_THREADS, else one for each usable core.

    Attributes:
        context: the most tokens in the cache.
        vocab_size: number of token ids.
        end_ids: every id at which llama.cpp stops.

    Raises:
        ConfigError: xllamacpp is not installed, or its library differs from what is known here.
        DataError: the file is missing, no GGUF, damaged, or of a kind that llama.cpp does not know.
        ValueError: `context` or `threads` is negative.
    """

    def __init__(self, gguf: Path, *, context: int = 0, threads: int = 0) -> None:
        if context < 0 or threads < 0:
            raise ValueError(f"context and threads must not be negative, got {context} and {threads}")
        self._model: int | None = None
        self._context: int | None = None
        check_gguf(gguf)
        self._library = load_library()
        self._functions: Any = self._library.functions
        self._model = load_model(self._library, gguf)
        made_for = int(self._functions.llama_model_n_ctx_train(self._model))
        self.context = context or min(made_for, DEFAULT_CONTEXT)
        try:
            self._context = create_context(self._library, self._model, self.context, gguf)
        finally:
            if self._context is None:
                self.close()
        threads = threads or omp_threads() or usable_cores()
        self._functions.llama_set_n_threads(self._context, threads, threads)
        self._vocab = self._functions.llama_model_get_vocab(self._model)
        self.vocab_size = int(self._functions.llama_vocab_n_tokens(self._vocab))
        is_end = self._functions.llama_vocab_is_eog
        self.end_ids = frozenset(id_ for id_ in range(self.vocab_size) if is_end(self._vocab, id_))
        self._used = 0  # tokens in the cache

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees the model and its cache. A second call does nothing."""
        context, self._context = self._context, None
        model, self._model = self._model, None
        if context is not None:
            self._functions.llama_free(context)
        if model is not None:
            self._functions.llama_model_free(model)

    def metadata(self, key: str) -> str | None:
        """What the file says under a key, as text; None = it has no such key.

        Raises:
            RuntimeError: the model is closed.
        """
        self._check_open()
        read, name = self._functions.llama_model_meta_val_str, key.encode()
        size = int(read(self._model, name, None, 0))
        if size < 0:
            return None
        buffer = ctypes.create_string_buffer(size + 1)
        read(self._model, name, buffer, size + 1)
        return buffer.raw[:size].decode(errors="replace")

    def tokenize(self, text: str) -> list[int]:
        """The ids that llama.cpp makes of a text. Special tokens in it become their ids; nothing is added.

        Raises:
            RuntimeError: the model is closed.
        """
        self._check_open()
        data = text.encode()
        room = len(data) + 1
        for _ in range(2):  # a second time if there are more ids than bytes
            ids = (ctypes.c_int32 * room)()
            made = int(self._functions.llama_tokenize(self._vocab, data, len(data), ids, room, False, True))
            if made >= 0:
                return ids[:made]
            room = -made
        raise RuntimeError(f"llama.cpp cannot tokenize a text of {len(data)} bytes: it answers {made}")

    def clear(self) -> None:
        """Forgets the tokens in the cache.

        Raises:
            RuntimeError: the model is closed.
        """
        self._check_open()
        memory = self._functions.llama_get_memory(self._context)
        self._functions.llama_memory_clear(memory, True)
        self._used = 0

    def decode(self, ids: Sequence[int], *, every: bool = False) -> NDArray[np.float32]:
        """Appends tokens to the cache.

        Args:
            ids: token ids, at least one.
            every: whether the logits of every position are wanted, else those of the last one.

        Returns:
            The logits of the next token, [len(ids),V] or [1,V]; a copy.

        Raises:
            RuntimeError: the model is closed, or llama.cpp fails; the cache is then empty.
            ValueError: no ids, an id outside the vocabulary, or more tokens than the context holds; nothing was
                appended.
        """
        self._check_open()
        tokens = self._checked(ids)
        rows = np.empty((len(tokens) if every else 1, self.vocab_size), dtype=np.float32)
        for at in range(0, len(tokens), BATCH):
            chunk = tokens[at : at + BATCH]
            wanted = np.full(len(chunk), every, dtype=np.int8)
            wanted[-1] |= at + len(chunk) == len(tokens)
            self._decode_chunk(chunk, wanted, rows[at:] if every else rows)
        return rows

    def _decode_chunk(
        self, tokens: NDArray[np.int32], wanted: NDArray[np.int8], rows: NDArray[np.float32]
    ) -> None:
        """Appends at most one batch; writes the logits of the wanted positions into the first rows."""
        batch = Batch(
            n_tokens=len(tokens),
            token=tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            logits=wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
        self._library.complaints.clear()
        status = int(self._functions.llama_decode(self._context, batch))
        if status != 0:
            self.clear()
            raise RuntimeError(
                f"llama.cpp cannot decode {len(tokens)} tokens ({self._library.reason()}): {status}"
            )
        self._used += len(tokens)
        for row, position in zip(rows, np.flatnonzero(wanted), strict=False):
            found = self._functions.llama_get_logits_ith(self._context, int(position))
            if not found:
                self.clear()
                raise RuntimeError(f"llama.cpp has no logits of a position: {self._library.reason()}")
            row[:] = np.ctypeslib.as_array(found, (self.vocab_size,))

    def _checked(self, ids: Sequence[int]) -> NDArray[np.int32]:
        if len(ids) == 0:
            raise ValueError("there must be at least one token to decode, got none")
        wide = np.asarray(ids, dtype=np.int64)
        outside = wide[(wide < 0) | (wide >= self.vocab_size)]
        if len(outside):
            raise ValueError(f"a token id must be 0 to {self.vocab_size - 1}, got {outside[0]}")
        if self._used + len(wide) > self.context:
            raise ValueError(
                f"the context holds {self.context} tokens and has {self._used}: "
                f"no room for {len(wide)} more; open the model with a larger context"
            )
        return np.ascontiguousarray(wide, dtype=np.int32)

    def _check_open(self) -> None:
        if self._context is None:
            raise RuntimeError("the model is closed; open it again")
