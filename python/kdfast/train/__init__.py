"""The training run behind `kdfast-train`: data, student, loop, evaluation, the final student on disk."""

from __future__ import annotations

from kdfast.config import Config


def run(config: Config, *, resume: bool = False) -> int:
    """Runs a config to its end, or until it is asked to stop.

    Args:
        config: the run.
        resume: go on from the newest checkpoint of `io.run_dir`; without one, start.

    Returns:
        The exit code: 0 done, 3 too few valid calls (`train.min_valid_calls_fraction`), 130 stopped and resumable.

    Raises:
        ConfigError: the run folder is in the way, or the config asks for what the data does not have.
        DataError: bad data.
        CheckpointError: a checkpoint that is damaged or of another run.
    """
    from kdfast.train.recipe import run as recipe

    return recipe(config, resume=resume)
