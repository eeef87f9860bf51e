"""The exit code of a finished run: does it have enough valid calls, and did its gates pass?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from kdfast.config import Config
from kdfast.exit_codes import DONE, GATE_FAILED
from kdfast.recipes.train.gates import FinalGates


def judge_valid_calls(config: Config, evaluation: Mapping[str, Any] | None, console: Console) -> int:
    """Compares the share of valid calls with `train.min_valid_calls_fraction`.

    Args:
        config: the run's config.
        evaluation: by generation, after training; None = there was none.
        console: where a failure is explained.

    Returns:
        The exit code: 0, or 3 when the share is too small.
    """
    wanted = config.train.min_valid_calls_fraction
    if not wanted or evaluation is None:
        return DONE
    share = evaluation["table"]["schema_valid"]["fraction"]
    if share >= wanted:
        return DONE
    console.print(
        f"[bold red]failed[/bold red]: {share:.0%} of the held-out tool prompts got a valid call, "
        f"train.min_valid_calls_fraction asks for {wanted:.0%}; train longer or on more data"
    )
    return GATE_FAILED


def judge_gates(gates: FinalGates, student: Any, step: int, evaluation: Mapping[str, Any] | None) -> int:
    """Evaluates the gates of a run, if any is enabled, and writes their result.

    Args:
        gates: the run's gates.
        student: the bare model, in training or evaluation mode.
        step: the last step.
        evaluation: by generation, after training; None = there was none.

    Returns:
        The exit code: 0, or 3 when a gate failed and `train.fail_on_gate` is true.

    Raises:
        OSError: a file cannot be read or written.
    """
    if not gates.config.gates.enabled:
        return DONE
    result = gates.judge(student, step, evaluation)
    if result.passed or gates.config.train.fail_on_gate:
        return result.exit_code
    gates.display.console.print(
        "a gate failed; that does not fail the run unless train.fail_on_gate is true", highlight=False
    )
    return DONE
