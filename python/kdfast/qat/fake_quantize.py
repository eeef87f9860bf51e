"""Fake quantisation: the forward pass uses q * s, the gradient passes straight through to the float weight.

Linear and Embedding layers change their class, not their parameters, so state dicts, optimisers and DDP see the same
model. Without a mask on clipped weights: a mask would hold a weight that was cut where it is, for good.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import Tensor, nn

from kdfast.config.quant import FormatName
from kdfast.errors import QATError
from kdfast.quantized import FORMATS, quantize, rounded_weight


class _StraightThrough(torch.autograd.Function):
    """Values in place of a weight; the gradient of the values is the weight's gradient.

    `w + (q s - w).detach()` has the same gradient, but rounds twice: it can be one bit off q * s, which ships.
    """

    @staticmethod
    def forward(_ctx: Any, _weight: Tensor, values: Tensor) -> Tensor:
        return values.detach()  # shares memory and the count of its changes, is no view to autograd

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def is_sharded(weight: Tensor) -> bool:
    """Whether this process holds only a part of a weight: it is a DTensor of FSDP2 or tensor parallelism."""
    return hasattr(weight, "to_local")  # asked by its method: the import of DTensor takes half a second


def local_part(weight: Tensor) -> Tensor:
    """The rows of a weight that this process holds; all of them, if it is not sharded."""
    part: Tensor = weight.to_local() if is_sharded(weight) else weight  # type: ignore[attr-defined]
    return part


def straight_through(weight: Tensor, values: Tensor) -> Tensor:
    """Values on the graph of a weight, as if they were the weight.

    Args:
        weight: any shape.
        values: the same shape, without a graph; not copied.

    Example:
        >>> weight = torch.tensor([0.4], requires_grad=True)
        >>> (3 * straight_through(weight, torch.tensor([0.5]))).sum().backward()
        >>> weight.grad
        tensor([3.])
    """
    result: Tensor = _StraightThrough.apply(weight, values)  # type: ignore[no-untyped-call]
    return result


class WeightQuantizer:
    """Fake quantisation of one parameter; layers with a tied weight share it, so the weight is quantised once.

    The values are kept until the parameter changes: autograd counts in-place changes, and optimisers make them. Only an
    assignment to `weight.data[...]` is not counted; call `refresh` after one. The values take as much memory as the
    parameter.

    Attributes:
        name: the parameter's name.
        format: the name of its format.
        tied: whether several layers share the parameter.
        active: False = layers use the float weight.
        scales: [out,1] fp16, the frozen scales; None = they follow the weight.
        times_made: how often the weight was quantised.
    """

    def __init__(self, name: str, format_name: FormatName, *, tied: bool = False) -> None:
        self.name = name
        self.format: FormatName = format_name
        self.tied = tied
        self.active = True
        self.scales: Tensor | None = None
        self.times_made = 0
        self._made_of: tuple[int, int, int] | None = None
        self._values: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies start without kept values: the copied parameter counts its changes from another number."""
        return self.__dict__ | {"_made_of": None, "_values": None}

    def refresh(self) -> None:
        """The weight is quantised anew when it is next used."""
        self._made_of = None

    def forget(self) -> None:
        """As `refresh`, and frees the memory."""
        self._made_of = self._values = None

    def freeze(self, weight: Tensor) -> None:
        """Keeps the scales of the weight as it is now.

        Raises:
            QATError: the format has blocks (only the scales of `int8_channel` can be frozen), or the weight is sharded.
        """
        if FORMATS[self.format].block:
            raise QATError(f"only scales of int8_channel can be frozen: {self.name} is {self.format}")
        self._check(weight)
        self.scales = quantize(weight.detach(), self.format).scales
        self.refresh()

    def values(self, weight: Tensor) -> Tensor:
        """The weights q * s, [out,in] fp32 without a graph; the same tensor until the weight changes.

        Raises:
            QATError: the weight is not float32, or this process holds only a part of it.
        """
        self._check(weight)
        # Tensors of inference mode do not count their changes.
        key = None if weight.is_inference() else (id(weight), weight._version, weight.data_ptr())  # noqa: SLF001
        if self._values is not None and key is not None and key == self._made_of:
            return self._values
        old = self._values
        fits = old is not None and old.shape == weight.shape and old.device == weight.device
        # Made outside of inference mode, or training could not use what a validation made.
        with torch.inference_mode(False), torch.no_grad():
            values = rounded_weight(
                weight.detach(), self.format, scales=self.scales, out=old if fits else None
            )
        self._values, self._made_of = values, key
        self.times_made += 1
        return values

    def effective(self, weight: Tensor) -> Tensor:
        """The weight that layers use, on the parameter's graph."""
        return straight_through(weight, self.values(weight)) if self.active else weight

    def effective_rows(self, rows: Tensor) -> Tensor:
        """The same for some rows [...,in] of the weight, which are on its graph already."""
        if not self.active:
            return rows
        self._check(rows)
        flat = rows.detach().reshape(-1, rows.shape[-1])
        return straight_through(rows, rounded_weight(flat, self.format).view(rows.shape))

    def _check(self, weight: Tensor) -> None:
        if is_sharded(weight):
            raise QATError(
                "this process holds only a shard of the weight; use it inside the forward pass of the module that FSDP "
                f"wraps: {self.name}"
            )
        if weight.dtype != torch.float32:
            raise QATError(
                "weights must be float32 where they are quantised; keep the model in float32 and use bf16 by autocast "
                f"(under FSDP: no param_dtype): {self.name} is {weight.dtype}"
            )


