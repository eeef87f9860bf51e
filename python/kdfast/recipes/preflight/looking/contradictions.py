"""Rules between keys of a config that loads: what would fail late, or never do what it seems to. No torch in here."""

from __future__ import annotations

from collections.abc import Callable

from kdfast.config import Config
from kdfast.recipes.preflight.check import Finding, failed, warned
from kdfast.recipes.preflight.looking.idle_keys import early_tool_weights

Rule = Callable[[Config], Finding | None]
"""Looks at one thing; None = it is as it should be."""

_PLAIN_WEIGHTS = ("kl", "ce_teacher", "ce_truth")


def _temperature_of_the_store(config: Config) -> Finding | None:
    kd, teacher = config.kd, config.teacher
    if kd.temperature == 1 or not kd.kl_weight or teacher.live or teacher.model is None:
        return None
    return failed(
        f"kd.temperature is {kd.temperature:g}, and kdfast teach writes log-probabilities of temperature 1: training "
        "would refuse its store",
        "set kd.temperature to 1, or teacher.live to true",
    )


def _nothing_is_drawn(config: Config) -> Finding | None:
    kd, teacher = config.kd, config.teacher
    if not kd.sampled_kl_weight or teacher.model is None or teacher.samples:
        return None
    return failed(
        f"kd.sampled_kl_weight is {kd.sampled_kl_weight:g}, and kdfast teach draws no ids: teacher.samples is 0",
        "set teacher.samples, or kd.sampled_kl_weight to 0",
    )


def _weights_end_at_zero(config: Config) -> Finding | None:
    kd = config.kd
    if kd.sampled_kl_weight:
        return None
    pairs = [(getattr(kd, f"{name}_weight"), getattr(kd, f"{name}_final_weight")) for name in _PLAIN_WEIGHTS]
    if any(weight if final is None else final for weight, final in pairs):
        return None
    return warned(
        "all weights of divergence and cross-entropy end at 0, so that the last steps learn nothing of the answers",
        "set one of kd.kl_final_weight, kd.ce_teacher_final_weight and kd.ce_truth_final_weight above 0",
    )


def _schedule_ends_early(config: Config) -> Finding | None:
    steps, total = config.schedule_steps, config.train.num_steps
    if steps >= total:
        return None
    fraction = config.optimizer.min_lr_fraction
    text = f"the schedule ends at step {steps} of {total}, and the rate stays at {fraction:g} of its peak from there on"
    remedy = "raise optimizer.schedule_steps to train.num_steps"
    return warned(text, remedy) if fraction else failed(text, f"{remedy}, or set optimizer.min_lr_fraction")


def _warm_up_is_most(config: Config) -> Finding | None:
    warmup, total = config.optimizer.warmup_steps, config.train.num_steps
    until = config.quant.phase_start(total) if config.quant.enabled else total
    if not until or 2 * warmup <= until:
        return None
    what = "float steps before quantisation" if config.quant.enabled else "steps"
    return warned(
        f"optimizer.warmup_steps is {warmup}, more than half of the {until} {what}: the rate is hardly at its peak",
        "lower optimizer.warmup_steps, or raise train.num_steps",
    )


def _quant_warm_up(config: Config) -> Finding | None:
    quant, total = config.quant, config.train.num_steps
    steps = total - quant.phase_start(total)
    if not quant.enabled or quant.warmup_steps < steps:
        return None
    return failed(
        f"quant.warmup_steps is {quant.warmup_steps}, and quantisation has {steps} steps: the rate never gets to its "
        "peak",
        "lower quant.warmup_steps or quant.start_fraction, or raise train.num_steps",
    )


def _best_of_few(config: Config) -> Finding | None:
    train = config.train
    if config.io.final != "best":
        return None
    every = {
        "train.validate_every_steps": train.validate_every_steps,
        "train.checkpoint_every_steps": train.checkpoint_every_steps,
    }
    never = [key for key, steps in every.items() if not 0 < steps < train.num_steps]
    if not never:
        return None
    return warned(
        f"io.final is 'best', and {' and '.join(never)} name no step before the last: there is nothing to choose from",
        f"set {' and '.join(never)} below train.num_steps ({train.num_steps})",
    )


def _answers_are_not_read(config: Config) -> Finding | None:
    files = config.teacher.files
    if files is None or files.out in config.data.train_files:
        return None
    return warned(
        f"kdfast teach writes to {files.out}, which is not among data.train: its answers are not trained on",
        "name teacher.out in data.train",
    )


def _never_stops_early(config: Config) -> Finding | None:
    train = config.train
    steps = train.stop_after_validations * train.validate_every_steps
    if steps < train.num_steps:
        return None
    return warned(
        f"{train.stop_after_validations} validations, {train.validate_every_steps} steps apart, take {steps} steps, "
        f"and the run has {train.num_steps}: it never stops early",
        "lower train.stop_after_validations or train.validate_every_steps",
    )


def _early_tool_ramp(config: Config) -> Finding | None:
    given = config.kd.early_tool_warmup_steps
    warmup = config.optimizer.warmup_steps if given is None else given
    if not early_tool_weights(config) or warmup <= config.train.num_steps:
        return None
    return warned(
        f"the early-tool weights grow over {warmup} steps, and the run has {config.train.num_steps}: they stay below "
        "what is set",
        "lower kd.early_tool_warmup_steps",
    )


def _no_gate_to_fail_on(config: Config) -> Finding | None:
    if not config.train.fail_on_gate or config.gates.enabled:
        return None
    return failed(
        "train.fail_on_gate is true, and gates.enabled is empty: no gate is judged",
        "name gates in gates.enabled, or set train.fail_on_gate to false",
    )


def _rounded_untrained(config: Config) -> Finding | None:
    export = config.export
    if config.quant.enabled or "gguf" not in export.targets or export.gguf_type != "q4_0":
        return None
    return warned(
        "export.gguf_type is q4_0, and quant.enabled is false: the weights are rounded to 4 bits without training",
        "set quant.enabled to true and quant.format to q4_0, or export.gguf_type to q8_0",
    )


RULES: tuple[Rule, ...] = (
    _temperature_of_the_store,
    _nothing_is_drawn,
    _weights_end_at_zero,
    _schedule_ends_early,
    _warm_up_is_most,
    _quant_warm_up,
    _best_of_few,
    _answers_are_not_read,
    _never_stops_early,
    _early_tool_ramp,
    _no_gate_to_fail_on,
    _rounded_untrained,
)
"""What is looked at. What the loader refuses, such as weights that are all 0, is not here."""
