"""What each rank of `test_live_teacher.py` runs: steps in which the batch of one rank only cannot be used.

    python -m torch.distributed.run --standalone --nproc-per-node=2 tests/support/diverging_ranks.py FOLDER

Each rank writes the errors that it saw to FOLDER.
"""

import json
import sys
from pathlib import Path

import torch
from loss_batches import EOS, OPEN, batch
from tiny_models import tiny_llama
from torch.nn.parallel import DistributedDataParallel

from kdfast.config import KDConfig
from kdfast.distributed.ranks import join
from kdfast.errors import KdfastError
from kdfast.losses import LossSettings
from kdfast.recipes.train.objective import Objective
from kdfast.recipes.train.step import Runner, StudentLoss

VOCAB, BROKEN_ID = 23, 21


def rows(rank: int) -> dict[str, torch.Tensor]:
    """A batch; the second rank's has the id whose embedding is not finite."""
    some = batch(2, seed=rank)
    length = some["response_start"] + some["response_length"]
    ids = torch.full(some["labels"].shape, 3)
    ids[:, 0] = BROKEN_ID if rank else 4
    return some | {
        "attention_mask": (torch.arange(some["labels"].shape[1]) < length[:, None]).long(),
        "input_ids": ids,
    }


def seen(runner: Runner, given: dict[str, torch.Tensor]) -> tuple[str, str]:
    """The error of a step."""
    try:
        runner.step([given], 0)
    except KdfastError as error:
        return type(error).__name__, str(error)
    return "none", ""


def main() -> None:
    ranks = join()
    settings = LossSettings(kd=KDConfig(), eos_ids=(EOS,), opening_ids=OPEN)
    objective = Objective(settings=settings)
    student = tiny_llama(layers=2, vocab_size=VOCAB, eos_token_id=EOS).train()
    model = DistributedDataParallel(StudentLoss(student, objective))
    runner = Runner(model, objective, torch.device("cpu"), False, ranks)
    good = rows(0)
    bad_labels = good | {"labels": good["labels"].masked_fill(good["labels"] != -100, VOCAB + ranks.rank - 1)}
    found = {"good": seen(runner, good), "labels": seen(runner, bad_labels)}
    with torch.no_grad():
        student.model.embed_tokens.weight[BROKEN_ID] = torch.inf
    found["diverged"] = seen(runner, rows(ranks.rank))
    (Path(sys.argv[1]) / f"{ranks.rank}.json").write_text(json.dumps(found), encoding="utf-8")
    ranks.leave()  # before the DDP model is freed, as in a loop of one's own


if __name__ == "__main__":
    main()
