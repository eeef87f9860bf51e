"""The losses of tiny runs are those that were recorded before the losses were rebuilt: every term on.

To record them again, when a change of numbers is wanted and explained:
`python tests/integration/test_golden_losses.py` with `tests/support` on the PYTHONPATH.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import exit_code
from tiny_run import write_config

import golden

pytestmark = pytest.mark.slow  # whole runs: 10 s

EVERY_TERM = (
    "kd.sampled_kl_weight=0.1", "kd.early_tool_ce_weight=0.02", "kd.early_tool_prior_weight=0.03",
    "kd.early_tool_preamble_weight=0.02", "kd.early_tool_negative_weight=0.02", "kd.length_weight=0.05",
    "kd.length_hinge=0.0", "kd.kl_final_weight=0.2",
)  # fmt: skip
RUNS = {
    "all": (),
    "skew_kl": ("kd.divergence=skew_kl", "train.num_steps=3"),
    "row_hinge_quantile": ("kd.length_aggregate=row", "kd.length_form=quantile", "train.num_steps=3"),
}
TIMES = ("seconds", "tokens_per_second")


def taught_config(folder: Path) -> Path:
    """A config whose teacher store is filled, drawn ids included."""
    config = write_config(folder)
    document = yaml.safe_load(config.read_text(encoding="utf-8"))
    document["teacher"]["samples"] = 4
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert exit_code("teach", config) == 0
    return config


def take(config: Path, run: Path, *overrides: str) -> dict[str, Any]:
    """The numbers of a run."""
    assert exit_code("train", config, f"io.run_dir={run}", *EVERY_TERM, *overrides) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [
        {name: value for name, value in line.items() if name not in TIMES}
        for line in lines
        if line["kind"] == "train"
    ]
    weights = hashlib.sha256((run / "student" / "model.safetensors").read_bytes()).hexdigest()
    return {"steps": steps, "weights": weights}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught_config(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("name", RUNS)
def test_a_tiny_run_is_as_it_was(config: Path, tmp_path: Path, name: str) -> None:
    recorded = golden.load("tiny_runs.json")
    found = take(config, tmp_path / "run", *RUNS[name])
    exact = recorded["key"] == golden.machine(threads=1)
    golden.assert_steps(found["steps"], recorded["runs"][name]["steps"], exact=exact)
    if exact:
        assert found["weights"] == recorded["runs"][name]["weights"]


def test_the_quickstart_s_first_steps_are_as_they_were() -> None:
    """Of a run that `make quickstart-llm` left in this checkout; its teacher is too large for the suite."""
    file = Path(__file__).parents[2] / "runs" / "quickstart-llm" / "metrics.jsonl"
    if not file.exists():
        pytest.skip("no run of the quickstart here: make quickstart-llm")
    recorded = golden.load("quickstart_steps.json")
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if line["kind"] == "train"][: len(recorded["steps"])]
    golden.assert_steps(steps, recorded["steps"], exact=False)


if __name__ == "__main__":
    import tempfile

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        base = taught_config(Path(made))
        runs = {name: take(base, Path(made) / name, *changes) for name, changes in RUNS.items()}
    text = json.dumps({"key": golden.machine(threads=1), "runs": runs}, indent=1, sort_keys=True)
    (golden.FOLDER / "tiny_runs.json").write_text(text + "\n", encoding="utf-8")