class FakeQuantLinear(nn.Linear):
    """A Linear layer whose weight is fake-quantised; made by `apply_qat_to_model`, not by a call."""

    quantizer: WeightQuantizer

    def __setattr__(self, name: str, value: Any) -> None:
        # FSDP puts another tensor here for each forward pass, without counting it as a change of the weight.
        if name == "weight":
            self.quantizer.forget()
        super().__setattr__(name, value)

    def effective_weight(self) -> Tensor:
        """The weight that `forward` uses."""
        return self.quantizer.effective(self.weight)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """As nn.Linear."""
        return F.linear(input, self.effective_weight(), self.bias)


class FakeQuantEmbedding(nn.Embedding):
    """An Embedding layer whose weight is fake-quantised; made by `apply_qat_to_model`, not by a call."""

    quantizer: WeightQuantizer

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "weight":
            self.quantizer.forget()
        super().__setattr__(name, value)

    def effective_weight(self) -> Tensor:
        """The whole weight, as `forward` uses its rows."""
        return self.quantizer.effective(self.weight)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """As nn.Embedding. Where nobody else needs the whole weight, only the rows that are read are quantised."""
        if self.quantizer.tied or self.quantizer.scales is not None:
            return self._rows(input, self.effective_weight())
        return self.quantizer.effective_rows(self._rows(input, self.weight))

    def _rows(self, ids: Tensor, weight: Tensor) -> Tensor:
        return F.embedding(ids, weight, self.padding_idx, None, 2.0, self.scale_grad_by_freq, self.sparse)


FakeQuantLayer = FakeQuantLinear | FakeQuantEmbedding

_FLOAT: dict[type[nn.Module], type[nn.Module]] = {
    FakeQuantLinear: nn.Linear,
    FakeQuantEmbedding: nn.Embedding,
}
_FAKE = {plain: fake for fake, plain in _FLOAT.items()}


def swap_in(module: nn.Module, quantizer: WeightQuantizer, name: str) -> None:
    """Turns a layer into its fake-quantised form, in place.

    Args:
        module: a Linear or Embedding layer.
        quantizer: its parameter's.
        name: the layer's name, for messages.

    Raises:
        QATError: the layer is of another class (a subclass may do more than multiply), or an Embedding with `max_norm`.
    """
    fake = _FAKE.get(type(module))
    if fake is None:
        raise QATError(
            f"only torch's own Linear and Embedding can be quantised; leave this layer out of the plan, or merge its "
            f"adapters first: {name} is {type(module).__name__}"
        )
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        raise QATError(
            f"an Embedding with max_norm changes its weights in the forward pass; unset it: {name}"
        )
    module.quantizer = quantizer  # type: ignore[assignment]
    module.__class__ = fake


def swap_out(module: FakeQuantLayer) -> None:
    """Turns a fake-quantised layer into a plain one again, in place; its weight stays as it is.

    Raises:
        QATError: FSDP wrapped this very layer and gave it a class of its own.
    """
    plain = _FLOAT.get(type(module))
    if plain is None:
        raise QATError(
            "a layer that FSDP wraps by itself cannot become a plain one; gather the weights into a bare model first: "
            f"{type(module).__name__}"
        )
    module.__class__ = plain  # type: ignore[assignment]
    del module.quantizer


def fake_quant_layers(model: nn.Module) -> Iterator[tuple[str, FakeQuantLayer]]:
    """The fake-quantised layers of a model, with their names."""
    for name, module in model.named_modules():
        if isinstance(module, FakeQuantLinear | FakeQuantEmbedding):
            yield name, module


def weight_quantizers(model: nn.Module) -> dict[str, tuple[WeightQuantizer, nn.Parameter]]:
    """Parameter name -> its quantizer and the parameter; empty while the model is float.

    Raises:
        QATError: layers were moved, tied or replaced after quantisation was switched on.
    """
    parameters = {id(parameter): (name, parameter) for name, parameter in model.named_parameters()}
    found: dict[str, tuple[WeightQuantizer, nn.Parameter]] = {}
    for layer_name, layer in fake_quant_layers(model):
        quantizer = layer.quantizer
        name, parameter = parameters[id(layer.weight)]
        known = found.setdefault(quantizer.name, (quantizer, parameter))
        if name != quantizer.name or known[0] is not quantizer or known[1] is not parameter:
            raise QATError(
                "the model's layers changed while quantisation was on; remove it before, and apply it again after: "
                f"{layer_name} holds {name}, was {quantizer.name}"
            )
    return found


def refresh(model: nn.Module) -> None:
    """Every weight is quantised anew when it is next used: after weights were changed through `.data`."""
    for _, layer in fake_quant_layers(model):
        layer.quantizer.refresh()


@contextmanager
def float_weights(model: nn.Module) -> Iterator[None]:
    """Inside, the model uses its float weights, as if it were not quantised."""
    quantizers = {id(layer.quantizer): layer.quantizer for _, layer in fake_quant_layers(model)}
    before = {key: quantizer.active for key, quantizer in quantizers.items()}
    try:
        for quantizer in quantizers.values():
            quantizer.active = False
        yield
    finally:
        for key, quantizer in quantizers.items():
            quantizer.active = before[key]
