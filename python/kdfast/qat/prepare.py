"""Switches quantisation on in a model, and turns a trained one into the model that ships."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kdfast.config.quant import QuantConfig
from kdfast.errors import QATError
from kdfast.qat.fake_quantize import (
    WeightQuantizer,
    fake_quant_layers,
    is_sharded,
    local_part,
    swap_in,
    swap_out,
    weight_quantizers,
)
from kdfast.quantized import QuantizedTable, QuantPlan, check_finite, plan_model, quantize

Model = TypeVar("Model", bound=nn.Module)


def should_enable_qat(step: int, total_steps: int, config: QuantConfig) -> bool:
    """Whether a step trains under quantisation.

    Args:
        step: number of the step, 0-based.
        total_steps: steps of the run.
        config: the config's section.

    Raises:
        ValueError: a negative step, or a run without steps.

    Examples:
        >>> config = QuantConfig(enabled=True, start_fraction=0.8)
        >>> should_enable_qat(79, 100, config), should_enable_qat(80, 100, config)
        (False, True)
        >>> should_enable_qat(80, 100, QuantConfig())  # `enabled` is false by default
        False
    """
    if step < 0 or total_steps < 1:
        raise ValueError(f"step must be 0 or more and total_steps 1 or more: {step}, {total_steps}")
    return config.enabled and step >= config.phase_start(total_steps)


def is_qat_applied(model: nn.Module) -> bool:
    """Whether a model has fake-quantised layers."""
    return next(fake_quant_layers(model), None) is not None


def apply_qat_to_model(
    model: Model, config: QuantConfig, *, plan: QuantPlan | None = None, check_scales: bool = True
) -> Model:
    """Switches fake quantisation on, in place. A model that has it already, by the same plan, stays as it is.

    Apply it to the bare model, before or after DDP or FSDP2 wraps it. The optimiser need not be made again.

    Args:
        model: a model with float32 weights.
        config: the config's section; `enabled` is not looked at, since the call says it.
        plan: which tensors are quantised and how; None = `plan_model(model, config)`.
        check_scales: False = a weight too large for its format is no error here. So a run that is resumed with such a
            weight finds it where a run without a stop does: in the next loss or check.

    Returns:
        the model.

    Raises:
        ConfigError: blocks do not divide a tensor's width.
        QATError: a weight is not float32 or too large for its format, a layer is of a class of its own, or the model is
            quantised by another plan. The model is unchanged then.

    Example:
        >>> model = apply_qat_to_model(nn.Sequential(nn.Linear(32, 8)), QuantConfig(format="q8_0"))
        >>> model
        Sequential(
          (0): FakeQuantLinear(in_features=32, out_features=8, bias=True)
        )
    """
    _check_bare(model)
    plan = plan_model(model, config) if plan is None else plan
    applied = weight_quantizers(model)
    if applied:
        _check_same(applied, plan)
        return model
    parameters, modules = dict(model.named_parameters()), dict(model.named_modules())
    for tensor in plan.tensors:
        weight = parameters[tensor.name]
        if weight.dtype != torch.float32:
            raise QATError(
                f"quantisation is trained on float32 weights; load the model in float32: {tensor.name} is "
                f"{weight.dtype}"
            )
        if check_scales:
            check_finite(tensor.name, quantize(local_part(weight).detach(), tensor.format))
    swapped: list[str] = []
    try:
        for tensor in plan.tensors:
            quantizer = WeightQuantizer(tensor.name, tensor.format, tied=len(tensor.modules) > 1)
            for name in tensor.modules:
                swap_in(modules[name], quantizer, name)
                swapped.append(name)
    except QATError:
        remove_qat(model)
        raise
    return model


def remove_qat(model: Model) -> Model:
    """Switches fake quantisation off, in place: float layers with the float weights. A float model stays as it is."""
    for _, layer in list(fake_quant_layers(model)):
        swap_out(layer)
    return model


@dataclass(frozen=True)
class Converted:
    """What training under quantisation ends with.

    Attributes:
        model: the model, of plain layers, with weights q * s in float32.
        table: codes and scales of its quantised tensors, for `write_table`.
    """

    model: nn.Module
    table: QuantizedTable


@torch.no_grad()
def convert_qat(model: nn.Module) -> Converted:
    """Replaces the float weights by q * s, in place, and the layers by plain ones: what was trained is what ships.

    Frozen scales are kept. Save the model in float32, and the table beside it.

    Args:
        model: a model after `apply_qat_to_model`.

    Returns:
        the same model, and its table.

    Raises:
        QATError: the model is not under quantisation (or was converted before), is sharded, or a weight or scale is not
            finite. The model is unchanged then.

    Example:
        >>> layer = nn.Linear(32, 1, bias=False)
        >>> converted = convert_qat(apply_qat_to_model(layer, QuantConfig(format="q4_0")))
        >>> type(converted.model).__name__, bool((layer.weight == converted.table.tensors["weight"].dequantize()).all())
        ('Linear', True)
    """
    _check_bare(model)
    applied = weight_quantizers(model)
    if not applied:
        raise QATError(
            "the model has no fake-quantised layer: it was converted before, or apply_qat_to_model was not called: "
            f"{type(model).__name__}"
        )
    tensors = {}
    for name, (quantizer, weight) in applied.items():
        if is_sharded(weight):
            raise QATError(
                f"the model is sharded; gather its weights into a bare model before converting it: {name}"
            )
        if not bool(torch.isfinite(weight).all()):
            raise QATError(
                f"a weight is NaN or infinite; convert the model of an older checkpoint instead: {name}"
            )
        tensors[name] = quantize(weight.detach(), quantizer.format, scales=quantizer.scales)
        check_finite(name, tensors[name])
    for name, (_, weight) in applied.items():
        weight.copy_(tensors[name].dequantize())
    remove_qat(model)
    table = QuantizedTable(tensors)
    table.check_weights(dict(model.named_parameters()))
    return Converted(model, table)


def _check_bare(model: nn.Module) -> None:
    if isinstance(model, DistributedDataParallel):
        raise QATError("give the bare model (`.module`), so that names are those of the saved student: DDP")


def _check_same(applied: dict[str, tuple[WeightQuantizer, nn.Parameter]], plan: QuantPlan) -> None:
    found = {name: quantizer.format for name, (quantizer, _) in applied.items()}
    planned = {tensor.name: tensor.format for tensor in plan.tensors}
    for name in (*found, *planned):
        if found.get(name) != planned.get(name):
            raise QATError(
                "the model is quantised by another plan already; call remove_qat first: "
                f"{name} is {found.get(name, 'float')}, planned {planned.get(name, 'float')}"
            )
