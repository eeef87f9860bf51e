"""What each rank of `test_linear_kd_ranks.py` runs: one step per case of a tiny model that calls `linear_kd`.

    python -m torch.distributed.run --standalone --nproc-per-node=2 tests/support/linear_kd_ranks.py FOLDER

Rank 0 writes the parameters after the step of each case to FOLDER.
"""

import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from kdfast.distributed.ranks import join
from kdfast.losses import FORWARD_KL, RowTargets, SparseTeacher, linear_kd

V, D, K, STEP_ROWS = 23, 8, 4, 14
SPLITS = {  # for each rank its micro-batches, each a list of rows of the step
    "halves": [[[0, 1, 2, 3], [4, 5, 6]], [[7, 8, 9, 10, 11], [12, 13]]],
    "a rank without rows": [[list(range(9)), list(range(9, 14))], [[], []]],
}
BF16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
CASES = [
    (wrapper, tied, split)
    for wrapper in ("ddp", "fsdp2", "fsdp2-bf16")
    for tied in (True, False)
    for split in SPLITS
]


class Student(torch.nn.Module):
    """An embedding, a body and an output layer (its weight may be the embedding's); `forward` returns the loss."""

    def __init__(self, *, tied):
        super().__init__()
        self.embedding = torch.nn.Embedding(V, D)
        self.body = torch.nn.Linear(D, D)
        self.head = torch.nn.Linear(D, V, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, rows):
        ids, targets = data(rows)
        return linear_kd(self.body(self.embedding(ids)).tanh(), self.head.weight, targets, chunk_rows=3).total


def student(*, tied):
    torch.manual_seed(0)
    return Student(tied=tied)


def data(rows):
    """Input ids and targets of some rows of the step; coefficients are 0.5 / the number of rows of the whole step."""
    draws = torch.Generator().manual_seed(1)
    ids = torch.randint(V, (STEP_ROWS,), generator=draws)
    labels = torch.randint(V, (STEP_ROWS, 1), generator=draws)
    logp, top = torch.randn(STEP_ROWS, V, generator=draws).log_softmax(1).topk(K, dim=1)
    tail = torch.log1p(-logp.exp().sum(1))
    rows = torch.tensor(rows, dtype=torch.int64)
    share = torch.full((len(rows),), 0.5 / STEP_ROWS)
    return ids[rows], RowTargets(
        labels=labels[rows],
        label_coefficients=share[:, None],
        teacher=SparseTeacher(top[rows], logp[rows], tail[rows]),
        divergence=FORWARD_KL,
        kl_coefficients=share,
    )


def step(model, micro_batches, world=1, delay=None):
    """One SGD step over micro-batches; `delay` stops ranks from exchanging gradients before the last micro-batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for index, rows in enumerate(micro_batches):
        with delay(index < len(micro_batches) - 1) if delay else nullcontext():
            (model(rows) * world).backward()  # times `world`, because the wrappers average over ranks
    optimizer.step()


def run(wrapper, tied, micro_batches, world):
    """The parameters after a step with this wrapper."""
    model = student(tied=tied)
    if wrapper == "ddp":
        wrapped = DistributedDataParallel(model)
        step(wrapped, micro_batches, world, lambda last: wrapped.no_sync() if last else nullcontext())
        return {name: value.detach() for name, value in model.named_parameters()}
    mesh = init_device_mesh("cpu", (world,))
    policy = {"mp_policy": BF16} if wrapper == "fsdp2-bf16" else {}
    fully_shard(model.body, mesh=mesh, **policy)
    # The head is not sharded on its own: `linear_kd` uses its weight without calling its forward.
    fully_shard(model, mesh=mesh, **policy)

    def delay(later):
        model.set_requires_gradient_sync(not later)
        return nullcontext()

    step(model, micro_batches, world, delay)
    return {name: value.full_tensor().detach() for name, value in model.named_parameters()}


def main(folder):
    ranks = join()
    rank, world = ranks.rank, ranks.world
    for number, (wrapper, tied, split) in enumerate(CASES):
        parameters = run(wrapper, tied, SPLITS[split][rank], world)
        if rank == 0:
            save_file(parameters, Path(folder) / f"{number}.safetensors")
    ranks.leave()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
