"""The config keys whose values are not the same in all runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdfast.page.compare.run import Run
from kdfast.page.settings import Setting, settings_section

_LEFT_OUT = ("io.run_dir",)
"""Keys that differ in any two runs, and say nothing."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One key that differs.

    Attributes:
        key: the dotted path, such as `train.num_steps`.
        help: what the key means.
        values: its value in each run, as YAML, and whether it is not the default.
    """

    key: str
    help: str
    values: Sequence[tuple[str, bool]]


def differences(runs: Sequence[Run]) -> list[Difference]:
    """The keys that differ, in the order of the config.

    Raises:
        DataError: a speed report's fingerprint is not text; names file and key.
    """
    configs = [_settings(run) for run in runs]
    return [
        Difference(
            key=key, help=first.help, values=[(config[key].value, config[key].changed) for config in configs]
        )
        for key, first in configs[0].items()
        if key not in _LEFT_OUT and len({config[key].value for config in configs}) > 1
    ]


def _settings(run: Run) -> dict[str, Setting]:
    return {one.key: one for _, settings in settings_section(run.files).sections for one in settings}
