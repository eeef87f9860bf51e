"""Rotary positions: what config.json says (two dialects), and what llama.cpp is told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdfast.errors import ConfigError

KINDS = ("default", "linear", "llama3", "yarn")
"""The kinds of scaling that llama.cpp computes as transformers does."""

_REMEDY = "export the student with --target hf"


@dataclass(frozen=True, kw_only=True)
class Rope:
    """A student's rotary positions.

    Attributes:
        kind: one of `KINDS`.
        theta: the base of the frequencies.
        factor: by how much positions are stretched; 1 = not at all.
        original: the context before scaling, in tokens; 0 = not scaled.
        figures: `low_freq_factor` and `high_freq_factor` of llama3.
    """

    kind: str
    theta: float
    factor: float = 1.0
    original: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)

    def frequency_factors(self, head_width: int) -> NDArray[np.float32] | None:
        """[head_width/2] what `rope_freqs.weight` holds: each frequency's divisor; None = the file needs none.

        Example:
            >>> Rope(kind="default", theta=1e4).frequency_factors(64) is None
            True
        """
        if self.kind != "llama3":
            return None
        low, high = self.figures["low_freq_factor"], self.figures["high_freq_factor"]
        powers = np.arange(0, head_width, 2, dtype=np.float32) / np.float32(head_width)
        waves = 2 * math.pi * np.float32(self.theta) ** powers
        smooth = (self.original / waves - low) / (high - low)
        between = 1 / ((1 - smooth) / self.factor + smooth)
        factors = np.where(
            waves > self.original / low,
            self.factor,
            np.where(waves < self.original / high, 1.0, between),
        )
        return np.asarray(factors, dtype=np.float32)

    @property
    def attention_factor(self) -> float:
        """What queries and keys are multiplied by; llama.cpp computes it from the factor."""
        return 0.1 * math.log(self.factor) + 1.0 if self.kind == "yarn" and self.factor > 1 else 1.0

    def frequencies(self, head_width: int) -> NDArray[np.float64]:
        """[head_width/2] the angle of each pair of a head at position 1, as llama.cpp turns it.

        Example:
            >>> Rope(kind="linear", theta=1e4, factor=2.0).frequencies(4).tolist()
            [0.5, 0.005]
        """
        powers = np.arange(0, head_width, 2, dtype=np.float64) / head_width
        plain: NDArray[np.float64] = self.theta**-powers
        factors = self.frequency_factors(head_width)
        if factors is not None:
            return plain / factors
        if self.kind != "yarn":
            return plain / self.factor
        low, high = (math.floor(self._turns(32, head_width)), math.ceil(self._turns(1, head_width)))
        low, high = max(low, 0), min(high, head_width - 1)
        ramp = np.clip((np.arange(head_width // 2) - low) / max(0.001, high - low), 0, 1)
        scaled: NDArray[np.float64] = plain / self.factor * ramp + plain * (1 - ramp)
        return scaled

    def _turns(self, turns: float, head_width: int) -> float:
        """The pair of a head that turns so often over the original context."""
        return head_width * math.log(self.original / (turns * 2 * math.pi)) / (2 * math.log(self.theta))


def read_rope(config: Mapping[str, Any], head_width: int, *, needs_theta: bool) -> Rope:
    """The positions of a config.json, as transformers 5 (`rope_parameters`) or older ones write them.

    Args:
        config: the document.
        head_width: size of a head.
        needs_theta: False = 10000 where the base is not said.

    Raises:
        ConfigError: llama.cpp does not compute them so, or a figure is missing; says which.

    Example:
        >>> old = {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}
        >>> new = {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0}}
        >>> read_rope(old, 64, needs_theta=True) == read_rope(new, 64, needs_theta=True)
        True
    """
    said = config.get("rope_parameters") or config.get("rope_scaling") or {}
    _check_one_word(config)
    if not isinstance(said, Mapping) or any(isinstance(value, Mapping) for value in said.values()):
        raise ConfigError(f"gguf: llama.cpp has one kind of positions for all layers; {_REMEDY}: {said!r}")
    kind = said.get("rope_type") or said.get("type") or "default"
    if kind not in KINDS:
        raise ConfigError(f"gguf: rope type must be one of {', '.join(KINDS)}; {_REMEDY}: {kind!r}")
    part = said.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0
    if int(head_width * part) != head_width:
        raise ConfigError(
            f"gguf: llama.cpp turns whole heads of this family; {_REMEDY}: partial_rotary_factor {part}"
        )
    theta = said.get("rope_theta") or config.get("rope_theta")
    if theta is None and not needs_theta:
        theta = 10000.0
    base = _number({"rope_theta": theta}, "rope_theta")
    if kind == "default":
        return Rope(kind=kind, theta=base)
    factor = _number(said, "factor")
    if kind == "linear":
        return Rope(kind=kind, theta=base, factor=factor)
    # transformers takes the outer number first.
    outer = config.get("original_max_position_embeddings")
    original = int(_number(said if outer is None else config, "original_max_position_embeddings"))
    if kind == "yarn":
        _check_yarn(said, factor)
    figures = _llama3_figures(said) if kind == "llama3" else {}
    return Rope(kind=kind, theta=base, factor=factor, original=original, figures=figures)


def _check_one_word(config: Mapping[str, Any]) -> None:
    """Both dialects may stand in one file, but transformers and llama.cpp would each believe another one."""
    new, old = config.get("rope_parameters"), config.get("rope_scaling")
    if not isinstance(new, Mapping) or not isinstance(old, Mapping) or not new or not old:
        return
    kinds = [one.get("rope_type") or one.get("type") or "default" for one in (new, old)]
    other = [
        key for key in new.keys() & old.keys() if key not in ("type", "rope_type") and new[key] != old[key]
    ]
    if kinds[0] != kinds[1] or other:
        raise ConfigError(
            "gguf: config.json says two things of positions, in rope_parameters and in rope_scaling; remove the wrong "
            f"one: {dict(new)}, {dict(old)}"
        )


def _number(said: Mapping[str, Any], key: str) -> float:
    value = said.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        raise ConfigError(
            f"gguf: config.json must hold a number above 0 as {key}; save the student again: {value!r}"
        )
    return float(value)


def _llama3_figures(said: Mapping[str, Any]) -> dict[str, float]:
    figures = {key: _number(said, key) for key in ("low_freq_factor", "high_freq_factor")}
    if figures["low_freq_factor"] == figures["high_freq_factor"]:
        raise ConfigError(
            f"gguf: rope's low_freq_factor and high_freq_factor must differ; {_REMEDY}: {figures}"
        )
    return figures


def _check_yarn(said: Mapping[str, Any], factor: float) -> None:
    """llama.cpp reads the factor and the context of these families only; the rest must be what it computes itself."""
    usual = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
    own = {"attention_factor": usual, "beta_fast": 32.0, "beta_slow": 1.0}
    for key, value in own.items():
        given = said.get(key)
        if given is not None and not math.isclose(given, value, rel_tol=1e-6):
            raise ConfigError(f"gguf: llama.cpp runs yarn with {key} {value:g} only; {_REMEDY}: {given}")
    if said.get("mscale") and said.get("mscale_all_dim"):
        raise ConfigError(f"gguf: llama.cpp reads no mscale of this family; {_REMEDY}: {said['mscale']}")
    if said.get("truncate") is False:
        raise ConfigError(f"gguf: llama.cpp rounds yarn's range to whole numbers; {_REMEDY}: truncate false")
