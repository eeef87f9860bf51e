"""The table of the training loss's terms, and their weights at a step."""

from __future__ import annotations

from kdfast.config.kd import KDConfig
from kdfast.losses.entries.cross_entropy import CrossEntropy
from kdfast.losses.entries.early_tool import EarlyTool
from kdfast.losses.entries.entry import Entry, TermSpec
from kdfast.losses.entries.hidden_state import HiddenState
from kdfast.losses.entries.kl import KL
from kdfast.losses.entries.length import Length
from kdfast.losses.entries.prompt_kl import PromptKL
from kdfast.losses.entries.sampled_kl import SampledKL
from kdfast.losses.entries.self_kl import SelfKL

# The order is that of the label columns in the fused pass: another order changes the last digits of gradients.
ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        KL(),
        SampledKL(),
        CrossEntropy(),
        Length(),
        EarlyTool(),
        HiddenState(),
        PromptKL(),
        SelfKL(),
    )
}

TERMS: tuple[TermSpec, ...] = tuple(spec for entry in ENTRIES.values() for spec in entry.specs)
"""The terms whose weights are keys of `kd`: all but `self_kl`."""


def term_weights(kd: KDConfig, *, progress: float = 1.0, ramp: float = 1.0) -> dict[str, float]:
    """The weight of each term that is switched on.

    Args:
        kd: the config's section.
        progress: 0 at the first step, 1 at the last: between a weight and its final weight.
        ramp: factor of the early-tool terms, 0..1.

    Example:
        >>> weights = term_weights(KDConfig(kl_final_weight=0.1, early_tool_ce_weight=0.01), progress=0.5, ramp=0.5)
        >>> round(weights["kl"], 3), weights["early_tool_ce"]
        (0.3, 0.005)
    """
    weights = {}
    for term in TERMS:
        start = getattr(kd, term.weight)
        final = getattr(kd, term.final_weight) if term.final_weight is not None else None
        if start > 0:
            weight = start if final is None else start + (final - start) * progress
            weights[term.name] = weight * ramp if term.ramped else weight
    return weights
