"""All contenders of bench/qat_recovery.py on one student, and how they are compared."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from kdfast.quantized import plan_model, quantize
from recovery import llama_cpp
from recovery.arms import (
    ARMS,
    FLOAT,
    QAT,
    TUNE_SEED,
    Arm,
    best,
    judged,
    post_training,
    run_arm,
    run_phase,
    tune,
    with_weights,
)
from recovery.home import Home, make_home
from recovery.judge import (
    PARTS,
    Batch,
    Sums,
    average,
    exact_matches,
    mcnemar,
    mean,
    paired,
    reference,
    row_sums,
)
from recovery.outliers import spread_columns
from recovery.setting import Setting
from recovery.stored import stored
from recovery.student import quant_config

START = "float at the start + post-training"
REFERENCE = "float at the start"
TRAINED_ON = "float, trained on"
FORMATS = ("int8_channel", "q8_0", "q4_0")
FURTHER = tuple(arm for arm in ARMS if arm.cross_entropy)
"""The arms that are also run at other lengths, and with other students."""
INT8 = Arm("QAT int8_channel, cross-entropy", "int8_channel", 1.0, 0.0)


def figures(sums: Sums) -> dict[str, float]:
    """Mean KL and NLL of each part."""
    return {f"{what}_{part}": mean(sums, what, part) for what in ("kl", "nll") for part in PARTS}


def differences(arm: Sums, base: Sums) -> dict[str, dict[str, float]]:
    """All paired differences."""
    return {f"{what}_{part}": paired(arm, base, what, part) for what in ("kl", "nll") for part in PARTS}


class Trial:
    """One run of the benchmark."""

    def __init__(self, setting: Setting, work: Path) -> None:
        self.setting = setting
        self.work = work
        self.home: Home = make_home(setting.size, setting.spread, work)
        self.tune_rows: list[Batch] = reference(self.home.student, self.home.tune)
        self.held_out: list[Batch] = reference(self.home.student, self.home.held_out)
        self.rates: dict[str, float] = {}
        self.seed_zero: dict[str, dict[str, Any]] = {}
        """Of the first seed, and of what has no seed: sums and right answers."""
        self.by_arm: dict[str, Sums] = {}
        """Sums of each arm, mean over seeds."""
        self.one_seed: set[str] = set()
        """What was made of the first seed of an arm only, and is compared with that seed of others."""

    def tuning(self) -> dict[str, Any]:
        """Chooses each arm's rate."""
        found = {}
        for arm in ARMS:
            tried = tune(self.home, arm, self.setting.steps, self.setting.rates, self.tune_rows, self.work)
            self.rates[arm.name] = best(tried)
            found[arm.name] = {f"{rate:g}": one for rate, one in tried.items()}
        return found

    def without_training(self) -> dict[str, Any]:
        """The float student, and what ships of it at once, by format."""
        models = {REFERENCE: self.home.student, START: post_training(self.home.student, "q4_0")}
        for name, model in models.items():
            self.seed_zero[name] = judged(self.home, self.held_out, model, self.setting.prompts)
            self.by_arm[name] = self.seed_zero[name]["sums"]
        formats = {}
        for name in FORMATS:
            model = models[START] if name == "q4_0" else post_training(self.home.student, name)
            sums = row_sums(model, self.held_out)
            formats[name] = figures(sums) | {
                "bytes": plan_model(self.home.student, quant_config(name)).stored_bytes,
                "against_float": differences(sums, self.by_arm[REFERENCE]),
                "exact": sum(
                    exact_matches(model, self.home.tokenizer, self.home.held_out[: self.setting.prompts])
                ),
            }
            print(f"post-training {name}: {figures(sums)}, right {formats[name]['exact']}", flush=True)
        plain = self.seed_zero[REFERENCE]
        print(f"float: {figures(plain['sums'])}, right {sum(plain['exact'])}", flush=True)
        return formats

    def before_spreading(self) -> dict[str, Any]:
        """The same for the student before its columns were spread."""
        batches = reference(self.home.plain, self.home.held_out)
        found = {REFERENCE: figures(row_sums(self.home.plain, batches))}
        for name in FORMATS:
            found[name] = figures(row_sums(post_training(self.home.plain, name), batches))
        return found

    def arm(self, arm: Arm) -> dict[str, Any]:
        """All seeds of one arm."""
        runs = []
        for seed in range(self.setting.seeds):
            phase = arm.phase(self.setting.steps, self.rates[arm.name], seed)
            prompts = 0 if seed else self.setting.prompts
            runs.append(run_arm(self.home, arm, phase, self.held_out, prompts, self.work))
        self.seed_zero[arm.name] = runs[0]
        self.by_arm[arm.name] = average([run["sums"] for run in runs])
        if arm is FLOAT:
            self.seed_zero[TRAINED_ON] = self._trained_on(runs)
        return {
            "rate": self.rates[arm.name],
            "seeds": [figures(run["sums"]) for run in runs],
            "changed": [run["changed"] for run in runs],
            "cosine": [run["cosine"] for run in runs],
            "stable": [run["stable"] for run in runs],
            "seconds": [run["seconds"] for run in runs],
        }

    def _trained_on(self, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The float students that were trained on, before they are quantised."""
        models = [with_weights(self.home, run["float_weights"]) for run in runs]
        self.by_arm[TRAINED_ON] = average([row_sums(model, self.held_out) for model in models])
        return {
            "exact": exact_matches(models[0], self.home.tokenizer, self.home.held_out[: self.setting.prompts])
        }

    def llama(self) -> dict[str, Any]:
        """What llama.cpp's own functions make of the float student and of the first seed of each arm."""
        try:
            library = llama_cpp.load_library()
        except llama_cpp.AbsentError as error:
            return {"absent": str(error)}
        importance = llama_cpp.importance_matrix(self.home.student, self.home.train[:500])
        models = {
            "llama.cpp's Q4_0 of the float student": (self.home.student, None),
            "the same with an importance matrix": (self.home.student, importance),
        }
        for arm in ARMS:
            shipped = with_weights(self.home, self.seed_zero[arm.name]["weights"])
            models[f"llama.cpp's Q4_0 of: {arm.name}"] = (shipped, None)
        found: dict[str, Any] = {}
        for name, (model, weights) in models.items():
            made, size, kind = llama_cpp.llama_cpp_q4_0(library, model, weights)
            self.seed_zero[name] = judged(self.home, self.held_out, made, self.setting.prompts)
            self.by_arm[name] = self.seed_zero[name]["sums"]
            if model is not self.home.student:
                self.one_seed.add(name)
            found[name] = {"bytes": size, "embedding": kind}
        return found

    def other_lengths(self) -> dict[str, Any]:
        """Other lengths at the same rates, one seed."""
        found: dict[str, Any] = {}
        for steps in self.setting.other_steps:
            for arm in FURTHER:
                phase = arm.phase(steps, self.rates[arm.name], 0)
                run = run_arm(self.home, arm, phase, self.held_out, self.setting.prompts, self.work)
                name = f"{arm.name}, {steps} steps"
                self._of_one_seed(name, run)
                kept = {key: run[key] for key in ("changed", "cosine", "seconds")}
                found[name] = kept | {"rate": phase.rate}
                if arm is FLOAT:
                    model = with_weights(self.home, run["float_weights"])
                    plain = judged(self.home, self.held_out, model, self.setting.prompts)
                    self._of_one_seed(f"{TRAINED_ON}, {steps} steps", plain)
        return found

    def _of_one_seed(self, name: str, found: dict[str, Any]) -> None:
        self.seed_zero[name], self.by_arm[name] = found, found["sums"]
        self.one_seed.add(name)

    def by_spread(self) -> dict[str, Any]:
        """Students that lose less or more by Q4_0: what ships at once, and of the arms at one rate; one seed."""
        rate = self.rates[QAT[0].name]
        found: dict[str, Any] = {}
        for spread in self.setting.other_spreads:
            student = copy.deepcopy(self.home.plain)
            spread_columns(student, spread)
            home = replace(self.home, spread=spread, student=student)
            batches = reference(student, home.held_out)
            runs = {
                arm.name: run_arm(
                    home,
                    arm,
                    arm.phase(self.setting.steps, rate, 0),
                    batches,
                    self.setting.prompts,
                    self.work,
                )
                for arm in FURTHER
            }
            runs[START] = judged(home, batches, post_training(student, "q4_0"), self.setting.prompts)
            runs[REFERENCE] = judged(home, batches, student, self.setting.prompts)
            found[f"{spread:g}"] = {
                name: figures(run["sums"])
                | {"exact": sum(run["exact"]), "against_start": differences(run["sums"], runs[START]["sums"])}
                for name, run in runs.items()
            }
        return {"rate": rate, "spreads": found}

    def int8(self) -> dict[str, Any]:
        """QAT for int8_channel at several rates, on the rows for tuning, and what costs less on the same rows."""
        steps, rates = self.setting.steps, self.setting.rates
        tried = tune(self.home, INT8, steps, rates, self.tune_rows, self.work)
        float_phase = FLOAT.phase(steps, best(tried), TUNE_SEED)

        def trained_on() -> dict[str, float]:
            run = run_phase(self.home, float_phase, "int8_channel")
            return self._on_tune_rows(with_weights(self.home, run["weights"]))

        made_of = (self.home.size, self.home.spread, float_phase)
        return {
            "tried": {f"{rate:g}": one for rate, one in tried.items()},
            "float": self._on_tune_rows(self.home.student),
            "post_training": self._on_tune_rows(post_training(self.home.student, "int8_channel")),
            "trained_on": stored(self.work, "int8 float", made_of, trained_on) | {"rate": best(tried)},
        }

    def _on_tune_rows(self, model: Any) -> dict[str, float]:
        sums = row_sums(model, self.tune_rows)
        return {what: mean(sums, what, "answer") for what in ("nll", "kl")}

    def comparisons(self) -> dict[str, Any]:
        """Every contender against float + post-training, the same trained on, QAT with cross-entropy, and float."""
        found: dict[str, Any] = {}
        bases = {"start": START, "trained_on": FLOAT.name, "qat": QAT[0].name, "float": REFERENCE}
        for name, sums in self.by_arm.items():
            found[name] = figures(sums)
            for label, base in bases.items():
                other = self.seed_zero[base]["sums"] if name in self.one_seed else self.by_arm[base]
                found[name][f"against_{label}"] = differences(sums, other)
        for name, one in self.seed_zero.items():
            found[name]["exact"] = sum(one["exact"])
            for label, base in bases.items():
                found[name][f"mcnemar_{label}"] = mcnemar(one["exact"], self.seed_zero[base]["exact"])
        return found


def grid_steps(home: Home) -> dict[str, float]:
    """The median distance between neighbouring codes of q4_0, and the root mean square of the weights it rounds."""
    weights = dict(home.student.named_parameters())
    planned = [one for one in plan_model(home.student, quant_config("q4_0")).tensors if one.format == "q4_0"]
    scales = torch.cat(
        [quantize(weights[one.name].detach(), "q4_0").scales.float().abs().flatten() for one in planned]
    )
    values = torch.cat([weights[one.name].detach().flatten() for one in planned])
    return {"q4_0_step": float(scales.median()), "weight_rms": float(values.square().mean().sqrt())}


def measure(setting: Setting, work: Path, *, arms_only: bool = False) -> dict[str, Any]:
    """Everything, as the results file has it."""
    started = time.perf_counter()
    trial = Trial(setting, work)
    document: dict[str, Any] = {
        "setting": asdict(setting),
        "student": trial.home.trained
        | grid_steps(trial.home)
        | {
            "parameters": sum(one.numel() for one in trial.home.student.parameters()),
            "tokens_a_row": statistics.fmean(len(row.ids) for row in trial.home.train),
            "held_out_tokens": {part: int(sum(batch_sum)) for part, batch_sum in _counts(trial).items()},
            "held_out_calls": sum(bool(row.record.name) for row in trial.home.held_out),
            "prompt_calls": sum(bool(row.record.name) for row in trial.home.held_out[: setting.prompts]),
        },
        "before_spreading": trial.before_spreading(),
        "formats": trial.without_training(),
        "tuning": trial.tuning(),
        "arms": {arm.name: trial.arm(arm) for arm in ARMS},
        "llama_cpp": trial.llama(),
    }
    if not arms_only:
        document["int8"] = trial.int8()
        document["other_lengths"] = trial.other_lengths()
        document["by_spread"] = trial.by_spread()
    document["contenders"] = trial.comparisons()
    document["seconds_of_this_call"] = time.perf_counter() - started
    return document


def _counts(trial: Trial) -> dict[str, list[float]]:
    sums = trial.by_arm.get(REFERENCE) or row_sums(trial.home.student, trial.held_out)
    return {part: sums[f"count_{part}"].tolist() for part in PARTS}
