"""Runs pairs of two models until their times can be judged."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from kdfast.config import GatesConfig
from kdfast.display import Display
from kdfast.errors import DataError
from kdfast.gates import PairedDecision, PairedTrial, Pairs
from kdfast.gates.paired import MIN_PROMPTS
from kdfast.recipes.gate.contest import Contest
from kdfast.recipes.loaded_model import LoadedModel


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of the pairs.

    Attributes:
        decisions: a decision for each metric that was asked for, `ttft` and `tps`.
        pairs: for each metric, all pairs that were run, from both blocks.
    """

    decisions: Mapping[str, PairedDecision]
    pairs: Mapping[str, Pairs]

    def to_json(self) -> dict[str, Any]:
        """For each metric: how many pairs were run, how many their spread requires, and the decision."""
        return {
            name: {
                "status": decision.status,
                "pairs": len(self.pairs[name]),
                "planned_pairs": decision.planned_pairs,
                "median": decision.median.reason,
                "p95": decision.p95.reason,
            }
            for name, decision in self.decisions.items()
        }


def check_prompts(loaded: LoadedModel) -> None:
    """Checks, before any work, that there are enough prompts to judge times.

    Raises:
        DataError: there are too few.
    """
    if len(loaded.prompts) < MIN_PROMPTS:
        raise DataError(
            f"times are judged on at least {MIN_PROMPTS} prompts; give more (--prompts, --limit), "
            f"got {len(loaded.prompts)}",
            str(loaded.settings.prompts),
        )


def decide(
    contest: Contest,
    limits: GatesConfig,
    display: Display,
    *,
    seed: int = 0,
    metrics: Collection[str] = ("ttft", "tps"),
) -> Outcome:
    """Runs pairs until a `PairedTrial` asks for no more.

    Args:
        contest: both models, warmed up.
        limits: the section `gates`.
        display: shows how many pairs are done, and how many are needed so far.
        seed: decides the bootstrap's draws.
        metrics: what to judge: `ttft`, `tps` or both; a metric that is left out requires no pairs.

    Raises:
        DataError: a model's logits are NaN.
    """
    trial = PairedTrial(limits, seed=seed, metrics=metrics)
    ran: dict[str, Pairs] = {name: Pairs.none() for name in metrics}
    done = 0
    while trial.need_pairs:
        count = trial.need_pairs
        fresh = _fresh(contest, trial, display, done)
        trial.add({name: fresh[name] for name in metrics})
        ran = {name: pairs.joined(fresh[name]) for name, pairs in ran.items()}
        done += count
    return Outcome(decisions=trial.decisions(), pairs=ran)


def _fresh(contest: Contest, trial: PairedTrial, display: Display, before: int) -> dict[str, Pairs]:
    """Runs the pairs that the trial asks for; the display also counts those that were run before."""
    count = trial.need_pairs
    with display.working("pairs" if trial.block == "first" else "confirm", count) as on_progress:
        return contest.pairs(
            count, lambda done: on_progress(done, f"{before + done} in all" if before else "")
        )
