"""Training under quantisation with DDP and FSDP2 on two gloo ranks gives the parameters of one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import qat_ranks
import torch
from qat_ranks import CASES, micro_batches, student, train
from safetensors.torch import load_file

from kdfast.config.quant import QuantConfig
from kdfast.qat import apply_qat_to_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the parameters after the steps of each case."""
    path = tmp_path_factory.mktemp("ranks")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [*launcher, str(Path(qat_ranks.__file__)), str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return path


@pytest.mark.parametrize(
    "number", range(len(CASES)), ids=[f"{w}-{'tied' if t else 'own head'}-{n}" for w, t, n in CASES]
)
def test_parameters_after_steps_equal_those_of_one_process(folder, number):
    _, tied, name = CASES[number]
    model, plain = student(tied=tied), student(tied=tied)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    train(apply_qat_to_model(model, QuantConfig(format=name, embeddings="same")), micro_batches(0, 1))
    train(plain, micro_batches(0, 1))
    got = load_file(folder / f"{number}.safetensors")
    assert got.keys() == before.keys()
    for key, value in model.named_parameters():
        torch.testing.assert_close(got[key], value.detach(), rtol=0, atol=1e-6, msg=key)
    moved = [float((value.detach() - before[key]).abs().max()) for key, value in model.named_parameters()]
    assert min(moved) > 1e-4
    others = zip(model.parameters(), plain.parameters(), strict=True)
    assert max(float((one - two).detach().abs().max()) for one, two in others) > 1e-5
