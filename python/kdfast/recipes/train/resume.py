"""What a resumed run is told before it goes on: how far it is, and what its new config changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdfast.config import Config
from kdfast.config.section import invalid
from kdfast.errors import ConfigError
from kdfast.recipes.train.schedule import learning_rate, learning_rate_under_qat


def resume_notes(
    config: Config,
    before: Config,
    step: int,
    *,
    ended_early: bool = False,
    qat: Mapping[str, Any] | None = None,
) -> list[str]:
    """What to say before a run goes on from a checkpoint.

    Args:
        config: the config of the command.
        before: the config that the run was last started with.
        step: optimiser updates done when the checkpoint was written.
        ended_early: whether `train.stop_after_validations` ends the run where it is.
        qat: what the checkpoint says of the phase under quantisation; None or empty = it has not begun.

    Returns:
        one sentence each.

    Raises:
        ConfigError: the run is beyond `train.num_steps` already, or too few steps under quantisation are left.
    """
    recovery = (qat or {}).get("recovery", {})
    first = recovery.get("first_step")
    _check_phase(config, step, first, gave_up=bool(recovery.get("gave_up")))
    steps = config.train.num_steps
    if step > steps:
        raise ConfigError(
            f"train.num_steps: the run is beyond that already, its newest checkpoint is of step {step}; set it to at "
            f"least {step}, or start a new run in another io.run_dir, got {steps}"
        )
    notes = []
    if step == steps:
        notes.append(
            f"nothing is left to train: the run is at its last step, {step} of {steps}; a larger train.num_steps "
            "lets it go on"
        )
    elif ended_early:
        notes.append(
            f"nothing is left to train: the last {config.train.stop_after_validations} validations brought no lower "
            "loss (train.stop_after_validations); a larger number, or 0, lets the run go on"
        )
    elif first is not None and not recovery.get("gave_up"):
        if steps != before.train.num_steps:
            notes.append(_schedule_under_qat(config, before, step, first))
    elif config.schedule_steps != before.schedule_steps:
        notes.append(_schedule(config, before, step))
    return notes


def _check_phase(config: Config, step: int, first: int | None, *, gave_up: bool) -> None:
    """A run that is to be quantised must not end before it is, nor after too few steps of it."""
    quant, steps = config.quant, config.train.num_steps
    if not quant.enabled or gave_up:
        return
    begins = max(step, quant.phase_start(steps)) if first is None else first
    if steps - begins < quant.min_steps:
        allowed = (
            f"at least {begins + quant.min_steps} (quantisation begins at step {begins}, and quant.min_steps is "
            f"{quant.min_steps})"
        )
        raise invalid("train.num_steps", allowed, steps)


def _schedule_under_qat(config: Config, before: Config, step: int, first: int) -> str:
    steps, former_steps = config.train.num_steps, before.train.num_steps
    rate = learning_rate_under_qat(step, first, steps, config.quant)
    former = learning_rate_under_qat(step, first, former_steps, before.quant)
    return (
        f"the learning rate under quantisation now falls to step {steps}, not to {former_steps}: the next step's is "
        f"{rate:.2e} instead of {former:.2e} (before any halving after a rollback)"
    )


def _schedule(config: Config, before: Config, step: int) -> str:
    rate = learning_rate(step, config.schedule_steps, config.optimizer)
    former = learning_rate(step, before.schedule_steps, before.optimizer)
    return (
        f"the learning rate now falls over {config.schedule_steps} steps, not over {before.schedule_steps}: the next "
        f"step's is {rate:.2e} instead of {former:.2e}, and loss weights that change over the run move likewise; set "
        f"optimizer.schedule_steps={before.schedule_steps} to keep the schedule"
    )
