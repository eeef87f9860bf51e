"""Section `gates`: the limits that a student must keep, and how many runs a decision takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from kdfast.config.section import Key, Section, invalid

GATE_NAMES = (
    "ttft_p50", "ttft_p95", "tps_p50", "tps_p95", "ttfa_p95", "f1", "false_call_rate", "missed_call_rate",
)  # fmt: skip
"""Every gate, in the order in which they are shown."""


@dataclass(frozen=True, kw_only=True)
class GatesConfig(Section):
    """The limits of the gates.

    Examples:
        >>> GatesConfig().ttfa_p95_tokens
        25.0
        >>> GatesConfig(enabled=["ttft_p50", "tfta_p95"])
        Traceback (most recent call last):
        ...
        kdfast.errors.ConfigError: gates.enabled: must be a list of names out of ttft_p50, ttft_p95, tps_p50,
        tps_p95, ttfa_p95, f1, false_call_rate, missed_call_rate, got 'tfta_p95'
    """

    section: ClassVar[str] = "gates"

    enabled: Annotated[tuple[str, ...], Key("The gates to evaluate, by name; [] = none.", on_resume=True)] = (
        GATE_NAMES
    )
    baseline: Annotated[
        Path | None, Key("The blessed baseline, as `kdfast bless` wrote it; null = none yet.", on_resume=True)
    ] = None
    ttft_regression_fraction: Annotated[
        float,
        Key("Largest rise of the time to the first token, as a share.", above=0, below=1, on_resume=True),
    ] = 0.05
    tps_regression_fraction: Annotated[
        float, Key("Largest loss of tokens per second, as a share.", above=0, below=1, on_resume=True)
    ] = 0.05
    ttfa_metric: Annotated[
        Literal["ttfa_tokens", "ttfa_name_tokens", "ttfa_overhead_tokens"],
        Key(
            "What ttfa_p95_tokens limits: the first valid call, its closed name, or the call beyond the shortest.",
            on_resume=True,
        ),
    ] = "ttfa_tokens"
    ttfa_p95_tokens: Annotated[
        float, Key("Largest p95 of that metric, in tokens.", minimum=0, on_resume=True)
    ] = 25.0
    f1_drop: Annotated[
        float, Key("Largest fall of the tool-call F1.", minimum=0, maximum=1, on_resume=True)
    ] = 0.01
    false_call_rise: Annotated[
        float, Key("Largest rise of the false-call rate.", minimum=0, maximum=1, on_resume=True)
    ] = 0.01
    missed_call_rise: Annotated[
        float, Key("Largest rise of the missed-call rate.", minimum=0, maximum=1, on_resume=True)
    ] = 0.01
    min_pairs: Annotated[
        int,
        Key(
            "Pairs of runs (candidate, blessed) that every decision starts with.", minimum=10, on_resume=True
        ),
    ] = 20
    max_pairs: Annotated[
        int,
        Key("Pairs after which a decision that is still open is `inconclusive`.", minimum=10, on_resume=True),
    ] = 1000
    min_runs: Annotated[
        int,
        Key(
            "Report files per side from which files alone may decide; fewer are report_only.",
            minimum=6,
            on_resume=True,
        ),
    ] = 6

    def check(self) -> None:
        """Checks the gates' names and the order of the numbers of pairs."""
        for name in self.enabled:
            if name not in GATE_NAMES:
                raise invalid("gates.enabled", f"a list of names out of {', '.join(GATE_NAMES)}", name)
        if len(set(self.enabled)) < len(self.enabled):
            raise invalid("gates.enabled", "without repeats", list(self.enabled))
        if self.max_pairs < self.min_pairs:
            raise invalid("gates.max_pairs", f"at least gates.min_pairs ({self.min_pairs})", self.max_pairs)

    @property
    def ttft_limit_ratio(self) -> float:
        """Time to the first token, candidate / blessed model: the largest ratio that passes."""
        return 1 + self.ttft_regression_fraction

    @property
    def tps_limit_ratio(self) -> float:
        """Tokens per second, blessed model / candidate: the largest ratio that passes."""
        return 1 / (1 - self.tps_regression_fraction)
