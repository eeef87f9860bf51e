"""A batch with every field and every kind of row that the loss terms treat differently, and a matching model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdfast.config import KDConfig
from kdfast.losses import LossSettings

VOCAB, DIM, T, EOS, OPEN = 23, 6, 12, 22, (3, 4)
ALL = {
    "sampled_kl_weight": 0.2,
    "early_tool_preamble_weight": 0.05,
    "early_tool_negative_weight": 0.03,
    "early_tool_prior_weight": 0.07,
    "early_tool_ce_weight": 0.01,
    "length_weight": 0.05,
    "length_aggregate": "row",
}


def settings(**changes: Any) -> LossSettings:
    kd = KDConfig(**{**ALL, **changes})
    return LossSettings(kd=kd, eos_ids=(EOS,), opening_ids=OPEN, prefix_tokens=4)


def batch(rows: int = 6, seed: int = 0) -> dict[str, Tensor]:
    """Four kinds of rows in turn: a call at once, a call after a preamble, a call due but missing, no call due."""
    g = torch.Generator().manual_seed(seed)
    start = torch.randint(2, 5, (rows,), generator=g)
    length = torch.randint(4, 8, (rows,), generator=g)
    labels = torch.full((rows, T), -100)
    call = torch.zeros(rows, T, dtype=torch.bool)
    prefix = torch.full((rows, 4), -100)
    for row in range(rows):
        first, end = int(start[row]) - 1, int(start[row]) - 1 + int(length[row])
        labels[row, first:end] = torch.randint(0, VOCAB - 1, (int(length[row]),), generator=g)
        labels[row, end - 1] = EOS
        if row % 4 < 2:
            opens = first + row % 4  # row 1: one token of preamble
            call[row, opens : end - 2] = True
            prefix[row, : end - 2 - opens] = labels[row, opens : end - 2][:4]
    mask = labels != -100
    logp = torch.randn(rows, T, 5, generator=g).log_softmax(-1)
    ids = torch.stack([torch.randperm(VOCAB, generator=g)[:4] for _ in range(rows * T)]).view(rows, T, 4)
    drawn = torch.randint(0, 3, (rows, T, 3), generator=g) * mask[..., None]
    return {
        "labels": labels,
        "response_mask": mask,
        "tool_call_mask": call,
        "tool_name_mask": call & (torch.rand(rows, T, generator=g) < 0.4),
        "tool_args_mask": call & (torch.rand(rows, T, generator=g) < 0.4),
        "source": (torch.arange(rows) % 2).to(torch.int8),
        "response_start": start,
        "response_length": length,
        "tool_should_be_used": torch.arange(rows) % 4 < 3,
        "required_fields_present": torch.arange(rows) != 4,
        "teacher_prefix_ids": prefix,
        "teacher_topk_ids": ids.int(),
        "teacher_topk_logp": logp[..., :4],
        "teacher_tail_logp": logp[..., 4],
        "teacher_topk_mask": mask & (torch.arange(rows) != 2)[:, None],
        "teacher_sample_ids": ids[..., :3].int(),
        "teacher_sample_counts": drawn.int(),
        "row": 100 + torch.arange(rows),
    }


def model(rows: int = 6, seed: int = 1) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, T, DIM, generator=g, dtype=torch.float64)
    weight = torch.randn(VOCAB, DIM, generator=g, dtype=torch.float64)
    return hidden.requires_grad_(), weight.requires_grad_()


def double(some: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() if value.is_floating_point() else value for name, value in some.items()}
