"""`linear_kd` inside a wrapped module on two gloo ranks gives the parameters of one process."""

import os
import subprocess
import sys
from pathlib import Path

import linear_kd_ranks
import pytest
import torch
from linear_kd_ranks import CASES, STEP_ROWS, step, student
from safetensors.torch import load_file

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the parameters after a step of each case."""
    path = tmp_path_factory.mktemp("ranks")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [*launcher, str(Path(linear_kd_ranks.__file__)), str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return path


@pytest.mark.parametrize(
    "number", range(len(CASES)), ids=[f"{w}-{'tied' if t else 'own head'}-{s}" for w, t, s in CASES]
)
def test_parameters_after_a_step_equal_those_of_one_process(folder, number):
    wrapper, tied, _ = CASES[number]
    expected = student(tied=tied)
    before = {name: value.detach().clone() for name, value in expected.named_parameters()}
    step(expected, [list(range(STEP_ROWS))])
    got = load_file(folder / f"{number}.safetensors")
    assert got.keys() == before.keys()
    for name, value in expected.named_parameters():
        moved = float((value.detach() - before[name]).abs().max())
        assert moved > 1e-3, name
        tolerance = 0.03 * moved if wrapper == "fsdp2-bf16" else 1e-6
        torch.testing.assert_close(got[name], value.detach(), rtol=0, atol=tolerance, msg=name)
