"""Section `optimizer`: AdamW and its schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from kdfast.config.section import Key, Section


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Section):
    """AdamW with a linear warm-up, then a cosine down to a fraction of the peak.

    Examples:
        >>> OptimizerConfig(learning_rate="1e-4").learning_rate
        0.0001
    """

    section: ClassVar[str] = "optimizer"

    learning_rate: Annotated[
        float, Key("The peak, reached at the end of the warm-up.", above=0, maximum=1000)
    ] = 2e-4
    min_lr_fraction: Annotated[
        float,
        Key("The learning rate at the end of the schedule, as a fraction of the peak.", minimum=0, maximum=1),
    ] = 0.1
    warmup_steps: Annotated[
        int, Key("Steps of linear warm-up, at most train.num_steps; 0 = start at the peak.", minimum=0)
    ] = 20
    schedule_steps: Annotated[
        int | None,
        Key(
            "Steps over which the learning rate falls and the loss weights reach their final values; null ="
            " train.num_steps. Set it, and a resumed run with more steps goes on as it would have.",
            minimum=1,
            on_resume=True,
        ),
    ] = None
    betas: Annotated[
        tuple[float, float],
        Key("Decay of the averages of gradient and squared gradient.", minimum=0, below=1),
    ] = (0.9, 0.95)
    eps: Annotated[float, Key("Added to the denominator of the update.", above=0)] = 1e-8
    weight_decay: Annotated[
        float, Key("Decoupled weight decay, on matrices only (not on norms and biases).", minimum=0)
    ] = 0.01
    max_grad_norm: Annotated[
        float, Key("The gradient is scaled down to this norm; 0 = no clipping.", minimum=0)
    ] = 1.0
