"""Is the quantised student still the model that is trained? Compared with the same float weights, without rounding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from kdfast.batch import IGNORE_INDEX
from kdfast.config.quant import QuantConfig
from kdfast.errors import KdfastError
from kdfast.qat.fake_quantize import float_weights, weight_quantizers

NEGLIGIBLE_KL = 0.01
"""A KL, in nats, that is no failure however it grew: a student that 4 bits hardly hurt doubles its KL by learning."""

NEGLIGIBLE_GAP = 0.01
"""The same of 1 - cosine."""

_CHUNK_ROWS = 256
_CANNOT_RUN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    KdfastError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a model that cannot be run, or a batch that it cannot read, raises."""


@dataclass(frozen=True, kw_only=True)
class StabilityReport:
    """The result of one check.

    Attributes:
        passed: whether training may go on from here.
        reasons: why not, in words; of a check that passed, what is close to failing.
        ran: whether the check could be made at all; if not, it failed.
        positions: answer positions that were compared; position 0 of a row never is.
        non_finite: NaN and infinite numbers among hidden states and logits at these positions, under quantisation.
        non_finite_float: the same without quantisation.
        cosines: for each layer (embeddings, blocks, last norm) the mean cosine of its hidden states with and without
            quantisation; None = not a number.
        kl: mean KL(float || quantised) of the logits, in nats; None = not a number.
        top1_fraction: share of positions at which both have the same likeliest id.
        drifting: whether 1 - cosine or KL is beyond its limit relative to the first check (`q4_0` only).
    """

    passed: bool
    reasons: tuple[str, ...] = ()
    ran: bool = True
    positions: int = 0
    non_finite: int = 0
    non_finite_float: int = 0
    cosines: tuple[float | None, ...] = ()
    kl: float | None = None
    top1_fraction: float | None = None
    drifting: bool = False

    @property
    def lowest_cosine(self) -> float | None:
        """The worst layer's cosine; None if one is not a number."""
        known = [cosine for cosine in self.cosines if cosine is not None]
        return min(known) if known and len(known) == len(self.cosines) else None

    def to_json(self) -> dict[str, Any]:
        """As strict JSON values.

        Example:
            >>> StabilityReport.from_json(StabilityReport(passed=True, cosines=(0.5,)).to_json()).lowest_cosine
            0.5
        """
        return asdict(self) | {"reasons": list(self.reasons), "cosines": list(self.cosines)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        lists = {"reasons": tuple(values["reasons"]), "cosines": tuple(values["cosines"])}
        return cls(**(dict(values) | lists))


def check_qat_stability(
    model: nn.Module,
    batch: Mapping[str, Any],
    config: QuantConfig,
    *,
    first: StabilityReport | None = None,
    previous: StabilityReport | None = None,
) -> StabilityReport:
    """Compares a model under quantisation with itself without, on the same weights and rows. Nothing is changed.

    It fails when the quantised model has NaN or infinite numbers; when the worst layer's cosine is below `min_cosine`
    (where that is null, a `q4_0` phase that began below its default is not held to it); and for `q4_0` when 1 - cosine
    or KL is above `max_drift_ratio` times its first value, and above 0.01, in two checks in a row. A check that cannot
    be made has failed, and its report says why. Only an interrupt is raised.

    Args:
        model: a Hugging Face causal language model after `apply_qat_to_model`.
        batch: `input_ids` [B,T] and `attention_mask` [B,T], padded on the right, and `labels` [B,T] with -100 where
            there is no answer. The same rows at every check.
        config: the config's section.
        first: the report of the phase's first step; None = this is it.
        previous: the report of the last check; None = there was none.

    Returns:
        the report.
    """
    try:
        report = _compare(model, batch)
    except _CANNOT_RUN as error:
        reason = " ".join(str(error).split())[:300]
        return StabilityReport(
            passed=False,
            ran=False,
            reasons=(f"the check could not be made: {type(error).__name__}: {reason}",),
        )
    return judge(report, config, first=first, previous=previous)


def judge(
    report: StabilityReport,
    config: QuantConfig,
    *,
    first: StabilityReport | None = None,
    previous: StabilityReport | None = None,
) -> StabilityReport:
    """The same numbers, judged; see `check_qat_stability`."""
    failures: list[str] = []
    notes: list[str] = []
    lowest = report.lowest_cosine
    if report.non_finite:
        too = "; the float weights give them too" if report.non_finite_float else ""
        failures.append(f"{report.non_finite} numbers are NaN or infinite{too}")
    elif lowest is None or report.kl is None:
        failures.append("cosine or KL is not a number")
    elif lowest < config.lowest_cosine:
        layer = report.cosines.index(lowest)
        below = f"layer {layer}: mean cosine {lowest:.5f} is below quant.min_cosine ({config.lowest_cosine})"
        if _begins_below(first or report, config):
            notes.append(f"{below}, as when quantisation began: it is judged by its value there")
        else:
            failures.append(below)
    drift = _drift(report, config, first)
    if drift and previous is not None and previous.drifting:
        failures.append(f"{drift}, at two checks in a row")
    elif drift:
        notes.append(f"{drift}, at one check so far")
    return replace(report, passed=not failures, reasons=tuple(failures or notes), drifting=bool(drift))


def _begins_below(first: StabilityReport, config: QuantConfig) -> bool:
    """Whether a student has more to mend than the default limit allows: the students that need 4 bits' QAT most."""
    start = first.lowest_cosine
    return (
        config.format == "q4_0"
        and config.min_cosine is None
        and start is not None
        and start < config.lowest_cosine
    )


def _drift(report: StabilityReport, config: QuantConfig, first: StabilityReport | None) -> str:
    """How the report is beyond its limits relative to the first; "" = it is not."""
    lowest, start = report.lowest_cosine, first.lowest_cosine if first is not None else None
    if config.format != "q4_0" or first is None or start is None or lowest is None:
        return ""
    ratio = config.max_drift_ratio
    if 1 - lowest > max(ratio * (1 - start), NEGLIGIBLE_GAP):
        return f"1 - cosine is {1 - lowest:.5f}, above {ratio} times its first value {1 - start:.5f}"
    if report.kl is not None and first.kl is not None and report.kl > max(ratio * first.kl, NEGLIGIBLE_KL):
        return f"KL is {report.kl:.5f}, above {ratio} times its first value {first.kl:.5f}"
    return ""


def _compare(model: nn.Module, batch: Mapping[str, Any]) -> StabilityReport:
    if not weight_quantizers(model):
        raise ValueError("the model is not under quantisation; call apply_qat_to_model first")
    device = next(model.parameters()).device
    ids, attention = batch["input_ids"].to(device), batch["attention_mask"].to(device)
    mask = (batch["labels"].to(device) != IGNORE_INDEX) & (attention != 0)
    mask[:, 0] = False  # the first token's hidden state is a hundred times as large as others in many models
    if not bool((attention[:, 1:] <= attention[:, :-1]).all()):
        raise ValueError("attention_mask must be padded on the right: a row has a 1 after a 0")
    if not bool(mask.any()):
        raise ValueError("the batch has no answer position after position 0; give rows with labels")
    sums: list[float] = []
    logits, positions, bad, bad_float = _Logits(), 0, 0, 0
    with torch.no_grad(), _evaluating(model), torch.autocast(device.type, enabled=False):
        for row in mask.any(1).nonzero()[:, 0].tolist():  # one by one: hidden states of all layers are large
            width = int(attention[row].sum())
            some, where = ids[row : row + 1, :width], mask[row : row + 1, :width]
            quantized = _hidden(model, some, where)
            with float_weights(model):
                plain = _hidden(model, some, where)
            _compare_logits(model, plain[-1], quantized[-1], logits)
            cosines = [_cosine_sum(*pair) for pair in zip(plain, quantized, strict=True)]
            sums = [a + b for a, b in zip(sums or [0.0] * len(cosines), cosines, strict=True)]
            positions += len(plain[-1])
            bad += sum(map(_non_finite, quantized))
            bad_float += sum(map(_non_finite, plain))
    return StabilityReport(
        passed=False,
        positions=positions,
        non_finite=logits.non_finite + bad,
        non_finite_float=logits.non_finite_float + bad_float,
        cosines=tuple(_number(total / positions) for total in sums),
        kl=_number(logits.kl / positions),
        top1_fraction=logits.same / positions,
    )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, and afterwards in its own mode again."""
    before = {module: module.training for module in model.modules()}
    try:
        for module in before:
            module.training = False
        yield
    finally:
        for module, training in before.items():
            module.training = training


def _hidden(model: nn.Module, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """The hidden states [N,D] of each layer at the N positions in mask."""
    base: Any = model.base_model
    output = base(input_ids=ids, use_cache=False, output_hidden_states=True)
    return [states[mask].float() for states in output.hidden_states]


@dataclass
class _Logits:
    """Sums over positions."""

    kl: float = 0.0
    same: int = 0
    non_finite: int = 0
    non_finite_float: int = 0


def _compare_logits(model: nn.Module, plain: Tensor, quantized: Tensor, sums: _Logits) -> None:
    """Adds the sums of some rows."""
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    for start in range(0, len(plain), _CHUNK_ROWS):
        chunk = slice(start, start + _CHUNK_ROWS)
        own = head(quantized[chunk]).float()  # [M,V]
        with float_weights(model):
            other = head(plain[chunk]).float()
        sums.non_finite += _non_finite(own)
        sums.non_finite_float += _non_finite(other)
        logq, logp = own.log_softmax(1), other.log_softmax(1)
        gap = logp - logq  # [M,V]
        # p (gap + q / p - 1) sums to the same as p gap, but no summand is negative, so that fp32 keeps a KL of 1e-6.
        sums.kl += float((logp.exp() * (gap + torch.expm1(-gap))).sum(dtype=torch.float64))
        sums.same += int((own.argmax(1) == other.argmax(1)).sum())


def _cosine_sum(plain: Tensor, quantized: Tensor) -> float:
    # in fp64: 1 - cosine is about 1e-4, and fp32 would leave three digits of it
    plain, quantized = plain.cpu().double(), quantized.cpu().double()  # not on every device there is fp64
    product = (plain * quantized).sum(1)
    norms = plain.norm(dim=1) * quantized.norm(dim=1)
    equal = (plain == quantized).all(1)  # two vectors of zeros are alike
    return float(torch.where(equal, torch.ones_like(product), product / norms).sum())


def _non_finite(numbers: Tensor) -> int:
    return int((~torch.isfinite(numbers)).sum())


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
