"""The exit code of a finished run: enough valid calls, gates that passed, and a student that is quantised as asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from kdfast.config import Config
from kdfast.exit_codes import DONE, GATE_FAILED
from kdfast.recipes.train.gates import FinalGates
from kdfast.recipes.train.qat.shipping import Shipped

_AT_LEAST = (
    ("schema_valid", "min_valid_calls_fraction", "a valid call"),
    ("exact_match", "min_exact_calls_fraction", "the right call"),
)
"""Share of an evaluation, the key of its smallest value, and what is counted, in words."""


def judge_calls(config: Config, evaluation: Mapping[str, Any] | None, console: Console) -> int:
    """Compares the shares of valid, exact and false calls with the limits that `train` sets.

    Args:
        config: the run's config.
        evaluation: by generation, after training; None = there was none.
        console: where each failure is explained.

    Returns:
        The exit code: 0, or 3 when a share is beyond its limit.
    """
    if evaluation is None:
        return DONE
    table, limits = evaluation["table"], config.train
    failures = []
    for share, key, what in _AT_LEAST:
        wanted = getattr(limits, key)
        if wanted and table[share]["fraction"] < wanted:
            failures.append(
                f"{table[share]['fraction']:.0%} of the held-out tool prompts got {what}, "
                f"train.{key} asks for {wanted:.0%}; train longer or on more data"
            )
    most = limits.max_false_calls_fraction
    if most < 1 and table["false_calls"]["fraction"] > most:
        failures.append(
            f"{table['false_calls']['fraction']:.0%} of the held-out prompts that no tool fits got a call, "
            f"train.max_false_calls_fraction allows {most:.0%}; add records that need no call"
        )
    for failure in failures:
        console.print(f"[bold red]failed[/bold red]: {failure}", soft_wrap=True)
    return GATE_FAILED if failures else DONE


def judge_qat(config: Config, shipped: Shipped | None, console: Console) -> int:
    """Says loudly that quantisation was given up.

    Args:
        config: the run's config.
        shipped: how the phase under quantisation ended; None = the run had none.
        console: where a failure is explained.

    Returns:
        The exit code: 0, or 3 when it was given up and `quant.fail_on_unstable` is true.
    """
    if shipped is None or not shipped.failed:
        return DONE
    console.print(
        f"[bold red]qat: failed[/bold red]: the student is float, not {config.quant.format}; lower "
        "quant.learning_rate, or quantise after training",
        soft_wrap=True,
    )
    for reason in shipped.reasons:
        console.print(f"  {escape(reason)}", highlight=False, soft_wrap=True)
    return GATE_FAILED if config.quant.fail_on_unstable else DONE


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
