"""The gates at the end of a run: they compare what it measured with the limits and the blessed baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kdfast.config import Config
from kdfast.data import KDDataset
from kdfast.display import Display
from kdfast.files import write_document
from kdfast.gates import GATE_NAMES, GateReport, GateResult, evaluate_speed_gates, load_baseline_speed_metrics
from kdfast.gates.display import gate_table
from kdfast.gates.evidence import Report, reports_of
from kdfast.recipes.train.speed import FAILURES, SpeedProbe, in_words
from kdfast.runs.folder import RunFolder
from kdfast.speed import SpeedPrompt, prompts_fingerprint, read_speed_report, speed_prompts

_QUALITY = {
    "f1": "eval_prompts",
    "false_call_rate": "eval_irrelevance_prompts",
    "missed_call_rate": "eval_prompts",
}
"""Gate of quality -> the key of `train` that gives it prompts."""


def blessed_reports(config: Config) -> list[Report]:
    """The reports in the file `gates.baseline`. Read before training, so that a wrong path costs nothing.

    Raises:
        DataError: the file is damaged, or no baseline.
        OSError: it does not exist, or cannot be read.
    """
    path = config.gates.baseline
    return [] if path is None else reports_of(load_baseline_speed_metrics(path), "gates.baseline")


def gates_without_prompts(config: Config) -> str:
    """What to say before training if the evaluation has no prompts for enabled gates; "" = nothing.

    With `gates.baseline` nothing is said: the student then answers the baseline's prompts.

    Args:
        config: the run's config.
    """
    train = config.train
    keys = {name: key for name, key in _QUALITY.items() if name in config.gates.enabled}
    without = {name: f"train.{key}" for name, key in keys.items() if getattr(train, key) == 0}
    if not without or config.data.validation is None or config.gates.baseline is not None:
        return ""
    result = "be skipped as not measured"
    if not train.eval_prompts + train.eval_irrelevance_prompts and config.speed.every_validations:
        prompts = f"speed.prompts is {config.speed.prompts}, those that need a call first"
        result = f"only be measured on the prompts of the speed report ({prompts})"
    named = list(dict.fromkeys(without.values()))
    zero, gates = _listed([f"{key} is 0" for key in named]), _listed(list(without))
    return f"gates: {zero}, so {gates} will {result}; set {_listed(named)}, or leave {gates} out of gates.enabled"


@dataclass(frozen=True, kw_only=True)
class FinalGates:
    """The gates of a run.

    If `data.validation` contains all prompts of the baseline, the student answers exactly these, so that the two
    compare. If not, a line says so, and the run's last speed report and its evaluation are judged instead.

    Attributes:
        config: the run's config.
        data: the held-out records.
        baseline: what `blessed_reports` returned; [] = no baseline.
        folder: the run folder; the result is written there.
        display: shows the table.
    """

    config: Config
    data: KDDataset
    baseline: Sequence[Report]
    folder: RunFolder
    display: Display

    def judge(self, student: Any, step: int, evaluation: Mapping[str, Any] | None) -> GateReport:
        """Judges the student, shows the table and writes the result.

        Args:
            student: the bare model, in training or evaluation mode.
            step: the last step.
            evaluation: by generation, after training; None = there was none.

        Raises:
            OSError: a file cannot be read or written.
        """
        measured = self._on_the_baselines_prompts(student, step)
        sides = self._at_hand(step, evaluation) if measured is None else (measured, measured)
        result = self._result(*sides)
        write_document(self.folder.gates, result.to_json())
        self.display.console.print(gate_table(result))
        return result

    def _result(self, speed: Report, answers: Report) -> GateReport:
        """A gate is skipped if the config switches its measurement off; it fails if the measurement went wrong."""
        return GateReport(
            results=tuple(
                self._gate(name, answers if name in _QUALITY else speed)
                for name in GATE_NAMES
                if name in self.config.gates.enabled
            )
        )

    def _gate(self, name: str, report: Report) -> GateResult:
        reason = self._left_out(name, report)
        if reason is not None:
            return GateResult(name=name, status="skipped", reason=f"not_measured: {reason}")
        alone = replace(self.config.gates, enabled=(name,))
        return evaluate_speed_gates(report, list(self.baseline) or None, alone)[name]

    def _left_out(self, gate: str, report: Report) -> str | None:
        """Why a gate's numbers were not measured on purpose; None = they were measured, or that was tried."""
        if gate not in _QUALITY:
            if "metrics" in report:
                return None
            never = self.config.speed.every_validations == 0
            return "speed.every_validations is 0" if never else "the run has no speed report of its last step"
        if gate in (report.get("quality") or {}):
            return None
        key, absent = _QUALITY[gate], report.get("absent") or {}
        never = getattr(self.config.train, key) == 0
        return str(
            absent.get(gate)
            or absent.get("quality")
            or (f"train.{key} is 0" if never else "the run's evaluation does not have it")
        )

    def _on_the_baselines_prompts(self, student: Any, step: int) -> Report | None:
        if not self.baseline:
            return None
        try:
            prompts = _same_prompts(self.data, self.baseline[0])
        except FAILURES as error:
            self._say(f"the held-out prompts cannot be made: {in_words(error)}")
            return None
        if prompts is None:
            self._say(
                "the baseline's prompts are not all in data.validation, word for word (other records or another "
                "template?)"
            )
            return None
        probe = SpeedProbe(self.config, student, self.data, self.folder.speed)
        most = (self.baseline[0].get("decoding") or {}).get("max_new_tokens", probe.options.max_new_tokens)
        with self.display.working("gates", len(prompts)) as on_progress:
            return probe.report_on(prompts, most, step, lambda done: on_progress(done, ""))

    def _say(self, why: str) -> None:
        """Prints why the baseline's prompts are not answered."""
        text = f"gates: {why}: the run's own measurements are judged instead"
        self.display.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def _at_hand(self, step: int, evaluation: Mapping[str, Any] | None) -> tuple[Report, Report]:
        """What to judge time by and what to judge quality by, from the measurements that the run already made.

        Time: the speed report, if it was made at the last step. Quality: the evaluation; without one, the speed report.
        Each carries its own prompts' hash, because the two use different prompts.
        """
        speed: Report = {}
        if self.folder.speed.exists():
            saved = read_speed_report(self.folder.speed)
            speed = saved if saved.get("step") == step else {}
        if evaluation is None or "quality" not in evaluation:
            return speed, speed
        answers = {name: evaluation.get(name) for name in ("quality", "fingerprints", "decoding")}
        return speed, answers | {"absent": evaluation["quality"].get("absent", {})}


def _listed(names: Sequence[str]) -> str:
    """Names as text: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _same_prompts(data: KDDataset, baseline: Report) -> list[SpeedPrompt] | None:
    """The baseline's prompts, taken from the held-out records; None unless all are there, word for word."""
    known = {prompts_fingerprint([prompt]): prompt for prompt in speed_prompts(data)}
    asked = [prompt.get("fingerprint") for prompt in baseline.get("prompts") or ()]
    prompts = [known[one] for one in asked if one in known]
    return prompts if prompts and len(prompts) == len(asked) else None
