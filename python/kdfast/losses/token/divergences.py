"""The divergences that a config can name: one row each. Config choice, tests and docs are held against this table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdfast.config.kd import KDConfig
from kdfast.losses.rows.kernel import Divergence
from kdfast.losses.term import Term
from kdfast.losses.token.forward_kl import FORWARD_KL, forward_kl
from kdfast.losses.token.generalized_jsd import generalized_jsd, jsd
from kdfast.losses.token.reverse_kl import REVERSE_KL, reverse_kl
from kdfast.losses.token.skew_kl import skew, skew_kl
from kdfast.losses.token.tvd import TVD, tvd


@dataclass(frozen=True)
class DivergenceRow:
    """One row of the table.

    Attributes:
        function: the public loss on logits.
        make: the divergence of a config, with its parameters if it has any.
    """

    function: Callable[..., Term]
    make: Callable[[KDConfig], Divergence]


DIVERGENCES: dict[str, DivergenceRow] = {
    "forward_kl": DivergenceRow(forward_kl, lambda _: FORWARD_KL),
    "reverse_kl": DivergenceRow(reverse_kl, lambda _: REVERSE_KL),
    "generalized_jsd": DivergenceRow(generalized_jsd, lambda kd: jsd(kd.jsd_beta)),
    "skew_kl": DivergenceRow(skew_kl, lambda kd: skew(kd.skew_alpha)),
    "tvd": DivergenceRow(tvd, lambda _: TVD),
}


def divergence_of(kd: KDConfig) -> Divergence:
    """The divergence that a config names.

    Example:
        >>> divergence_of(KDConfig(divergence="generalized_jsd", jsd_beta=1.0)).name
        'reverse_kl'
    """
    return DIVERGENCES[kd.divergence].make(kd)
