"""Collects pairs of runs for several metrics until each metric is decided."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from kdfast.config.gates import GatesConfig
from kdfast.gates.paired import Block, PairedDecision, Verdict, decide_paired
from kdfast.gates.pairs import Pairs


class PairedTrial:
    """Says how many pairs to run, takes their times for all metrics at once, and decides each metric.

    A pair is one generation by each model on one prompt, one right after the other, in random order. For `tps` the
    times are milliseconds per output token. A decision is final: pairs that another metric still needs do not change
    it.

    Attributes:
        limits: the section `gates`.
        seed: the seed of the bootstrap's draws.
        metrics: the metrics to decide: `ttft`, `tps` or both.

    Raises:
        ValueError: `metrics` is empty, or names another metric.

    Example:
        >>> trial = PairedTrial()
        >>> blessed = [[float(ms)] for ms in range(80, 120)]
        >>> slower = [[ms[0] * 1.2] for ms in blessed]
        >>> while trial.need_pairs:
        ...     trial.add({"ttft": Pairs.from_rounds(slower, blessed), "tps": Pairs.from_rounds(blessed, blessed)})
        >>> {name: decision.status for name, decision in trial.decisions().items()}
        {'ttft': 'fail', 'tps': 'pass'}
    """

    def __init__(
        self,
        limits: GatesConfig | None = None,
        *,
        seed: int = 0,
        metrics: Collection[str] = ("ttft", "tps"),
    ) -> None:
        self.limits = limits or GatesConfig()
        self.seed = seed
        self.metrics = metrics
        ratios = {"ttft": self.limits.ttft_limit_ratio, "tps": self.limits.tps_limit_ratio}
        if not metrics or not set(metrics) <= set(ratios):
            raise ValueError(f"metrics: must be of {sorted(ratios)}, got {list(metrics)}")
        self._ratios = {name: ratios[name] for name in metrics}
        self._blocks: dict[Block, dict[str, Pairs]] = {
            block: dict.fromkeys(self._ratios, Pairs.none()) for block in ("first", "confirmation")
        }
        self._decisions = {name: self._decide(name) for name in self._ratios}

    @property
    def need_pairs(self) -> int:
        """How many pairs to run before the next `add`; 0 = every metric is decided."""
        return max((self._decisions[name].need_pairs for name in self._undecided()), default=0)

    @property
    def block(self) -> Block:
        """The block of those pairs. No confirmation starts before every metric has finished its first block."""
        return next((self._decisions[name].block for name in self._undecided()), "first")

    def add(self, pairs: Mapping[str, Pairs]) -> None:
        """Takes the pairs that were run, and decides again.

        Args:
            pairs: the new pairs of each of `metrics`, without the pairs of earlier calls. Leave a pair out of a
                metric that it has no time for (an answer of one token has no `tps`). A metric without any pair fails.

        Raises:
            ValueError: the names in `pairs` are not those of `metrics`.
        """
        if set(pairs) != set(self._ratios):
            raise ValueError(f"pairs: must hold {sorted(self._ratios)}, got {sorted(pairs)}")
        block = self._blocks[self.block]
        for name in self._undecided():
            block[name] = block[name].joined(pairs[name])
            self._decisions[name] = self._decide(name) if len(pairs[name]) else self._missing(name)

    def decisions(self) -> dict[str, PairedDecision]:
        """The current decision of each metric."""
        return dict(self._decisions)

    def _undecided(self) -> list[str]:
        """The metrics that take the next pairs: those in their first block, else those in their confirmation."""
        for block in ("first", "confirmation"):
            names = [name for name, one in self._decisions.items() if one.need_pairs and one.block == block]
            if names:
                return names
        return []

    def _decide(self, name: str) -> PairedDecision:
        return decide_paired(
            self._blocks["first"][name],
            self._blocks["confirmation"][name],
            limit_ratio=self._ratios[name],
            min_pairs=self.limits.min_pairs,
            max_pairs=self.limits.max_pairs,
            seed=self.seed,
        )

    def _missing(self, name: str) -> PairedDecision:
        verdict = Verdict(status="fail", reason=f"missing: no pair has a time for {name}")
        return replace(self._decisions[name], median=verdict, p95=verdict, need_pairs=0)
