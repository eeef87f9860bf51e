"""What a run says of its phase under quantisation: lines of `metrics.jsonl` of kind `qat`, and of the screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.markup import escape

from kdfast.display import Display
from kdfast.qat import Action, CodeChanges, Decision, StabilityReport
from kdfast.recipes.train.qat.phase import QatPhase
from kdfast.runs.metrics import MetricsLog

KIND = "qat"
"""The kind of the lines."""


@dataclass(frozen=True)
class QatEvents:
    """Tells what happens; on other ranks than the first it is silent."""

    log: MetricsLog
    display: Display
    main: bool

    def begins(self, phase: QatPhase) -> None:
        """Before the phase's first checkpoint is written: it will know the line of `began`."""
        values = {} if phase.first is None else report_values(phase.first, None)
        phase.event = {"step": phase.first_step, "tags": {"event": "start"}, "values": values}

    def began(self, phase: QatPhase) -> None:
        """The phase began, and its first check was made."""
        if self.main and phase.first is not None:
            quant = phase.config.quant
            self._write(phase.event)
            embeddings = quant.embedding_format or "float"
            self._say(
                f"[bold]quantisation on from step {phase.first_step}[/bold]  {quant.format}, embeddings {embeddings}  "
                f"{_numbers(phase.first, None)}"
            )

    def checked(self, phase: QatPhase) -> None:
        """A check was made; its numbers and those of the codes are written."""
        changes = phase.look()
        if self.main and phase.previous is not None:
            report = phase.previous
            tags = {"event": "check", "passed": report.passed}
            if report.reasons:
                tags["reason"] = "; ".join(report.reasons)
            self.log.write(KIND, phase.checked_step, report_values(report, changes), tags)
            self._say(
                f"[bold]quantised at step {phase.checked_step}[/bold]  {_numbers(report, changes)}"
                + (f"  {escape('; '.join(report.reasons))}" if report.reasons else "")
            )

    def froze(self, step: int) -> None:
        """Scales are frozen from a step (0-based) on."""
        if self.main:
            self.log.write(KIND, step + 1, {}, {"event": "frozen"})  # of the step that follows
            self._say(f"scales are frozen from step {step} on (quant.freeze_fraction)")

    def goes_back(self, phase: QatPhase, decision: Decision) -> None:
        """Before the checkpoint that the run goes back to is written anew: it will know the line of `went_back`."""
        gave_up = decision.action is Action.GIVE_UP
        tags = {"event": "gave_up", "qat": "failed"} if gave_up else {"event": "rolled_back"}
        phase.event = {
            "step": decision.to_step,
            "tags": {**tags, "reason": decision.reason},
            "values": {"rate_factor": decision.rate_factor},
        }

    def went_back(self, phase: QatPhase, decision: Decision) -> None:
        """The run went back to an earlier step, at a lower rate or in float."""
        if not self.main:
            return
        recovery, step = phase.recovery, decision.to_step or 0
        self.log.cut(step)
        self._write(phase.event)
        if decision.action is Action.GIVE_UP:
            self._say(
                f"[bold red]qat: failed[/bold red]  {escape(decision.reason)}: the run goes on from step {step} "
                "without quantisation, and its student will not be quantised"
            )
        else:
            self._say(
                f"[bold yellow]quantisation[/bold yellow]  {escape(decision.reason)}: back to step {step}, learning "
                f"rate x {decision.rate_factor:g} (rollback {recovery.rollbacks} of {recovery.max_rollbacks})"
            )

    def repair(self, phase: QatPhase) -> None:
        """Writes the line of the last event again, if a kill between checkpoint and line lost it."""
        event = phase.event
        if self.main and event:
            wanted = {"step": event["step"], "kind": KIND, **event["tags"]}
            if not any(wanted.items() <= line.items() for line in self.log.lines()):
                self._write(event)

    def _write(self, event: Mapping[str, Any]) -> None:
        self.log.write(KIND, event["step"], event["values"], event["tags"])

    def _say(self, text: str) -> None:
        self.display.console.print(text, highlight=False, soft_wrap=True)


def report_values(report: StabilityReport, changes: CodeChanges | None) -> dict[str, float]:
    """The numbers of a check for `metrics.jsonl`; what could not be measured is absent.

    Args:
        report: the check.
        changes: what became of the codes; None = not looked at.

    Examples:
        >>> report_values(StabilityReport(passed=True, cosines=(0.75, 0.5), kl=0.25), None)
        {'cosine': 0.5, 'kl': 0.25}
    """
    numbers = {"cosine": report.lowest_cosine, "kl": report.kl, "top1_fraction": report.top1_fraction}
    values = {name: value for name, value in numbers.items() if value is not None}
    if changes is not None:
        values |= {
            "changed_fraction": changes.changed_fraction,
            "sign_changes": float(changes.sign_changes),
            "flips": float(changes.flips),
            "returns": float(changes.returns),
        }
    return values


def _numbers(report: StabilityReport, changes: CodeChanges | None) -> str:
    """In words; against the same weights without rounding."""
    values = report_values(report, changes)
    words = {
        "cosine": "lowest cosine {:.5f}",
        "kl": "KL to float {:.5f}",
        "top1_fraction": "top-1 equal {:.1%}",
        "changed_fraction": "codes changed {:.2%}",
    }
    return "  ".join(text.format(values[name]) for name, text in words.items() if name in values)
