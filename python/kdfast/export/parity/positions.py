"""Parity of positions: the angles that torch turns by, against those that llama.cpp is told.

Held-out prompts are short, and a wrong scaling of long contexts hardly shows in their logits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from kdfast.export.gguf.families import read_shape

_RTOL = 1e-4
"""fp32 in torch, fp64 here."""


def position_problems(model: nn.Module, directory: Path) -> list[str]:
    """What differs between a loaded student's rotary positions and those of its GGUF file.

    Args:
        model: the student, as transformers loaded it.
        directory: its directory.

    Returns:
        one sentence, or none.

    Raises:
        ConfigError: the student is none that can be a GGUF file.
    """
    shape = read_shape(directory)
    rotary = next((one for name, one in model.named_modules() if name.endswith("rotary_emb")), None)
    if rotary is None:
        return ["torch has no rotary positions to compare with those of the file"]
    wanted = shape.rope.frequencies(shape.head_width)
    found = np.asarray(rotary.inv_freq.detach().cpu().double().numpy())
    factor = float(getattr(rotary, "attention_scaling", 1.0))
    if found.shape != wanted.shape or not np.allclose(found, wanted, rtol=_RTOL, atol=0):
        return [f"positions differ: torch turns by other angles than llama.cpp is told ({shape.rope.kind})"]
    if not np.isclose(factor, shape.rope.attention_factor, rtol=_RTOL):
        told = shape.rope.attention_factor
        return [
            f"positions differ: torch scales attention by {factor:g}, llama.cpp by {told:g} ({shape.rope.kind})"
        ]
    return []
