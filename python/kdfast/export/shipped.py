"""What ships, before any target's naming: of each parameter the codes and scales, or the float values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from kdfast.config.export import GgufType
from kdfast.config.quant import FormatName, QuantConfig
from kdfast.errors import ConfigError, QATError
from kdfast.quantized import Quantized, QuantizedTable, check_finite, plan_model, quantize

Origin = Literal["trained", "post-training", "float"]
"""Where codes come from: the student's own table, a quantisation at export, or there are none."""


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """The weights that leave.

    Attributes:
        tensors: the parameter's name in the model -> codes and scales, or a tensor of float16 (matrices) or float32
            (norms, biases). A tied parameter stands once, under its first name. The model's order.
        type: what the file is called by.
        origin: `trained` = codes of the student's own table; `post-training` = quantised now; `float` = not quantised.
    """

    tensors: Mapping[str, Quantized | Tensor]
    type: GgufType
    origin: Origin

    @torch.no_grad()
    def put_into(self, model: nn.Module) -> None:
        """Overwrites a model's parameters with exactly the values that ship: q * s, or the stored floats.

        Args:
            model: a model of the same architecture, all of float32.

        Raises:
            ValueError: a parameter is missing, too many, of another shape, or not float32.
        """
        parameters = dict(model.named_parameters())
        strange = sorted(parameters.keys() ^ self.tensors.keys())
        if strange:
            raise ValueError(f"the model and what ships have other parameters: {strange[0]}")
        for name, shipped in self.tensors.items():
            values = shipped.dequantize() if isinstance(shipped, Quantized) else shipped
            parameter = parameters[name]
            if parameter.dtype != torch.float32 or parameter.shape != values.shape:
                raise ValueError(
                    f"{name} must be float32 {list(values.shape)}: {parameter.dtype} {list(parameter.shape)}"
                )
            parameter.copy_(values)


def table_type(table: QuantizedTable) -> GgufType:
    """The type of the file that holds a table as it is; int8 with a scale a row is written as Q8_0."""
    return "q4_0" if any(one.format == "q4_0" for one in table.tensors.values()) else "q8_0"


def shipped_weights(model: nn.Module, table: QuantizedTable | None, type_: GgufType | None = None) -> Shipped:
    """What ships of a student.

    Args:
        model: the student, with the weights that the table's directory holds.
        table: its own codes and scales; None = it was not quantised in training.
        type_: the type asked for; None = the table's own, `q8_0` without a table.

    Raises:
        ConfigError: the student's table is asked for as another type, a block does not divide a tensor's width, a
            weight is NaN or infinite, or it cannot be stored as float16.
        QATError: the table and the model have other tensors, or a weight is too large for its format.

    Example:
        >>> made = shipped_weights(nn.Sequential(nn.Linear(32, 2), nn.LayerNorm(2)), None, "q8_0")
        >>> made.origin, {name: str(getattr(one, "format", "float")) for name, one in made.tensors.items()}["0.weight"]
        ('post-training', 'q8_0')
    """
    if table is not None:
        return _of_table(model, table, type_)
    wanted: GgufType = type_ or "q8_0"
    if wanted == "f16":
        floats = {name: _as_float(name, one.detach()) for name, one in model.named_parameters()}
        return Shipped(tensors=floats, type="f16", origin="float")
    formats = _formats(model, wanted)
    tensors: dict[str, Quantized | Tensor] = {}
    for name, parameter in model.named_parameters():
        weight = parameter.detach()
        if name not in formats:
            tensors[name] = _as_float(name, weight)
            continue
        made = quantize(_numbers(name, weight), formats[name])
        check_finite(name, made)
        tensors[name] = made
    return Shipped(tensors=tensors, type=wanted, origin="post-training")


def _of_table(model: nn.Module, table: QuantizedTable, type_: GgufType | None) -> Shipped:
    own = table_type(table)
    if type_ not in (None, own):
        raise ConfigError(
            f"--type: the student was trained as {own}, and quantising it again would make another model; leave --type "
            f"out, or export a student that was trained as float: {type_}"
        )
    tensors: dict[str, Quantized | Tensor] = {
        name: table.tensors[name] if name in table.tensors else _as_float(name, parameter.detach())
        for name, parameter in model.named_parameters()
    }
    absent = sorted(table.tensors.keys() - tensors.keys())
    if absent:
        raise QATError(
            f"a tensor of the student's table is not in the model; save the student again: {absent[0]}"
        )
    return Shipped(tensors=tensors, type=own, origin="trained")


def _formats(model: nn.Module, type_: Literal["q8_0", "q4_0"]) -> dict[str, FormatName]:
    try:
        plan = plan_model(model, QuantConfig(format=type_))
    except ConfigError as cause:  # it names the config's key, and formats that GGUF does not have
        tensor = str(cause).rpartition(": ")[2]
        raise ConfigError(
            f"--type: {type_} has blocks of 32 weights, which do not divide the width of a tensor; export the student "
            f"as f16: {tensor}"
        ) from cause
    return {one.name: one.format for one in plan.tensors}


def _as_float(name: str, weight: Tensor) -> Tensor:
    """Matrices as float16, the rest as float32, as llama.cpp reads them."""
    kept = _numbers(name, weight)
    stored = kept.clone() if kept.dim() < 2 else kept.to(torch.float16)
    place = _not_finite(stored)
    if place is not None:
        raise ConfigError(
            f"--type: a weight is too large for float16; export the student as q8_0: {name} {place} is "
            f"{float(kept[tuple(place)])}"
        )
    return stored


def _numbers(name: str, weight: Tensor) -> Tensor:
    """The weight in float32 on the CPU, every element a finite number."""
    kept = weight.to(device="cpu", dtype=torch.float32)
    place = _not_finite(kept)
    if place is not None:
        raise ConfigError(
            f"model: a weight is no finite number, and no type can hold it; train the student again: {name} {place} "
            f"is {float(kept[tuple(place)])}"
        )
    return kept


def _not_finite(values: Tensor) -> list[int] | None:
    """Where the first element is that is NaN or infinite; None = nowhere."""
    bad = ~torch.isfinite(values)
    return torch.nonzero(bad)[0].tolist() if bool(bad.any()) else None
