"""The benchmark of the losses: what it says of kdfast is checked, and so is how it reads its figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _root_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.parametrize("loss", ["sparse", "dense", "jsd"])
@pytest.mark.parametrize("every", [1, 10])
@pytest.mark.parametrize("name", ["kdfast", "naive", "plain torch, rows picked"])
def test_contenders_give_the_value_and_gradients_of_float64(loss, every, name):
    from bench.losses.cases import Case, make_inputs
    from bench.losses.measure import ALL
    from bench.losses.reference import distance, reference, sampled_ids

    case = Case(loss, 64, 16, 200, every)
    right, inputs = reference(case, torch.get_num_threads()), make_inputs(case, "cpu")
    value = ALL[name].load(loss, None)(inputs)
    assert float(value) == pytest.approx(right.values["same"], rel=1e-5)
    assert distance(inputs.hidden.grad.numpy(), right.grad_hidden) < 1e-5
    assert distance(inputs.weight.grad[sampled_ids(inputs)].numpy(), right.grad_weight) < 1e-5


def _case(seconds, peaks, **other):
    names = {"kdfast": 0, "matrix products": 1, "naive": 2, "TRL server": 3, "TRL async": 4}
    entries = {name: {"seconds": seconds[at], "peak_bytes": peaks[at]} for name, at in names.items()}
    return {
        "loss": "sparse",
        "positions": 8,
        "hidden": 256,
        "vocab": 9,
        "every": 10,
        "contenders": entries,
    } | other


def test_goals_compare_with_the_best_peer_round_by_round():
    from bench.losses.results import GOALS, outcomes

    case = _case([[1, 2], [0.5, 1], [30, 60], [40, 26], [2, 8]], [10, 5, 200, 150, 20])
    goal = next(goal for goal in GOALS if goal.losses == ("sparse",) and goal.every == 10)
    everyone = {
        found.what: (found.peer, found.found, found.limit, found.met) for found in outcomes(goal, [case])
    }
    assert everyone == {"time": ("TRL async", 3.0, 6.0, False), "memory": ("TRL async", 2.0, 4.0, False)}
    whole = {found.what: (found.peer, found.found) for found in outcomes(goal, [case], picking=False)}
    assert whole == {"time": ("TRL server", 26.5), "memory": ("TRL server", 15.0)}
    assert not list(outcomes(goal, [case | {"hidden": 576}]))


def test_slow_and_large_peers_are_left_out_of_larger_cases():
    from bench.losses.results import left_out

    first = _case([[1], [1], [2], [5], [9]], [1, 1, 9, 8, 3])
    like = {"loss": "sparse", "hidden": 256, "every": 10}
    # TRL async is the slowest of all, but the smallest
    reason = "left out: 2.5 times the fastest peer's time at N = 8, V = 9"
    assert left_out([first], like, 2.0) == {"TRL server": reason}
    assert left_out([first], like, 0) == left_out([], like, 2.0) == {}


@pytest.mark.slow
def test_a_quick_run_writes_document_and_page(tmp_path):
    command = [
        sys.executable,
        "-m",
        "bench.losses",
        "--quick",
        "--rounds",
        "1",
        "--threads",
        "1",
        "--losses",
        "dense",
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "python"), *sys.path])}
    subprocess.run(
        [*command, "--out", str(tmp_path)], cwd=ROOT, env=environment, check=True, capture_output=True
    )
    document = json.loads((tmp_path / "losses.json").read_text())
    first = document["cases"][0]["contenders"]
    assert len(first["kdfast"]["seconds"]) == 1
    assert first["kdfast"]["gradient_error"] < 1e-5
    page = (tmp_path / "losses.md").read_text()
    assert "## dense forward KL + CE" in page
    for name, entry in first.items():
        assert ("absent" in entry) == (f"- {name}, " in page)
