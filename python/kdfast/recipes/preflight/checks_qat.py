"""Training under quantisation: it begins when it should, learns through the rounding, and goes back from a NaN."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kdfast.config import Config
from kdfast.recipes.preflight.check import Check, Finding, failed, passed, skipped, warned
from kdfast.recipes.preflight.facts import Json, SmallRun

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdfast.qat import Decision

_OFF = skipped("quant.enabled is false")
_MEASURED = ("cosine", "kl", "top1_fraction")
_PROBE_TOKENS = 32
_FAULT = "report this as a fault of kdfast, with the metrics.jsonl of the small run"
_TOLERANCE = 1e-4
"""Largest difference of two gradients, as a share of the largest entry: sums in another order differ by 1e-6."""


def begins_at_its_step(config: Config, run: SmallRun) -> Finding:
    """The first line of the phase, and the last step before it."""
    if not config.quant.enabled:
        return _OFF
    train, quant = run.project.config.train, run.project.config.quant
    due = quant.phase_start(train.num_steps)
    began = [line["step"] for line in _qat_lines(run) if line.get("event") == "start"]
    if not began:
        return failed(f"quantisation never began, it was due after step {due} of {train.num_steps}", _FAULT)
    if began != [due]:
        return failed(f"quantisation began after step {began[0]}, it was due after step {due}", _FAULT)
    early = [line["step"] for line in _qat_lines(run) if line["step"] < due]
    if early:
        return failed(f"a line of quantisation is of step {early[0]}, before it began at {due}", _FAULT)
    return passed(f"on after step {due} of {train.num_steps} (quant.start_fraction {quant.start_fraction:g})")


def gradient_passes_straight_through(config: Config, learner: Callable[[], nn.Module]) -> Finding:
    """The gradient of each rounded weight is that of a float model that has the rounded weights."""
    if not config.quant.enabled:
        return _OFF
    import torch

    from kdfast.qat import apply_qat_to_model, weight_quantizers

    rounded, strange = _fresh(learner)
    if strange:
        return strange
    plain = copy.deepcopy(rounded)
    apply_qat_to_model(rounded, config.quant)
    quantizers = weight_quantizers(rounded)
    weights = dict(plain.named_parameters())
    with torch.no_grad():
        for name, (quantizer, weight) in quantizers.items():
            weights[name].copy_(quantizer.values(weight))
    for model in (rounded, plain):
        loss = _loss(model)
        if loss.requires_grad:  # else no weight gets a gradient, and that is found below
            loss.backward()  # type: ignore[no-untyped-call]
    worst = 0.0
    for name, (_, weight) in quantizers.items():
        own, right = weight.grad, weights[name].grad
        if own is None or right is None or not bool(own.any()):
            remedy = "mend the layer: under rounding its gradient must reach the float weight"
            return failed(f"no gradient reaches {name} through its rounding", remedy)
        worst = max(worst, float((own - right).abs().max() / right.abs().max().clamp(min=1e-30)))
        if not worst <= _TOLERANCE:
            remedy = "mend the layer: the gradient must be that of the rounded weight, unchanged"
            return failed(
                f"the gradient of {name} is {worst:.2g} of its size off that of its rounded weights", remedy
            )
    return passed(
        f"{len(quantizers)} rounded weights: each gets the gradient of its rounded value, within {worst:.1g}"
    )


def nan_is_noticed(config: Config, learner: Callable[[], nn.Module]) -> Finding:
    """A weight that rounds to NaN sends the run back, one that is NaN itself stops it."""
    if not config.quant.enabled:
        return _OFF
    from kdfast.qat import Action, apply_qat_to_model, check_qat_stability, weight_quantizers
    from kdfast.recipes.preflight.made.small_run import TOO_LARGE

    model, strange = _fresh(learner)
    if strange:
        return strange
    apply_qat_to_model(model, config.quant)
    name = next(
        (one for one in weight_quantizers(model) if ".layers." in one), next(iter(weight_quantizers(model)))
    )
    probe = _probe(model)
    before = check_qat_stability(model, probe, config.quant)
    seen = {}
    for what, value in (("a weight too large to round", TOO_LARGE), ("a NaN", math.nan)):
        with _broken(model, name, value):
            report = check_qat_stability(model, probe, config.quant, first=before)
        decision = _decide(config, report)
        if report.passed or not report.non_finite or decision.action is Action.GO_ON:
            remedy = "mend the layer that hides it: the run would go on and ship such weights"
            return failed(f"{what} in {name} is not noticed by the stability check", remedy)
        seen[what] = f"{report.non_finite} numbers are not finite: {decision.action.value}"
    after = check_qat_stability(model, probe, config.quant, first=before)
    if after.cosines != before.cosines or after.kl != before.kl:
        remedy = "report this as a fault of kdfast: going back does not restore the student"
        return failed(f"with the old value in {name} again the check gives other numbers", remedy)
    text = "; ".join(f"{what} in {name}: {found}" for what, found in seen.items())
    return passed(f"{text}; with the old value the check is as before")


def recovers_from_a_broken_weight(config: Config, disturbed: SmallRun | None) -> Finding:
    """A run in which a weight breaks under quantisation goes back, and ends well."""
    if not config.quant.enabled or disturbed is None:
        return _OFF
    gave_up = next((line for line in _qat_lines(disturbed) if line.get("event") == "gave_up"), None)
    if gave_up is not None:
        remedy = (
            "lower quant.learning_rate, or quant.min_cosine if the student is a stand-in with random weights"
        )
        return failed(f"quantisation was given up after a weight broke: {gave_up.get('reason')}", remedy)
    back = [line for line in _qat_lines(disturbed) if line.get("event") == "rolled_back"]
    if not back:
        return failed("a weight broke under quantisation, and the run did not go back", _FAULT)
    wrong = _wrong_after_going_back(disturbed)
    if wrong:
        return failed(f"after going back {wrong}", _FAULT)
    return passed(
        f"a weight was broken once: the run went back to step {back[0]['step']} ({back[0].get('reason')}), and made "
        f"all {disturbed.result.step} steps with finite losses"
    )


def _wrong_after_going_back(run: SmallRun) -> str:
    """What is wrong with the steps and the end of a run that went back; "" = nothing."""
    steps, result = run.project.config.train.num_steps, run.result
    losses = {line["step"]: line.get("loss", math.nan) for line in run.lines if line["kind"] == "train"}
    broken = [step for step, loss in losses.items() if not math.isfinite(loss)]
    if broken:
        return f"the loss of step {broken[0]} is not finite"
    if sorted(losses) != list(range(1, steps + 1)):
        return f"{len(losses)} of {steps} steps are in the metrics"
    if (result.exit_code, result.step, result.qat) != (0, steps, "done"):
        return (
            f"the run ends badly: exit code {result.exit_code}, {result.step} of {steps} steps, quantisation "
            f"{result.qat}"
        )
    return ""


def stability_is_measured(config: Config, run: SmallRun) -> Finding:
    """Every check of the phase has its numbers, and none failed."""
    if not config.quant.enabled:
        return _OFF
    gave_up = next((line for line in _qat_lines(run) if line.get("event") == "gave_up"), None)
    if gave_up is not None or run.result.qat == "failed":
        reason = gave_up.get("reason", "no reason is known") if gave_up is not None else "no reason is known"
        remedy = (
            "lower quant.learning_rate, or quant.min_cosine if the student is a stand-in with random weights"
        )
        return failed(f"quantisation was given up: {reason}", remedy)
    lines = [line for line in _qat_lines(run) if line.get("event") in ("start", "check")]
    if len(lines) < 2:
        remedy = "set train.validate_every_steps, so that the phase is checked before its end"
        return failed(f"the student under quantisation was checked {len(lines)} times", remedy)
    for line in lines:
        lacking = [name for name in _MEASURED if name not in line]
        if lacking:
            remedy = "look at the rows of data.validation (quant.probe_rows): they need answers"
            return failed(f"the check at step {line['step']} has no {' and '.join(lacking)}", remedy)
    back = [line["reason"] for line in _qat_lines(run) if line.get("event") == "rolled_back"]
    last = lines[-1]
    text = f"{len(lines)} checks, the last at step {last['step']}: cosine {last['cosine']:.5f}, KL {last['kl']:.5f}"
    if back:
        return warned(
            f"the run went back {len(back)} time(s): {back[0]}; {text}", "lower quant.learning_rate"
        )
    return passed(text)


@contextmanager
def _broken(model: nn.Module, name: str, value: float) -> Iterator[None]:
    """Inside, the first number of a weight is another one."""
    import torch

    weight = dict(model.named_parameters())[name]
    old = weight[0, 0].detach().clone()
    with torch.no_grad():
        weight[0, 0] = value
    try:
        yield
    finally:
        with torch.no_grad():
            weight[0, 0] = old


def _decide(config: Config, report: Any) -> Decision:
    """What the run would do after such a check, one step after the last good state."""
    from kdfast.qat import Recovery

    recovery = Recovery.of(config.quant, first_step=1, last_step=max(config.train.num_steps, 3))
    recovery.saved(1)
    return recovery.checked(
        2, passed=report.passed, reasons=report.reasons, float_is_finite=not report.non_finite_float
    )


def _fresh(learner: Callable[[], nn.Module]) -> tuple[nn.Module, Finding | None]:
    """The small run's student, all of it trained; and what to say if it is broken before quantisation begins."""
    import torch

    model = learner().requires_grad_(True)
    model.train(False)
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            return model, skipped(f"the student itself is broken: {name} is not finite")
    return model, None


