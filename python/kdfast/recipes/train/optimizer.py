"""The optimiser of a run."""

from __future__ import annotations

import torch
from torch import nn

from kdfast.config.optimizer import OptimizerConfig


def adamw(model: nn.Module, settings: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the parameters that are trained, with weight decay on matrices only.

    Args:
        model: the student, and what loss terms learn beside it.
        settings: the config's section.

    Examples:
        >>> groups = adamw(nn.Linear(2, 3), OptimizerConfig(weight_decay=0.1)).param_groups
        >>> [(len(group["params"]), group["weight_decay"]) for group in groups]  # the matrix, the bias
        [(1, 0.1), (1, 0.0)]
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.eps)
