"""What a run prints at its end: losses before and after, the evaluation, examples, and where its files are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kdfast.evaluate.table import evaluation_table
from kdfast.recipes.train.progress import Progress
from kdfast.runs.csv_files import csv_path
from kdfast.runs.folder import RunFolder

_EXAMPLES = 3
_LONGEST_EXAMPLE = 300


def print_losses(console: Console, progress: Progress, student_step: int) -> None:
    """Prints the validation losses before and after training, and those of the student where it is another step's.

    Args:
        console: where to print.
        progress: the run's.
        student_step: the step that the finished student's weights are of.
    """
    columns = {"before": progress.first_validation, "after": progress.last_validation}
    if not progress.last_validation:
        return
    if student_step != progress.step:
        columns = {
            "before": progress.first_validation,
            f"step {progress.step}": progress.last_validation,
            f"student (step {student_step})": progress.best_validation,
        }
    table = Table("validation", *columns, title="Held-out loss (nats per token)", title_justify="left")
    for name in dict.fromkeys(name for values in reversed(columns.values()) for name in values):
        table.add_row(
            name, *(f"{values[name]:.4f}" if name in values else "-" for values in columns.values())
        )
    console.print(table)


def print_evaluation(console: Console, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Prints the two evaluations side by side, then a few answers."""
    console.print(evaluation_table({"before": before, "after": after}))
    for number in _example_numbers(after["answers"]):
        old, new = before["answers"][number], after["answers"][number]
        example = Table(
            show_header=False, title=f"Example: held-out prompt {number + 1}", title_justify="left"
        )
        example.add_row("right answer", _text(new["reference_text"]))
        example.add_row("before", _text(old["text"]))
        example.add_row("after", _text(new["text"]))
        console.print(example)


def print_paths(console: Console, folder: RunFolder, progress: Progress, student_step: int) -> None:
    """Prints where the run's files are, how long it took, and which checkpoint is the best."""
    rate = progress.tokens / progress.seconds if progress.seconds else 0.0
    console.print(
        f"{progress.step} steps, {progress.tokens:,.0f} tokens, {progress.seconds:.0f} s in steps "
        f"({rate:.0f} tokens/s)",
        highlight=False,
    )
    for label, path in (
        ("student", folder.student),
        ("metrics", folder.metrics),
        ("evaluation", folder.evaluation("after")),
        ("speed", folder.speed),
        ("gates", folder.gates),
        ("quantised", folder.quantization),
        ("checkpoints", folder.checkpoints),
        ("config", folder.config),
    ):
        if path.exists():
            beside = " (and as .csv)" if csv_path(path).exists() and path.is_file() else ""
            console.print(f"  {label:<12} {path}{beside}", highlight=False, soft_wrap=True)
    if progress.best_step is not None:
        best = folder.checkpoint(progress.best_step)
        text = f"  {'best':<12} {best} (held-out loss {progress.best_loss:.4f})"
        if student_step != progress.best_step:
            text += f"; the student has step {student_step}'s weights, io.final=best would take these"
        console.print(text, highlight=False, soft_wrap=True)


def _example_numbers(answers: list[dict[str, Any]]) -> list[int]:
    """Two prompts that need a call and one that does not, as far as there are such."""
    due = [n for n, answer in enumerate(answers) if answer["score"]["should_call"]]
    other = [n for n, answer in enumerate(answers) if not answer["score"]["should_call"]]
    return (due[: _EXAMPLES - min(1, len(other))] + other)[:_EXAMPLES]


def _text(answer: str) -> str:
    cut = answer if len(answer) <= _LONGEST_EXAMPLE else answer[:_LONGEST_EXAMPLE] + " ..."
    return escape(cut.strip() or "(nothing)")