def _probe(model: nn.Module) -> Mapping[str, Tensor]:
    """A made-up row, so that nothing here depends on the records."""
    import torch

    network: Any = model
    vocab = len(network.get_output_embeddings().weight)
    ids = torch.arange(3, 3 + _PROBE_TOKENS)[None] % vocab  # [1,T]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def _loss(model: nn.Module) -> Tensor:
    """Cross-entropy of the made-up row."""
    import torch.nn.functional as F  # noqa: N812 - as everybody calls it

    ids = _probe(model)["input_ids"]
    logits = model(input_ids=ids).logits[0]  # [T,V]
    return F.cross_entropy(logits[:-1].float(), ids[0, 1:])


def _qat_lines(run: SmallRun) -> list[Json]:
    return [line for line in run.lines if line["kind"] == "qat"]


CHECKS = (
    Check(
        name="qat.begins_at_its_step",
        proves="Quantisation is switched on after exactly the step that the config says.",
        look=begins_at_its_step,
        slow=True,
    ),
    Check(
        name="qat.gradient_passes_straight_through",
        proves="Weights learn under rounding: each gets the gradient of its rounded value.",
        look=gradient_passes_straight_through,
    ),
    Check(
        name="qat.nan_is_noticed",
        proves="A NaN under quantisation is found by the stability check.",
        look=nan_is_noticed,
    ),
    Check(
        name="qat.recovers_from_a_broken_weight",
        proves="A run whose weight breaks under quantisation goes back to its last good state, and ends well.",
        look=recovers_from_a_broken_weight,
        owns=("disturbed",),
        slow=True,
    ),
    Check(
        name="qat.stability_is_measured",
        proves="The student under quantisation is compared with its float self while it trains.",
        look=stability_is_measured,
        slow=True,
    ),
)
