"""From two models to a decision: a noisy scripted machine, an unchanged candidate and slower ones."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tiny_models import write_tokenizer

from kdfast._rust import Tokenizer
from kdfast.config import GatesConfig
from kdfast.display import Display
from kdfast.gates import evaluate_speed_gates, noise_floor
from kdfast.recipes.gate import Contest, Side, decide
from kdfast.speed import SpeedOptions, SpeedPrompt

sys.path.insert(0, str(Path(__file__).parents[4]))
from bench.gate_trials import SlowEngine, markdown

PROMPTS = [SpeedPrompt(text="p" * length, line=length) for length in range(1, 31)]
TIMES = GatesConfig(enabled=["ttft_p50", "ttft_p95", "tps_p50", "tps_p95"])


class Noisy:
    """A model on a machine whose steps take lognormally distributed times."""

    def __init__(self, cv: float, seed: int) -> None:
        self.now, self.cv, self.rng = 0.0, cv, np.random.default_rng(seed)

    def clock(self) -> float:
        return self.now

    def wait_until(self, moment: float) -> None:
        self.now = moment

    def reset(self) -> None:
        """Nothing is kept."""

    def prefill(self, ids) -> None:
        self.now += 0.01 * len(ids) * np.exp(self.cv * self.rng.standard_normal())

    def next(self) -> int:
        self.now += 0.01 * np.exp(self.cv * self.rng.standard_normal())
        return 65


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    return Tokenizer.from_file(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def run(tokenizer, *, slower=0.0, cv=0.05, seed=0, limits=TIMES, metrics=("ttft", "tps")):
    machine = Noisy(cv, seed)
    options = SpeedOptions(max_new_tokens=20, eos_ids=(258,))
    engine = SlowEngine(machine, slower, machine.clock, machine.wait_until)
    sides = [
        Side(name=name, engine=one, tokenizer=tokenizer, prompts=PROMPTS, options=options)
        for name, one in (("candidate", engine), ("blessed", machine))
    ]
    shown = io.StringIO()
    contest = Contest(*sides, seed=seed, clock=machine.clock)
    outcome = decide(contest, limits, Display(Console(file=shown, width=100)), seed=seed, metrics=metrics)
    return outcome, shown.getvalue()


def gates(outcome):
    report = {"metrics": {name: {"p50": 1.0, "p95": 1.0, "p5": 1.0} for name in ("ttft_ms", "tps")}}
    return evaluate_speed_gates(report, report, TIMES, paired=outcome.decisions)


def test_a_slow_engine_takes_longer_by_its_share():
    machine = Noisy(0.0, 0)
    slow = SlowEngine(machine, 0.15, machine.clock, machine.wait_until)
    slow.reset()
    slow.prefill([1, 2, 3])
    assert machine.now == pytest.approx(0.03 * 1.15)
    assert slow.next() == 65
    assert machine.now == pytest.approx(0.04 * 1.15)


def test_a_slow_engine_idles_by_the_real_clock():
    import time

    slow = SlowEngine(Noisy(0.0, 0), 1.0)
    before = time.perf_counter()
    slow._wait_until(before + 0.002)
    assert time.perf_counter() >= before + 0.002


def test_an_unchanged_model_passes_ten_of_ten(tokenizer):
    for seed in range(10):
        outcome, _ = run(tokenizer, seed=seed)
        assert gates(outcome).passed
        assert {decision.status for decision in outcome.decisions.values()} == {"pass"}


def test_a_slower_one_fails_ten_of_ten(tokenizer):
    for seed in range(10):
        outcome, _ = run(tokenizer, slower=0.15, seed=seed)
        report = gates(outcome)
        assert report.exit_code == 3
        assert report["ttft_p50"].status == report["tps_p50"].status == "failed"
        assert report["tps_p50"].value == pytest.approx(1.15, abs=0.03)


def test_what_was_run_is_told_and_kept(tokenizer):
    outcome, shown = run(tokenizer, slower=0.15)
    told = outcome.to_json()
    for name in ("ttft", "tps"):
        assert told[name]["status"] == "fail"
        assert "confirmed" in told[name]["median"]
        # a first block, and as many fresh pairs to confirm
        assert told[name]["pairs"] == len(outcome.pairs[name]) >= 2 * told[name]["planned_pairs"]
    assert "pairs 20/20" in shown
    assert "confirm" in shown
    assert f"{len(outcome.pairs['ttft'])} in all" in shown
    # `tps` needs no more than the pilot, `ttft` is noisier: both go on together
    assert len(outcome.pairs["ttft"]) == len(outcome.pairs["tps"])


def test_only_the_metric_that_is_judged_asks_for_pairs(tokenizer):
    both, _ = run(tokenizer, cv=0.10)
    assert len(both.pairs["tps"]) == len(both.pairs["ttft"]) > 20  # `ttft` is the noisy one
    outcome, _ = run(tokenizer, cv=0.10, metrics=["tps"])
    assert set(outcome.decisions) == set(outcome.pairs) == set(outcome.to_json()) == {"tps"}
    assert len(outcome.pairs["tps"]) == 20
    assert outcome.decisions["tps"].status == "pass"


def test_the_noise_floor_of_what_was_run(tokenizer):
    outcome, _ = run(tokenizer, cv=0.10)
    noise = noise_floor(outcome.pairs["ttft"])
    assert noise["sd_log_ratio"] == pytest.approx(0.14, rel=0.3)  # two prefills of 10 %
    assert noise["planned_pairs"] > 20
    assert noise_floor(outcome.pairs["tps"])["sd_log_ratio"] < 0.06  # a mean of 15 tokens


def test_a_cap_on_pairs_ends_it(tokenizer):
    outcome, _ = run(tokenizer, cv=0.8, limits=GatesConfig(enabled=TIMES.enabled, min_pairs=20, max_pairs=20))
    assert len(outcome.pairs["ttft"]) in (20, 40)
    assert outcome.decisions["ttft"].status in ("inconclusive", "pass", "fail")


def trial(seed, slower, exit_code, status):
    gate = {"status": status, "value": 1.0 + slower, "reason": "r"}
    gates = {"ttft_p50": gate, "ttft_p95": gate | {"status": "report_only"}, "tps_p50": gate}
    about = {"pairs": {"ttft": 40, "tps": 40}, "hardware": "cpu-a", "load_before": 0.5, "seconds": 50.0}
    return {"seed": seed, "slower": slower, "exit_code": exit_code, "gates": gates, **about}


def test_the_bench_counts_only_what_was_told():
    trials = [trial(0, 0.0, 0, "passed"), trial(1, 0.0, 0, "inconclusive"), trial(2, 0.0, 3, "failed")]
    text = markdown({"arguments": "--trials 3", "trials": [*trials, trial(0, 0.15, 3, "failed")]})
    assert "unchanged (A/A): failed 1 of 3, passed 1 of 3**" in text
    assert "15% slower: failed 1 of 1, passed 0 of 1**" in text
    assert "| +15% | 0 | 3 | 1.150 | 1.150 | failed | failed | report_only | 40 | 0.5 | 50 |" in text
