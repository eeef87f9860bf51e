"""The arms: how each is trained, at which rate, and what ships of it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdfast.qat import CodeWatch, apply_qat_to_model, check_qat_stability, convert_qat
from recovery.home import Home
from recovery.judge import Batch, Sums, exact_matches, mean, probe, row_sums
from recovery.stored import stored
from recovery.student import Phase, quant_config, train

LADDER = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""Where the best rate is at an end of those tried, the next one is tried too."""
PROBE_ROWS = 64
TUNE_SEED = 100


@dataclass(frozen=True)
class Arm:
    """A way to spend the steps.

    Attributes:
        name: in tables.
        format: fake quantisation while training; None = float.
        cross_entropy: weight of the cross-entropy with the truth.
        divergence: weight of KL from the float student as it was at the start.
    """

    name: str
    format: str | None
    cross_entropy: float
    divergence: float

    def phase(self, steps: int, rate: float, seed: int) -> Phase:
        """The arm's training."""
        return Phase(
            steps=steps,
            rate=rate,
            seed=seed,
            cross_entropy=self.cross_entropy,
            divergence=self.divergence,
            format=self.format,
        )


FLOAT = Arm("float, trained on, + post-training", None, 1.0, 0.0)
QAT = tuple(
    Arm(f"QAT, {name}", "q4_0", cross_entropy, divergence)
    for name, cross_entropy, divergence in (("cross-entropy", 1.0, 0.0), ("KL", 0.0, 1.0), ("both", 1.0, 1.0))
)
ARMS = (FLOAT, *QAT)


def post_training(student: Any, format_name: str) -> Any:
    """A copy with the weights as they ship."""
    return convert_qat(apply_qat_to_model(copy.deepcopy(student), quant_config(format_name))).model


def run_phase(home: Home, phase: Phase, format_name: str) -> dict[str, Any]:
    """Trains a copy of the float student; gives the shipped weights and what became of the codes."""
    model = copy.deepcopy(home.student)
    shadow = apply_qat_to_model(copy.deepcopy(home.student), quant_config(format_name))
    batch, config = probe(home.tune[:PROBE_ROWS]), quant_config(format_name)
    watch, first = CodeWatch(shadow), check_qat_stability(shadow, batch, config)
    started = time.perf_counter()
    losses = train(model, home.train, phase, home.student)
    seconds = time.perf_counter() - started
    shadow.load_state_dict(model.state_dict())
    last = check_qat_stability(shadow, batch, config, first=first)
    return {
        "float_weights": {name: value.clone() for name, value in shadow.state_dict().items()},
        "changed": watch.look(shadow).changed_fraction,
        "cosine": [first.lowest_cosine, last.lowest_cosine],
        "stable": last.passed,
        "weights": convert_qat(shadow).model.state_dict(),
        "seconds": seconds,
        "losses": losses,
    }


def with_weights(home: Home, weights: dict[str, Any]) -> Any:
    """The student with other weights."""
    model = copy.deepcopy(home.student)
    model.load_state_dict(weights)
    return model.eval()


def judged(home: Home, batches: Sequence[Batch], model: Any, prompts: int) -> dict[str, Any]:
    """Row sums of a model and, where there are prompts, the right answers by generation."""
    found: dict[str, Any] = {"sums": row_sums(model, batches)}
    if prompts:
        found["exact"] = exact_matches(model, home.tokenizer, home.held_out[:prompts])
    return found


def tune(
    home: Home, arm: Arm, steps: int, rates: Sequence[float], batches: Sequence[Batch], work: Path
) -> dict[float, dict[str, float]]:
    """Rate -> NLL and KL of what ships, on the rows for tuning, and the share of codes that changed."""

    def one(rate: float) -> dict[str, float]:
        phase, format_name = arm.phase(steps, rate, TUNE_SEED), arm.format or "q4_0"

        def make() -> dict[str, float]:
            run = run_phase(home, phase, format_name)
            sums: Sums = row_sums(with_weights(home, run["weights"]), batches)
            return {what: mean(sums, what, "answer") for what in ("nll", "kl")} | {"changed": run["changed"]}

        found: dict[str, float] = stored(
            work, f"tune {arm.name}", (home.size, home.spread, phase, format_name), make
        )
        print(f"tune {arm.name}, {rate:g}: nll {found['nll']:.5f}, kl {found['kl']:.5f}", flush=True)
        return found

    return climb(one, rates)


def climb(one: Callable[[float], dict[str, float]], rates: Sequence[float]) -> dict[float, dict[str, float]]:
    """Tries the rates, and goes on beyond them while the best is at an end. A single rate is not tuned.

    Example:
        >>> sorted(climb(lambda rate: {"nll": rate}, [1e-5, 3e-5]))
        [1e-06, 3e-06, 1e-05, 3e-05]
    """
    tried = {rate: one(rate) for rate in rates}
    if len(rates) == 1:
        return tried
    while True:
        chosen, place = best(tried), sorted(tried)
        at = LADDER.index(chosen)
        below = [LADDER[at - 1]] if chosen == place[0] and at else []
        above = [LADDER[at + 1]] if chosen == place[-1] and at + 1 < len(LADDER) else []
        if not below + above:
            return dict(sorted(tried.items()))
        tried |= {rate: one(rate) for rate in below + above}


def best(tried: dict[float, dict[str, float]]) -> float:
    """The rate with the lowest NLL of all tokens of the answers."""
    return min(tried, key=lambda rate: tried[rate]["nll"])


def run_arm(
    home: Home, arm: Arm, phase: Phase, batches: Sequence[Batch], prompts: int, work: Path
) -> dict[str, Any]:
    """One arm with one seed: trained, shipped, judged."""
    format_name = arm.format or "q4_0"

    def make() -> dict[str, Any]:
        made = run_phase(home, phase, format_name)
        return made | judged(home, batches, with_weights(home, made["weights"]), prompts)

    found: dict[str, Any] = stored(work, arm.name, (home.size, home.spread, phase, prompts), make)
    nll, kl = (mean(found["sums"], what, "answer") for what in ("nll", "kl"))
    print(
        f"{arm.name}, {phase.steps} steps, seed {phase.seed}: nll {nll:.5f}, kl {kl:.5f}, "
        f"changed {found['changed']:.2%}, {found['seconds']:.0f} s",
        flush=True,
    )
    return found
