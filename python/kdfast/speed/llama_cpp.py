"""The engine for exports: llama.cpp behind the interface through which speed is measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kdfast.llama_cpp import LlamaCppModel


class LlamaCppEngine:
    """A GGUF file in llama.cpp as a greedy generator, batch 1.

    Args:
        model: open as long as the engine is used. Its cache belongs to the engine.

    Examples:
        >>> from pathlib import Path
        >>> with LlamaCppModel(Path("student-q4_0.gguf")) as model:  # doctest: +SKIP
        ...     engine = LlamaCppEngine(model)
        ...     engine.prefill([1, 2, 3])
        ...     engine.next()
        4
    """

    def __init__(self, model: LlamaCppModel) -> None:
        self._model = model
        self.reset()

    def reset(self) -> None:
        """Forgets the prompt, its answer and the cache."""
        self._model.clear()
        self._logits: NDArray[np.float32] | None = None  # [V] of the last position; None = already used
        self._token: int | None = None  # the last token that was chosen, input of the next step

    def prefill(self, ids: Sequence[int]) -> None:
        """Reads a whole prompt into the empty cache.

        Raises:
            ValueError: `ids` is empty, or holds more tokens than the model's context.
        """
        if len(ids) == 0:
            raise ValueError("prompt must have at least one token, got none")
        self.reset()
        self._logits = self._model.decode(ids)[0]

    def next(self) -> int:
        """The id of the likeliest next token.

        Raises:
            FloatingPointError: the logits are NaN.
            RuntimeError: nothing was prefilled.
            ValueError: the model's context is full.
        """
        if self._logits is None:
            if self._token is None:
                raise RuntimeError("prefill must come before next")
            self._logits = self._model.decode([self._token])[0]
        best = int(self._logits.argmax())  # the first NaN, if there is one
        if np.isnan(self._logits[best]):
            raise FloatingPointError("the model's logits are NaN")
        self._logits, self._token = None, best
        return best
