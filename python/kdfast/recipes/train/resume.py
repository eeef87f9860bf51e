"""What a resumed run is told before it goes on: how far it is, and what its new config changes."""

from __future__ import annotations

from kdfast.config import Config
from kdfast.errors import ConfigError
from kdfast.recipes.train.schedule import learning_rate


def resume_notes(config: Config, before: Config, step: int, *, ended_early: bool = False) -> list[str]:
    """What to say before a run goes on from a checkpoint.

    Args:
        config: the config of the command.
        before: the config that the run was last started with.
        step: optimiser updates done when the checkpoint was written.
        ended_early: whether `train.stop_after_validations` ends the run where it is.

    Returns:
        one sentence each.

    Raises:
        ConfigError: the run is beyond `train.num_steps` already.
    """
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
    elif config.schedule_steps != before.schedule_steps:
        notes.append(_schedule(config, before, step))
    return notes


def _schedule(config: Config, before: Config, step: int) -> str:
    rate = learning_rate(step, config.schedule_steps, config.optimizer)
    former = learning_rate(step, before.schedule_steps, before.optimizer)
    return (
        f"the learning rate now falls over {config.schedule_steps} steps, not over {before.schedule_steps}: the next "
        f"step's is {rate:.2e} instead of {former:.2e}, and loss weights that change over the run move likewise; set "
        f"optimizer.schedule_steps={before.schedule_steps} to keep the schedule"
    )
