"""Section `arch`: the student's architecture and where its weights start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from kdfast.config.section import Key, Section, invalid
from kdfast.errors import ConfigError

_NEEDED_FROM_SCRATCH = ("d_model", "n_layers", "n_heads", "d_ff")
_ONLY_FROM_SCRATCH = (
    "vocab_size",
    *_NEEDED_FROM_SCRATCH,
    "n_kv_heads",
    "head_dim",
    "rope_theta",
    "norm_eps",
    "max_position_embeddings",
)


@dataclass(frozen=True, kw_only=True)
class ArchConfig(Section):
    """The student: a Llama-family model (RMSNorm, RoPE, SwiGLU, grouped-query attention).

    Examples:
        >>> arch = ArchConfig(d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=128)
        >>> arch.from_scratch
        True
        >>> ArchConfig(init="teacher", d_model=64)
        Traceback (most recent call last):
        ...
        kdfast.errors.ConfigError: arch.d_model: must be left out unless arch.init is 'scratch' (the loaded
        model decides it), got 64
    """

    section: ClassVar[str] = "arch"

    init: Annotated[
        str, Key("'scratch' (random weights), 'teacher' (its weights) or the directory of an HF model.")
    ] = "scratch"
    layers: Annotated[
        int | tuple[int, ...] | None,
        Key(
            "Which layers of the loaded model to keep: null = all, a number = that many, evenly spread,"
            " a list = these (counted from 0).",
            minimum=0,
        ),
    ] = None
    freeze_embeddings: Annotated[
        bool, Key("Keep the loaded token embeddings (and an output layer tied to them) as they are.")
    ] = False
    tie_word_embeddings: Annotated[
        bool | None,
        Key("Share the weights of embeddings and output layer; null = as loaded (scratch: not shared)."),
    ] = None
    vocab_size: Annotated[
        int | None, Key("Scratch only: rows of the embedding; null = the tokenizer's vocabulary.", minimum=1)
    ] = None
    d_model: Annotated[int | None, Key("Scratch only: width of the hidden states.", minimum=1)] = None
    n_layers: Annotated[int | None, Key("Scratch only: number of layers.", minimum=1)] = None
    n_heads: Annotated[int | None, Key("Scratch only: query heads a layer.", minimum=1)] = None
    n_kv_heads: Annotated[
        int | None,
        Key("Scratch only: key/value heads a layer, a divisor of n_heads; null = n_heads.", minimum=1),
    ] = None
    head_dim: Annotated[
        int | None, Key("Scratch only: width of a head, even; null = d_model / n_heads.", minimum=2)
    ] = None
    d_ff: Annotated[int | None, Key("Scratch only: inner width of the feed-forward block.", minimum=1)] = None
    rope_theta: Annotated[float, Key("Scratch only: base of the rotary position encoding.", above=0)] = (
        10000.0
    )
    norm_eps: Annotated[float, Key("Scratch only: epsilon of the RMSNorm layers.", above=0)] = 1e-5
    max_position_embeddings: Annotated[
        int | None,
        Key("Scratch only: longest input in tokens; null = the largest of data.shapes.", minimum=1),
    ] = None

    @property
    def from_scratch(self) -> bool:
        """Whether the student starts from random weights."""
        return self.init == "scratch"

    def unused(self) -> frozenset[str]:
        """The sizes, when a loaded model decides them."""
        return frozenset() if self.from_scratch else frozenset(_ONLY_FROM_SCRATCH)

    def check(self) -> None:
        """Checks the sizes against each other, and that none is given where it would be ignored."""
        if not self.init.strip() or "\0" in self.init:
            raise invalid("arch.init", "'scratch', 'teacher' or a directory", self.init)
        if self.from_scratch:
            self._check_scratch()
            return
        for name in _ONLY_FROM_SCRATCH:
            if getattr(self, name) != self.default(name):
                allowed = "left out unless arch.init is 'scratch' (the loaded model decides it)"
                raise invalid(f"arch.{name}", allowed, getattr(self, name))
        if self.layers in (0, ()):
            raise invalid("arch.layers", "null, an integer >= 1 or a list that is not empty", self.layers)
        if isinstance(self.layers, tuple) and list(self.layers) != sorted(set(self.layers)):
            raise invalid("arch.layers", "sorted and without repeats", list(self.layers))

    def _check_scratch(self) -> None:
        for name in _NEEDED_FROM_SCRATCH:
            if getattr(self, name) is None:
                raise ConfigError(
                    f"arch.{name}: required when arch.init is 'scratch'; set it, or start from 'teacher' or a"
                    " model's directory"
                )
        if self.layers is not None:
            raise invalid("arch.layers", "null when arch.init is 'scratch' (use arch.n_layers)", self.layers)
        if self.freeze_embeddings:
            raise invalid("arch.freeze_embeddings", "false when arch.init is 'scratch'", True)
        self._check_heads(self.d_model or 0, self.n_heads or 0)

    def _check_heads(self, d_model: int, n_heads: int) -> None:
        if n_heads % (self.n_kv_heads or n_heads):
            raise invalid("arch.n_kv_heads", f"a divisor of arch.n_heads ({n_heads})", self.n_kv_heads)
        if self.head_dim is None and d_model % n_heads:
            allowed = f"a multiple of arch.n_heads ({n_heads}) unless arch.head_dim is set"
            raise invalid("arch.d_model", allowed, d_model)
        head_dim = self.head_dim or d_model // n_heads
        if head_dim % 2:
            raise invalid(
                "arch.head_dim", "even (rotary positions turn pairs; null = d_model / n_heads)", head_dim
            )
