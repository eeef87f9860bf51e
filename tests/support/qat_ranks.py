"""What each rank of `test_qat_ranks.py` runs: three steps under quantisation, in two micro-batches each.

    python -m torch.distributed.run --standalone --nproc-per-node=2 tests/support/qat_ranks.py FOLDER

Rank 0 writes the parameters after the steps of each case to FOLDER.
"""

import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from kdfast.config.quant import QuantConfig
from kdfast.distributed.ranks import join
from kdfast.errors import QATError
from kdfast.losses import RowTargets, linear_kd
from kdfast.qat import apply_qat_to_model, effective_weight

V, D, ROWS, STEPS = 40, 64, 8, 3
CASES = [
    (wrapper, tied, name)
    for wrapper in ("ddp", "fsdp2", "fsdp2, quantised after")
    for tied in (True, False)
    for name in ("q4_0", "int8_channel")
]


class Student(nn.Module):
    """An embedding, a body, and an output layer whose weight is handed to `linear_kd`; `forward` returns the loss."""

    def __init__(self, *, tied):
        super().__init__()
        self.embedding = nn.Embedding(V, D)
        self.body = nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, D))
        self.lm_head = nn.Linear(D, V, bias=False)
        if tied:
            self.lm_head.weight = self.embedding.weight

    def forward(self, ids):
        targets = RowTargets(
            labels=ids.roll(-1)[:, None], label_coefficients=torch.full((len(ids), 1), 1 / ROWS)
        )
        return linear_kd(
            self.body(self.embedding(ids)), effective_weight(self.lm_head), targets, chunk_rows=3
        ).total


def student(*, tied):
    torch.manual_seed(0)
    return Student(tied=tied)


def micro_batches(rank, world):
    """Of all rows, a rank's: two micro-batches for each step. Any number of ranks sees the same micro-batches."""
    draws = torch.Generator().manual_seed(1)
    ids = torch.randint(V, (STEPS, 4, ROWS // 4), generator=draws)
    return ids[:, rank * 4 // world : (rank + 1) * 4 // world]


def train(model, batches, world=1, delay=lambda later: nullcontext()):
    """SGD; the gradients of a step's micro-batches add up."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in batches:
        optimizer.zero_grad()
        for index, ids in enumerate(step):
            with delay(index < len(step) - 1):
                (model(ids) * world).backward()  # times `world`, because the wrappers average over ranks
        optimizer.step()


def shard(model, world, **policy):
    """The body in a group of its own, the rest with the root: `linear_kd` uses the head's weight by itself."""
    mesh = init_device_mesh("cpu", (world,))
    fully_shard(model.body, mesh=mesh, **policy)
    fully_shard(model, mesh=mesh, **policy)


def run(wrapper, tied, config, rank, world):
    """The parameters after the steps with this wrapper."""
    model, batches = student(tied=tied), micro_batches(rank, world)
    if wrapper != "fsdp2, quantised after":
        apply_qat_to_model(model, config)
    if wrapper == "ddp":
        wrapped = DistributedDataParallel(model)
        train(wrapped, batches, world, lambda later: wrapped.no_sync() if later else nullcontext())
        return {name: value.detach() for name, value in model.named_parameters()}
    shard(model, world)
    apply_qat_to_model(model, config)

    def delay(later):
        model.set_requires_gradient_sync(not later)
        return nullcontext()

    train(model, batches, world, delay)
    return {name: value.full_tensor().detach() for name, value in model.named_parameters()}


def refusal(act):
    """The message of the QATError that some work must end in."""
    try:
        act()
    except QATError as error:
        return str(error)
    raise AssertionError("it was not refused")


def refused(world):
    """What cannot be right is refused: bf16 weights from FSDP, a shard outside of the forward pass."""
    model = apply_qat_to_model(student(tied=False), QuantConfig())
    shard(model, world, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    assert "under FSDP: no param_dtype" in refusal(lambda: model(torch.arange(4)))
    model = apply_qat_to_model(student(tied=False), QuantConfig())
    shard(model, world)
    assert "only a shard of the weight" in refusal(lambda: effective_weight(model.lm_head))


def main(folder):
    ranks = join()
    rank, world = ranks.rank, ranks.world
    for number, (wrapper, tied, name) in enumerate(CASES):
        config = QuantConfig(format=name, embeddings="same")
        parameters = run(wrapper, tied, config, rank, world)
        if rank == 0:
            save_file(parameters, Path(folder) / f"{number}.safetensors")
    refused(world)
    ranks.leave()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
