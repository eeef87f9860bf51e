"""The interface through which speed is measured: it generates the answer to one prompt at a time."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Engine(Protocol):
    """A greedy generator with a cache. Every method returns only when the device has finished its work.

    To measure an exported model, wrap it in these three methods.
    """

    def reset(self) -> None:
        """Forgets the prompt and its answer."""

    def prefill(self, ids: Sequence[int]) -> None:
        """Reads a whole prompt into the cache.

        Args:
            ids: the prompt's token ids, at least one.
        """

    def next(self) -> int:
        """The next token id: the first comes from the result of `prefill`, each further one from one decoding step."""
        ...


class TransformersEngine:
    """A Hugging Face causal language model with its own KV cache, batch 1.

    Args:
        model: on its device, in evaluation mode.

    Examples:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        >>> engine = TransformersEngine(LlamaForCausalLM(LlamaConfig(vocab_size=5, **sizes)).eval())
        >>> engine.prefill([1, 2, 3])
        >>> 0 <= engine.next() < 5
        True
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        # Without `logits_to_keep` a model computes the logits of every position of the prompt.
        known = inspect.signature(model.forward).parameters
        self._options: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self.reset()

    def reset(self) -> None:
        """Forgets the prompt, its answer and the cache."""
        self._cache: Any = None
        self._logits: Tensor | None = None  # [V] of the last position; None = already used
        self._token: int | None = None  # the last token that was chosen, input of the next step

    def prefill(self, ids: Sequence[int]) -> None:
        """Reads a whole prompt in one forward pass.

        Raises:
            ValueError: `ids` is empty.
        """
        if len(ids) == 0:
            raise ValueError("prompt must have at least one token, got none")
        self.reset()
        self._forward(ids)

    def next(self) -> int:
        """The id of the likeliest next token.

        Raises:
            FloatingPointError: the logits are NaN.
            RuntimeError: nothing was prefilled.
        """
        if self._logits is None:
            if self._token is None:
                raise RuntimeError("prefill must come before next")
            self._forward([self._token])
        assert self._logits is not None  # noqa: S101 - for the type checker
        best = self._logits.max(dim=-1)
        if best.values.isnan():
            raise FloatingPointError("the model's logits are NaN")
        self._logits, self._token = None, int(best.indices)
        return self._token

    @torch.inference_mode()
    def _forward(self, ids: Sequence[int]) -> None:
        output = self._model(
            input_ids=torch.tensor([list(ids)], dtype=torch.long, device=self._device),
            past_key_values=self._cache,
            use_cache=True,
            **self._options,
        )
        self._cache, self._logits = output.past_key_values, output.logits[0, -1]  # [V]
        _synchronise(self._device)


def _synchronise(device: torch.device) -> None:
    """Waits for the device: a call to a GPU returns before the GPU has done the work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
